package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// link is one of several networks of a host. The test is at the other end of the link, as with a
// wire. Two links may have the same addresses.
type link struct {
	h     *host
	fd    int
	name  string
	index uint32
}

// newLink makes a TUN device. addrs are the host's addresses on it, such as "10.0.0.1/8" and
// "fe80::1/64".
func (h *host) newLink(name string, addrs ...string) *link {
	l := &link{h: h, name: name}
	h.do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		h.must("open /dev/net/tun", err)
		l.fd = fd
		dev, err := unix.NewIfreq(name)
		h.must("name", err)
		dev.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		h.must("make a TUN device", unix.IoctlIfreq(fd, unix.TUNSETIFF, dev))
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		h.must("socket", err)
		defer unix.Close(s)
		h.must("index", unix.IoctlIfreq(s, unix.SIOCGIFINDEX, dev))
		l.index = dev.Uint32()
		h.must("write", os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0))
	})
	h.t.Cleanup(func() { _ = unix.Close(l.fd) })
	h.run(nil, "ip", "link", "set", name, "addrgenmode", "none", "up")
	for _, a := range addrs {
		h.run(nil, "ip", "addr", "add", a, "dev", name, "nodad")
	}
	return l
}

// send sends a segment over the link to the host.
func (l *link) send(s segment) { (&wire{l.h, l.fd}).send(s) }

// packet waits until the host sends a packet whose segment has these flags. It ignores all others.
func (l *link) packet(flags byte) (p []byte) {
	l.h.t.Helper()
	await(l.h.t, "a segment of the host", func() bool {
		buf := make([]byte, 65536)
		n, err := unix.Read(l.fd, buf)
		if err != nil || n < 40 {
			return false
		}
		p = buf[:n]
		s, ok := parse(p)
		return ok && s.flags&flags == flags
	})
	return p
}

// receive waits for a packet, as packet does, and returns its segment.
func (l *link) receive(flags byte) segment {
	l.h.t.Helper()
	s, _ := parse(l.packet(flags))
	return s
}

// forward waits for a segment with these flags and sends it unchanged to another host's link.
func (l *link) forward(to *link, flags byte) {
	_, err := unix.Write(to.fd, l.packet(flags))
	l.h.must("forward", err)
}

// dialFrom starts to connect a socket that is bound to an address, and to a device unless device is
// "".
func (h *host) dialFrom(from, to, device string) sock {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	s := h.socket(family(a))
	h.must("reuse", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if device != "" {
		h.must("bind to a device", unix.SetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device))
	}
	h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
	h.must("nonblock", unix.SetNonblock(s.fd, true))
	if err := unix.Connect(s.fd, sockaddr(b, family(b))); err != unix.EINPROGRESS {
		h.t.Errorf("connect: %v", err)
	}
	return s
}

// Two networks have the same addresses. In one of them, a client sends a SYN that nobody answers.
// In the other one, a server has a client on another host. The two are not a connection, whether
// their addresses match or look like DNAT.
func TestOverlappingNetworks(t *testing.T) {
	for _, test := range []struct{ name, client, dialled, server, here, there string }{
		{"the same addresses", "10.0.0.1:40602", "10.0.0.2:7781", "10.0.0.2:7781", "10.0.0.1/24", "10.0.0.2/24"},
		{"as by DNAT", "10.0.0.1:40602", "10.0.0.9:80", "10.0.0.2:7781", "10.0.0.1/24", "10.0.0.2/24"},
		{"the same addresses, IPv6", "[fd00::1]:40602", "[fd00::2]:7781", "[fd00::2]:7781", "fd00::1/64", "fd00::2/64"},
		{"as by DNAT, IPv6", "[fd00::1]:40602", "[fd00::9]:80", "[fd00::2]:7781", "fd00::1/64", "fd00::2/64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := newHost(t), newHost(t)
			here, there := a.newLink("here", test.here), b.newLink("there", test.there)
			var open sock // until the run has ended
			traffic := func() {
				l := b.listen(test.server, 8)
				open = a.dialFrom(test.client, test.dialled, "")
				isn := here.receive(syn).seq
				there.send(segment{from: netip.MustParseAddrPort(test.client), to: netip.MustParseAddrPort(test.server), flags: syn, seq: isn + 1000})
				there.send(there.receive(syn | ack).reply(ack))
				s := l.accept()
				s.reset()
				s.close()
				l.close()
			}
			reported := ask[reportedHandshake](t, "handshake", []string{"handshakes", "--netns", a.netns() + "," + b.netns()}, traffic)
			open.close()
			if len(reported) != 2 {
				t.Fatalf("got %+v", reported)
			}
			for _, h := range reported {
				if h.Pairing != nil || (h.Client == nil) == (h.Server == nil) || h.Syn != nil || h.SynAck != nil || h.Ack != nil {
					t.Errorf("got %+v", h)
				}
				if h.Client != nil && h.State != "open" || h.Server != nil && (h.State != "accepted" || h.Serve == nil) {
					t.Errorf("got %+v", h)
				}
			}
			for _, c := range ask[reportedConn](t, "conn", []string{"conns", "--netns", a.netns() + "," + b.netns()}, traffic) {
				if c.PeerID != nil {
					t.Errorf("got %+v", c)
				}
			}
			open.close()
		})
	}
}

// The SYN's leg is known even if the handshake does not continue. A leg that never arrived is not
// reported.
func TestLegsThatCame(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { legsThatCame(t, "10.0.0.1", "10.0.0.2", "/24") })
	t.Run("IPv6", func(t *testing.T) { legsThatCame(t, "fd00::1", "fd00::2", "/64") })
}

func legsThatCame(t *testing.T, client, server, prefix string) {
	to := net.JoinHostPort(server, "7781")
	a, b := newHost(t), newHost(t)
	here, there := a.newLink("here", client+prefix), b.newLink("there", server+prefix)
	var open sock
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	around(t, []string{"-o", "ndjson", "-w", file, "--netns", a.netns() + "," + b.netns()}, func() {
		l := b.listen(to, 8)
		for _, port := range []string{"40601", "40602"} {
			open = a.dialFrom(net.JoinHostPort(client, port), to, "")
			here.forward(there, syn)
			there.receive(syn | ack) // and the handshake does not continue
			if port == "40601" {
				open.close()
			}
		}
		_ = l
	})
	checkViews(t, file)
	r := sstrace(t, "", "handshakes", "-r", file)
	var lines []string
	for line := range strings.Lines(r.stdout) {
		if strings.Contains(line, ":4060") {
			lines = append(lines, strings.Join(strings.Fields(line)[1:], " "))
		}
	}
	if len(lines) != 2 || strings.Contains(r.stdout, "├") {
		t.Fatalf("got %s%s", r.stdout, r.stderr)
	}
	for i, end := range []string{"given_up", "open"} {
		f := strings.Fields(lines[i])
		if f[0] == "-" || f[1] != "-" || f[2] != "-" || f[3] != "-" || !strings.HasSuffix(lines[i], end) || (i == 0) != strings.Contains(lines[i], " failed after ") {
			t.Errorf("got %q", lines[i])
		}
	}
	open.close()
}

// The same four-tuple exists twice in one namespace, on two links. Each connection has its own id,
// time, device, and peer.
func TestSameTupleOnTwoLinks(t *testing.T) {
	for _, test := range []struct{ name, on, host, peer, prefix string }{
		{"link-local", "[::]:7781", "[fe80::1]:7781", "[fe80::2]:40602", "fe80::1/64"},
		{"bound listeners", "10.0.0.1:7781", "10.0.0.1:7781", "10.0.0.2:40602", "10.0.0.1/24"},
		{"bound listeners, IPv6", "[fd00::1]:7781", "[fd00::1]:7781", "[fd00::2]:40602", "fd00::1/64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			h.do(func() { h.must("rp_filter", os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0)) })
			links := []*link{h.newLink("link0", test.prefix), h.newLink("link1", test.prefix)}
			at, peer := netip.MustParseAddrPort(test.host), netip.MustParseAddrPort(test.peer)
			wildcard := test.on != test.host
			file := filepath.Join(t.TempDir(), "trace.ndjson")
			around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns()}, func() {
				onTwoLinks(t, h, links, netip.MustParseAddrPort(test.on), at, peer)
			})
			r := readRecording(t, file)
			checkPaths(t, &r)
			checkViews(t, file)
			handshake := make(map[uint32]int64)
			ids := make(map[uint64]uint32)
			for _, e := range r.changes {
				if e.Role != event.Server {
					continue
				}
				i := slices.IndexFunc(links, func(l *link) bool { return l.index == e.IfIndex })
				if i < 0 || e.IfName != links[i].name || e.Local != at || e.Remote != peer {
					t.Fatalf("got %+v", e)
				}
				if other, ok := ids[e.ID]; ok && other != e.IfIndex {
					t.Errorf("id %d is on two devices", e.ID)
				}
				ids[e.ID] = e.IfIndex
				if e.Old == event.Listen && e.ISN != uint32(1000*(1+i)) {
					t.Errorf("the initial sequence number is %d: %+v", e.ISN, e)
				}
				if e.Old == event.SynRecv {
					handshake[e.IfIndex] = e.Dur
				}
			}
			if len(ids) != 2 || len(handshake) != 2 || handshake[links[0].index] <= handshake[links[1].index] {
				t.Errorf("%d connections, whose handshakes took %v", len(ids), handshake)
			}
			paths := slices.DeleteFunc(r.paths(), func(p string) bool { return !strings.HasPrefix(p, "server") })
			if want := []string{"server LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"}; !slices.Equal(paths, want) {
				t.Errorf("got %q, want %q", paths, want)
			}
			if wildcard {
				for _, command := range [][]string{nil, {"-o", "wide"}, {"handshakes"}, {"conns"}, {"conns", "--timeline"}} {
					text := sstrace(t, "", append(command, "-r", file)...).stdout
					for _, want := range []string{"[fe80::1%link0]:7781", "[fe80::2%link0]:40602", "[fe80::1%link1]:7781", "[fe80::2%link1]:40602"} {
						if !strings.Contains(text, want) {
							t.Errorf("%v: no %s in\n%s", command, want, text)
						}
					}
				}
			} else if text := sstrace(t, "", "-o", "wide", "-r", file).stdout; !strings.Contains(text, "1%link1:7781 ") && !strings.Contains(text, "1%link1]:7781 ") {
				t.Errorf("got %s", text)
			}
		})
	}
}

// onTwoLinks connects peer to the listener on each of the links. The first handshake takes longer,
// and the second connection ends first. Listeners are bound to a device unless they listen on
// another address than at.
func onTwoLinks(t *testing.T, h *host, links []*link, on, at, peer netip.AddrPort) {
	var listeners []sock
	for i, l := range links {
		if on != at && i > 0 { // one listener is enough
			listeners = append(listeners, listeners[0])
			continue
		}
		s := h.socket(family(at))
		h.must("reuse", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		if on == at {
			h.must("bind to a device", unix.SetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, l.name))
		}
		h.must("bind", unix.Bind(s.fd, sockaddr(on, family(on))))
		h.must("listen", unix.Listen(s.fd, 8))
		listeners = append(listeners, s)
	}
	var answers []segment
	for i, l := range links {
		l.send(segment{from: peer, to: at, flags: syn, seq: uint32(1000 * (1 + i))})
		answers = append(answers, l.receive(syn|ack))
	}
	checkDevices(t, h, links, event.SynRecv)
	var socks [2]sock
	for _, i := range []int{1, 0} { // the first handshake is the longer one
		links[i].send(answers[i].reply(ack))
		socks[i] = listeners[i].accept()
	}
	socks[1].reset()
	socks[1].close()
	socks[0].shutdown(unix.SHUT_WR) // this one enters TIME_WAIT
	links[0].send(links[0].receive(fin | ack).reply(fin | ack))
	socks[0].reach(unix.BPF_TCP_CLOSE)
	socks[0].close()
}

// checkDevices checks that ls and leaks show one socket in this state on each of the links.
func checkDevices(t *testing.T, h *host, links []*link, state event.State) {
	t.Helper()
	devices := func(lines []line) (all []string) {
		for _, l := range lines {
			all = append(all, fmt.Sprint(l["state"], " ", l["ifname"], " ", l["ifindex"]))
		}
		slices.Sort(all)
		return all
	}
	var want []string
	for _, l := range links {
		want = append(want, fmt.Sprint(state, " ", l.name, " ", l.index))
	}
	if got := devices(answers[line](t, "socket", "ls", "--netns", h.netns(), "--state", state.String())); !slices.Equal(got, want) {
		t.Errorf("ls: got %q, want %q", got, want)
	}
	var got []string
	await(t, "both to be stuck", func() bool { // an age is only as exact as a jiffy
		r := sstrace(t, "", "leaks", "--once", "--older", state.String()+"=1ns", "--netns", h.netns(), "--state", state.String(), "-o", "ndjson")
		got = devices(linesOf[line](t, "leak", r.stdout))
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Errorf("leaks: got %q, want %q", got, want)
	}
}

// Two clients with the same addresses are each bound to a device.
func TestSameTupleFromTwoDevices(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { sameTupleFromTwoDevices(t, "10.0.0.1", "10.0.0.2", "/24") })
	t.Run("IPv6", func(t *testing.T) { sameTupleFromTwoDevices(t, "fd00::1", "fd00::2", "/64") })
}

func sameTupleFromTwoDevices(t *testing.T, host, peer, prefix string) {
	h := newHost(t)
	h.do(func() { h.must("rp_filter", os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0)) })
	links := []*link{h.newLink("link0", host+prefix), h.newLink("link1", host+prefix)}
	var isns []uint32
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		var socks []sock
		for _, l := range links {
			socks = append(socks, h.dialFrom(net.JoinHostPort(host, "40602"), net.JoinHostPort(peer, "7781"), l.name))
		}
		checkDevices(t, h, links, event.SynSent)
		var answers []segment
		for _, l := range links {
			s := l.receive(syn)
			isns = append(isns, s.seq)
			s.ack = 5000
			answers = append(answers, s)
		}
		for i, l := range links {
			l.send(answers[i].reply(syn | ack))
			socks[i].reach(unix.BPF_TCP_ESTABLISHED)
		}
		for _, s := range socks {
			s.reset()
			s.close()
		}
	})
	checkViews(t, r.file)
	if got, path := r.paths(), "client CLOSE SYN_SENT ESTABLISHED CLOSE (reset_sent_linger)"; !slices.Equal(got, []string{path, path}) {
		t.Errorf("got %q", got)
	}
	for _, e := range r.changes {
		i := slices.IndexFunc(links, func(l *link) bool { return l.index == e.IfIndex })
		// On a busy host, the first line may have to be printed without the number. The next line
		// has it.
		unknown := e.New == event.SynSent && e.ISN == 0
		if i < 0 || e.IfName != links[i].name || (e.New == event.SynSent || e.New == event.Established) && e.ISN != isns[i] && !unknown {
			t.Errorf("initial sequence numbers %d, got %+v", isns, e)
		}
	}
}

// If the listener waits for data, the ACK's leg ends when the ACK arrives. The wait for data is
// reported separately.
func TestDeferredAccept(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		for _, end := range []string{"data", "FIN"} {
			t.Run(addr+" "+end, func(t *testing.T) {
				h := newHost(t)
				file := filepath.Join(t.TempDir(), "trace.ndjson")
				var acked, more int64
				around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns()}, func() {
					l := h.listen(addr, 8)
					h.must("defer", unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60))
					before := h.netstat("TCPDeferAcceptDrop")
					c := h.dial(addr)
					await(t, "the ACK", func() bool { return h.netstat("TCPDeferAcceptDrop") != before })
					acked, more = monotonic(), monotonic()
					if end == "data" {
						c.write("x")
					} else {
						c.shutdown(unix.SHUT_WR)
					}
					s := l.accept()
					c.close()
					s.close()
					l.close()
				})
				r := readRecording(t, file)
				checkViews(t, file)
				var left *event.Event
				for i := range r.changes {
					if e := &r.changes[i]; e.Old == event.SynRecv {
						left = e
					} else if e.Deferred != 0 {
						t.Errorf("got %+v", *e)
					}
				}
				if left == nil || left.New != event.Established || left.Deferred <= more-acked || left.Mono-left.Deferred > acked {
					t.Fatalf("the ACK arrived at %d, %s arrived after %d; got %+v", acked, end, more, left)
				}
				reported := answers[reportedHandshake](t, "handshake", "handshakes", "-r", file)
				if len(reported) != 1 || reported[0].State != "accepted" || reported[0].Pairing == nil || *reported[0].Pairing != "isn" || reported[0].Defer == nil {
					t.Fatalf("got %+v", reported)
				}
				if h := reported[0]; *h.Defer != left.Deferred || *h.Serve+*h.Defer != left.Dur || h.Ack == nil || *h.Connect != *h.Syn+*h.SynAck || *h.Serve != *h.SynAck+*h.Ack {
					t.Errorf("%+v of %+v", h, *left)
				}
				text := sstrace(t, "", "conns", "--timeline", "-r", file).stdout
				arrow := map[string]string{"data": " data ─", "FIN": " data or FIN ─"}[end]
				if ack, data := strings.Index(text, "▶ (waiting for data)\n"), strings.Index(text, arrow); ack < 0 || data < ack {
					t.Errorf("got\n%s", text)
				}
			})
		}
	}
}

// A deferred handshake that never receives data fails, although its ACK had arrived.
func TestDeferredAcceptWithoutData(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			p := newEndpoint(t, family)
			p.h.sysctl("tcp_synack_retries", "1")
			r := trace(t, []string{"--states", "rfc", "--netns", p.h.netns()}, func() {
				p.do("listen")
				p.h.must("defer", unix.SetsockoptInt(p.l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1))
				p.do("SYN in, ACK in")
				p.awaitEnd()
				p.l.close()
			})
			checkViews(t, r.file)
			reported := answers[reportedHandshake](t, "handshake", "handshakes", "-r", r.file)
			if len(reported) != 1 || reported[0].State != "failed" || reported[0].Defer == nil || reported[0].Serve == nil {
				t.Fatalf("got %+v", reported)
			}
		})
	}
}
