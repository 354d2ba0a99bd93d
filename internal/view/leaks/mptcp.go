package leaks

import (
	"cmp"

	"sstrace/internal/event"
)

// connections finds sockets by the MPTCP connection and the state that they are in: a subflow and its MPTCP
// socket are one leak, for there is one descriptor to close.
type connections map[connection]*sock

// connection is what a subflow and its MPTCP socket have in common.
type connection struct {
	mptcp uint64 // the address of the MPTCP socket; or, where a subflow's is unknown, as in a recording:
	at    ends   // those of the first subflow, without the protocol
	state event.State
}

func byConnection(all []*sock) connections {
	c := make(connections)
	for _, s := range all {
		c.add(s)
	}
	return c
}

func (c connections) add(s *sock) {
	for _, key := range connectionsOf(&s.Event) {
		if c[key] == nil {
			c[key] = s
		}
	}
}

// find returns a socket of the MPTCP connection that e belongs to, in the same state; nil if c has none.
func (c connections) find(e *event.Event) *sock {
	for _, key := range connectionsOf(e) {
		if s := c[key]; s != nil {
			return s
		}
	}
	return nil
}

func connectionsOf(e *event.Event) []connection {
	at := endsOf(e)
	at.proto = 0
	byEnds := connection{at: at, state: e.New}
	switch {
	case e.Proto == event.MPTCP && e.Sk != 0:
		return []connection{{mptcp: e.Sk, state: e.New}, byEnds}
	case e.Proto != event.MPTCP && e.Status != nil && e.Status.HeldAs != 0:
		return []connection{{mptcp: e.Status.HeldAs, state: e.New}}
	}
	return []connection{byEnds}
}

// release has the sockets that were merged into s, which is not stuck any more, reported if they still are.
func (s *sock) release() {
	for _, m := range s.merged {
		m.decided = false
	}
	s.merged = nil
}

// mptcpFirst orders MPTCP sockets before subflows, which are merged into them.
func mptcpFirst(a, b *sock) int {
	rank := func(s *sock) int {
		if s.Proto == event.MPTCP {
			return 0
		}
		return 1
	}
	return cmp.Compare(rank(a), rank(b))
}
