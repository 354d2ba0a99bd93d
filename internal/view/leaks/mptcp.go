package leaks

import (
	"cmp"

	"sstrace/internal/event"
)

// connections finds sockets by their MPTCP connection and state. A subflow and its MPTCP socket are
// one leak, since there is one descriptor to close.
type connections map[connection]*socket

// connection is what a subflow and its MPTCP socket have in common.
type connection struct {
	mptcp uint64         // the address of the MPTCP socket; or, if a subflow's is unknown, as in a recording:
	at    event.Identity // that of the first subflow, without the protocol
	state event.State
}

func byConnection(all []*socket) connections {
	c := make(connections)
	for _, s := range all {
		c.add(s)
	}
	return c
}

func (c connections) add(s *socket) {
	for _, key := range connectionsOf(&s.Event) {
		if c[key] == nil {
			c[key] = s
		}
	}
}

// find returns a socket of the MPTCP connection that e belongs to, in the same state; nil if c has
// none.
func (c connections) find(e *event.Event) *socket {
	for _, key := range connectionsOf(e) {
		if s := c[key]; s != nil {
			return s
		}
	}
	return nil
}

// connectionsOf returns the keys under which the connection of e may be found.
func connectionsOf(e *event.Event) []connection {
	at := e.Identity()
	at.Proto = 0
	byTuple := connection{at: at, state: e.New}
	switch {
	case e.Proto == event.MPTCP && e.Sk != 0:
		return []connection{{mptcp: e.Sk, state: e.New}, byTuple}
	case e.Proto != event.MPTCP && e.Status != nil && e.Status.HeldAs != 0:
		return []connection{{mptcp: e.Status.HeldAs, state: e.New}}
	}
	return []connection{byTuple}
}

// release undoes the merging of sockets into s, which is no longer stuck: they are reported if they
// are still stuck.
func (s *socket) release() {
	for _, m := range s.merged {
		m.decided = false
	}
	s.merged = nil
}

// mptcpFirst orders MPTCP sockets before subflows, which are merged into them.
func mptcpFirst(a, b *socket) int {
	rank := func(s *socket) int {
		if s.Proto == event.MPTCP {
			return 0
		}
		return 1
	}
	return cmp.Compare(rank(a), rank(b))
}
