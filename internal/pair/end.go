package pair

import (
	"net/netip"

	"sstrace/internal/event"
)

// Pairing is what says that two ends are one connection, the less certain first.
type Pairing uint8

// The pairings. Perhaps: in two network namespaces, or with DNAT between them, the addresses may be those of two connections, and
// the initial sequence number of one end is unknown.
const (
	Unpaired Pairing = iota
	Perhaps
	ByTuple
	ByISN
)

// String returns the value of the key pairing, "" if there is no other end.
func (p Pairing) String() string { return [...]string{"", "perhaps", "tuple", "isn"}[p] }

// Process is one that owns a socket, and the deed by which that is known; the zero Process is not known.
type Process struct {
	PID  uint32
	Comm string
	Via  event.Via
}

// Step is a state that an End came into.
type Step struct {
	State event.State
	Mono  int64 // when; 0 if it was not seen, and then Wall is no more known
	Wall  int64
	Dur   int64 // how long it was in State; event.Unknown, too, while it still is

	losses uint64 // of the run so far
}

// Seen reports whether it was seen when the End came into it.
func (s Step) Seen() bool { return s.Mono != 0 }

// End is one end of a connection: a socket from one beginning to one end. It belongs to the Table until it is Over; it may be read at any time
// between two calls of Take.
type End struct {
	ID            uint64
	Cookie        uint64
	NetNS         uint32
	Family        event.Family
	Proto         event.Proto
	Local, Remote netip.AddrPort
	IfIndex       uint32 // the device that it is bound to
	IfName        string
	ISN           uint32 // the client's initial sequence number; 0: unknown
	Role          event.Role
	Cgroup        string

	Owner     Process // the latest
	Connected Process // who called connect()
	Accepted  Process // who called accept()

	// Path has the states that it was in. The first is the one that it began in; or, if it is Older, the one that its first line left.
	// CLOSE, at its end, is none of them.
	Path []Step
	Last moment // of its latest change

	AcceptedAt int64 // Mono; 0: not, or not seen
	Queued     int64 // how long it waited for accept(); or event.Unknown
	SynRetrans int32 // SYNs or SYN-ACKs that were sent again; or event.Unknown
	Totals     event.Totals
	Deferred   int64 // how long it waited for data in SYN_RECV, after the ACK; 0: not
	Reason     event.Reason
	Err        int32
	Closer     event.Closer
	NoSyn      bool // its connect() failed before it sent a SYN: it was in no state

	Older bool // than the trace: its beginning was not seen
	Over  bool // its full socket is gone: it is in TIME_WAIT or CLOSE, or Gone
	Gone  bool // it is over, and how was lost

	// Peer is the other end, if it is on this host and was seen, and Pairing what says so.
	Peer    *End
	Pairing Pairing

	Wanted bool // the filters want one of its lines
	Told   bool // for whoever tells of ends; the Table does not look at it
	Held   bool // likewise

	state    event.State
	acked    *Step        // when the ACK came, if it is Deferred
	first    event.Origin // of the first line
	sk       uint64
	number   uint64  // in the order of first lines
	losses   uint64  // of the run, when it began
	ended    uint64  // of the run, when it was over
	run      *uint64 // of the run so far
	sameEnds *End    // the next with these ends, of another namespace or device
	inEnds   bool
	again    bool // it has changed from its state to the same
	dialing  bool // it is in Table.dialing
	portless bool // it is counted in Table.portless
}

type moment struct{ Mono, Wall int64 }

// Zone returns that of its addresses.
func (e *End) Zone() string { return event.Zone(e.IfIndex, e.IfName) }

// State is the one that it is in.
func (e *End) State() event.State { return e.state }

// Began is when its first line came: its beginning unless it is Older.
func (e *End) Began() (mono, wall int64) {
	for _, s := range e.Path {
		if s.Seen() {
			return s.Mono, s.Wall
		}
	}
	return e.Last.Mono, e.Last.Wall
}

// Step gives the one at which it came into state, or nil.
func (e *End) Step(state event.State) *Step {
	for i := range e.Path {
		if e.Path[i].State == state {
			return &e.Path[i]
		}
	}
	return nil
}

// Lost reports whether lines may be missing between its first and its last.
func (e *End) Lost() bool {
	run := *e.run
	if e.Over {
		run = e.ended
	}
	return run != e.losses
}

// SynArrived gives the step at which the SYN arrived, or nil if that was not seen: with SYN cookies, and where mini-socks are not seen, a server's end
// appears with the ACK. A tracepoint's line tells of the SYN only if it is of TCP Fast Open (RFC 7413), which makes the sock at once; that is certain if
// the client was not ESTABLISHED yet, for it sends the ACK after that.
func (e *End) SynArrived() *Step {
	s := e.Step(event.SynRecv)
	switch {
	case e.Role != event.Server || s == nil || !s.Seen():
		return nil
	case e.first == event.FromTimer:
		return s
	case e.Pairing > Perhaps && Between(s, e.Peer.Step(event.Established)) != event.Unknown:
		return s
	}
	return nil
}

// AckArrived returns the step at which the ACK of the handshake arrived at a server's end, or nil if that was not seen. Where the
// listener waits for data it is dropped, and SYN_RECV goes on.
func (e *End) AckArrived() *Step {
	if e.acked != nil {
		return e.acked
	}
	return e.Step(event.Established)
}

// Between is the time from a to b. It is event.Unknown if one of them was not seen, if lines were lost between the two (they may then belong to different
// connections), and if b is before a: no cause comes after its effect, but two CPUs' clocks may differ by less than they are apart.
func Between(a, b *Step) int64 {
	if a == nil || b == nil || !a.Seen() || !b.Seen() || a.losses != b.losses || b.Mono < a.Mono {
		return event.Unknown
	}
	return b.Mono - a.Mono
}

// Conn is a connection, as far as it is on this host: one of the two may be nil.
type Conn struct{ Client, Server *End }

// Conn gives the connection of e. If nobody knows which end opened it, the one that appeared first is in the Client's place.
func (e *End) Conn() Conn {
	switch p := e.Peer; {
	case e.Role == event.Server, e.Role == 0 && p != nil && (p.Role == event.Client || p.Role == 0 && p.number < e.number):
		return Conn{Client: p, Server: e}
	default:
		return Conn{Client: e, Server: p}
	}
}

// Certain reports whether it has two ends that are known to be one connection.
func (c Conn) Certain() bool { return c.Client != nil && c.Client.Pairing > Perhaps }

// Wanted reports whether the filters want a line of either end.
func (c Conn) Wanted() bool {
	return c.Client != nil && c.Client.Wanted || c.Server != nil && c.Server.Wanted
}

// Container gives the id of the container, or "".
func (e *End) Container() string { return (&event.Event{Cgroup: e.Cgroup}).Container() }

// Unit gives the systemd unit, or "".
func (e *End) Unit() string { return (&event.Event{Cgroup: e.Cgroup}).Unit() }
