package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// ask runs a command of sstrace around traffic, in NDJSON, and gives its lines of these types. Each line is held against the schema.
func ask[T any](t *testing.T, kind string, args []string, traffic func()) (told []T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "told.ndjson")
	cmd := self("sstrace", append(args, "-o", "ndjson", "-w", file, "--", "sh", "-c", "echo attached; read _")...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "attached\n" {
		_ = cmd.Wait()
		t.Fatalf("sstrace %q did not attach: %q, %v: %s", args, line, err, &stderr)
	}
	traffic()
	stdin.Close()
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait() // `read` fails at the end of file
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return linesOf[T](t, kind, string(text))
}

// answers runs a command of sstrace in NDJSON to its end, and gives its lines of these types.
func answers[T any](t *testing.T, kind string, args ...string) []T {
	t.Helper()
	r := sstrace(t, "", append(args, "-o", "ndjson")...)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	return linesOf[T](t, kind, r.stdout)
}

// linesOf gives the lines of these types in text, each of which is held against the schema.
func linesOf[T any](t *testing.T, kind, text string) (told []T) {
	t.Helper()
	schema := ndjsonSchema(t)
	last, seq := "", 0
	for line := range strings.Lines(text) {
		var head struct {
			Type string
			Seq  int
		}
		checkJSON(t, schema, line)
		if err := json.Unmarshal([]byte(line), &head); err != nil {
			t.Fatal(err)
		}
		if seq++; head.Seq != seq {
			t.Fatalf("seq %d where %d is next", head.Seq, seq)
		}
		last = head.Type
		if head.Type == "lost" {
			t.Fatalf("changes were lost: %s", line)
		}
		if head.Type != kind {
			continue
		}
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		told = append(told, v)
	}
	if last != "end" {
		t.Errorf("the last line is %q", last)
	}
	return told
}

// toldEnd and toldHandshake are lines of `sstrace handshakes`.
type toldEnd struct {
	Cookie       *uint64
	NetNS        uint64
	Laddr, Raddr netip.Addr
	Lport, Rport uint16
	SynRetrans   *int `json:"syn_retrans"`
	OwnerPID     int  `json:"owner_pid"`
}

type toldHandshake struct {
	State          string
	Pairing        *string
	Defer          *int64 `json:"defer_ns"`
	NoSyn          bool   `json:"no_syn"`
	Syn            *int64 `json:"syn_ns"`
	SynAck         *int64 `json:"synack_ns"`
	Ack            *int64 `json:"ack_ns"`
	Accept         *int64 `json:"accept_ns"`
	Connect        *int64 `json:"connect_ns"`
	Serve          *int64 `json:"server_ns"`
	Reason         *string
	Client, Server *toldEnd
}

// join forwards all packets between two wires, each after a delay. If alias is valid, all that a sends goes to that address, and comes to b's
// (DNAT).
func join(t *testing.T, a, b *wire, delay time.Duration, alias, to netip.Addr) {
	type packet struct {
		data []byte
		due  time.Time
	}
	over := make(chan struct{})
	var all sync.WaitGroup
	t.Cleanup(func() {
		close(over)
		all.Wait()
	})
	forward := func(from, to *wire, at int, old, new netip.Addr) {
		underway := make(chan packet, 1000)
		all.Go(func() {
			defer close(underway)
			for buf := make([]byte, 65536); ; {
				select {
				case <-over:
					return
				default:
				}
				n, err := unix.Read(from.fd, buf)
				if err != nil {
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(from.fd), Events: unix.POLLIN}}, 10)
					continue
				}
				p := bytes.Clone(buf[:n])
				if alias.IsValid() && p[0] == 0x45 && p[9] == unix.IPPROTO_TCP && [4]byte(p[at:]) == old.As4() {
					readdress(p, at, new)
				}
				underway <- packet{p, time.Now().Add(delay)}
			}
		})
		all.Go(func() {
			for p := range underway {
				time.Sleep(time.Until(p.due)) // the network's
				_, _ = unix.Write(to.fd, p.data)
			}
		})
	}
	const source, destination = 12, 16
	forward(a, b, destination, alias, to)
	forward(b, a, source, to, alias)
}

// readdress gives an IPv4 packet another address at offset at.
func readdress(p []byte, at int, addr netip.Addr) {
	copy(p[at:], addr.AsSlice())
	copy(p[10:], []byte{0, 0})
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20], 0))
	tcp := p[20:]
	copy(tcp[16:], []byte{0, 0})
	even := append(bytes.Clone(tcp), 0)[:len(tcp)+len(tcp)%2]
	pseudo := append(bytes.Clone(p[12:20]), 0, unix.IPPROTO_TCP, byte(len(tcp)>>8), byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, even...), 0))
}

// Across two namespaces with a network between them: the delay is on each of the legs; also when the network sends the SYN on to another address.
func TestHandshakeAcrossNamespaces(t *testing.T) {
	const delay = 20 * time.Millisecond
	for name, dialled := range map[string]string{"direct": "10.0.0.2", "DNAT": "10.0.0.9"} {
		t.Run(name, func(t *testing.T) {
			var alias netip.Addr
			if name == "DNAT" {
				alias = netip.MustParseAddr(dialled)
			}
			here, there := newHost(t), newHost(t)
			join(t, here.newWire(), there.newWireOf([4]byte{10, 0, 0, 2}), delay, alias, netip.MustParseAddr("10.0.0.2"))
			told := ask[toldHandshake](t, "handshake", []string{"handshakes", "--netns", here.netns() + "," + there.netns()}, func() {
				l := there.listen("10.0.0.2:7781", 8)
				c := here.dial(dialled + ":7781")
				s := l.accept()
				closeBoth(c, s)
				s = here.socket(unix.AF_INET)
				if err := unix.Connect(s.fd, sockaddr(netip.MustParseAddrPort(dialled+":7799"), unix.AF_INET)); err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
				s.close()
				l.close()
			})
			if len(told) != 2 || told[0].State != "accepted" || told[0].Pairing == nil || *told[0].Pairing != "isn" || told[0].Client == nil || told[0].Server == nil {
				t.Fatalf("got %+v", told)
			}
			h := told[0]
			if h.Client.NetNS != here.inode || h.Server.NetNS != there.inode || h.Client.OwnerPID != os.Getpid() || h.Server.OwnerPID != os.Getpid() ||
				h.Client.Raddr.String() != dialled || h.Server.Laddr.String() != "10.0.0.2" {
				t.Errorf("client %+v, server %+v", *h.Client, *h.Server)
			}
			for leg, ns := range map[string]*int64{"SYN": h.Syn, "SYN-ACK": h.SynAck, "ACK": h.Ack} {
				if ns == nil || *ns < delay.Nanoseconds() {
					t.Errorf("the %s took %v, want %v or more", leg, ns, delay)
				}
			}
			if h.Accept == nil || *h.Connect != *h.Syn+*h.SynAck || *h.Serve != *h.SynAck+*h.Ack {
				t.Errorf("the legs do not add up: %+v", h)
			}
			if f := told[1]; f.State != "failed" || f.Reason == nil || *f.Reason != "refused" || f.Server != nil || f.Connect == nil || *f.Connect < 2*delay.Nanoseconds() {
				t.Errorf("refused: %+v", f)
			}
		})
	}
}

// both is what the test itself knows of one connection.
type both struct{ client, server uint64 }

// ends gives the two ends of a socket, and its cookie.
func (s sock) ends() (local, remote netip.AddrPort, cookie uint64) {
	get := func(sa unix.Sockaddr, err error) netip.AddrPort {
		s.h.must("name", err)
		a, ok := sa.(*unix.SockaddrInet4)
		if !ok {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	}
	cookie, err := unix.GetsockoptUint64(s.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	s.h.must("cookie", err)
	return get(unix.Getsockname(s.fd)), get(unix.Getpeername(s.fd)), cookie
}

// checkPairs holds what was told against what the sockets said: each connection once, with its own two ends.
func checkPairs(t *testing.T, told []toldHandshake, want map[[2]netip.AddrPort]both) {
	t.Helper()
	for _, h := range told {
		if h.Client == nil || h.Server == nil {
			t.Fatalf("an end alone: %+v", h)
		}
		c, s := h.Client, h.Server
		key := [2]netip.AddrPort{netip.AddrPortFrom(c.Laddr, c.Lport), netip.AddrPortFrom(s.Laddr, s.Lport)}
		is, ok := want[key]
		delete(want, key)
		switch {
		case !ok:
			t.Errorf("%v is no connection, or told twice", key)
		case c.Laddr != s.Raddr || c.Lport != s.Rport || c.Raddr != s.Laddr || c.Rport != s.Lport:
			t.Errorf("%+v and %+v are not opposite", *c, *s)
		case c.Cookie != nil && (*c.Cookie != is.client || *s.Cookie != is.server):
			t.Errorf("%v are the sockets %d and %d, want %v", key, *c.Cookie, *s.Cookie, is)
		case h.State != "accepted" || h.Pairing == nil || *h.Pairing != "isn" || h.Syn == nil || h.SynAck == nil || h.Ack == nil || h.Accept == nil:
			t.Errorf("%v: %+v", key, h)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d connections were not told: %v", len(want), want)
	}
}

// Many connections at the same time pair without one mistake.
func TestHandshakesInParallel(t *testing.T) {
	const connections, listeners, parallel = 1000, 4, 16
	h := newHost(t)
	want := make(map[[2]netip.AddrPort]both)
	told := ask[toldHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		var ls [listeners]sock
		for i := range ls {
			ls[i] = h.listen("127.0.0.1:778"+string(rune('1'+i)), connections)
		}
		var clients [connections]sock
		for i := range clients {
			clients[i] = h.socket(unix.AF_INET)
		}
		var all sync.WaitGroup
		for n := range parallel {
			all.Go(func() {
				for i := n; i < connections; i += parallel {
					to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(7781+i%listeners))
					h.must("connect", unix.Connect(clients[i].fd, sockaddr(to, unix.AF_INET)))
				}
			})
		}
		var servers [connections]sock
		for n := range listeners {
			all.Go(func() {
				for i := n; i < connections; i += listeners {
					servers[i] = ls[n].accept()
				}
			})
		}
		all.Wait()
		cookies := make(map[[2]netip.AddrPort]uint64)
		for _, s := range servers {
			local, remote, cookie := s.ends()
			cookies[[2]netip.AddrPort{remote, local}] = cookie
		}
		for _, c := range clients {
			local, remote, cookie := c.ends()
			key := [2]netip.AddrPort{local, remote}
			want[key] = both{cookie, cookies[key]}
		}
		for i := range clients {
			clients[i].reset()
			clients[i].close()
			servers[i].close()
		}
		for _, l := range ls {
			l.close()
		}
	})
	checkPairs(t, told, want)
}

// One port, used again and again by clients that succeed and by some that do not, and each line is about its own.
func TestHandshakesOfAReusedPort(t *testing.T) {
	const rounds = 100
	h := newHost(t)
	to := netip.MustParseAddrPort("127.0.0.1:7781")
	from := sockaddr(netip.MustParseAddrPort("127.0.0.1:40602"), unix.AF_INET)
	var want []both
	told := ask[toldHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		bound := func() sock {
			c := h.socket(unix.AF_INET)
			h.must("reuse", unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			h.must("bind", unix.Bind(c.fd, from))
			return c
		}
		for i := range rounds {
			if i%3 == 0 { // nobody listens yet
				c := bound()
				if err := unix.Connect(c.fd, sockaddr(to, unix.AF_INET)); err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
				c.close()
			}
			l := h.listen(to.String(), 8)
			c := bound()
			h.must("connect", unix.Connect(c.fd, sockaddr(to, unix.AF_INET)))
			s := l.accept()
			_, _, client := c.ends()
			_, _, server := s.ends()
			want = append(want, both{client, server})
			c.reset()
			c.close()
			s.close()
			l.close()
		}
	})
	refused := 0
	for _, h := range told {
		if h.State == "failed" && h.Server == nil {
			refused++
			continue
		}
		if len(want) == 0 || h.Client == nil || h.Server == nil || h.State != "accepted" {
			t.Fatalf("got %+v", h)
		}
		if h.Client.Cookie != nil && (*h.Client.Cookie != want[0].client || *h.Server.Cookie != want[0].server) {
			t.Errorf("the sockets %d and %d, want %v", *h.Client.Cookie, *h.Server.Cookie, want[0])
		}
		want = want[1:]
	}
	if len(want) != 0 || refused != (rounds+2)/3 {
		t.Errorf("%d were not told, and %d were refused, want %d", len(want), refused, (rounds+2)/3)
	}
}

// SYN cookies: the server's end appears with the ACK, so when the SYN arrived is not known.
func TestHandshakeWithSynCookies(t *testing.T) {
	h := newHost(t)
	h.sysctl("tcp_syncookies", "2") // always
	told := ask[toldHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		l, c, s := h.connection("127.0.0.1:7781", "127.0.0.1:7781")
		closeBoth(c, s)
		l.close()
	})
	if len(told) != 1 || told[0].Client == nil || told[0].Server == nil {
		t.Fatalf("got %+v", told)
	}
	if h := told[0]; h.State != "accepted" || h.Syn != nil || h.SynAck != nil || h.Serve != nil || h.Connect == nil || h.Ack == nil || h.Accept == nil {
		t.Errorf("got %+v", h)
	}
}

// toldConn is a line of `sstrace conns`.
type toldConn struct {
	ID       uint64
	PeerID   *uint64 `json:"peer_id"`
	Role     string
	State    string
	Open     bool
	Life     *int64 `json:"life_ns"`
	States   map[string]*int64
	Active   *bool `json:"active_close"`
	OwnerPID int   `json:"owner_pid"`
	Totals   *struct {
		Acked    int `json:"bytes_acked"`
		Received int `json:"bytes_received"`
	}
}

// Both ends of a connection are a line each, in the order in which they end; what is open at the end of the run comes last.
func TestConns(t *testing.T) {
	h := newHost(t)
	var open sock
	told := ask[toldConn](t, "conn", []string{"conns", "--netns", h.netns()}, func() {
		l, c, s := h.connection("127.0.0.1:7781", "127.0.0.1:7781")
		c.write("hello")
		s.read(5)
		closeBoth(c, s)
		h.quiet()
		open = h.dial("127.0.0.1:7781")
		l.accept()
	})
	open.close()
	if len(told) != 4 {
		t.Fatalf("got %+v", told)
	}
	for i, want := range []toldConn{
		{Role: "client", State: event.TimeWait.String()}, {Role: "server", State: event.Close.String()},
		{Role: "client", State: event.Established.String(), Open: true}, {Role: "server", State: event.Established.String(), Open: true},
	} {
		got := told[i]
		if got.Role != want.Role || got.State != want.State || got.Open != want.Open || got.OwnerPID != os.Getpid() || got.PeerID == nil || *got.PeerID != told[i^1].ID {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got.Open {
			continue
		}
		sum := int64(0)
		for state, ns := range got.States {
			if ns == nil != (state == "TIME_WAIT") {
				t.Errorf("time in %s: %v", state, ns)
			} else if ns != nil {
				sum += *ns
			}
		}
		if got.Life == nil || *got.Life != sum || got.Active == nil || *got.Active != (got.Role == "client") || got.Totals == nil {
			t.Errorf("%d ns in its states: %+v", sum, got)
		}
	}
	if told[0].Totals.Acked != 7 || told[1].Totals.Received != 6 { // SYN and FIN
		t.Errorf("sent %d, received %d", told[0].Totals.Acked, told[1].Totals.Received)
	}
}
