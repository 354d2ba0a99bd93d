package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// figure is RFC 9293's, figure 5 in section 3.3.2, as a listing of sockets shows it: a connection of a listener begins in LISTEN.
var figure = map[event.State][]event.State{
	event.Close:       {event.Listen, event.SynSent},
	event.Listen:      {event.SynRecv, event.Close},
	event.SynSent:     {event.SynRecv, event.Established, event.Close},
	event.SynRecv:     {event.Established, event.FinWait1},
	event.Established: {event.FinWait1, event.CloseWait},
	event.FinWait1:    {event.FinWait2, event.Closing, event.TimeWait},
	event.FinWait2:    {event.TimeWait},
	event.Closing:     {event.TimeWait},
	event.CloseWait:   {event.LastAck},
	event.LastAck:     {event.Close},
	event.TimeWait:    {event.Close},
}

// checkPaths checks what holds of each connection in the rfc vocabulary: its lines are one path of the diagram, which a reset, a timeout or
// the like may end anywhere; times do not go back, and durations add up to its life.
func checkPaths(t *testing.T, r *recordedRun) {
	t.Helper()
	type conn struct {
		state event.State
		mono  int64
	}
	conns := make(map[uint64]conn)
	for _, e := range r.changes {
		c, known := conns[e.ID]
		abnormal := e.New == event.Close && e.Reason != event.ReasonNormal && e.Reason != 0
		switch {
		case !slices.Contains(figure[e.Old], e.New) && !abnormal:
			t.Errorf("%v→%v is not in the diagram: %+v", e.Old, e.New, e)
		case known && c.state != e.Old:
			t.Errorf("connection %d was in %v and leaves %v", e.ID, c.state, e.Old)
		case known && e.Dur != e.Mono-c.mono && len(r.lost) == 0:
			t.Errorf("connection %d came to %v at %d and left at %d: %d ns", e.ID, c.state, c.mono, e.Mono, e.Dur)
		case (e.New == event.Close) != (e.Reason != 0):
			t.Errorf("%v→%v has the reason %q", e.Old, e.New, e.Reason)
		}
		if known && e.Mono < c.mono {
			t.Errorf("connection %d: time goes back by %d ns at line %d", e.ID, c.mono-e.Mono, e.Seq)
		}
		conns[e.ID] = conn{e.New, e.Mono}
	}
}

// inStates counts the namespace's sockets in these states, request and timewait socks included.
func (h *host) inStates(states ...uint8) (n int) {
	tid := h.tid()
	for _, file := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(os.Getpid()), "task", strconv.Itoa(tid), "net", file))
		h.must("look at sockets", err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			for _, s := range states {
				if len(f) > 3 && f[3] == fmt.Sprintf("%02X", s) {
					n++
				}
			}
		}
	}
	return n
}

func (h *host) sysctl(name, value string) {
	h.do(func() { h.must(name, os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0)) })
}

// destroy ends sockets as an administrator does.
func (h *host) destroy(state, end, addr string) {
	h.run(nil, "ss", "-K", "state", state, end, addr)
}

// connectUnspec dissolves a socket's association, as connect(2) has it.
func connectUnspec(fd int) error {
	var unspec [16]byte
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	return nil
}

const (
	rfcListener      = "listener CLOSE LISTEN CLOSE (normal)"
	rfcActiveClient  = "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
	rfcPassiveClient = "client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE (normal)"
	rfcActiveServer  = "server LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
	rfcPassiveServer = "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE (normal)"
)

// Each way that a connection can go, in both vocabularies.
func TestStateMachine(t *testing.T) {
	const addr = "127.0.0.1:7781"
	reuse := func(s sock) { s.h.must("reuse", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)) }
	to := sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET)
	from := sockaddr(netip.MustParseAddrPort("127.0.0.1:40602"), unix.AF_INET)
	bound := func(h *host) sock {
		c := h.socket(unix.AF_INET)
		reuse(c)
		h.must("bind", unix.Bind(c.fd, from))
		return c
	}
	for _, test := range []struct {
		name    string
		traffic func(h *host)
		rfc     []string
		kernel  []string
	}{
		{"client closes first", func(h *host) {
			l, c, s := h.connection(addr, addr)
			closeBoth(c, s)
			l.close()
		}, []string{rfcListener, rfcActiveClient, rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"server closes first", func(h *host) {
			l, c, s := h.connection(addr, addr)
			closeBoth(s, c)
			l.close()
		}, []string{rfcListener, rfcPassiveClient, rfcActiveServer}, []string{ordinaryListener, passiveClient, activeServer}},
		{"refused", func(h *host) {
			c := h.socket(unix.AF_INET)
			_ = unix.Connect(c.fd, to)
			c.close()
		}, []string{"client CLOSE SYN_SENT CLOSE (refused)"}, []string{"client CLOSE SYN_SENT CLOSE"}},
		{"reset by SO_LINGER", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.reset()
			c.close()
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_sent_linger)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_by_peer)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"reset by unread data", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.write("nobody reads this")
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_unread)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"reset in CLOSE_WAIT", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.reset()
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (reset_by_peer)",
			"server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE (reset_sent_linger)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE"}},
		{"disconnected", func(h *host) {
			l, c, s := h.connection(addr, addr)
			h.must("disconnect", connectUnspec(c.fd))
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (aborted)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_by_peer)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"half-close", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			s.write("still speaking")
			s.shutdown(unix.SHUT_WR)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			s.close()
			l.close()
		}, []string{rfcListener, rfcActiveClient, rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"simultaneous open and close", func(h *host) {
			s := h.socket(unix.AF_INET)
			h.must("bind", unix.Bind(s.fd, to))
			h.must("connect", unix.Connect(s.fd, to))
			s.close()
		}, []string{"client CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT"},
			[]string{"client CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE"}},
		{"orphaned FIN_WAIT2 times out", func(h *host) {
			h.sysctl("tcp_fin_timeout", "1")
			l, c, s := h.connection(addr, addr)
			c.close()
			await(h.t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			await(h.t, "FIN_WAIT2 to end", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 0 })
			s.close() // its FIN finds nobody
			await(h.t, "the server's end", func() bool { return h.inStates(unix.BPF_TCP_LAST_ACK) == 0 })
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (fin_wait2_timeout)",
			"server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE (reset_by_peer)"},
			[]string{ordinaryListener, activeClient, passiveServer}},
		{"orphaned FIN_WAIT2 gets its FIN", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.close()
			await(h.t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			s.close()
			await(h.t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
			l.close()
		}, []string{rfcListener, rfcActiveClient, rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"too many in TIME_WAIT", func(h *host) {
			h.sysctl("tcp_max_tw_buckets", "0")
			l, c, s := h.connection(addr, addr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (time_wait_overflow)", rfcPassiveServer},
			[]string{ordinaryListener, activeClient, passiveServer}},
		{"data after close", func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.close()
			await(h.t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			s.write("too late")
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (reset_sent_late_data)",
			"server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE (reset_by_peer)"},
			[]string{ordinaryListener, activeClient, "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE"}},
		{"TIME_WAIT reused by a connect", func(h *host) {
			h.sysctl("tcp_tw_reuse", "1")
			l := h.listen(addr, 8)
			for i := range 2 {
				c := bound(h)
				await(h.t, "connect", func() bool { return unix.Connect(c.fd, to) == nil }) // TIME_WAIT must be a second old
				s := l.accept()
				if i == 0 {
					closeBoth(c, s)
					continue
				}
				s.reset()
				s.close()
				c.reach(unix.BPF_TCP_CLOSE)
				c.close()
			}
			l.close()
		}, []string{rfcListener, rfcActiveClient + " CLOSE (time_wait_reused)", rfcPassiveServer,
			"client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"},
			[]string{ordinaryListener, activeClient, passiveServer, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"TIME_WAIT reused by a SYN", func(h *host) {
			l := h.listen(addr, 8)
			for i := range 2 {
				c := bound(h)
				h.must("connect", unix.Connect(c.fd, to))
				s := l.accept()
				if i == 0 {
					closeBoth(s, c)
					await(h.t, "the client's end", func() bool { return h.inStates(unix.BPF_TCP_LAST_ACK) == 0 })
					continue
				}
				s.reset()
				s.close()
				c.reach(unix.BPF_TCP_CLOSE)
				c.close()
			}
			l.close()
		}, []string{rfcListener, rfcPassiveClient, rfcActiveServer + " CLOSE (time_wait_reused)",
			"client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"},
			[]string{ordinaryListener, passiveClient, activeServer, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"SYN cookie", func(h *host) {
			h.sysctl("tcp_syncookies", "2")
			l, c, s := h.connection(addr, addr)
			closeBoth(c, s)
			l.close()
		}, []string{rfcListener, rfcActiveClient, rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"TCP Fast Open", func(h *host) {
			h.sysctl("tcp_fastopen", "1543") // 0x607: both ways, without a cookie, for every listener
			l := h.listen(addr, 8)
			c := h.socket(unix.AF_INET)
			h.must("sendto", unix.Sendto(c.fd, []byte("hello"), unix.MSG_FASTOPEN, to))
			s := l.accept()
			s.read(5)
			closeBoth(c, s)
			l.close()
		}, []string{rfcListener, rfcActiveClient, rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"listener closed with connections in its queue", func(h *host) {
			l := h.listen(addr, 8)
			c := h.dial(addr)
			await(h.t, "the queue", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 2 })
			l.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (listener_closed)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"full accept queue drops the SYN", func(h *host) {
			l := h.listen(addr, 0) // room for one
			first := h.dial(addr)
			await(h.t, "the queue", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 2 })
			second := h.socket(unix.AF_INET)
			h.must("SYNs", unix.SetsockoptInt(second.fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1))
			if err := unix.Connect(second.fd, to); err != unix.ETIMEDOUT {
				h.t.Errorf("connect: %v", err)
			}
			second.close()
			s := l.accept()
			s.reset()
			s.close()
			first.reach(unix.BPF_TCP_CLOSE)
			first.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)",
			"client CLOSE SYN_SENT CLOSE (timeout)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE", "client CLOSE SYN_SENT CLOSE"}},
		{"aborted by ss -K", func(h *host) {
			l, c, s := h.connection(addr, addr)
			h.destroy("established", "src", addr)
			s.reach(unix.BPF_TCP_CLOSE)
			c.reach(unix.BPF_TCP_CLOSE)
			s.close()
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (aborted)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"TIME_WAIT aborted by ss -K", func(h *host) {
			if kernelBefore(h.t, 6, 0) { // tcp_abort in net/ipv4/tcp.c
				h.t.Skip("before Linux 6.0 TIME_WAIT cannot be aborted")
			}
			l, c, s := h.connection(addr, addr)
			closeBoth(c, s)
			await(h.t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
			h.destroy("time-wait", "dst", addr)
			await(h.t, "the end of TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 0 })
			l.close()
		}, []string{rfcListener, rfcActiveClient + " CLOSE (aborted)", rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"the whole of TIME_WAIT", func(h *host) {
			l, c, s := h.connection(addr, addr)
			closeBoth(c, s)
			await(h.t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
			for range 2 { // await's minute is TIME_WAIT's own
				for i := 0; i < 500 && h.inStates(unix.BPF_TCP_TIME_WAIT) == 1; i++ {
					time.Sleep(100 * time.Millisecond)
				}
			}
			l.close()
		}, []string{rfcListener, rfcActiveClient + " CLOSE (time_wait_expired)", rfcPassiveServer}, []string{ordinaryListener, activeClient, passiveServer}},
		{"MPTCP's subflows", func(h *host) {
			mptcp := func() sock {
				s := sock{h: h}
				var err error
				h.do(func() { s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP) })
				if err != nil {
					h.t.Skipf("no MPTCP here: %v", err)
				}
				return s
			}
			l, c := mptcp(), mptcp()
			reuse(l)
			h.must("bind", unix.Bind(l.fd, to))
			h.must("listen", unix.Listen(l.fd, 8))
			h.must("connect", unix.Connect(c.fd, to))
			s := l.accept()
			c.write("hello")
			s.read(5)
			s.reset()
			s.close()
			await(h.t, "both ends", func() bool {
				return h.inStates(unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSE_WAIT) == 0
			})
			c.close()
			l.close()
		}, []string{rfcListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_by_peer)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (aborted)"},
			[]string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"older than the trace", nil, []string{" FIN_WAIT2 TIME_WAIT", "server CLOSE_WAIT LAST_ACK CLOSE (normal)", "listener LISTEN CLOSE (normal)"},
			[]string{"server CLOSE_WAIT LAST_ACK CLOSE", "listener LISTEN CLOSE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for states, want := range map[string][]string{"rfc": test.rfc, "kernel": test.kernel} {
				t.Run(states, func(t *testing.T) {
					t.Parallel()
					expectPaths(t, want, func() []string {
						h := newHost(t)
						traffic := test.traffic
						if traffic == nil {
							l, c, s := h.connection(addr, addr)
							c.close()
							await(t, "orphaned FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
							traffic = func(h *host) {
								s.close()
								await(t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
								l.close()
							}
						}
						r := trace(t, []string{"--states", states, "--netns", h.netns()}, func() { traffic(h) })
						return r.paths()
					})
				})
			}
		})
	}
}

// expectPaths compares what run gives, in any order. A timer interrupts whatever process its CPU runs, and where the kernel hides a process from
// BPF (see hidden) what the timer did then is not to be had; so a run that differs is repeated, once.
func expectPaths(t *testing.T, want []string, run func() []string) {
	t.Helper()
	slices.Sort(want)
	for attempt := range 2 {
		got := run()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		report := t.Logf
		if attempt == 1 {
			report = t.Errorf
		}
		report("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// sample is what the kernel lists at one moment between two.
type sample struct {
	from, to int64 // CLOCK_MONOTONIC, ns
	states   map[[2]netip.AddrPort]event.State
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// sample reads /proc/net/tcp or tcp6, which has request and timewait socks, too.
func (h *host) sample(file string) (s sample) {
	s.from = monotonic()
	text, err := os.ReadFile(file)
	s.to = monotonic()
	h.must("look at sockets", err)
	end := func(hex string) netip.AddrPort {
		words, portHex, _ := strings.Cut(hex, ":")
		var addr []byte
		for ; len(words) >= 8; words = words[8:] {
			word, err := strconv.ParseUint(words[:8], 16, 32)
			h.must("parse an address", err)
			addr = binary.NativeEndian.AppendUint32(addr, uint32(word))
		}
		port, err := strconv.ParseUint(portHex, 16, 16)
		h.must("parse a port", err)
		ip, _ := netip.AddrFromSlice(addr)
		return netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	s.states = make(map[[2]netip.AddrPort]event.State)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "sl" {
			continue
		}
		state, err := strconv.ParseUint(f[3], 16, 8)
		h.must("parse a state", err)
		s.states[[2]netip.AddrPort{end(f[1]), end(f[2])}] = event.State(state)
	}
	return s
}

// 10,000 connections of five kinds, and more whose peers are far away and answer late: at random instants, the sockets and states that the lines imply are those that the kernel lists,
// half-open ones and those in TIME_WAIT included. A listing takes its time, so it is held against all that was true in between; and the kernel
// goes on from one part of it to the next by counting, so a socket may be left out once, but not twice.
func TestEqualsListing(t *testing.T) {
	const each = 2000
	h := newHost(t)
	ports := []uint16{17001, 17002, 17003, 17004, 17005}
	file := fmt.Sprintf("/proc/%d/task/%d/net/tcp", os.Getpid(), h.tid())
	w := h.newWire()
	var samples []sample
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		done := make(chan struct{})
		go func() {
			loopback := make(chan struct{})
			go func() {
				h.mixed(ports, each)
				close(loopback)
			}()
			w.distant(netip.MustParseAddrPort("10.0.0.1:17006"), loopback)
			h.quiet()
			close(done)
		}()
		for traffic := true; traffic; {
			select {
			case <-done:
				traffic = false
			case <-time.After(time.Duration(rand.IntN(50)) * time.Millisecond):
			}
			samples = append(samples, h.sample(file))
		}
	})

	type period struct {
		from, to int64
		state    event.State
	}
	lives := make(map[[2]netip.AddrPort][]period)
	ends := func(e *event.Event) [2]netip.AddrPort {
		remote := e.Remote
		if !remote.Addr().IsValid() {
			remote = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
		return [2]netip.AddrPort{e.Local, remote}
	}
	known := make(map[uint64][2]netip.AddrPort)
	for _, e := range r.changes {
		at := ends(&e)
		if before, ok := known[e.ID]; ok && before != at {
			if before[0].Port() != 0 {
				t.Errorf("connection %d was %v and is %v", e.ID, before, at)
			}
			// Its connect() was so slow that the first line did not wait for its port.
			lives[at] = append(lives[at], lives[before]...)
			delete(lives, before)
		}
		known[e.ID] = at
		if n := len(lives[at]); n > 0 && lives[at][n-1].to == 0 {
			lives[at][n-1].to = e.Mono
		}
		if e.New != event.Close {
			lives[at] = append(lives[at], period{e.Mono, 0, e.New})
		}
	}
	absent := make(map[[2]netip.AddrPort]int)
	listed, timeWait, halfOpen := 0, 0, 0
	for _, s := range samples {
		for at, state := range s.states {
			listed++
			switch state {
			case event.TimeWait:
				timeWait++
			case event.SynRecv:
				halfOpen++
			}
			// A record is made a moment before or after the state can be seen.
			const moment = 1e6
			if !slices.ContainsFunc(lives[at], func(p period) bool {
				return p.state == state && p.from < s.to+moment && (p.to == 0 || p.to > s.from-moment)
			}) {
				t.Errorf("%v is listed in %v, and was never so between %d and %d: %v", at, state, s.from, s.to, lives[at])
			}
		}
		for at, periods := range lives {
			if _, ok := s.states[at]; ok {
				absent[at] = 0
				continue
			}
			if i := slices.IndexFunc(periods, func(p period) bool { return p.from < s.from && (p.to == 0 || p.to > s.to) }); i >= 0 {
				if absent[at]++; absent[at] == 2 {
					t.Errorf("%v was in %v all the time, and is not listed twice", at, periods[i].state)
				}
			}
		}
	}
	t.Logf("%d listings of %d sockets, %d of them in TIME_WAIT, %d in SYN_RECV; %+v", len(samples), listed, timeWait, halfOpen, *r.end)
	if timeWait == 0 || halfOpen == 0 {
		t.Error("none was in TIME_WAIT, or none in SYN_RECV: this tests little")
	}
}

// Where the kernel hides its addresses, the rfc vocabulary goes on from the tracepoint, says so, and claims nothing that it cannot know.
func TestHiddenAddresses(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "trace")
	cmd := self("sstrace", "-o", "ndjson", "-w", file, "--netns", h.netns(), "--", "sh", "-c", "echo attached; read _")
	// Without CAP_SYSLOG the addresses are 0 (kallsyms_show_value, if kernel.perf_event_paranoid is above 1).
	if paranoid, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid"); err != nil || string(paranoid) < "2" {
		t.Skipf("this kernel shows its addresses to everybody: perf_event_paranoid is %q, %v", paranoid, err)
	}
	cmd.Args = append([]string{"setpriv", "--bounding-set=-syslog", "--inh-caps=-syslog", cmd.Path}, cmd.Args[1:]...)
	path, err := exec.LookPath("setpriv")
	h.must("find setpriv", err)
	cmd.Path = path
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	h.must("pipe", err)
	stdout, err := cmd.StdoutPipe()
	h.must("pipe", err)
	h.must("start", cmd.Start())
	_, _ = stdout.Read(make([]byte, 1))
	l, c, s := h.connection("127.0.0.1:7781", "127.0.0.1:7781")
	closeBoth(c, s)
	h.quiet()
	l.close()
	stdin.Close()
	_ = cmd.Wait()
	if !strings.Contains(stderr.String(), "are not traced") {
		t.Errorf("stderr: %q", &stderr)
	}
	r := readRecording(t, file)
	checkPaths(t, &r)
	for i, path := range r.paths() {
		if want := []string{rfcListener, rfcActiveClient, rfcPassiveServer}[i]; path != want && path != strings.TrimSuffix(want, " TIME_WAIT") {
			t.Errorf("got %q, want %q", path, want)
		}
	}
}
