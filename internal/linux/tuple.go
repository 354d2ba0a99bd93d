//go:build linux

package linux

import (
	"net/netip"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// Tuple returns the two ends of a socket. An IPv4 address is mapped to IPv6 in laddr and raddr.
//
// The unspecified address (0.0.0.0 or ::) is a real local address only if the socket is not
// connected, which wildcard asserts. Otherwise it means that the kernel does not know the address
// yet, as does a remote port of 0: that address is then invalid.
func Tuple(family uint16, laddr, raddr *[16]byte, lport, rport uint16, wildcard bool) (
	f event.Family, local, remote netip.AddrPort,
) {
	l, r := netip.AddrFrom16(*laddr), netip.AddrFrom16(*raddr)
	f = event.IPv6
	switch {
	case family == unix.AF_INET:
		f = event.IPv4
	case l.Is4In6() || r.Is4In6():
		f = event.Mapped
	}
	l, r = l.Unmap(), r.Unmap()
	if l.IsUnspecified() && !wildcard {
		l = netip.Addr{}
	}
	if rport == 0 {
		r = netip.Addr{}
	}
	return f, netip.AddrPortFrom(l, lport), netip.AddrPortFrom(r, rport)
}

// Proto returns a socket's protocol for its number (IPPROTO_TCP, …).
func Proto(number uint16) event.Proto {
	switch number {
	case unix.IPPROTO_MPTCP:
		return event.MPTCP
	case unix.IPPROTO_SCTP:
		return event.SCTP
	}
	return event.TCP
}
