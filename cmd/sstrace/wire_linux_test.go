package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// wire is a network that ends in the test: a TUN device of the namespace, behind which the test itself is the peer, packet by packet. The
// host is 10.0.0.1; all others of 10.0.0.0/8 are the test.
type wire struct {
	h  *host
	fd int
}

func (h *host) newWire() *wire { return h.newWireOf([4]byte{10, 0, 0, 1}) }

// newWireOf makes one on which the host has another address.
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

// The flags of a TCP header (RFC 9293 section 3.1).
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment is what matters of a packet.
type segment struct {
	from, to netip.AddrPort
	flags    byte
	seq, ack uint32
	data     int
	// zeroWindow: there is no room for more data (RFC 9293 section 3.8.6.1).
	zeroWindow bool
}

// send puts a segment on the wire, for the host to receive.
func (w *wire) send(s segment) {
	tcp := make([]byte, 20+s.data)
	binary.BigEndian.PutUint16(tcp, s.from.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.to.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = 5<<4, s.flags
	if !s.zeroWindow {
		binary.BigEndian.PutUint16(tcp[14:], 65535)
	}
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, pseudoSum(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, len(tcp))))
	w.put(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, tcp)
}

// put puts a packet on the wire.
func (w *wire) put(from, to netip.Addr, protocol byte, payload []byte) {
	_, err := unix.Write(w.fd, append(ipHeader(from, to, protocol, len(payload)), payload...))
	w.h.must("send", err)
}

// ipHeader returns that of a packet (RFC 791, RFC 8200).
func ipHeader(from, to netip.Addr, protocol byte, length int) []byte {
	if from.Is6() {
		p := make([]byte, 40)
		p[0], p[6], p[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(p[4:], uint16(length))
		copy(p[8:], from.AsSlice())
		copy(p[24:], to.AsSlice())
		return p
	}
	p := make([]byte, 20)
	p[0], p[8], p[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(20+length))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], checksum(p, 0))
	return p
}

// pseudoSum returns what the pseudo-header adds to a checksum (RFC 9293 section 3.1, RFC 8200 section 8.1).
func pseudoSum(from, to netip.Addr, protocol byte, length int) uint32 {
	sum := uint32(protocol) + uint32(length)
	for _, addr := range [][]byte{from.AsSlice(), to.AsSlice()} {
		for ; len(addr) > 0; addr = addr[2:] {
			sum += uint32(addr[0])<<8 | uint32(addr[1])
		}
	}
	return sum
}

// checksum is RFC 1071's.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// receive waits for a segment of the host with these flags, whatever else it sends.
func (w *wire) receive(flags byte) (s segment) {
	w.h.t.Helper()
	await(w.h.t, "a segment of the host", func() bool {
		p := make([]byte, 65536)
		n, err := unix.Read(w.fd, p)
		if err != nil {
			return false
		}
		var ok bool
		if s, ok = parse(p[:n]); !ok {
			return false
		}
		return s.flags&flags == flags
	})
	return s
}

// parse returns the segment in a packet, if there is one.
func parse(p []byte) (s segment, ok bool) {
	var from, to netip.Addr
	switch {
	case len(p) >= 40 && p[0] == 0x45 && p[9] == unix.IPPROTO_TCP:
		from, to, p = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:])), p[20:]
	case len(p) >= 60 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_TCP:
		from, to, p = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:])), p[40:]
	default:
		return s, false
	}
	return segment{
		from:  netip.AddrPortFrom(from, binary.BigEndian.Uint16(p)),
		to:    netip.AddrPortFrom(to, binary.BigEndian.Uint16(p[2:])),
		flags: p[13],
		seq:   binary.BigEndian.Uint32(p[4:]),
		ack:   binary.BigEndian.Uint32(p[8:]),
		data:  len(p) - int(p[12]>>4*4),
	}, true
}

// unreachable answers s with ICMP: host unreachable (RFC 792).
func (w *wire) unreachable(s segment) { w.icmp(s, 3, 1) }

// icmp answers s with an error message of this type and code (RFC 792, RFC 4443).
func (w *wire) icmp(s segment, kind, code byte) {
	icmp := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, ipHeader(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, 20)...)
	icmp = binary.BigEndian.AppendUint16(icmp, s.from.Port())
	icmp = binary.BigEndian.AppendUint16(icmp, s.to.Port())
	icmp = binary.BigEndian.AppendUint32(icmp, s.seq)
	protocol, sum := byte(unix.IPPROTO_ICMP), uint32(0)
	if s.from.Addr().Is6() {
		icmp = append(icmp, make([]byte, 12)...) // the kernel asks for the whole header of TCP
		protocol = unix.IPPROTO_ICMPV6
		sum = pseudoSum(s.to.Addr(), s.from.Addr(), protocol, len(icmp))
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, sum))
	w.put(s.to.Addr(), s.from.Addr(), protocol, icmp)
}

// netstat reads a counter of the namespace.
func (h *host) netstat(name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/net/netstat", os.Getpid(), h.tid()))
	h.must("read counters", err)
	lines := strings.Split(string(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		if at := slices.Index(strings.Fields(lines[i]), name); at >= 0 {
			return fmt.Sprintf("%20s", strings.Fields(lines[i+1])[at])
		}
	}
	h.t.Errorf("no counter %s", name)
	return ""
}

// distant opens connections to a listener on at from afar until enough: their ACKs take a while, and some never come, for a reset does.
func (w *wire) distant(at netip.AddrPort, enough <-chan struct{}) {
	l := w.h.listen(at.String(), 64)
	defer l.close()
	for port := uint16(20000); ; {
		var answers []segment
		for range 16 {
			port++
			w.send(segment{from: netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), port), to: at, flags: syn, seq: 1000})
			answers = append(answers, w.receive(syn|ack))
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond) // the network's
		for i, answer := range answers {
			if i%4 == 0 {
				w.send(answer.reply(rst))
				continue
			}
			w.send(answer.reply(ack))
			s := l.accept()
			s.reset()
			s.close()
		}
		select {
		case <-enough:
			return
		default:
		}
	}
}

// reply is a segment that answers s.
func (s segment) reply(flags byte) segment {
	next := s.seq + uint32(s.data)
	if s.flags&(syn|fin) != 0 {
		next++
	}
	return segment{from: s.to, to: s.from, flags: flags, seq: s.ack, ack: next}
}

// What needs a peer that does as it likes.
func TestStateMachineOnTheWire(t *testing.T) {
	const addr = "10.0.0.1:7781"
	at := netip.MustParseAddrPort(addr)
	peer := netip.MustParseAddrPort("10.1.2.3:40602")
	// open makes the peer open a connection to the host, which accepts it.
	open := func(h *host, w *wire) (l, s sock, last segment) {
		l = h.listen(addr, 8)
		w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
		last = w.receive(syn | ack).reply(ack)
		w.send(last)
		return l, l.accept(), last
	}
	// dial makes the host open one to the peer.
	dial := func(h *host, w *wire) (c sock, last segment) {
		c = h.socket(unix.AF_INET)
		h.must("nonblock", unix.SetNonblock(c.fd, true))
		_ = unix.Connect(c.fd, sockaddr(peer, unix.AF_INET))
		answer := w.receive(syn).reply(syn | ack)
		answer.seq = 5000
		w.send(answer)
		last = w.receive(ack)
		c.reach(unix.BPF_TCP_ESTABLISHED)
		return c, last
	}
	aborted := "aborted"
	if kernelBefore(t, 5, 15) { // see destroys_a_socket
		aborted = "unknown"
	}
	option := func(s sock, level, name, value int) { s.h.must("option", unix.SetsockoptInt(s.fd, level, name, value)) }
	for _, test := range []struct {
		name    string
		traffic func(h *host, w *wire)
		rfc     []string
		kernel  []string
	}{
		{"abandoned handshake", func(h *host, w *wire) {
			h.sysctl("tcp_synack_retries", "1")
			l := h.listen(addr, 8)
			w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
			for range 2 {
				w.receive(syn | ack)
			}
			await(h.t, "the end of the handshake", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (handshake_abandoned)"}, []string{ordinaryListener}},
		{"listener closed during the handshake", func(h *host, w *wire) {
			l := h.listen(addr, 8)
			w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
			w.receive(syn | ack)
			l.close()
			await(h.t, "the end of the handshake", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (listener_closed)"}, []string{ordinaryListener}},
		{"SYN comes twice", func(h *host, w *wire) {
			l := h.listen(addr, 8)
			var answer segment
			for range 2 {
				w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
				answer = w.receive(syn | ack)
				time.Sleep(600 * time.Millisecond) // the kernel answers a SYN that comes again, but not too often (tcp_invalid_ratelimit)
			}
			w.send(answer.reply(ack))
			s := l.accept()
			s.reset()
			s.close()
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"}, []string{ordinaryListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"reset during the handshake", func(h *host, w *wire) {
			l := h.listen(addr, 8)
			w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
			w.send(w.receive(syn | ack).reply(rst))
			await(h.t, "the end of the handshake", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (reset_by_peer)"}, []string{ordinaryListener}},
		{"handshake aborted by ss -K", func(h *host, w *wire) {
			l := h.listen(addr, 8)
			w.send(segment{from: peer, to: at, flags: syn, seq: 1000})
			w.receive(syn | ack)
			h.destroy("syn-recv", "src", addr)
			await(h.t, "the end of the handshake", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (" + aborted + ")"}, []string{ordinaryListener}},
		{"reset by the peer in CLOSE_WAIT", func(h *host, w *wire) {
			c, last := dial(h, w)
			w.send(last.reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE_WAIT)
			answer := last.reply(rst)
			answer.seq++
			w.send(answer)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT CLOSE (reset_by_peer)"}, []string{"client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT CLOSE"}},
		{"reset of a Fast Open connection in SYN_RECV", func(h *host, w *wire) {
			h.sysctl("tcp_fastopen", "1543") // 0x607: without a cookie, for every listener
			l := h.listen(addr, 8)
			w.send(segment{from: peer, to: at, flags: syn, seq: 1000, data: 1})
			s := l.accept()
			last := w.receive(syn | ack).reply(rst)
			last.seq = 1002
			w.send(last)
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (reset_by_peer)"}, []string{ordinaryListener, "server LISTEN SYN_RECV CLOSE"}},
		{"accept queue full at the ACK", func(h *host, w *wire) {
			h.sysctl("tcp_synack_retries", "1")
			l := h.listen(addr, 2) // full with three
			knock := func(port uint16) segment {
				w.send(segment{from: netip.AddrPortFrom(peer.Addr(), port), to: at, flags: syn, seq: 1000})
				return w.receive(syn | ack)
			}
			for port := range uint16(2) {
				w.send(knock(40001 + port).reply(ack))
			}
			third, fourth := knock(40003), knock(40004)
			w.send(third.reply(ack))
			await(h.t, "a full queue", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 3 })
			w.send(fourth.reply(ack)) // is dropped
			await(h.t, "the end of the fourth's handshake", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
			for range 3 {
				s := l.accept()
				s.reset()
				s.close()
			}
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (accept_queue_full)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)",
			"server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)", "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"},
			[]string{ordinaryListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE", "server LISTEN SYN_RECV ESTABLISHED CLOSE",
				"server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"connect to a black hole", func(h *host, w *wire) {
			c := h.socket(unix.AF_INET)
			option(c, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1)
			if err := unix.Connect(c.fd, sockaddr(peer, unix.AF_INET)); err != unix.ETIMEDOUT {
				h.t.Errorf("connect: %v", err)
			}
			c.close()
		}, []string{"client CLOSE SYN_SENT CLOSE (timeout)"}, []string{"client CLOSE SYN_SENT CLOSE"}},
		{"ICMP says unreachable", func(h *host, w *wire) {
			c := h.socket(unix.AF_INET)
			h.must("nonblock", unix.SetNonblock(c.fd, true))
			_ = unix.Connect(c.fd, sockaddr(peer, unix.AF_INET))
			w.unreachable(w.receive(syn))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT CLOSE (unreachable)"}, []string{"client CLOSE SYN_SENT CLOSE"}},
		{"full SYN queue drops the SYN", func(h *host, w *wire) {
			h.sysctl("tcp_syncookies", "0")
			l := h.listen(addr, 1)
			before := h.netstat("TCPReqQFullDrop")
			for port := uint16(40001); h.netstat("TCPReqQFullDrop") == before && port < 40100; port++ { // kernels differ in whether 1 is full with 1 or with 2
				w.send(segment{from: netip.AddrPortFrom(peer.Addr(), port), to: at, flags: syn, seq: 1000})
			}
			for n := h.inStates(unix.BPF_TCP_SYN_RECV); n > 0; n-- {
				w.send(w.receive(syn | ack).reply(rst))
			}
			await(h.t, "the end of the handshakes", func() bool { return h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV CLOSE (reset_by_peer)"}, []string{ordinaryListener}},
		{"reset in FIN_WAIT2", func(h *host, w *wire) {
			c, _ := dial(h, w)
			c.shutdown(unix.SHUT_WR)
			ours := w.receive(fin)
			w.send(ours.reply(ack))
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			w.send(ours.reply(rst))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (reset_by_peer)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"}},
		{"reset in CLOSING", func(h *host, w *wire) {
			c, last := dial(h, w)
			c.shutdown(unix.SHUT_WR)
			w.receive(fin)
			cross := last.reply(fin | ack) // does not acknowledge our FIN
			w.send(cross)
			c.reach(unix.BPF_TCP_CLOSING)
			cross.flags = rst
			cross.seq++
			w.send(cross)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING CLOSE (reset_by_peer)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSING CLOSE"}},
		{"connect given up", func(h *host, w *wire) {
			c := h.socket(unix.AF_INET)
			h.must("nonblock", unix.SetNonblock(c.fd, true))
			_ = unix.Connect(c.fd, sockaddr(peer, unix.AF_INET))
			w.receive(syn)
			c.close()
		}, []string{"client CLOSE SYN_SENT CLOSE (given_up)"}, []string{"client CLOSE SYN_SENT CLOSE"}},
		{"user timeout", func(h *host, w *wire) {
			c, _ := dial(h, w)
			option(c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 500)
			c.write("nobody acknowledges this")
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED CLOSE (timeout)"}, []string{"client CLOSE SYN_SENT ESTABLISHED CLOSE"}},
		{"keep-alive", func(h *host, w *wire) {
			l, s, _ := open(h, w)
			option(s, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
			option(s, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
			option(s, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
			option(s, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}, []string{rfcListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE (keepalive)"}, []string{ordinaryListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE"}},
		{"reset in FIN_WAIT1", func(h *host, w *wire) {
			c, last := dial(h, w)
			c.shutdown(unix.SHUT_WR)
			w.receive(fin)
			last = last.reply(rst)
			w.send(last)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE (reset_by_peer)"}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 CLOSE"}},
		{"reset in LAST_ACK", func(h *host, w *wire) {
			c, last := dial(h, w)
			w.send(last.reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.close()
			answer := w.receive(fin).reply(rst | ack)
			w.send(answer)
			await(h.t, "the end", func() bool { return h.inStates(unix.BPF_TCP_LAST_ACK) == 0 })
		}, []string{"client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE (reset_by_peer)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"}},
		{"reset of an orphaned FIN_WAIT2", func(h *host, w *wire) {
			c, _ := dial(h, w)
			c.close()
			ours := w.receive(fin)
			w.send(ours.reply(ack))
			await(h.t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			w.send(ours.reply(rst | ack))
			await(h.t, "the end", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 0 })
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (reset_by_peer)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"}},
		{"data with the ACK of the FIN, after close", func(h *host, w *wire) {
			c, _ := dial(h, w)
			c.close()
			late := w.receive(fin).reply(ack)
			late.data = 4
			w.send(late)
			w.receive(rst)
			await(h.t, "the end", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2) == 0 })
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE (reset_sent_late_data)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"}},
		{"TIME_WAIT killed by a reset", func(h *host, w *wire) {
			c, _ := dial(h, w)
			c.close()
			ours := w.receive(fin)
			w.send(ours.reply(ack))
			await(h.t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			w.send(ours.reply(fin | ack))
			await(h.t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
			kill := ours.reply(rst)
			kill.seq++
			w.send(kill)
			await(h.t, "the end", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 0 })
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE (reset_by_peer)"},
			[]string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"}},
		{"FIN and its ACK in one", func(h *host, w *wire) {
			c, _ := dial(h, w)
			c.shutdown(unix.SHUT_WR)
			w.send(w.receive(fin).reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"}, []string{"client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for states, want := range map[string][]string{"rfc": test.rfc, "kernel": test.kernel} {
				t.Run(states, func(t *testing.T) {
					t.Parallel()
					expectPaths(t, want, func() []string {
						h := newHost(t)
						w := h.newWire()
						r := trace(t, []string{"--states", states, "--netns", h.netns()}, func() { test.traffic(h, w) })
						paths := r.paths()
						slices.Sort(paths)
						if strings.HasPrefix(test.name, "full SYN queue") {
							paths = slices.Compact(paths)
						}
						return paths
					})
				})
			}
		})
	}
}

// Over a network with a delay the server's handshake takes what it takes: from the SYN to the ACK.
func TestHandshakeOverANetwork(t *testing.T) {
	h := newHost(t)
	w := h.newWire()
	const delay = 20 * time.Millisecond
	var begin, end time.Time
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		l := h.listen("10.0.0.1:7781", 8)
		w.send(segment{from: netip.MustParseAddrPort("10.1.2.3:40602"), to: netip.MustParseAddrPort("10.0.0.1:7781"), flags: syn, seq: 1000})
		answer := w.receive(syn | ack) // the request is there by now
		begin = time.Now()
		time.Sleep(delay) // the network's
		end = time.Now()
		w.send(answer.reply(ack))
		s := l.accept()
		s.reset()
		s.close()
		l.close()
	})
	for _, e := range r.changes {
		if e.Old == event.SynRecv && e.Dur < end.Sub(begin).Nanoseconds() {
			t.Errorf("the handshake took %v and more; %v is told", end.Sub(begin), time.Duration(e.Dur))
		}
	}
	if got, want := r.paths(), []string{rfcListener, "server LISTEN SYN_RECV ESTABLISHED CLOSE (reset_sent_linger)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
