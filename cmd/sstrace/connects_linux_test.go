package main

import (
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

// ended describes how a connection ended.
type ended struct {
	old    event.State
	reason event.Reason
	err    int32
	closer event.Closer
}

// ends returns the ends of all connections, in order.
func (r recordedRun) ends() (all []ended) {
	for _, e := range r.changes {
		if e.New == event.Close && e.Old != event.Listen {
			all = append(all, ended{e.Old, e.Reason, e.Err, e.Closer})
		}
	}
	return all
}

// connectTest is a connect() that returns to CLOSE, during the call or soon after, without an
// answer from the peer's TCP.
type connectTest struct {
	name    string
	only    string // the peer's address, or "" for both families
	traffic func(h *host, c sock, to netip.AddrPort)
	reason  event.Reason
	err     unix.Errno
	closer  event.Closer
	port    bool // the local port is known at the end
}

var connectTests = []connectTest{
	{"ICMP port unreachable", "127.0.0.1", rejected("icmp type port-unreachable"),
		event.ReasonPortUnreachable, unix.ECONNREFUSED, 0, true},
	{"ICMP host unreachable", "127.0.0.1", rejected("icmp type host-unreachable"),
		event.ReasonUnreachable, unix.EHOSTUNREACH, 0, true},
	{"ICMP prohibited", "127.0.0.1", rejected("icmp type admin-prohibited"),
		event.ReasonUnreachable, unix.EHOSTUNREACH, 0, true},
	{"ICMPv6 port unreachable", "::1", rejected("icmpv6 type port-unreachable"),
		event.ReasonPortUnreachable, unix.ECONNREFUSED, 0, true},
	{"ICMPv6 address unreachable", "::1", rejected("icmpv6 type addr-unreachable"),
		event.ReasonUnreachable, unix.EHOSTUNREACH, 0, true},
	{"ICMPv6 prohibited", "::1", rejected("icmpv6 type admin-prohibited"),
		event.ReasonUnreachable, unix.EACCES, 0, true},
	{"ICMPv6 reject route", "::1", rejected("icmpv6 type reject-route"),
		event.ReasonUnreachable, unix.EACCES, 0, true},
	{"no free port", "", noPort(true), event.ReasonNoPort, unix.EADDRNOTAVAIL, 0, false},
	{"no free port, without blocking", "", noPort(false), event.ReasonNoPort, unix.EADDRNOTAVAIL, 0, false},
	{"TCP_FASTOPEN_CONNECT, closed before it sent anything", "", deferred(sock.closeLast),
		event.ReasonGivenUp, 0, event.WeClosed, true},
	{"TCP_FASTOPEN_CONNECT, shut down before it sent anything", "",
		deferred(func(c sock) {
			c.shutdown(unix.SHUT_WR)
			c.closeLast()
		}), event.ReasonGivenUp, 0, event.WeClosed, false},
	{"TCP_FASTOPEN_CONNECT, dissolved before it sent anything", "",
		deferred(func(c sock) {
			c.h.must("disconnect", connectUnspec(c.fd))
			c.closeLast()
		}), event.ReasonAborted, 0, event.WeClosed, false},
}

// rejected returns traffic that connects while a firewall rejects the SYN with an ICMP message. The
// message arrives while connect() holds the socket lock.
func rejected(with string) func(h *host, c sock, to netip.AddrPort) {
	return func(h *host, c sock, to netip.AddrPort) {
		proto := "ipv4"
		if to.Addr().Is6() {
			proto = "ipv6"
		}
		h.run(nil, "nft", "add table inet f; add chain inet f i { type filter hook input priority 0; }; "+
			"add rule inet f i meta nfproto "+proto+" tcp dport 7781 reject with "+with)
		h.must("nonblock", unix.SetNonblock(c.fd, true))
		c.fails(to, unix.EINPROGRESS)
		c.closeLast()
	}
}

// noPort returns traffic that connects while the only local port is in use.
func noPort(blocking bool) func(h *host, c sock, to netip.AddrPort) {
	return func(h *host, c sock, to netip.AddrPort) {
		h.sysctl("ip_local_port_range", "40000 40000")
		l := h.listen(to.String(), 8)
		first := h.dial(to.String())
		h.must("nonblock", unix.SetNonblock(c.fd, !blocking))
		c.fails(to, unix.EADDRNOTAVAIL)
		c.closeLast()
		resetBoth(l.accept(), first)
		l.close()
	}
}

// deferred returns traffic that calls connect() as a Fast Open client, which leaves the SYN to the
// first write(), and ends the socket before that.
func deferred(end func(c sock)) func(h *host, c sock, to netip.AddrPort) {
	return func(h *host, c sock, to netip.AddrPort) {
		h.sysctl("tcp_fastopen", fastOpenWithoutCookie)
		c.option(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		h.must("connect", unix.Connect(c.fd, sockaddr(to, family(to))))
		end(c)
	}
}

// fails calls connect() and checks that it fails with want.
func (s sock) fails(to netip.AddrPort, want unix.Errno) {
	if err := unix.Connect(s.fd, sockaddr(to, family(to))); !errors.Is(err, want) {
		s.h.t.Errorf("connect: got %v, want %v", err, want)
	}
}

func TestConnectThatEnds(t *testing.T) {
	f := startFeed(t)
	var all []func()
	for _, test := range connectTests {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			if test.only == "" || test.only == addr {
				all = append(all, func() {
					t.Run(test.name+" "+addr, func(t *testing.T) { test.check(t, f, addr) })
				})
			}
		}
	}
	together(8, all)
}

func (test *connectTest) check(t *testing.T, f *feed, addr string) {
	h := newHost(t)
	to := netip.AddrPortFrom(netip.MustParseAddr(addr), feedPort)
	c := h.socket(family(to))
	cookie, err := unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	h.must("cookie", err)
	test.traffic(h, c, to)
	f.settle(h)
	ours := func(e *event.Event) bool { return e.Type == event.Change && e.Cookie == cookie }
	r := recordedRun{changes: f.of(h, ours)}
	checkPaths(t, &r)
	for _, e := range r.changes {
		// sstrace does not wait for a SYN that is left to write(). If no SYN was sent, whether the
		// port is known depends on how long the socket was in SYN_SENT.
		known := e.Local.Port() != 0
		if known && test.reason == event.ReasonNoPort || !known && test.port && e.New == event.Close {
			t.Errorf("got local port %d: %+v", e.Local.Port(), e)
		}
	}
	want := ended{event.SynSent, test.reason, int32(test.err), test.closer}
	if got := r.ends(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// icmpErrors lists the error for each ICMP message that answers a SYN (net/ipv4/icmp.c,
// icmp_err_convert; net/ipv6/icmp.c, tab_unreach; tcp_v4_err, tcp_v6_err).
var icmpErrors = []struct {
	family     string
	kind, code byte
	err        unix.Errno
	reason     event.Reason
}{
	{"IPv4", 3, 0, unix.ENETUNREACH, event.ReasonUnreachable},
	{"IPv4", 3, 1, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv4", 3, 2, unix.ENOPROTOOPT, event.ReasonUnreachable},
	{"IPv4", 3, 3, unix.ECONNREFUSED, event.ReasonPortUnreachable},
	{"IPv4", 3, 5, unix.EOPNOTSUPP, event.ReasonUnreachable},
	{"IPv4", 3, 6, unix.ENETUNREACH, event.ReasonUnreachable},
	{"IPv4", 3, 7, unix.EHOSTDOWN, event.ReasonUnreachable},
	{"IPv4", 3, 8, unix.ENONET, event.ReasonUnreachable},
	{"IPv4", 3, 9, unix.ENETUNREACH, event.ReasonUnreachable},
	{"IPv4", 3, 10, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv4", 3, 13, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv4", 11, 0, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv4", 12, 0, unix.EPROTO, event.ReasonUnreachable},
	{"IPv6", 1, 0, unix.ENETUNREACH, event.ReasonUnreachable},
	{"IPv6", 1, 1, unix.EACCES, event.ReasonUnreachable},
	{"IPv6", 1, 2, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv6", 1, 3, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv6", 1, 4, unix.ECONNREFUSED, event.ReasonPortUnreachable},
	{"IPv6", 1, 5, unix.EACCES, event.ReasonUnreachable},
	{"IPv6", 1, 6, unix.EACCES, event.ReasonUnreachable},
	{"IPv6", 3, 0, unix.EHOSTUNREACH, event.ReasonUnreachable},
	{"IPv6", 4, 0, unix.EPROTO, event.ReasonUnreachable},
}

// Each ICMP message that ends a connect() is reported with its own error. The error is the same if
// the connection is established and its data times out.
func TestICMP(t *testing.T) {
	f := startFeed(t)
	var all []func()
	for _, test := range icmpErrors {
		for _, state := range []string{"SYN_SENT", "ESTABLISHED"} {
			all = append(all, func() {
				t.Run(fmt.Sprintf("%s %d %d %s", test.family, test.kind, test.code, state), func(t *testing.T) {
					p := newEndpoint(t, test.family)
					p.do(ways[state])
					want := ended{event.SynSent, test.reason, int32(test.err), 0}
					if state == "ESTABLISHED" {
						p.do("data out")
						want.old, want.reason = event.Established, event.ReasonUnreachable
					}
					p.w.icmp(p.last, test.kind, test.code)
					if state == "ESTABLISHED" {
						p.do("TCP_USER_TIMEOUT")
					}
					p.awaitEnd()
					f.settle(p.h)
					ours := func(e *event.Event) bool { return e.Type == event.Change && e.Remote == p.peer }
					r := recordedRun{changes: f.of(p.h, ours)}
					if got := r.ends(); len(got) != 1 || got[0] != want {
						t.Errorf("got %+v, want %+v", got, want)
					}
					p.close()
				})
			})
		}
	}
	together(8, all)
}

// failure is a connect() that fails at once.
type failure struct {
	to    string
	errno int32
}

// failures calls connect() to addresses without a route, once blocking and once not. It returns the
// failures for port 80. It needs the routes that TestConnectFailed adds.
func (h *host) failures() (all []failure) {
	for _, to := range []string{
		"203.0.113.1:80", "203.0.113.2:80", "203.0.113.3:80", "203.0.113.4:80",
		"[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "[2001:db8::4]:80",
		"203.0.113.1:81", "[2001:db8::1]:81",
	} {
		a := netip.MustParseAddrPort(to)
		for _, nonblock := range []bool{false, true} {
			s := h.socket(family(a))
			h.must("nonblock", unix.SetNonblock(s.fd, nonblock))
			var errno unix.Errno
			err := unix.Connect(s.fd, sockaddr(a, family(a)))
			if !errors.As(err, &errno) || errno == unix.EINPROGRESS {
				h.t.Errorf("connect to %s: got %v, want an error at once", to, err)
			}
			if a.Port() == 80 {
				all = append(all, failure{to, int32(errno)})
			}
			s.close()
		}
	}
	return all
}

// A connect() that fails before it sends a SYN has a line, is a failed handshake, and has a row in
// stats. One that fails for another reason has none of these.
func TestConnectFailed(t *testing.T) {
	h := newHost(t)
	for _, kind := range []string{"prohibit 203.0.113.2", "blackhole 203.0.113.3", "unreachable 203.0.113.4"} {
		h.run(nil, append([]string{"ip", "route", "add"}, strings.Fields(kind)...)...)
	}
	for _, kind := range []string{"prohibit 2001:db8::2", "blackhole 2001:db8::3", "unreachable 2001:db8::4"} {
		h.run(nil, append([]string{"ip", "-6", "route", "add"}, strings.Fields(kind)...)...)
	}
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	var want []failure
	around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns(), "--rport", "80"}, func() {
		want = h.failures()
		l, c, s := h.connection("127.0.0.1:80", "127.0.0.1:80")
		c.fails(netip.MustParseAddrPort("127.0.0.1:80"), unix.EISCONN)
		closeBoth(c, s)
		l.close()
	})
	r := readRecording(t, file)
	checkViews(t, file)
	var got []failure
	for _, e := range r.failed {
		got = append(got, failure{e.Remote.String(), e.Err})
		owned := e.OwnerPID == uint32(os.Getpid()) && e.OwnerVia == event.ViaConnect
		if e.Role != event.Client || !owned || e.Local.Port() != 0 || e.ISN != 0 || e.Reason == 0 {
			t.Errorf("got %+v, want a client of ours with a reason, without a port and a SYN", e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for command, want := range map[string]string{
		"handshakes --summary": fmt.Sprintf("(1 established, %d failed)", len(want)),
		"stats":                fmt.Sprintf("(connect)   → (failed)    %10d", len(want)),
		"conns":                "no SYN was sent\n",
		"conns --timeline":     ", no SYN was sent\n",
	} {
		r := sstrace(t, "", append(strings.Fields(command), "-r", file)...)
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%s: no %q in\n%s%s", command, want, r.stdout, r.stderr)
		}
	}
}
