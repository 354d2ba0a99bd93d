package pair

import (
	"net/netip"

	"sstrace/internal/event"
)

// Pairing is how two ends are known to be one connection, from the least certain to the most.
type Pairing uint8

// The pairings. Perhaps means that the addresses match, but may belong to two connections. The two
// ends are in different network namespaces, or have DNAT between them, and the initial sequence
// number of at least one of them is unknown.
const (
	Unpaired Pairing = iota
	Perhaps
	ByTuple
	ByISN
)

// String returns the value of the key pairing, or "" if there is no peer.
func (p Pairing) String() string { return [...]string{"", "perhaps", "tuple", "isn"}[p] }

// Process is a process that owns a socket, and how the owner is known. The zero Process is unknown.
type Process struct {
	PID  uint32
	Comm string
	Via  event.Via
}

// Step is a state that an End entered.
type Step struct {
	State event.State
	Mono  int64 // when; 0 if that was not seen, in which case Wall is unknown too
	Wall  int64
	Dur   int64 // the time in State; event.Unknown also while the End is still in it

	losses uint64 // Table.losses at that moment
}

// Seen reports whether the change to this state was seen.
func (s Step) Seen() bool { return s.Mono != 0 }

// moment is a point in time by both clocks.
type moment struct{ Mono, Wall int64 }

// End is one end of a connection: a socket from the start of one connection to its end. The Table
// owns it until it is Over. It may be read between two calls of Table.Take.
type End struct {
	ID            uint64
	Cookie        uint64
	NetNS         uint32
	Family        event.Family
	Proto         event.Proto
	Local, Remote netip.AddrPort
	IfIndex       uint32 // the network device that the socket is bound to
	IfName        string
	ISN           uint32 // the client's initial sequence number; 0 if unknown
	Role          event.Role
	Cgroup        string

	Owner     Process // the latest one
	Connected Process // the process that called connect()
	Accepted  Process // the process that called accept()

	// Path has the states that the End entered, except a final CLOSE. The first one is the state
	// that the connection started in or, if the End is Older, the state that its first line left.
	Path []Step
	Last moment // the time of the latest change

	AcceptedAt int64 // Mono of accept(); 0 if there was none or it was not seen
	Queued     int64 // the time in the accept queue, or event.Unknown
	SynRetrans int32 // retransmitted SYNs or SYN-ACKs, or event.Unknown
	Totals     event.Totals
	Deferred   int64 // the time in SYN_RECV between the ACK and the data that the listener waited for; 0 if it did not
	Reason     event.Reason
	Err        int32
	Closer     event.Closer

	Older         bool // older than the trace: the start was not seen
	ConnectFailed bool // connect() failed before it sent a SYN; the socket entered no state
	Over          bool // the full socket has ended: the End is in TIME_WAIT or CLOSE, or it is Gone
	Gone          bool // it is over, but the lines that would have shown how were lost

	// Peer is the other end if it is on this host and was seen. Pairing is how that is known.
	Peer    *End
	Pairing Pairing

	Wanted   bool // the filters want at least one of its lines
	Reported bool // for views; the Table ignores it
	Pending  bool // for views; the Table ignores it

	state      event.State
	acked      *Step        // when the ACK came, if Deferred
	origin     event.Origin // of the first line
	sk         uint64
	number     uint64  // in the order of first lines
	losses     uint64  // Table.losses at the first line
	endLosses  uint64  // Table.losses at the end
	runLosses  *uint64 // Table.losses
	sameTuple  *End    // the next End with this tuple, in another network namespace or on another device
	indexed    bool    // in Table.byTuple
	selfChange bool    // the latest line went from the state to itself
	connecting bool    // in Table.connecting
	portless   bool    // counted in Table.portless
}

// Zone returns the zone of the addresses, as event.Zone does.
func (e *End) Zone() string { return event.Zone(e.IfIndex, e.IfName) }

// State returns the current state.
func (e *End) State() event.State { return e.state }

// Began returns the time of the first line: the start of the connection, unless the End is Older.
func (e *End) Began() (mono, wall int64) {
	for _, s := range e.Path {
		if s.Seen() {
			return s.Mono, s.Wall
		}
	}
	return e.Last.Mono, e.Last.Wall
}

// Step returns the step into state, or nil.
func (e *End) Step(state event.State) *Step {
	for i := range e.Path {
		if e.Path[i].State == state {
			return &e.Path[i]
		}
	}
	return nil
}

// Lost reports whether lines may be missing between the first and the last line.
func (e *End) Lost() bool {
	losses := *e.runLosses
	if e.Over {
		losses = e.endLosses
	}
	return losses != e.losses
}

// NoSyn reports whether the End is known to have sent no SYN.
func (e *End) NoSyn() bool { return e.ConnectFailed || e.Reason == event.ReasonNoPort }

// SynArrived returns the step at which the SYN arrived at a server's end, or nil if that was not
// seen: with SYN cookies, or if request socks are not traced, the end appears with the ACK.
//
// A tracepoint's line shows the arrival of the SYN only with TCP Fast Open (RFC 7413), which
// creates the sock at once. That is certain if the client was not yet ESTABLISHED, since it sends
// the ACK only once it is.
func (e *End) SynArrived() *Step {
	s := e.Step(event.SynRecv)
	switch {
	case e.Role != event.Server || s == nil || !s.Seen():
		return nil
	case e.origin == event.FromTimer:
		return s
	case e.Pairing > Perhaps && Between(s, e.Peer.Step(event.Established)) != event.Unknown:
		return s
	}
	return nil
}

// AckArrived returns the step at which the ACK of the handshake arrived at a server's end, or nil
// if that was not seen. If the listener waits for data, the kernel drops the ACK and SYN_RECV
// continues.
func (e *End) AckArrived() *Step {
	if e.acked != nil {
		return e.acked
	}
	return e.Step(event.Established)
}

// Between returns the time from a to b. It returns event.Unknown in three cases: if either was not
// seen; if lines were lost between the two, so that they may belong to different connections; or if
// b is earlier than a. An effect never precedes its cause, but the clocks of two CPUs may differ by
// more than the time between the two.
func Between(a, b *Step) int64 {
	if a == nil || b == nil || !a.Seen() || !b.Seen() || a.losses != b.losses || b.Mono < a.Mono {
		return event.Unknown
	}
	return b.Mono - a.Mono
}

// Container returns the ID of the container, as event.Event.Container does.
func (e *End) Container() string { return (&event.Event{Cgroup: e.Cgroup}).Container() }

// Unit returns the systemd unit, as event.Event.Unit does.
func (e *End) Unit() string { return (&event.Event{Cgroup: e.Cgroup}).Unit() }
