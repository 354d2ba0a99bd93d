package main

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// road is a network between two hosts that takes packets from one to the other at once, or keeps them back as long as is wanted.
type road struct {
	kept  [2]atomic.Bool // from the client, from the server
	going sync.Mutex     // a packet is under way
}

func newRoad(t *testing.T, client, server *wire) *road {
	r := new(road)
	over := make(chan struct{})
	var all sync.WaitGroup
	for i, way := range [2][2]*wire{{client, server}, {server, client}} {
		all.Go(func() {
			for buf := make([]byte, 65536); ; {
				select {
				case <-over:
					return
				default:
				}
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(way[0].fd), Events: unix.POLLIN}}, 1)
				r.going.Lock()
				if !r.kept[i].Load() {
					if n, err := unix.Read(way[0].fd, buf); err == nil {
						_, _ = unix.Write(way[1].fd, buf[:n])
					}
				}
				r.going.Unlock()
			}
		})
	}
	t.Cleanup(func() {
		close(over)
		all.Wait()
	})
	return r
}

// keep keeps back what the client, or the server, sends from now on; or lets it go.
func (r *road) keep(from int, on bool) {
	r.going.Lock()
	r.kept[from].Store(on)
	r.going.Unlock()
}

// Whichever end resets a connection, both say which it was, also where their last segments cross.
func TestBothEndsSayWhoReset(t *testing.T) {
	f := startFeed(t)
	const client, server = 0, 1
	in := func(s sock, states ...uint8) {
		await(s.h.t, "a state", func() bool { return s.h.inStates(states...) == 1 })
	}
	linger2 := func(s sock, seconds int) {
		s.h.must("linger2", unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, tcpLinger2, seconds))
	}
	unread := func(s sock) {
		await(s.h.t, "data", func() bool {
			n, err := unix.IoctlGetInt(s.fd, unix.SIOCINQ)
			return err != nil || n > 0
		})
	}
	for _, test := range []struct {
		name           string
		traffic        func(r *road, c, s sock)
		closes         string // c: the client's end after that; s: the server's when all is over
		client, server string
	}{
		{"SO_LINGER 0", func(_ *road, c, _ sock) { c.reset() }, "cs", "ESTABLISHED reset_sent_linger", "ESTABLISHED reset_by_peer"},
		{"unread data", func(_ *road, c, s sock) {
			s.write("unread")
			unread(c)
		}, "cs", "ESTABLISHED reset_sent_unread", "ESTABLISHED reset_by_peer"},
		{"unread data in FIN_WAIT2", func(_ *road, c, s sock) {
			c.shutdown(unix.SHUT_WR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("unread")
			unread(c)
		}, "cs", "FIN_WAIT2 reset_sent_unread", "CLOSE_WAIT reset_by_peer"},
		{"unread data at the other end of FIN_WAIT2", func(_ *road, c, s sock) {
			c.write("unread")
			unread(s)
			c.shutdown(unix.SHUT_RDWR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
		}, "c", "FIN_WAIT2 reset_by_peer", "CLOSE_WAIT reset_sent_unread"},
		{"data after shutdown(SHUT_RDWR)", func(_ *road, c, s sock) {
			c.shutdown(unix.SHUT_RDWR)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
			c.reach(unix.BPF_TCP_CLOSE)
		}, "cs", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer"},
		{"data after close()", func(_ *road, c, s sock) {
			c.close()
			in(c, unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
		}, "s", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer"},
		{"data after close(), long TCP_LINGER2", func(_ *road, c, s sock) {
			linger2(c, 70)
			c.close()
			in(c, unix.BPF_TCP_FIN_WAIT2)
			s.write("late")
		}, "s", "FIN_WAIT2 reset_sent_late_data", "CLOSE_WAIT reset_by_peer"},
		{"TCP_LINGER2 -1", func(_ *road, c, _ sock) { linger2(c, -1) }, "cs", "FIN_WAIT2 reset_sent_linger2", "CLOSE_WAIT reset_by_peer"},
		{"data and shutdown(SHUT_RDWR) cross", func(r *road, c, s sock) {
			r.keep(client, true)
			c.shutdown(unix.SHUT_RDWR)
			s.write("crosses the FIN")
			c.reach(unix.BPF_TCP_CLOSE)
			r.keep(client, false)
		}, "cs", "FIN_WAIT1 reset_sent_late_data", "CLOSE_WAIT reset_by_peer"},
		{"data and close() cross", func(r *road, c, s sock) {
			r.keep(client, true)
			c.close()
			s.write("crosses the FIN")
			await(t, "the end of FIN_WAIT1", func() bool { return c.h.inStates(unix.BPF_TCP_FIN_WAIT1) == 0 })
			r.keep(client, false)
		}, "s", "FIN_WAIT1 reset_sent_late_data", "CLOSE_WAIT reset_by_peer"},
		{"RST and shutdown(SHUT_RDWR) cross", func(r *road, c, s sock) {
			r.keep(client, true)
			c.shutdown(unix.SHUT_RDWR)
			s.reset()
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			r.keep(client, false)
		}, "c", "FIN_WAIT1 reset_by_peer", "ESTABLISHED reset_sent_linger"},
		{"RST and close() cross", func(r *road, c, s sock) {
			r.keep(client, true)
			c.close()
			s.reset()
			s.close()
			await(t, "the end of FIN_WAIT1", func() bool { return c.h.inStates(unix.BPF_TCP_FIN_WAIT1) == 0 })
			r.keep(client, false)
		}, "", "FIN_WAIT1 reset_by_peer", "ESTABLISHED reset_sent_linger"},
		{"both reset", func(r *road, c, s sock) {
			r.keep(client, true)
			r.keep(server, true)
			c.reset()
			s.reset()
			c.close()
			s.close()
			r.keep(client, false)
			r.keep(server, false)
		}, "", "ESTABLISHED reset_sent_linger", "ESTABLISHED reset_sent_linger"},
	} {
		for _, version := range []string{"IPv4", "IPv6"} {
			t.Run(test.name+" "+version, func(t *testing.T) {
				here, there := newHost(t), newHost(t)
				n := peerPorts.Add(1) // another address each time: the number of a network namespace is used again
				ends := [2]netip.AddrPort{}
				var wires [2]*wire
				for i, h := range []*host{here, there} {
					addr := [4]byte{10, byte(1 + i), byte(n >> 8), byte(n)}
					wires[i] = h.newWireOf(addr)
					ends[i] = netip.AddrPortFrom(netip.AddrFrom4(addr), feedPort)
					if version == "IPv6" {
						ends[i] = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00::%d:%d", 1+i, n)), feedPort)
						wires[i].addIPv6(ends[i].Addr())
					}
				}
				r := newRoad(t, wires[client], wires[server])
				l := there.listen(ends[server].String(), 8)
				c := here.socket(family(ends[client]))
				here.must("bind", unix.Bind(c.fd, sockaddr(ends[client], family(ends[client]))))
				here.must("connect", unix.Connect(c.fd, sockaddr(ends[server], family(ends[client]))))
				s := l.accept()
				test.traffic(r, c, s)
				if strings.Contains(test.closes, "c") {
					c.close()
				}
				got := func(h *host, end, peer netip.AddrPort) (told string) {
					ours := func(e *event.Event) bool { return e.New == event.Close && e.Local == end && e.Remote == peer }
					await(t, "the end of a connection", func() bool {
						return h.inStates(unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK) == 0
					})
					f.settle(h)
					for _, e := range f.of(h, ours) {
						told += strings.TrimSpace(e.Old.String() + reason(&e))
					}
					return strings.NewReplacer("(", "", ")", "").Replace(told)
				}
				if told := got(here, ends[client], ends[server]); told != test.client {
					t.Errorf("the client's end says %q, want %q", told, test.client)
				}
				if told := got(there, ends[server], ends[client]); told != test.server {
					t.Errorf("the server's end says %q, want %q", told, test.server)
				}
				if strings.Contains(test.closes, "s") {
					s.close()
				}
				l.close()
			})
		}
	}
}

// The round-trip time of an end that closes is what the kernel told the process before: the ACK of a FIN may be a delayed one.
func TestRoundTripOfOpen(t *testing.T) {
	for _, first := range []event.Role{event.Client, event.Server} {
		for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
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
					ask := func(s sock) (now uint32) {
						await(t, "the last ACK", func() bool {
							info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
							h.must("info", err)
							now = info.Rtt
							return info.Unacked == 0
						})
						return now
					}
					rtt[event.Client], rtt[event.Server] = ask(c), ask(s)
					if first == event.Server {
						c, s = s, c
					}
					c.close()
					await(t, "the ACK of the FIN, which may be delayed", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
					s.close()
					await(t, "the end", func() bool { return h.inStates(unix.BPF_TCP_LAST_ACK) == 0 })
					l.close()
				})
				told := 0
				for _, e := range r.changes {
					if !e.Totals.Known {
						continue
					}
					told++
					if want := rtt[e.Role]; want == 0 || e.Totals.SRTTOpen != want || e.Role == first && e.Totals.SRTT == 0 {
						t.Errorf("the kernel said %d µs: %+v", want, e)
					}
				}
				if told != 2 {
					t.Errorf("%d ends, want 2", told)
				}
			})
		}
	}
}
