package main

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

const (
	ordinaryListener = "listener CLOSE LISTEN CLOSE"
	activeClient     = "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
	passiveClient    = "client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
	activeServer     = "server LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
	passiveServer    = "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
)

// connection opens a listener and a connection to it.
func (h *host) connection(listen, dial string) (listener, client, server sock) {
	listener = h.listen(listen, 8)
	client = h.dial(dial)
	return listener, client, listener.accept()
}

// closeBoth closes first, and then second once the FIN is there, and waits for the end of both.
func closeBoth(first, second sock) {
	first.close()
	second.reach(unix.BPF_TCP_CLOSE_WAIT)
	second.close()
}

// Each situation gives the same transcript in every run: which states each socket goes through, in the kernel's vocabulary.
func TestTranscripts(t *testing.T) {
	const addr = "127.0.0.1:7781"
	for _, test := range []struct {
		name    string
		family  event.Family
		traffic func(h *host)
		want    []string
	}{
		{"client closes first", event.IPv4, func(h *host) {
			l, c, s := h.connection(addr, addr)
			closeBoth(c, s)
			l.close()
		}, []string{ordinaryListener, activeClient, passiveServer}},
		{"server closes first", event.IPv4, func(h *host) {
			l, c, s := h.connection(addr, addr)
			closeBoth(s, c)
			l.close()
		}, []string{ordinaryListener, passiveClient, activeServer}},
		{"IPv6", event.IPv6, func(h *host) {
			l, c, s := h.connection("[::1]:7781", "[::1]:7781")
			closeBoth(c, s)
			l.close()
		}, []string{ordinaryListener, activeClient, passiveServer}},
		{"listener opened and closed", event.IPv4, func(h *host) {
			h.listen(addr, 8).close()
		}, []string{ordinaryListener}},
		{"refused", event.IPv4, func(h *host) {
			s := h.socket(unix.AF_INET)
			if err := unix.Connect(s.fd, sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET)); err != unix.ECONNREFUSED {
				h.t.Errorf("connect: %v", err)
			}
			s.close()
		}, []string{"client CLOSE SYN_SENT CLOSE"}},
		{"refused twice with one socket", event.IPv4, func(h *host) {
			s := h.socket(unix.AF_INET)
			for range 2 {
				_ = unix.Connect(s.fd, sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET))
			}
			s.close()
		}, []string{"client CLOSE SYN_SENT CLOSE SYN_SENT CLOSE"}},
		{"reset by the client", event.IPv4, func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.reset()
			c.close()
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}, []string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"reset by unread data", event.IPv4, func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.write("nobody reads this")
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		}, []string{ordinaryListener, "client CLOSE SYN_SENT ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"half-close", event.IPv4, func(h *host) {
			l, c, s := h.connection(addr, addr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("still speaking")
			s.shutdown(unix.SHUT_WR)
			c.reach(unix.BPF_TCP_CLOSE) // the TIME_WAIT that a shutdown leaves behind is another kind of socket
			c.close()
			s.close()
			l.close()
		}, []string{ordinaryListener, activeClient, passiveServer}},
		// A socket connected to itself crosses its own SYN and its own FIN.
		{"simultaneous open and close", event.IPv4, func(h *host) {
			s := h.socket(unix.AF_INET)
			self := sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET)
			h.must("bind", unix.Bind(s.fd, self))
			h.must("connect", unix.Connect(s.fd, self))
			s.close()
		}, []string{"client CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			r := trace(t, []string{"--netns", h.netns()}, func() { test.traffic(h) })
			want := test.want
			if r.changes[0].Cookie == 0 && test.name == "refused twice with one socket" {
				want = []string{"client CLOSE SYN_SENT CLOSE", "client CLOSE SYN_SENT CLOSE"} // without cookies (up to 5.11) they may be two
			}
			if got := r.paths(); !slices.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			known := make(map[uint64]bool) // sockets
			for _, e := range r.changes {
				if e.Family != test.family || e.NetNS != uint32(h.inode) || e.UID != 0 || e.Proto != event.TCP {
					t.Errorf("not of this test: %+v", e)
				}
				if known[e.ID] == (e.Dur == event.Unknown) {
					t.Errorf("every duration is known but that before the first change: %+v", e)
				}
				known[e.ID] = true
			}
		})
	}
}

// A listener on :: takes IPv4, too: the connection's addresses are then mapped, and shown as IPv4.
func TestMappedAddresses(t *testing.T) {
	h := newHost(t)
	r := trace(t, []string{"--netns", h.netns()}, func() {
		l, c, s := h.connection("[::]:7781", "[::ffff:127.0.0.1]:7781")
		closeBoth(c, s)
		l.close()
	})
	if got, want := r.paths(), []string{ordinaryListener, activeClient, passiveServer}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, e := range r.changes {
		switch {
		case e.Role == event.Listener:
			if e.Family != event.IPv6 || e.Local != netip.MustParseAddrPort("[::]:7781") || e.Remote.Addr().IsValid() {
				t.Errorf("listener: %+v", e)
			}
		case e.New == event.SynRecv && e.Family == event.IPv6 && !e.Local.Addr().IsValid() && !e.Remote.Addr().IsValid():
			// up to 6.12 the child knows neither yet
		case e.Family != event.Mapped || e.Local.Addr() != loopback || e.Remote.Addr() != loopback:
			t.Errorf("mapped end: %v %v %v", e.Family, e.Local, e.Remote)
		}
	}
}

// With -6 nothing of a mapped connection is shown, not even the child's first change, which looks like IPv6 up to 6.12.
func TestFamilyOfAMappedConnection(t *testing.T) {
	h := newHost(t)
	for args, want := range map[string][]string{"-6": {ordinaryListener}, "-4": {activeClient, passiveServer}} {
		r := trace(t, []string{"--netns", h.netns(), args}, func() {
			l, c, s := h.connection("[::]:7781", "127.0.0.1:7781")
			closeBoth(c, s)
			l.close()
		})
		if got := r.paths(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

// Who did it, and what it could know at each change.
func TestOwnersAndErrors(t *testing.T) {
	h := newHost(t)
	pid := uint32(os.Getpid())
	r := trace(t, []string{"--netns", h.netns()}, func() {
		l, c, s := h.connection("127.0.0.1:7781", "127.0.0.1:7781")
		s.reset()
		s.close()
		c.reach(unix.BPF_TCP_CLOSE)
		c.close()
		l.close()
	})
	type known struct {
		old, new event.State
		via      event.Via
		err      int32
	}
	want := map[event.Role][]known{
		event.Listener: {{event.Close, event.Listen, event.ViaListen, 0}, {event.Listen, event.Close, event.ViaClose, 0}},
		event.Client: {
			{event.Close, event.SynSent, event.ViaConnect, 0},
			{event.SynSent, event.Established, event.ViaConnect, 0},
			{event.Established, event.Close, event.ViaConnect, 104},
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
			t.Errorf("owner of %v->%v is %d %q, not %d", e.Old, e.New, e.OwnerPID, e.OwnerComm, pid)
		}
		if unbound := e.New == event.SynSent; unbound != (e.Local.Port() == 0) {
			t.Errorf("%v->%v has the local port %d", e.Old, e.New, e.Local.Port())
		}
	}
	for role, all := range want {
		if !slices.Equal(got[role], all) {
			t.Errorf("%v: got %+v, want %+v", role, got[role], all)
		}
	}
}

// Sockets that are older than the trace have their role and their owner from the start, and no age.
func TestOlderSockets(t *testing.T) {
	h := newHost(t)
	l, c, s := h.connection("127.0.0.1:7781", "127.0.0.1:7781")
	c.shutdown(unix.SHUT_WR) // so that the last changes are the peer's doing, and the owner is not learned from them
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
	for _, e := range r.changes {
		via := map[event.Role]event.Via{event.Server: event.ViaClose, event.Client: event.ViaSnapshot, event.Listener: event.ViaClose}[e.Role]
		if e.OwnerPID != uint32(os.Getpid()) || e.OwnerVia != via {
			t.Errorf("%v %v->%v: owner %d via %v", e.Role, e.Old, e.New, e.OwnerPID, e.OwnerVia)
		}
		if first := e.Old != event.LastAck; first != (e.Dur == event.Unknown) {
			t.Errorf("%v %v->%v: duration %d", e.Role, e.Old, e.New, e.Dur)
		}
	}
}
