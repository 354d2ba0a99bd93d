package main

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a network that ends in the test. It is a TUN device in the namespace. Behind it the test
// plays the peer, packet by packet. The host is 10.0.0.1, and the test is every other address in
// 10.0.0.0/8.
type wire struct {
	h  *host
	fd int
}

func (h *host) newWire() *wire { return h.newWireOf([4]byte{10, 0, 0, 1}) }

// newWireOf returns a wire on which the host has this address.
func (h *host) newWireOf(addr [4]byte) *wire {
	w := &wire{h: h}
	h.do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		h.must("open /dev/net/tun", err)
		w.fd = fd
		dev, err := unix.NewIfreq("wire")
		h.must("name", err)
		dev.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		h.must("make a TUN device", unix.IoctlIfreq(fd, unix.TUNSETIFF, dev))
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		h.must("socket", err)
		defer unix.Close(s)
		h.must("address", dev.SetInet4Addr(addr[:]))
		h.must("set the address", unix.IoctlIfreq(s, unix.SIOCSIFADDR, dev))
		h.must("netmask", dev.SetInet4Addr([]byte{255, 0, 0, 0}))
		h.must("set the netmask", unix.IoctlIfreq(s, unix.SIOCSIFNETMASK, dev))
		dev.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		h.must("up", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, dev))
	})
	h.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

// send sends a segment to the host.
func (w *wire) send(s segment) { w.put(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, s.tcp()) }

// put sends a packet to the host.
func (w *wire) put(from, to netip.Addr, protocol byte, payload []byte) {
	_, err := unix.Write(w.fd, append(ipHeader(from, to, protocol, len(payload)), payload...))
	w.h.must("send", err)
}

// receive waits for a segment from the host with these flags and ignores all others.
func (w *wire) receive(flags byte) (s segment) {
	w.h.t.Helper()
	await(w.h.t, "a segment of the host", func() bool {
		p := make([]byte, 65536)
		n, err := unix.Read(w.fd, p)
		if err != nil {
			return false
		}
		var ok bool
		s, ok = parse(p[:n])
		return ok && s.flags&flags == flags
	})
	return s
}

// unreachable answers s with ICMP host unreachable (RFC 792).
func (w *wire) unreachable(s segment) { w.icmp(s, 3, 1) }

// icmp answers s with an error message of this type and code.
func (w *wire) icmp(s segment, kind, code byte) {
	protocol, icmp := icmpError(s, kind, code)
	w.put(s.to.Addr(), s.from.Addr(), protocol, icmp)
}

// knock makes the peer send a SYN to hostAddr and returns the SYN-ACK.
func (w *wire) knock() segment {
	w.send(synTo(peerAddr, hostAddr))
	return w.receive(syn | ack)
}

// connect makes the host start to connect to the peer.
func (w *wire) connect() sock { return w.connectTo(peerAddr) }

func (w *wire) connectTo(addr string) sock {
	c := w.h.socket(unix.AF_INET)
	w.h.must("nonblock", unix.SetNonblock(c.fd, true))
	if err := unix.Connect(c.fd, mustSockaddr(addr)); err != unix.EINPROGRESS {
		w.h.must("connect", err)
	}
	return c
}

// dial makes the host open a connection to the peer and returns the last segment of the handshake.
func (w *wire) dial() (c sock, last segment) {
	c = w.connect()
	answer := w.receive(syn).reply(syn | ack)
	answer.seq = 5000
	w.send(answer)
	last = w.receive(ack)
	c.reach(unix.BPF_TCP_ESTABLISHED)
	return c, last
}

// distant makes connections from distant clients to a listener on addr until enough is closed.
// Their ACKs take a while, and some clients send a reset instead.
func (w *wire) distant(addr string, enough <-chan struct{}) {
	l := w.h.listen(addr, 64)
	defer l.close()
	for port := uint16(20000); ; {
		var answers []segment
		for range 16 {
			port++
			w.send(synTo(peerAddr, addr).fromPort(port))
			answers = append(answers, w.receive(syn|ack))
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond) // the network's delay
		for i, answer := range answers {
			if i%4 == 0 {
				w.send(answer.reply(rst))
				continue
			}
			w.send(answer.reply(ack))
			l.acceptAndReset()
		}
		select {
		case <-enough:
			return
		default:
		}
	}
}
