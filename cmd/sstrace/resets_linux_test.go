package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// bothEnds is a connection over a road. One of its ends resets it, or both do.
type bothEnds struct {
	name    string
	traffic func(r *road, c, s sock)
	// closes contains c if the client's end is closed after the traffic, and s if the server's end
	// is closed when everything is over.
	closes string
	// The state that each end was in, and the reason why it ended.
	client, server string
}

var bothEndsTests = []bothEnds{
	{
		"SO_LINGER 0",
		func(_ *road, c, _ sock) { c.reset() },
		"cs", "ESTABLISHED reset_sent_linger", "ESTABLISHED reset_by_peer",
	},
	{
		"unread data",
		func(_ *road, c, s sock) {
			s.write("unread")
			c.awaitData()
		},
		"cs", "ESTABLISHED reset_sent_unread", "ESTABLISHED reset_by_peer",
	},
	{
		"unread data in FIN_WAIT2",
		func(_ *road, c, s sock) {
			c.shutdown(unix.SHUT_WR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("unread")
			c.awaitData()
		},
		"cs", "FIN_WAIT2 reset_sent_unread", "CLOSE_WAIT reset_by_peer",
	},
	{
		"unread data at the other end of FIN_WAIT2",
		func(_ *road, c, s sock) {
			c.write("unread")
			s.awaitData()
			c.shutdown(unix.SHUT_RDWR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
		},
		"c", "FIN_WAIT2 reset_by_peer", "CLOSE_WAIT reset_sent_unread",
	},
	{
		"data after shutdown(SHUT_RDWR)",
		func(_ *road, c, s sock) {
			c.shutdown(unix.SHUT_RDWR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
			c.reach(unix.BPF_TCP_CLOSE)
		},
		"cs", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer",
	},
	{
		"data after close()",
		func(_ *road, c, s sock) {
			c.close()
			c.h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
		},
		"s", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer",
	},
	{
		"data after close(), long TCP_LINGER2",
		func(_ *road, c, s sock) {
			c.option(unix.IPPROTO_TCP, tcpLinger2, 70)
			c.close()
			c.h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
		},
		"s", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer",
	},
	{
		"TCP_LINGER2 -1",
		func(_ *road, c, _ sock) { c.option(unix.IPPROTO_TCP, tcpLinger2, -1) },
		"cs", "FIN_WAIT2 reset_sent_linger2", "CLOSE_WAIT reset_by_peer",
	},
	{
		"data and shutdown(SHUT_RDWR) cross",
		func(r *road, c, s sock) {
			r.hold(clientEnd, true)
			c.shutdown(unix.SHUT_RDWR)
			s.write("crosses the FIN")
			c.reach(unix.BPF_TCP_CLOSE)
			r.hold(clientEnd, false)
		},
		"cs", "FIN_WAIT1 reset_sent_late_data", "CLOSE_WAIT reset_by_peer",
	},
	{
		"data and close() cross",
		func(r *road, c, s sock) {
			r.hold(clientEnd, true)
			c.close()
			s.write("crosses the FIN")
			c.h.awaitStates(0, unix.BPF_TCP_FIN_WAIT1)
			r.hold(clientEnd, false)
		},
		"s", "FIN_WAIT1 reset_sent_late_data", "CLOSE_WAIT reset_by_peer",
	},
	{
		"RST and shutdown(SHUT_RDWR) cross",
		func(r *road, c, s sock) {
			r.hold(clientEnd, true)
			c.shutdown(unix.SHUT_RDWR)
			s.reset()
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			r.hold(clientEnd, false)
		},
		"c", "FIN_WAIT1 reset_by_peer", "ESTABLISHED reset_sent_linger",
	},
	{
		"RST and close() cross",
		func(r *road, c, s sock) {
			r.hold(clientEnd, true)
			c.close()
			s.reset()
			s.close()
			c.h.awaitStates(0, unix.BPF_TCP_FIN_WAIT1)
			r.hold(clientEnd, false)
		},
		"", "FIN_WAIT1 reset_by_peer", "ESTABLISHED reset_sent_linger",
	},
	{
		"both reset",
		func(r *road, c, s sock) {
			r.hold(clientEnd, true)
			r.hold(serverEnd, true)
			c.reset()
			s.reset()
			c.close()
			s.close()
			r.hold(clientEnd, false)
			r.hold(serverEnd, false)
		},
		"", "ESTABLISHED reset_sent_linger", "ESTABLISHED reset_sent_linger",
	},
}

// awaitData waits until there is unread data.
func (s sock) awaitData() {
	await(s.h.t, "data", func() bool {
		n, err := unix.IoctlGetInt(s.fd, unix.SIOCINQ)
		return err != nil || n > 0
	})
}

// Whichever end resets a connection, both ends report who reset it, even if their last segments
// cross.
func TestBothEndsReportWhoReset(t *testing.T) {
	f := startFeed(t)
	for _, test := range bothEndsTests {
		for _, version := range []string{"IPv4", "IPv6"} {
			t.Run(test.name+" "+version, func(t *testing.T) { test.check(t, f, version == "IPv6") })
		}
	}
}

func (test *bothEnds) check(t *testing.T, f *feed, ipv6 bool) {
	here, there := newHost(t), newHost(t)
	// The inode number of a network namespace is reused, so each test has different addresses.
	n := peerPorts.Add(1)
	var ends [2]netip.AddrPort
	var wires [2]*wire
	for i, h := range []*host{clientEnd: here, serverEnd: there} {
		addr := [4]byte{10, byte(1 + i), byte(n >> 8), byte(n)}
		wires[i] = h.newWireOf(addr)
		ends[i] = netip.AddrPortFrom(netip.AddrFrom4(addr), feedPort)
		if ipv6 {
			ends[i] = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00::%d:%d", 1+i, n)), feedPort)
			wires[i].addIPv6(ends[i].Addr())
		}
	}
	r := newRoad(t, wires[clientEnd], wires[serverEnd])
	l := there.listen(ends[serverEnd].String(), 8)
	c := here.socket(family(ends[clientEnd]))
	here.must("bind", unix.Bind(c.fd, mustSockaddr(ends[clientEnd].String())))
	here.must("connect", unix.Connect(c.fd, mustSockaddr(ends[serverEnd].String())))
	s := l.accept()
	test.traffic(r, c, s)
	if strings.Contains(test.closes, "c") {
		c.close()
	}
	if got := endOf(f, here, ends[clientEnd], ends[serverEnd]); got != test.client {
		t.Errorf("client: got %q, want %q", got, test.client)
	}
	if got := endOf(f, there, ends[serverEnd], ends[clientEnd]); got != test.server {
		t.Errorf("server: got %q, want %q", got, test.server)
	}
	if strings.Contains(test.closes, "s") {
		s.close()
	}
	l.close()
}

// endOf waits until the connection of h ends, and returns the state that it was in and the reason.
func endOf(f *feed, h *host, local, remote netip.AddrPort) (got string) {
	h.awaitStates(0, unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2,
		unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK)
	f.settle(h)
	ended := func(e *event.Event) bool {
		return e.New == event.Close && e.Local == local && e.Remote == remote
	}
	for _, e := range f.of(h, ended) {
		got += e.Old.String() + " " + e.Reason.String()
	}
	return got
}
