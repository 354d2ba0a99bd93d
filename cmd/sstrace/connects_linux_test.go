package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// ended is what the end of a connection says.
type ended struct {
	old    event.State
	reason event.Reason
	err    int32
	closer event.Closer
}

// ends returns what those say that were not listeners, in their order.
func (r recordedRun) ends() (all []ended) {
	for _, e := range r.changes {
		if e.New == event.Close && e.Old != event.Listen {
			all = append(all, ended{e.Old, e.Reason, e.Err, e.Closer})
		}
	}
	return all
}

// A connect() that comes back to CLOSE in the same call, or soon after, and never got as far as an answer of the peer's TCP.
func TestConnectThatEnds(t *testing.T) {
	f := startFeed(t)
	rejected := func(with string) func(h *host, c sock, to netip.AddrPort) {
		return func(h *host, c sock, to netip.AddrPort) {
			proto := map[bool]string{true: "ipv6", false: "ipv4"}[to.Addr().Is6()]
			h.run(nil, "nft", "add table inet f; add chain inet f i { type filter hook input priority 0; }; add rule inet f i meta nfproto "+proto+
				" tcp dport 7781 reject with "+with)
			h.must("nonblock", unix.SetNonblock(c.fd, true))
			// The message comes while connect() holds the socket's lock.
			if err := unix.Connect(c.fd, sockaddr(to, family(to))); !errors.Is(err, unix.EINPROGRESS) {
				t.Errorf("connect: %v", err)
			}
			c.closeLast()
		}
	}
	noPort := func(blocking bool) func(h *host, c sock, to netip.AddrPort) {
		return func(h *host, c sock, to netip.AddrPort) {
			h.sysctl("ip_local_port_range", "40000 40000")
			l := h.listen(to.String(), 8)
			first := h.dial(to.String())
			h.must("nonblock", unix.SetNonblock(c.fd, !blocking))
			if err := unix.Connect(c.fd, sockaddr(to, family(to))); !errors.Is(err, unix.EADDRNOTAVAIL) {
				t.Errorf("connect: %v", err)
			}
			c.closeLast()
			s := l.accept()
			s.reset()
			s.close()
			first.reach(unix.BPF_TCP_CLOSE)
			first.close()
			l.close()
		}
	}
	deferred := func(end func(c sock)) func(h *host, c sock, to netip.AddrPort) {
		return func(h *host, c sock, to netip.AddrPort) {
			h.sysctl("tcp_fastopen", "1543") // 0x607: without a cookie
			h.must("option", unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
			h.must("connect", unix.Connect(c.fd, sockaddr(to, family(to))))
			end(c)
		}
	}
	var all []func()
	for _, test := range []struct {
		name    string
		only    string
		traffic func(h *host, c sock, to netip.AddrPort)
		want    ended // of the socket
		port    bool  // its local port is known at its end
	}{
		{"ICMP port unreachable", "127.0.0.1", rejected("icmp type port-unreachable"), ended{event.SynSent, event.ReasonPortUnreachable, 111, 0}, true},
		{"ICMP host unreachable", "127.0.0.1", rejected("icmp type host-unreachable"), ended{event.SynSent, event.ReasonUnreachable, 113, 0}, true},
		{"ICMP prohibited", "127.0.0.1", rejected("icmp type admin-prohibited"), ended{event.SynSent, event.ReasonUnreachable, 113, 0}, true},
		{"ICMPv6 port unreachable", "::1", rejected("icmpv6 type port-unreachable"), ended{event.SynSent, event.ReasonPortUnreachable, 111, 0}, true},
		{"ICMPv6 address unreachable", "::1", rejected("icmpv6 type addr-unreachable"), ended{event.SynSent, event.ReasonUnreachable, 113, 0}, true},
		{"ICMPv6 prohibited", "::1", rejected("icmpv6 type admin-prohibited"), ended{event.SynSent, event.ReasonUnreachable, 13, 0}, true},
		{"ICMPv6 reject route", "::1", rejected("icmpv6 type reject-route"), ended{event.SynSent, event.ReasonUnreachable, 13, 0}, true},
		{"no free port", "", noPort(true), ended{event.SynSent, event.ReasonNoPort, 99, 0}, false},
		{"no free port, without blocking", "", noPort(false), ended{event.SynSent, event.ReasonNoPort, 99, 0}, false},
		{"TCP_FASTOPEN_CONNECT, closed before it sent anything", "", deferred(sock.closeLast), ended{event.SynSent, event.ReasonGivenUp, 0, event.WeClosed}, true},
		{"TCP_FASTOPEN_CONNECT, shut down before it sent anything", "", deferred(func(c sock) {
			c.shutdown(unix.SHUT_WR)
			c.closeLast()
		}), ended{event.SynSent, event.ReasonGivenUp, 0, event.WeClosed}, false},
		{"TCP_FASTOPEN_CONNECT, dissolved before it sent anything", "", deferred(func(c sock) {
			c.h.must("disconnect", connectUnspec(c.fd))
			c.closeLast()
		}), ended{event.SynSent, event.ReasonAborted, 0, event.WeClosed}, false},
	} {
		for _, addr := range []string{"127.0.0.1", "::1"} {
			if test.only != "" && test.only != addr {
				continue
			}
			all = append(all, func() {
				t.Run(test.name+" "+addr, func(t *testing.T) {
					h := newHost(t)
					to := netip.AddrPortFrom(netip.MustParseAddr(addr), feedPort)
					c := h.socket(family(to))
					cookie, err := unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
					h.must("cookie", err)
					test.traffic(h, c, to)
					f.settle(h)
					r := recordedRun{changes: f.of(h, func(e *event.Event) bool { return e.Type == event.Change && e.Cookie == cookie })}
					checkPaths(t, &r)
					for _, e := range r.changes {
						// A SYN that is left to write() is not waited for. Where none was sent, whether the port is known
						// depends on how long the socket was in SYN_SENT.
						known := e.Local.Port() != 0
						if known && test.want.reason == event.ReasonNoPort || !known && test.port && e.New == event.Close {
							t.Errorf("the local port: %+v", e)
						}
					}
					if got := r.ends(); len(got) != 1 || got[0] != test.want {
						t.Errorf("got %+v, want %+v", got, test.want)
					}
				})
			})
		}
	}
	together(8, all)
}

// icmpErrors are what each ICMP message to a SYN means (net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach; tcp_v4_err, tcp_v6_err).
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

// Each ICMP message that ends a connect() is told with its own error; and once the connection is there, with the same one when its data time out.
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
					r := recordedRun{changes: f.of(p.h, func(e *event.Event) bool { return e.Type == event.Change && e.Remote == p.peer })}
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

// A connect() that fails before it sends a SYN is a line, a failed handshake, and a row in stats; one that fails otherwise is not.
func TestConnectFailed(t *testing.T) {
	h := newHost(t)
	for _, kind := range []string{"prohibit 203.0.113.2", "blackhole 203.0.113.3", "unreachable 203.0.113.4"} {
		h.run(nil, append([]string{"ip", "route", "add"}, strings.Fields(kind)...)...)
	}
	for _, kind := range []string{"prohibit 2001:db8::2", "blackhole 2001:db8::3", "unreachable 2001:db8::4"} {
		h.run(nil, append([]string{"ip", "-6", "route", "add"}, strings.Fields(kind)...)...)
	}
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	type failure struct {
		to    string
		errno int32
	}
	var want []failure
	around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns(), "--rport", "80"}, func() {
		for _, to := range []string{"203.0.113.1:80", "203.0.113.2:80", "203.0.113.3:80", "203.0.113.4:80", "[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "[2001:db8::4]:80", "203.0.113.1:81", "[2001:db8::1]:81"} {
			a := netip.MustParseAddrPort(to)
			for _, nonblock := range []bool{false, true} {
				s := h.socket(family(a))
				h.must("nonblock", unix.SetNonblock(s.fd, nonblock))
				var errno unix.Errno
				if err := unix.Connect(s.fd, sockaddr(a, family(a))); !errors.As(err, &errno) || errno == unix.EINPROGRESS {
					t.Errorf("connect to %s: %v", to, err)
				}
				if a.Port() == 80 {
					want = append(want, failure{to, int32(errno)})
				}
				s.close()
			}
		}
		l := h.listen("127.0.0.1:80", 8)
		c := h.dial("127.0.0.1:80")
		if err := unix.Connect(c.fd, sockaddr(netip.MustParseAddrPort("127.0.0.1:80"), unix.AF_INET)); err != unix.EISCONN {
			t.Errorf("connect: %v", err)
		}
		closeBoth(c, l.accept())
		l.close()
	})
	r := readRecording(t, file)
	checkViews(t, file)
	var got []failure
	for _, e := range r.failed {
		got = append(got, failure{e.Remote.String(), e.Err})
		if e.Role != event.Client || e.OwnerPID != uint32(os.Getpid()) || e.OwnerVia != event.ViaConnect || e.Local.Port() != 0 || e.ISN != 0 || e.Reason == 0 {
			t.Errorf("got %+v", e)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for command, want := range map[string]string{
		"handshakes --summary": "(1 established, " + strconv.Itoa(len(want)) + " failed)", "stats": fmt.Sprintf("(connect)   → (failed)    %10d", len(want)),
		"conns": "no SYN was sent\n", "conns --timeline": ", no SYN was sent\n",
	} {
		if r := sstrace(t, "", append(strings.Fields(command), "-r", file)...); !strings.Contains(r.stdout, want) {
			t.Errorf("%s: no %q in\n%s%s", command, want, r.stdout, r.stderr)
		}
	}
}
