package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// An IPv6 listener also accepts IPv4. The connection then has mapped addresses, which are shown as
// IPv4.
func TestMappedAddresses(t *testing.T) {
	h := newHost(t)
	r := trace(t, []string{"--netns", h.netns()}, func() {
		l, c, s := h.connection("[::]:7781", "[::ffff:127.0.0.1]:7781")
		closeBoth(c, s)
		l.close()
	})
	if got, want := r.paths(), clientClosesFirst.kernel; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	local := netip.MustParseAddr("127.0.0.1")
	for _, e := range r.changes {
		none := !e.Local.Addr().IsValid() && !e.Remote.Addr().IsValid()
		switch {
		case e.Role == event.Listener:
			any6 := e.Local == netip.MustParseAddrPort("[::]:7781") && !e.Remote.Addr().IsValid()
			if e.Family != event.IPv6 || !any6 {
				t.Errorf("listener: got %v %v %v", e.Family, e.Local, e.Remote)
			}
		case e.New == event.SynRecv && e.Family == event.IPv6 && none:
			// up to 6.12 the child has no addresses yet
		case e.Family != event.Mapped || e.Local.Addr() != local || e.Remote.Addr() != local:
			t.Errorf("got %v %v %v, want mapped addresses of 127.0.0.1", e.Family, e.Local, e.Remote)
		}
	}
}

// -6 shows no change of a mapped connection. Up to 6.12 even the child's first change, which looks
// like IPv6, is not shown.
func TestFamilyOfAMappedConnection(t *testing.T) {
	h := newHost(t)
	for args, want := range map[string][]string{"-6": {ordinaryListener}, "-4": {activeClient, passiveServer}} {
		t.Run(args, func(t *testing.T) {
			r := trace(t, []string{"--netns", h.netns(), args}, func() {
				l, c, s := h.connection("[::]:7781", loopbackAddr)
				closeBoth(c, s)
				l.close()
			})
			if got := r.paths(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Each change reports the process that owns the connection, how sstrace knows that, and the
// socket's error.
func TestOwnersAndErrors(t *testing.T) {
	h := newHost(t)
	pid := uint32(os.Getpid())
	r := trace(t, []string{"--netns", h.netns()}, func() {
		l, c, s := h.connection(loopbackAddr, loopbackAddr)
		resetBoth(s, c)
		l.close()
	})
	type known struct {
		old, new event.State
		via      event.Via
		err      int32
	}
	want := map[event.Role][]known{
		event.Listener: {
			{event.Close, event.Listen, event.ViaListen, 0},
			{event.Listen, event.Close, event.ViaClose, 0},
		},
		event.Client: {
			{event.Close, event.SynSent, event.ViaConnect, 0},
			{event.SynSent, event.Established, event.ViaConnect, 0},
			{event.Established, event.Close, event.ViaConnect, int32(unix.ECONNRESET)},
		},
		event.Server: {
			{event.Listen, event.SynRecv, event.ViaListener, 0},
			{event.SynRecv, event.Established, event.ViaListener, 0},
			{event.Established, event.Close, event.ViaClose, 0},
		},
	}
	got := make(map[event.Role][]known)
	for _, e := range r.changes {
		got[e.Role] = append(got[e.Role], known{e.Old, e.New, e.OwnerVia, e.Err})
		if e.OwnerPID != pid || e.OwnerComm == "" {
			t.Errorf("%v→%v: got owner %d %q, want %d", e.Old, e.New, e.OwnerPID, e.OwnerComm, pid)
		}
		if unbound := e.New == event.SynSent; unbound != (e.Local.Port() == 0) {
			t.Errorf("%v→%v: got local port %d", e.Old, e.New, e.Local.Port())
		}
	}
	for role, all := range want {
		if !slices.Equal(got[role], all) {
			t.Errorf("%v: got %+v, want %+v", role, got[role], all)
		}
	}
}

// Sockets older than the trace have a role and an owner from the start, but no age.
func TestOlderSockets(t *testing.T) {
	h := newHost(t)
	l, c, s := h.connection(loopbackAddr, loopbackAddr)
	// The peer makes the last changes, so the owner cannot come from them.
	c.shutdown(unix.SHUT_WR)
	s.reach(unix.BPF_TCP_CLOSE_WAIT)
	c.reach(unix.BPF_TCP_FIN_WAIT2)
	r := trace(t, []string{"--netns", h.netns()}, func() {
		s.shutdown(unix.SHUT_WR)
		c.reach(unix.BPF_TCP_CLOSE)
		l.close()
	})
	c.close()
	s.close()
	want := []string{"server CLOSE_WAIT LAST_ACK CLOSE", "client FIN_WAIT2 CLOSE", "listener LISTEN CLOSE"}
	if got := r.paths(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	vias := map[event.Role]event.Via{
		event.Server: event.ViaClose, event.Client: event.ViaSnapshot, event.Listener: event.ViaClose,
	}
	for _, e := range r.changes {
		if e.OwnerPID != uint32(os.Getpid()) || e.OwnerVia != vias[e.Role] {
			t.Errorf("%v %v→%v: got owner %d via %v, want %d via %v",
				e.Role, e.Old, e.New, e.OwnerPID, e.OwnerVia, os.Getpid(), vias[e.Role])
		}
		if first := e.Old != event.LastAck; first != (e.Dur == event.Unknown) {
			t.Errorf("%v %v→%v: got duration %d", e.Role, e.Old, e.New, e.Dur)
		}
	}
}

// Over a network with a delay, the server's handshake takes from the SYN to the ACK.
func TestHandshakeOverANetwork(t *testing.T) {
	h := newHost(t)
	w := h.newWire()
	var begin, end time.Time
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		l := h.listen(hostAddr, 8)
		answer := w.knock() // the request exists now
		begin = time.Now()
		time.Sleep(20 * time.Millisecond) // the network's delay
		end = time.Now()
		w.send(answer.reply(ack))
		l.acceptAndReset()
		l.close()
	})
	for _, e := range r.changes {
		if e.Old == event.SynRecv && e.Dur < end.Sub(begin).Nanoseconds() {
			t.Errorf("handshake: got %v, want at least %v", time.Duration(e.Dur), end.Sub(begin))
		}
	}
	want := serverOnly("ESTABLISHED CLOSE", event.ReasonResetSentLinger).rfc
	if got := r.paths(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The srtt_open_us of the end that closes first is the value that TCP_INFO reported before close().
// A later value may include the delayed ACK of a FIN.
func TestRoundTripOfOpen(t *testing.T) {
	for _, first := range []event.Role{event.Client, event.Server} {
		for _, at := range []string{loopbackAddr, loopbackAddr6} {
			t.Run(first.String()+" "+at, func(t *testing.T) {
				h := newHost(t)
				rtt := make(map[event.Role]uint32)
				r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
					l, c, s := h.connection(at, at)
					for range 10 {
						c.write("ping")
						s.read(4)
						s.write("pong")
						c.read(4)
					}
					rtt[event.Client], rtt[event.Server] = c.roundTrip(), s.roundTrip()
					if first == event.Server {
						c, s = s, c
					}
					c.close()
					h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2) // the ACK of the FIN may be delayed
					s.close()
					h.awaitStates(0, unix.BPF_TCP_LAST_ACK)
					l.close()
				})
				ends := 0
				for _, e := range r.changes {
					if !e.Totals.Known {
						continue
					}
					ends++
					want := rtt[e.Role]
					if want == 0 || e.Totals.SRTTOpen != want || e.Role == first && e.Totals.SRTT == 0 {
						t.Errorf("got %+v, want srtt_open_us %d", e, want)
					}
				}
				if ends != 2 {
					t.Errorf("got %d ends, want 2", ends)
				}
			})
		}
	}
}

// roundTrip waits until all data is acknowledged and returns the smoothed round-trip time in µs.
func (s sock) roundTrip() (µs uint32) {
	await(s.h.t, "the last ACK", func() bool {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		s.h.must("TCP_INFO", err)
		µs = info.Rtt
		return info.Unacked == 0
	})
	return µs
}

// If the kernel hides its addresses, the rfc vocabulary falls back to the tracepoint, reports the
// fallback, and states nothing that it cannot know.
func TestHiddenAddresses(t *testing.T) {
	h := newHost(t)
	// Without CAP_SYSLOG the addresses are 0 (kallsyms_show_value, if kernel.perf_event_paranoid is
	// above 1).
	if paranoid, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid"); err != nil || string(paranoid) < "2" {
		t.Skipf("this kernel shows its addresses to everybody: perf_event_paranoid is %q, %v", paranoid, err)
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "trace")
	cmd := self("sstrace", "-o", "ndjson", "-w", file, "--netns", h.netns(), "--", "sh", "-c", "echo attached; read _")
	cmd.Args = append([]string{"setpriv", "--bounding-set=-syslog", "--inh-caps=-syslog", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = setpriv
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	h.must("pipe", err)
	stdout, err := cmd.StdoutPipe()
	h.must("pipe", err)
	h.must("start", cmd.Start())
	_, _ = stdout.Read(make([]byte, 1))
	l, c, s := h.connection(loopbackAddr, loopbackAddr)
	closeBoth(c, s)
	h.quiet()
	l.close()
	stdin.Close()
	_ = cmd.Wait()
	if !strings.Contains(stderr.String(), "are not traced") {
		t.Errorf("got stderr %q, want what is not traced", &stderr)
	}
	r := readRecording(t, file)
	checkPaths(t, &r)
	for i, path := range r.paths() {
		want := clientClosesFirst.rfc[i]
		if path != want && path != strings.TrimSuffix(want, " TIME_WAIT") {
			t.Errorf("got %q, want %q", path, want)
		}
	}
}

// A comm may contain any 15 bytes.
func TestHostileComm(t *testing.T) {
	h := newHost(t)
	const comm = "a\"\\\n\x1b[31m\xff\u202e,"
	r := trace(t, []string{"--netns", h.netns()}, func() {
		h.do(func() { h.must("comm", os.WriteFile("/proc/thread-self/comm", []byte(comm), 0)) })
		h.do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			h.must("socket", err)
			h.must("listen", unix.Listen(fd, 1))
			h.must("close", unix.Close(fd))
		})
	})
	if len(r.changes) != 2 {
		t.Fatalf("got %d changes, want 2", len(r.changes))
	}
	want := strings.ToValidUTF8(comm, "\ufffd") // JSON has to be valid UTF-8
	if got := r.changes[0].TaskComm; got != want {
		t.Errorf("got comm %q, want %q", got, want)
	}
	for _, format := range []string{"text", "wide", "csv"} {
		out := sstrace(t, "", "-r", r.file, "-o", format).stdout
		if strings.Count(out, "\n") != 3 || strings.ContainsAny(out, "\x1b\u202e") {
			t.Errorf("%s: got %q, want three lines without control characters", format, out)
		}
	}
}
