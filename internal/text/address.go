package text

import (
	"net/netip"
	"strconv"

	"sstrace/internal/event"
)

// Address returns a as AppendAddress writes it.
func Address(a netip.AddrPort) string { return string(AppendAddress(nil, a)) }

// AddressIn returns a as AppendAddressIn writes it.
func AddressIn(a netip.AddrPort, zone string) string { return string(AppendAddressIn(nil, a, zone)) }

// Local returns the local address of e as AppendLocal writes it, without the device.
func Local(e *event.Event) string { return string(AppendLocal(nil, e, false)) }

// Remote returns the remote address of e as AppendRemote writes it.
func Remote(e *event.Event) string { return string(AppendRemote(nil, e)) }

// AppendAddress appends address:port, with "-" for whichever of them is unknown.
func AppendAddress(b []byte, a netip.AddrPort) []byte { return appendBound(b, a, "") }

// AppendAddressIn appends address:port of a socket that has this Event.Zone. Only a link-local
// address is printed with the zone, because the same address on another link belongs to a different
// host.
func AppendAddressIn(b []byte, a netip.AddrPort, zone string) []byte {
	if !a.Addr().Is6() || !a.Addr().IsLinkLocalUnicast() {
		zone = ""
	}
	return appendBound(b, a, zone)
}

// appendBound appends address%zone:port. A device name may be any text.
func appendBound(b []byte, a netip.AddrPort, zone string) []byte {
	if !a.Addr().IsValid() && a.Port() == 0 {
		return append(b, '-')
	}
	six := a.Addr().Is6()
	if six {
		b = append(b, '[')
	}
	if a.Addr().IsValid() {
		b = a.Addr().AppendTo(b)
		if zone != "" {
			b = AppendVisible(append(b, '%'), zone)
		}
	} else {
		b = append(b, '-')
	}
	if six {
		b = append(b, ']')
	}
	b = append(b, ':')
	if a.Port() == 0 {
		return append(b, '-')
	}
	return strconv.AppendUint(b, uint64(a.Port()), 10)
}

// AppendLocal appends the local address of e as address:port: a link-local address with its zone,
// and the wildcard of a socket that takes both IPv4 and IPv6 as *. If device is set, it also names
// the network device that the socket is bound to, whatever the address is.
func AppendLocal(b []byte, e *event.Event, device bool) []byte {
	zone := e.Zone()
	switch {
	case e.Local.Addr() == netip.IPv6Unspecified() && e.Status != nil && e.Status.V6Only == event.No:
		b = append(b, '*')
		if device && zone != "" {
			b = AppendVisible(append(b, '%'), zone)
		}
		return strconv.AppendUint(append(b, ':'), uint64(e.Local.Port()), 10)
	case device:
		return appendBound(b, e.Local, zone)
	}
	return AppendAddressIn(b, e.Local, zone)
}

// AppendRemote appends the remote address of e as address:port, with a zone if it is link-local.
func AppendRemote(b []byte, e *event.Event) []byte { return AppendAddressIn(b, e.Remote, e.Zone()) }
