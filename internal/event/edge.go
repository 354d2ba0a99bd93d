package event

import "slices"

// Edge is an edge of the state diagram (RFC 9293 section 3.3.2): a change from one state to
// another.
type Edge struct{ Old, New State }

// To returns the edge from s to next.
func (s State) To(next State) Edge { return Edge{s, next} }

// Edge returns the edge of a Change.
func (e *Event) Edge() Edge { return Edge{e.Old, e.New} }

// String returns "OLD → NEW".
func (e Edge) String() string { return e.Old.String() + " → " + e.New.String() }

// lifecycle lists the states in the order of a connection's life. After ESTABLISHED come the states
// of the end that closes first, then the other end's.
var lifecycle = []State{
	Close, Listen, SynSent, SynRecv, Established, FinWait1, FinWait2, Closing, TimeWait, CloseWait, LastAck,
}

var positions = func() (at [256]uint8) {
	for i, s := range lifecycle {
		at[s] = uint8(i + 1)
	}
	return at
}()

// Lifecycle returns all states in the order of a connection's life. CLOSE, in which every
// connection starts and ends, is the first.
func Lifecycle() []State { return slices.Clone(lifecycle) }

// Position returns the position of s in Lifecycle, counted from 1, or 0 if it is not there.
func (s State) Position() int { return int(positions[s]) }
