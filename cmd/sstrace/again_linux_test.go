package main

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// port returns the socket's local port according to the kernel, or the last one that the socket
// had.
func (s sock) port() uint16 {
	sa, err := unix.Getsockname(s.fd)
	s.h.must("name", err)
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

// again is a socket that connects several times. It records the port of each attempt.
type again struct {
	sock
	to    netip.AddrPort
	ports []uint16
}

// connect connects and records the port. want is the expected error, or nil.
func (a *again) connect(want error) {
	if err := unix.Connect(a.fd, sockaddr(a.to, family(a.to))); !errors.Is(err, want) {
		a.h.t.Errorf("connect: got %v, want %v", err, want)
	}
	a.ports = append(a.ports, a.port())
}

// connectAgainCase is a socket that connects more than once.
type connectAgainCase struct {
	name       string
	traffic    func(h *host, a *again)
	path       string // of the socket, from its first line to TIME_WAIT
	handshakes []string
}

const refused = unix.ECONNREFUSED

// endAgain closes both ends of the last connection.
func endAgain(a *again, l sock) {
	s := l.accept()
	closeBoth(a.sock, s)
	l.close()
}

var connectAgain = []connectAgainCase{
	{"after a refusal", func(h *host, a *again) {
		a.connect(refused)
		a.connect(refused)
		l := h.listen(a.to.String(), 8)
		a.connect(nil)
		endAgain(a, l)
	}, "client CLOSE SYN_SENT CLOSE (refused) SYN_SENT CLOSE (refused) SYN_SENT", []string{"failed", "failed", "accepted"}},
	{"bound, after a refusal", func(h *host, a *again) {
		h.must("bind", unix.Bind(a.fd, sockaddr(netip.AddrPortFrom(a.to.Addr(), 40602), family(a.to))))
		a.connect(refused)
		l := h.listen(a.to.String(), 8)
		a.connect(nil)
		endAgain(a, l)
	}, "client CLOSE SYN_SENT CLOSE (refused) SYN_SENT", []string{"failed", "accepted"}},
	{"after connect() to AF_UNSPEC", func(h *host, a *again) {
		l := h.listen(a.to.String(), 8)
		a.connect(nil)
		first := l.accept()
		h.must("disconnect", connectUnspec(a.fd))
		first.reach(unix.BPF_TCP_CLOSE)
		first.close()
		a.connect(nil)
		endAgain(a, l)
	}, "client CLOSE SYN_SENT ESTABLISHED CLOSE (aborted) SYN_SENT", []string{"accepted", "accepted"}},
	{"without blocking, given up by connect() to AF_UNSPEC", func(h *host, a *again) {
		l := h.listen(a.to.String(), 0)
		full := h.dial(a.to.String())
		h.must("nonblock", unix.SetNonblock(a.fd, true))
		a.connect(unix.EINPROGRESS) // its SYN is dropped: the accept queue is full
		h.must("disconnect", connectUnspec(a.fd))
		h.must("nonblock", unix.SetNonblock(a.fd, false))
		s := l.accept()
		s.reset()
		s.close()
		full.reach(unix.BPF_TCP_CLOSE)
		full.close()
		a.connect(nil)
		endAgain(a, l)
	}, "client CLOSE SYN_SENT CLOSE (aborted) SYN_SENT", []string{"failed", "accepted", "accepted"}},
	{"that was accepted", func(h *host, a *again) {
		l := h.listen(a.to.String(), 8)
		c := h.dial(a.to.String())
		s := l.accept()
		h.must("disconnect", connectUnspec(s.fd))
		c.reach(unix.BPF_TCP_CLOSE)
		c.close()
		a.close()
		a.sock = s
		a.connect(nil)
		endAgain(a, l)
	}, "server LISTEN SYN_RECV ESTABLISHED CLOSE (aborted) SYN_SENT", []string{"accepted", "accepted"}},
	{"that listened", func(h *host, a *again) {
		l := h.listen(a.to.String(), 8)
		h.must("bind", unix.Bind(a.fd, sockaddr(netip.AddrPortFrom(a.to.Addr(), 40602), family(a.to))))
		h.must("listen", unix.Listen(a.fd, 1))
		a.shutdown(unix.SHUT_RD)
		a.connect(nil)
		endAgain(a, l)
	}, "listener CLOSE LISTEN CLOSE (normal) SYN_SENT", []string{"accepted"}},
	{"TCP_FASTOPEN_CONNECT", func(h *host, a *again) {
		h.sysctl("tcp_fastopen", "1543") // 0x607: both ways, without a cookie, for every listener
		h.must("option", unix.SetsockoptInt(a.fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
		a.connect(nil) // sends nothing yet
		if _, err := unix.Write(a.fd, []byte("x")); !errors.Is(err, refused) {
			h.t.Errorf("write: %v", err)
		}
		l := h.listen(a.to.String(), 8)
		a.connect(nil)
		a.write("x")
		s := l.accept()
		s.read(1)
		closeBoth(a.sock, s)
		l.close()
	}, "client CLOSE SYN_SENT CLOSE (refused) SYN_SENT", []string{"failed", "accepted"}},
}

// A socket may connect more than once. Until the kernel has chosen a port for the next connection,
// the socket still has the old one, which must not be reported. Each connection is reported once.
func TestConnectAgain(t *testing.T) {
	for _, test := range connectAgain {
		for _, to := range []string{"127.0.0.1:7781", "[::1]:7781"} {
			t.Run(test.name+" "+to, func(t *testing.T) { testConnectAgain(t, &test, to) })
		}
	}
}

func testConnectAgain(t *testing.T, test *connectAgainCase, to string) {
	h := newHost(t)
	a := &again{to: netip.MustParseAddrPort(to)}
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns()}, func() {
		a.sock = h.socket(family(a.to))
		test.traffic(h, a)
		await(t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
	})
	r := readRecording(t, file)
	checkPaths(t, &r)
	checkViews(t, file)
	if r.end.RingFull != 0 {
		t.Errorf("changes were lost: %+v", *r.end)
	}
	want := test.path + " ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
	if got := r.paths(); !slices.Contains(got, want) {
		t.Fatalf("got:\n%s\nwithout %s", strings.Join(got, "\n"), want)
	}
	var id uint64 // of the only socket that reaches TIME_WAIT
	for _, e := range r.changes {
		if e.New == event.TimeWait {
			id = e.ID
		}
	}
	time := -1
	for _, e := range r.changes {
		if e.ID != id {
			continue
		}
		if e.New == event.SynSent {
			time++
		}
		// If connect() leaves the SYN to write(), there is no port yet when connect() is reported.
		unknown := e.New == event.SynSent && e.Local.Port() == 0 && test.name == "TCP_FASTOPEN_CONNECT"
		if time >= 0 && e.Local.Port() != a.ports[time] && !unknown {
			t.Errorf("the local port is %d, of %d: %+v", e.Local.Port(), a.ports, e)
		}
	}
	var states []string
	for _, reported := range answers[reportedHandshake](t, "handshake", "handshakes", "-r", file) {
		states = append(states, reported.State)
		if reported.State == "accepted" && (reported.Pairing == nil || *reported.Pairing != "isn") {
			t.Errorf("the two ends are not paired by sequence number: %+v", reported)
		}
	}
	slices.Sort(states)
	handshakes := slices.Clone(test.handshakes)
	slices.Sort(handshakes)
	if !slices.Equal(states, handshakes) {
		t.Errorf("got handshakes %q, want %q", states, handshakes)
	}
	clients := 0
	for _, reported := range answers[reportedConn](t, "conn", "conns", "-r", file) {
		if reported.State == "lost" {
			t.Errorf("got a connection that never existed: %+v", reported)
		}
		if reported.Role == "client" {
			clients++
		}
	}
	if clients != len(test.handshakes) {
		t.Errorf("got %d clients, want %d", clients, len(test.handshakes))
	}
}

// In the kernel's vocabulary the port is the one that the tracepoint prints, which is the old one.
func TestConnectAgainEqualsTracefs(t *testing.T) {
	w := newWitness(t)
	h := newHost(t)
	const at = 17031
	r := trace(t, []string{"--netns", h.netns()}, func() {
		for _, to := range []string{"127.0.0.1", "::1"} {
			a := &again{to: netip.AddrPortFrom(netip.MustParseAddr(to), at)}
			a.sock = h.socket(family(a.to))
			a.connect(unix.ECONNREFUSED)
			a.connect(unix.ECONNREFUSED)
			l := h.listen(a.to.String(), 8)
			a.connect(nil)
			s := l.accept()
			closeBoth(a.sock, s)
			await(t, "the end", func() bool { return h.inStates(unix.BPF_TCP_LAST_ACK) == 0 })
			l.close()
		}
	})
	w.compare(r, []uint16{at})
	stale := 0
	for _, e := range r.changes {
		if e.New == event.SynSent && e.Local.Port() != 0 {
			stale++
		}
	}
	if stale != 4 {
		t.Errorf("%d SYNs have an old port, so this tests little", stale)
	}
}
