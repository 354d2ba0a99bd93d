package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// mptcp returns an MPTCP socket.
func (h *host) mptcp(family int) (s sock) {
	h.do(func() {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOPROTOOPT) {
			fd = -1
		} else {
			h.must("socket", err)
		}
		s = sock{h, fd}
	})
	if s.fd < 0 {
		h.t.Skip("no MPTCP here")
	}
	return s
}

func (s sock) listenAt(addr string, backlog int) sock {
	a := netip.MustParseAddrPort(addr)
	s.h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
	s.h.must("listen", unix.Listen(s.fd, backlog))
	return s
}

func (s sock) connectTo(addr string) sock {
	a := netip.MustParseAddrPort(addr)
	s.h.must("connect", unix.Connect(s.fd, sockaddr(a, family(a))))
	return s
}

// A subflow is held by the process that holds its MPTCP socket, and by no process before the MPTCP
// socket is accepted. The same is true of a listener, and of connections that have plain TCP at one
// end.
func TestListingOfMPTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			h := newHost(t)
			at := func(port uint16) string {
				return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
			}
			fam := family(netip.MustParseAddrPort(at(1)))
			l := h.mptcp(fam).listenAt(at(7781), 8)
			plain := h.listen(at(7782), 8)
			c := h.mptcp(fam).connectTo(at(7781))
			s := l.accept()
			fallen := h.mptcp(fam).connectTo(at(7782)) // its peer has no MPTCP: falls back to TCP
			plain.accept()
			mixed := h.dial(at(7781)) // and here the listener's end falls back
			m := l.accept()
			early := h.mptcp(fam).connectTo(at(7781)) // not accepted yet
			earlyPlain := h.dial(at(7781))

			type want struct {
				local, remote string
				holders       []event.Holder
				attached      event.Attached
			}
			check := func(all []event.Event, proto event.Proto, wants []want) {
				t.Helper()
				for _, w := range wants {
					e := find(t, all, proto, w.local, w.remote)
					if !slices.Equal(e.Status.Holders, w.holders) || e.Status.Attached != w.attached {
						t.Errorf("%v %s %s: held by %v, attached to %v; want %v, %v", proto, w.local, w.remote, e.Status.Holders, e.Status.Attached, w.holders, w.attached)
					}
				}
			}
			none := netip.AddrPort{}.String()
			const held, waits = event.AttachedDescriptor, event.AttachedQueue
			subflows := []want{
				{at(7781), none, h.heldBy(l.fd), held},
				{c.local(), at(7781), h.heldBy(c.fd), held},
				{at(7781), c.local(), h.heldBy(s.fd), held},
				{fallen.local(), at(7782), h.heldBy(fallen.fd), held},
				{at(7781), mixed.local(), h.heldBy(m.fd), held},
				{at(7781), early.local(), []event.Holder{}, waits},
				{at(7781), earlyPlain.local(), []event.Holder{}, waits},
			}
			all := h.list(t)
			check(all, event.TCP, subflows)
			for _, e := range all {
				if e.Proto != event.TCP {
					t.Errorf("unexpected: %+v", e)
				}
			}

			both := h.list(t, "--proto", "tcp,mptcp")
			check(both, event.TCP, subflows)
			check(both, event.MPTCP, []want{subflows[0], subflows[1], subflows[2], subflows[3], subflows[5]})
			listed := checkMPTCPBySS(t, h, both)
			if e := find(t, both, event.MPTCP, at(7781), none); e.New != event.Listen || e.Status.RecvQueue != 2 || e.Status.SendQueue != 8 {
				t.Errorf("the listener: %+v, %+v", e, e.Status)
			}
			if e := find(t, both, event.MPTCP, c.local(), at(7781)); e.Role != event.Client || e.Status.RecvQueue != event.Unknown {
				t.Errorf("a client: %+v, %+v", e, e.Status)
			}
			if text := sstrace(t, "", "ls", "--proto", "tcp,mptcp", "--netns", h.netns()).stdout; strings.Count(text, " mptcp ") != listed || strings.Count(text, " tcp ") != len(both)-listed {
				t.Errorf("as text: %s", text)
			}
			if only := h.list(t, "--proto", "mptcp"); len(only) != listed {
				t.Errorf("of MPTCP alone: %+v", only)
			}
		})
	}
}

// checkMPTCPBySS compares the MPTCP sockets in listed with those that ss lists, and returns their
// number.
func checkMPTCPBySS(t *testing.T, h *host, listed []event.Event) int {
	t.Helper()
	var got []string
	for _, e := range listed {
		if e.Proto == event.MPTCP {
			got = append(got, e.Local.String())
		}
	}
	var ss bytes.Buffer
	h.run(&ss, "ss", "-HManO")
	var want []string
	for line := range strings.Lines(ss.String()) {
		want = append(want, strings.Fields(line)[3])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("MPTCP sockets at %q, ss has %q", got, want)
	}
	return len(got)
}

// The accept queue of an MPTCP listener is full, and one of its connections is forgotten. Both are
// attributed to the process that has the listener.
func TestLeaksOfMPTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at, func(t *testing.T) { leaksOfMPTCP(t, at) })
	}
}

func leaksOfMPTCP(t *testing.T, at string) {
	h := newHost(t)
	fam := family(netip.MustParseAddrPort(at))
	l := h.mptcp(fam).listenAt(at, 1)
	c := h.mptcp(fam).connectTo(at)
	l.accept()
	c.shutdown(unix.SHUT_WR) // of the MPTCP connection only: its subflow stays established
	await(t, "the end of data", func() bool {
		all := h.list(t, "--proto", "mptcp", "--state", "close-wait")
		return len(all) == 1 && all[0].OwnerPID == uint32(os.Getpid())
	})
	for range 2 {
		h.dial(at)
	}
	once := sstrace(t, "", "leaks", "--once", "--netns", h.netns(), "--pid", fmt.Sprint(os.Getpid()))
	if once.code != exitFound || strings.Count(once.stdout, "    held by "+fmt.Sprint(os.Getpid())+"/") != 1 || !strings.Contains(once.stdout, "accept queue full") {
		t.Errorf("exit code %d, %s%s", once.code, once.stdout, once.stderr)
	}
	run := h.leaks(t, "--older", "CLOSE_WAIT=1s", "--state", "close-wait")
	found := run.next()
	if found.State != "CLOSE_WAIT" || found.Proto != "mptcp" || found.Age != nil || *found.AtLeast < 1e9 || len(found.Holders) != 1 || found.Holders[0].PID != os.Getpid() {
		t.Errorf("%+v", found)
	}
}

// If MPTCP connections are forgotten during the trace, their age is known. Each is reported as one
// leak, even if the peer has no MPTCP and the subflow is stuck too. A single look at the kernel
// cannot know the age of an MPTCP socket.
func TestLeaksOfMPTCPWhileTracing(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			h := newHost(t)
			at := func(port uint16) string {
				return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
			}
			fam := family(netip.MustParseAddrPort(at(1)))
			l := h.mptcp(fam).listenAt(at(7781), 8)
			plain := h.listen(at(7782), 8)
			run := h.leaks(t, "--older", "CLOSE_WAIT=1s", "--state", "close-wait")

			c := h.mptcp(fam).connectTo(at(7781))
			s := l.accept()
			c.shutdown(unix.SHUT_WR) // its subflow stays established
			found := run.next()
			if found.State != "CLOSE_WAIT" || found.Over || found.Proto != "mptcp" || found.LPort != 7781 || found.Age == nil || *found.Age < 1e9 {
				t.Errorf("%+v", found)
			}
			if len(found.Holders) != 1 || found.Holders[0].PID != os.Getpid() || found.Holders[0].FD != s.fd {
				t.Errorf("got holders %+v, want descriptor %d of %d", found.Holders, s.fd, os.Getpid())
			}

			once := func(args ...string) result {
				return sstrace(t, "", append([]string{"leaks", "--once", "--state", "close-wait", "--netns", h.netns()}, args...)...)
			}
			comm, err := os.ReadFile("/proc/self/comm")
			h.must("read our name", err)
			want := fmt.Sprintf("Nothing is known to be stuck.\n%d/%s: 1 MPTCP socket in CLOSE_WAIT for an unknown time: sstrace leaks can watch it\n", os.Getpid(), strings.TrimSpace(string(comm)))
			if r := once("--older", "CLOSE_WAIT=1ns"); r.code != 0 || r.stdout != want || r.stderr != "" {
				t.Errorf("--once: exit code %d, %s%s", r.code, r.stdout, r.stderr)
			}
			r := once("-o", "ndjson")
			var line struct {
				Type, State, Proto string
				PID, Count         int
				Age                *int64 `json:"age_ns"`
				AtLeast            *int64 `json:"age_min_ns"`
			}
			if err := json.NewDecoder(strings.NewReader(r.stdout)).Decode(&line); err != nil {
				t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
			}
			if r.code != 0 || line.Type != "unknown_age" || line.State != "CLOSE_WAIT" || line.Proto != "mptcp" || line.PID != os.Getpid() || line.Count != 1 || line.Age != nil || line.AtLeast != nil {
				t.Errorf("--once: exit code %d, %s", r.code, r.stdout)
			}
			checkSchema(t, []byte(r.stdout))
			if r := once("--proto", "tcp"); r.code != 0 || r.stdout != "Nothing is stuck.\n" {
				t.Errorf("--proto tcp: exit code %d, %s", r.code, r.stdout)
			}

			fallen := h.mptcp(fam).connectTo(at(7782)) // falls back to TCP
			peer := plain.accept()
			peer.close()
			one := run.next() // whichever of the two is found first
			if one.State != "CLOSE_WAIT" || one.Over || one.Age == nil || len(one.Holders) != 1 || one.Holders[0].FD != fallen.fd {
				t.Errorf("%+v", one)
			}
			s.close()
			if over := run.next(); !over.Over || over.Proto != "mptcp" || over.LPort != 7781 || over.Age == nil {
				t.Errorf("where another line about the second connection would be: %+v", over)
			}
			h.must("end", run.stdin.Close())
			sum := run.next()
			if sum.Type != "leaks" || sum.Count != 1 || sum.Proto != one.Proto {
				t.Errorf("%+v", sum)
			}
			if end := run.next(); end.Type != "end" {
				t.Errorf("%+v", end)
			}
			checkSchema(t, run.all)
		})
	}
}

// An MPTCP socket makes a subflow for bind(). The subflow has the port.
func TestListingOfBoundMPTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at, func(t *testing.T) {
			h := newHost(t)
			a := netip.MustParseAddrPort(at)
			s := h.mptcp(family(a))
			h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
			all := h.list(t, "--bound", "--proto", "tcp,mptcp")
			for _, proto := range []event.Proto{event.TCP, event.MPTCP} {
				if e := find(t, all, proto, at, netip.AddrPort{}.String()); e.New != event.Close || !slices.Equal(e.Status.Holders, h.heldBy(s.fd)) {
					t.Errorf("%+v, %+v", e, e.Status)
				}
			}
		})
	}
}

// A kernel worker closes the rest of an MPTCP connection. No process did that, so the owner does
// not change.
func TestKernelThreadIsNoOwner(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at, func(t *testing.T) { kernelThreadIsNoOwner(t, at) })
	}
}

func kernelThreadIsNoOwner(t *testing.T, at string) {
	h := newHost(t)
	fam := family(netip.MustParseAddrPort(at))
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		l := h.mptcp(fam).listenAt(at, 8)
		c := h.mptcp(fam).connectTo(at)
		s := l.accept()
		c.close()
		s.close()
		l.close()
		await(t, "the subflows to close", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 0 })
	})
	checkViews(t, r.file)
	closed := 0
	for _, e := range r.changes {
		if e.OwnerPID != uint32(os.Getpid()) {
			t.Errorf("%v → %v belongs to %d/%s via %v", e.Old, e.New, e.OwnerPID, e.OwnerComm, e.OwnerVia)
		}
		if (e.New == event.FinWait1 || e.New == event.LastAck) && e.TaskPID != e.OwnerPID {
			closed++
		}
	}
	if closed == 0 {
		t.Skip("here the process closed the subflows itself")
	}
}

// Every view shows an MPTCP connection next to its subflow. If both ends closed, no view shows a
// timeout.
func TestViewsOfMPTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at, func(t *testing.T) {
			h := newHost(t)
			fam := family(netip.MustParseAddrPort(at))
			file := filepath.Join(t.TempDir(), "trace.ndjson")
			around(t, []string{"-o", "ndjson", "-w", file, "--proto", "tcp,mptcp", "--netns", h.netns()}, func() {
				l := h.mptcp(fam).listenAt(at, 8)
				c := h.mptcp(fam).connectTo(at)
				s := l.accept()
				c.close()
				_, err := unix.Read(s.fd, make([]byte, 1)) // waits for the end of the data
				h.must("read", err)
				s.close()
				l.close()
				await(t, "the subflows to close", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_LAST_ACK) == 0 })
			})
			checkViews(t, file)
			ends := make(map[event.Role]event.Event)
			for _, e := range readRecording(t, file).changes {
				if e.Proto == event.MPTCP && e.New == event.Close {
					ends[e.Role] = e
				}
			}
			for role, reason := range map[event.Role]event.Reason{event.Client: event.ReasonUnexplained, event.Server: event.ReasonNormal} {
				if e := ends[role]; e.Reason != reason {
					t.Errorf("%v: got reason %v, want %v: %+v", role, e.Reason, reason, e)
				}
			}
			paired := 0
			for _, reported := range answers[reportedHandshake](t, "handshake", "handshakes", "-r", file) {
				if reported.Client != nil && reported.Server != nil {
					paired++
				}
			}
			if paired != 2 {
				t.Errorf("%d handshakes with both ends, want those of the connection and of its subflow", paired)
			}
		})
	}
}
