package event

import (
	"cmp"
	"net/netip"
)

// Tuple identifies a connection among those that exist at the same time. It contains the 4-tuple,
// and everything else that may differ between two connections with the same 4-tuple.
type Tuple struct {
	Local, Remote netip.AddrPort
	NetNS         uint32
	IfIndex       uint32 // the device that the socket is bound to
	Proto         Proto  // an MPTCP socket has the 4-tuple of its first subflow
}

// Tuple returns the tuple of the socket.
func (e *Event) Tuple() Tuple {
	return Tuple{Local: e.Local, Remote: e.Remote, NetNS: e.NetNS, IfIndex: e.IfIndex, Proto: e.Proto}
}

// Compare orders tuples as a listing does: by local address and port, by remote address and port,
// and then by the rest.
func (t *Tuple) Compare(o *Tuple) int {
	switch { // comparing for equality first is faster: many tuples have the same local end
	case t.Local != o.Local:
		return t.Local.Compare(o.Local)
	case t.Remote != o.Remote:
		return t.Remote.Compare(o.Remote)
	}
	return cmp.Or(cmp.Compare(t.NetNS, o.NetNS), cmp.Compare(t.IfIndex, o.IfIndex), cmp.Compare(t.Proto, o.Proto))
}

// Identity identifies a socket among those that exist at the same time. A connection keeps its
// Identity while the kernel represents it by a request sock, a full sock and a timewait sock in
// turn, although each of these has a different address and cookie.
type Identity struct {
	Tuple
	Sk uint64 // 0: the tuple identifies the socket
}

// Identity returns the identity of the socket, which is the tuple if that is complete. A listener
// has no remote end, and may share its local one (SO_REUSEPORT). A client gets its port only after
// the first change. Up to Linux 6.12, a server's socket also gets its remote end only then. Such a
// socket is identified by its address, if that is known.
func (e *Event) Identity() Identity {
	complete := e.Local.Port() != 0 && e.Remote.Port() != 0 && e.Remote.Addr().IsValid()
	if complete || e.Sk == 0 {
		return Identity{Tuple: e.Tuple()}
	}
	return Identity{Tuple: Tuple{NetNS: e.NetNS}, Sk: e.Sk}
}
