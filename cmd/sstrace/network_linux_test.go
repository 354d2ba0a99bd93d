package main

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitPacket waits for a packet from the host, for at most this many milliseconds.
func (w *wire) awaitPacket(ms int) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, ms)
}

// untilTheEnd runs f again and again until the test ends.
func untilTheEnd(t *testing.T, f func()) {
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				f()
			}
		}
	})
	t.Cleanup(func() {
		close(over)
		running.Wait()
	})
}

// nat is a destination address and the address that replaces it.
type nat struct{ from, to netip.Addr }

// join forwards all packets between the wires of a client and a server, each after a delay. If dnat
// is not nil, join replaces the destination of the client's packets and the source of the answers.
func join(t *testing.T, client, server *wire, delay time.Duration, dnat *nat) {
	forward := func(from, to *wire, replace func(packet []byte)) {
		type packet struct {
			data []byte
			due  time.Time
		}
		underway := make(chan packet, 1000)
		delivered := make(chan struct{})
		go func() {
			defer close(delivered)
			for p := range underway {
				time.Sleep(time.Until(p.due)) // the network's delay
				_, _ = unix.Write(to.fd, p.data)
			}
		}()
		t.Cleanup(func() { // after the cleanup of the reader
			close(underway)
			<-delivered
		})
		buf := make([]byte, 65536)
		untilTheEnd(t, func() {
			n, err := unix.Read(from.fd, buf)
			if err != nil {
				from.awaitPacket(10)
				return
			}
			p := bytes.Clone(buf[:n])
			replace(p)
			underway <- packet{p, time.Now().Add(delay)}
		})
	}
	forward(client, server, func(p []byte) {
		if dnat != nil && isTCPAt(p, destinationOffset, dnat.from) {
			readdress(p, destinationOffset, dnat.to)
		}
	})
	forward(server, client, func(p []byte) {
		if dnat != nil && isTCPAt(p, sourceOffset, dnat.to) {
			readdress(p, sourceOffset, dnat.from)
		}
	})
}

// The two ends of a road.
const (
	clientEnd = iota
	serverEnd
)

// road is a network between two hosts. It forwards packets at once, or holds them back for as long
// as a test wants.
type road struct {
	held       [2]atomic.Bool // by sending end
	forwarding sync.Mutex
}

func newRoad(t *testing.T, client, server *wire) *road {
	r := new(road)
	for end, way := range [2][2]*wire{clientEnd: {client, server}, serverEnd: {server, client}} {
		buf := make([]byte, 65536)
		untilTheEnd(t, func() {
			way[0].awaitPacket(1)
			r.forwarding.Lock()
			defer r.forwarding.Unlock()
			if r.held[end].Load() {
				return
			}
			if n, err := unix.Read(way[0].fd, buf); err == nil {
				_, _ = unix.Write(way[1].fd, buf[:n])
			}
		})
	}
	return r
}

// hold starts or stops holding back the packets that an end sends.
func (r *road) hold(end int, on bool) {
	r.forwarding.Lock()
	r.held[end].Store(on)
	r.forwarding.Unlock()
}
