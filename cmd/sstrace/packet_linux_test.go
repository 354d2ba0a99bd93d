package main

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The flags of a TCP header (RFC 9293 section 3.1).
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment has the fields of a TCP segment that tests use.
type segment struct {
	from, to netip.AddrPort
	flags    byte
	seq, ack uint32
	data     int // bytes
	// zeroWindow announces a window of 0: the receiver has no space left (RFC 9293 section
	// 3.8.6.1).
	zeroWindow bool
}

// reply returns a segment with these flags that answers s.
func (s segment) reply(flags byte) segment {
	next := s.seq + uint32(s.data)
	if s.flags&(syn|fin) != 0 {
		next++
	}
	return segment{from: s.to, to: s.from, flags: flags, seq: s.ack, ack: next}
}

// synTo returns the SYN that opens a connection.
func synTo(from, to string) segment {
	return segment{from: netip.MustParseAddrPort(from), to: netip.MustParseAddrPort(to), flags: syn, seq: 1000}
}

// fromPort returns a copy of s from another port.
func (s segment) fromPort(port uint16) segment {
	s.from = netip.AddrPortFrom(s.from.Addr(), port)
	return s
}

// tcp returns s without its IP header.
func (s segment) tcp() []byte {
	tcp := make([]byte, 20+s.data)
	binary.BigEndian.PutUint16(tcp, s.from.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.to.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = 5<<4, s.flags
	if !s.zeroWindow {
		binary.BigEndian.PutUint16(tcp[14:], 65535)
	}
	sum := pseudoSum(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, len(tcp))
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, sum))
	return tcp
}

// parse returns the segment in a packet. ok is false if the packet has none.
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

// ipHeader returns the header of an IP packet (RFC 791, RFC 8200).
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

// icmpError returns the ICMP message of this type and code that answers s, without its IP header
// (RFC 792, RFC 4443).
func icmpError(s segment, kind, code byte) (protocol byte, icmp []byte) {
	icmp = []byte{kind, code, 0, 0, 0, 0, 0, 0}
	icmp = append(icmp, ipHeader(s.from.Addr(), s.to.Addr(), unix.IPPROTO_TCP, 20)...)
	icmp = binary.BigEndian.AppendUint16(icmp, s.from.Port())
	icmp = binary.BigEndian.AppendUint16(icmp, s.to.Port())
	icmp = binary.BigEndian.AppendUint32(icmp, s.seq)
	protocol, sum := byte(unix.IPPROTO_ICMP), uint32(0)
	if s.from.Addr().Is6() {
		icmp = append(icmp, make([]byte, 12)...) // the kernel requires the whole TCP header
		protocol = unix.IPPROTO_ICMPV6
		sum = pseudoSum(s.to.Addr(), s.from.Addr(), protocol, len(icmp))
	}
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, sum))
	return protocol, icmp
}

// pseudoSum returns the sum of the pseudo-header, for a checksum (RFC 9293 section 3.1, RFC 8200
// section 8.1).
func pseudoSum(from, to netip.Addr, protocol byte, length int) uint32 {
	sum := uint32(protocol) + uint32(length)
	for _, addr := range [][]byte{from.AsSlice(), to.AsSlice()} {
		for ; len(addr) > 0; addr = addr[2:] {
			sum += uint32(addr[0])<<8 | uint32(addr[1])
		}
	}
	return sum
}

// checksum returns the checksum of b (RFC 1071). sum is added to it first.
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

// The offsets of the addresses in an IPv4 header.
const (
	sourceOffset      = 12
	destinationOffset = 16
)

// readdress replaces the address at offset in an IPv4 packet that contains a TCP segment.
func readdress(p []byte, offset int, addr netip.Addr) {
	copy(p[offset:], addr.AsSlice())
	copy(p[10:], []byte{0, 0})
	binary.BigEndian.PutUint16(p[10:], checksum(p[:20], 0))
	tcp := p[20:]
	copy(tcp[16:], []byte{0, 0})
	from, to := netip.AddrFrom4([4]byte(p[sourceOffset:])), netip.AddrFrom4([4]byte(p[destinationOffset:]))
	binary.BigEndian.PutUint16(tcp[16:], checksum(tcp, pseudoSum(from, to, unix.IPPROTO_TCP, len(tcp))))
}

// isTCPAt reports whether p is an IPv4 packet that contains a TCP segment and has addr at offset.
func isTCPAt(p []byte, offset int, addr netip.Addr) bool {
	return p[0] == 0x45 && p[9] == unix.IPPROTO_TCP && bytes.Equal(p[offset:offset+4], addr.AsSlice())
}
