package main

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each leg of a handshake between two namespaces takes as long as the delay of the network between
// them. This is also true if the network forwards the SYN to another address (DNAT).
func TestHandshakeAcrossNamespaces(t *testing.T) {
	const delay = 20 * time.Millisecond
	const server = "10.0.0.2"
	for name, dialled := range map[string]string{"direct": server, "DNAT": "10.0.0.9"} {
		t.Run(name, func(t *testing.T) {
			var dnat *nat
			if dialled != server {
				dnat = &nat{netip.MustParseAddr(dialled), netip.MustParseAddr(server)}
			}
			here, there := newHost(t), newHost(t)
			join(t, here.newWire(), there.newWireOf([4]byte{10, 0, 0, 2}), delay, dnat)
			args := []string{"handshakes", "--netns", here.netns() + "," + there.netns()}
			got := ask[reportedHandshake](t, "handshake", args, func() {
				l := there.listen(server+":7781", 8)
				closeBoth(here.dial(dialled+":7781"), l.accept())
				s := here.socket(unix.AF_INET)
				if err := unix.Connect(s.fd, mustSockaddr(dialled+":7799")); err != unix.ECONNREFUSED {
					t.Errorf("connect: got %v, want %v", err, unix.ECONNREFUSED)
				}
				s.close()
				l.close()
			})
			if len(got) != 2 {
				t.Fatalf("got %+v, want 2 handshakes", got)
			}
			checkLegs(t, &got[0], delay)
			c, s := got[0].Client, got[0].Server
			if c.NetNS != here.inode || c.OwnerPID != os.Getpid() || c.Raddr.String() != dialled {
				t.Errorf("client: got %+v, want netns %d, owner %d, remote %s", *c, here.inode, os.Getpid(), dialled)
			}
			if s.NetNS != there.inode || s.OwnerPID != os.Getpid() || s.Laddr.String() != server {
				t.Errorf("server: got %+v, want netns %d, owner %d, local %s", *s, there.inode, os.Getpid(), server)
			}
			f := got[1]
			refused := f.State == "failed" && f.Reason != nil && *f.Reason == "refused" && f.Server == nil
			if !refused || f.Connect == nil || *f.Connect < 2*delay.Nanoseconds() {
				t.Errorf("got %+v, want a refused one after at least %v", f, 2*delay)
			}
		})
	}
}

// accepted reports whether h is an accepted handshake with both ends, paired by their sequence
// numbers.
func (h *reportedHandshake) accepted() bool {
	return h.State == "accepted" && h.Pairing != nil && *h.Pairing == "isn" && h.Client != nil && h.Server != nil &&
		h.Accept != nil
}

// checkLegs checks the legs of an accepted handshake over a network with a delay.
func checkLegs(t *testing.T, h *reportedHandshake, delay time.Duration) {
	t.Helper()
	if !h.accepted() {
		t.Fatalf("got %+v, want an accepted handshake with both ends", h)
	}
	for leg, ns := range map[string]*int64{"SYN": h.Syn, "SYN-ACK": h.SynAck, "ACK": h.Ack} {
		if ns == nil || *ns < delay.Nanoseconds() {
			t.Errorf("%s: got %v, want at least %v", leg, ns, delay)
		}
	}
	if *h.Connect != *h.Syn+*h.SynAck || *h.Serve != *h.SynAck+*h.Ack {
		t.Errorf("the legs do not add up: %+v", h)
	}
}

// cookies contains the cookies of both ends of a connection.
type cookies struct{ client, server uint64 }

// checkPairs compares handshakes with what the sockets themselves report. Each connection appears
// once, with its own two ends.
func checkPairs(t *testing.T, got []reportedHandshake, want map[[2]netip.AddrPort]cookies) {
	t.Helper()
	for _, h := range got {
		if h.Client == nil || h.Server == nil {
			t.Fatalf("got one end: %+v", h)
		}
		c, s := h.Client, h.Server
		key := [2]netip.AddrPort{netip.AddrPortFrom(c.Laddr, c.Lport), netip.AddrPortFrom(s.Laddr, s.Lport)}
		is, ok := want[key]
		delete(want, key)
		switch {
		case !ok:
			t.Errorf("%v is not a connection, or appears twice", key)
		case c.Laddr != s.Raddr || c.Lport != s.Rport || c.Raddr != s.Laddr || c.Rport != s.Lport:
			t.Errorf("%+v and %+v are not opposite", *c, *s)
		case c.Cookie != nil && (*c.Cookie != is.client || *s.Cookie != is.server):
			t.Errorf("%v: got cookies %d and %d, want %v", key, *c.Cookie, *s.Cookie, is)
		case !h.accepted() || h.Syn == nil || h.SynAck == nil || h.Ack == nil:
			t.Errorf("%v: got %+v, want an accepted handshake with all legs", key, h)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d connections are missing: %v", len(want), want)
	}
}

// Many simultaneous connections are all paired correctly.
func TestHandshakesInParallel(t *testing.T) {
	const connections, listeners, parallel = 1000, 4, 16
	h := newHost(t)
	want := make(map[[2]netip.AddrPort]cookies)
	got := ask[reportedHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 7781+i%listeners) }
		var ls [listeners]sock
		for i := range ls {
			ls[i] = h.listen(addr(i), connections)
		}
		var clients, servers [connections]sock
		for i := range clients {
			clients[i] = h.socket(unix.AF_INET)
		}
		var all sync.WaitGroup
		for n := range parallel {
			all.Go(func() {
				for i := n; i < connections; i += parallel {
					h.must("connect", unix.Connect(clients[i].fd, mustSockaddr(addr(i))))
				}
			})
		}
		for n := range listeners {
			all.Go(func() {
				for i := n; i < connections; i += listeners {
					servers[i] = ls[n].accept()
				}
			})
		}
		all.Wait()
		for _, s := range servers {
			local, remote, cookie := s.ends()
			want[[2]netip.AddrPort{remote, local}] = cookies{server: cookie}
		}
		for _, c := range clients {
			local, remote, cookie := c.ends()
			key := [2]netip.AddrPort{local, remote}
			want[key] = cookies{cookie, want[key].server}
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
	checkPairs(t, got, want)
}

// A port is reused repeatedly, by clients that succeed and by clients that fail. Each line still
// describes its own connection.
func TestHandshakesOfAReusedPort(t *testing.T) {
	const rounds = 100
	h := newHost(t)
	var want []cookies
	got := ask[reportedHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		for i := range rounds {
			if i%3 == 0 { // nobody is listening yet
				c := h.fixedPort()
				c.refused()
				c.close()
			}
			l := h.listen(loopbackAddr, 8)
			c := h.fixedPort()
			h.must("connect", unix.Connect(c.fd, mustSockaddr(loopbackAddr)))
			s := l.accept()
			_, _, client := c.ends()
			_, _, server := s.ends()
			want = append(want, cookies{client, server})
			c.reset()
			c.close()
			s.close()
			l.close()
		}
	})
	refused := 0
	for _, h := range got {
		if h.State == "failed" && h.Server == nil {
			refused++
			continue
		}
		if len(want) == 0 || h.Client == nil || h.Server == nil || h.State != "accepted" {
			t.Fatalf("got %+v, want an accepted handshake with both ends", h)
		}
		if h.Client.Cookie != nil && (*h.Client.Cookie != want[0].client || *h.Server.Cookie != want[0].server) {
			t.Errorf("got cookies %d and %d, want %v", *h.Client.Cookie, *h.Server.Cookie, want[0])
		}
		want = want[1:]
	}
	if len(want) != 0 || refused != (rounds+2)/3 {
		t.Errorf("got %d refused, want %d; %d are missing", refused, (rounds+2)/3, len(want))
	}
}

// With SYN cookies, the server's end appears only with the ACK, so the arrival time of the SYN is
// unknown.
func TestHandshakeWithSynCookies(t *testing.T) {
	h := newHost(t)
	h.sysctl("tcp_syncookies", "2") // always
	got := ask[reportedHandshake](t, "handshake", []string{"handshakes", "--netns", h.netns()}, func() {
		l, c, s := h.connection(loopbackAddr, loopbackAddr)
		closeBoth(c, s)
		l.close()
	})
	if len(got) != 1 || got[0].Client == nil || got[0].Server == nil || got[0].State != "accepted" {
		t.Fatalf("got %+v, want one accepted handshake with both ends", got)
	}
	if h := got[0]; h.Syn != nil || h.SynAck != nil || h.Serve != nil {
		t.Errorf("got %+v, want nothing known from before the ACK", h)
	} else if h.Connect == nil || h.Ack == nil || h.Accept == nil {
		t.Errorf("got %+v, want connect_ns, ack_ns and accept_ns", h)
	}
}

// Each end of a connection has its own line, in the order in which the ends close. Ends that are
// still open when the trace ends come last.
func TestConns(t *testing.T) {
	h := newHost(t)
	var open sock
	got := ask[reportedConn](t, "conn", []string{"conns", "--netns", h.netns()}, func() {
		l, c, s := h.connection(loopbackAddr, loopbackAddr)
		c.write("hello")
		s.read(5)
		closeBoth(c, s)
		h.quiet()
		open = h.dial(loopbackAddr)
		l.accept()
	})
	open.close()
	want := []reportedConn{
		{Role: "client", State: "TIME_WAIT"},
		{Role: "server", State: "CLOSE"},
		{Role: "client", State: "ESTABLISHED", Open: true},
		{Role: "server", State: "ESTABLISHED", Open: true},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i, c := range got {
		if c.Role != want[i].Role || c.State != want[i].State || c.Open != want[i].Open {
			t.Errorf("got %+v, want %+v", c, want[i])
		}
		if peer := got[i^1].ID; c.PeerID == nil || *c.PeerID != peer || c.OwnerPID != os.Getpid() {
			t.Errorf("got %+v, want peer %d, owner %d", c, peer, os.Getpid())
		}
		if !c.Open {
			checkLife(t, &c)
		}
	}
	// The SYN counts as sent. The FIN counts as sent and as received.
	if acked, received := got[0].Totals.Acked, got[1].Totals.Received; acked != 7 || received != 6 {
		t.Errorf("got %d bytes acknowledged, %d received, want 7 and 6", acked, received)
	}
}

// checkLife checks a connection that the client closed first. The times in its states add up to its
// lifetime.
func checkLife(t *testing.T, c *reportedConn) {
	t.Helper()
	sum := int64(0)
	for state, ns := range c.States {
		if ns == nil != (state == "TIME_WAIT") {
			t.Errorf("time in %s: got %v", state, ns)
		} else if ns != nil {
			sum += *ns
		}
	}
	if c.Life == nil || *c.Life != sum {
		t.Errorf("got %+v, want life_ns %d, the sum of its states", c, sum)
	}
	if c.Active == nil || *c.Active != (c.Role == "client") || c.Totals == nil {
		t.Errorf("got %+v, want active_close of the client only, and totals", c)
	}
}
