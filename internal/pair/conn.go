package pair

import "sstrace/internal/event"

// Conn is the part of a connection that is on this host: either end may be nil, but not both.
type Conn struct{ Client, Server *End }

// Conn returns the connection of e. If it is unknown which end opened it, Client is the end that
// appeared first.
func (e *End) Conn() Conn {
	switch p := e.Peer; {
	case e.Role == event.Server,
		e.Role == 0 && p != nil && (p.Role == event.Client || p.Role == 0 && p.number < e.number):
		return Conn{Client: p, Server: e}
	default:
		return Conn{Client: e, Server: p}
	}
}

// Ends yields the ends that are not nil, the client's first.
func (c Conn) Ends(yield func(*End) bool) {
	if c.Client != nil && !yield(c.Client) {
		return
	}
	if c.Server != nil {
		yield(c.Server)
	}
}

// Certain reports whether both ends are on this host and known to be one connection.
func (c Conn) Certain() bool { return c.Client != nil && c.Client.Pairing > Perhaps }

// Wanted reports whether the filters want a line of either end.
func (c Conn) Wanted() bool {
	return c.Client != nil && c.Client.Wanted || c.Server != nil && c.Server.Wanted
}

// Reported reports whether a view has reported either end.
func (c Conn) Reported() bool {
	return c.Client != nil && c.Client.Reported || c.Server != nil && c.Server.Reported
}

// Lost reports whether lines of either end may be missing.
func (c Conn) Lost() bool {
	return c.Client != nil && c.Client.Lost() || c.Server != nil && c.Server.Lost()
}

// Redirected reports whether the server's end has a different address from the one that the client
// connected to.
func (c Conn) Redirected() bool {
	return c.Client != nil && c.Server != nil && c.Client.Remote != c.Server.Local
}
