package leaks

import (
	"cmp"

	"sstrace/internal/event"
)

// connections finds sockets by MPTCP connection and state. A subflow and its MPTCP socket are one
// leak, since there is only one descriptor to close.
type connections map[connection]*socket

// connection identifies what a subflow and its MPTCP socket have in common.
type connection struct {
	mptcp uint64         // the address of the MPTCP socket; 0 if unknown, as for a subflow in a recording
	at    event.Identity // if mptcp is 0, the identity of the first subflow, without its protocol
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

// find returns a socket in the same state that belongs to the same MPTCP connection as e. The
// result is nil if c has none.
func (c connections) find(e *event.Event) *socket {
	for _, key := range connectionsOf(e) {
		if s := c[key]; s != nil {
			return s
		}
	}
	return nil
}

// connectionsOf returns the keys under which the connection of e may be stored.
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

// release separates s, which is no longer stuck, from the sockets that were merged into it. Each of
// them is reported if it is still stuck.
func (s *socket) release() {
	for _, m := range s.merged {
		m.decided = false
	}
	s.merged = nil
}

// mptcpFirst orders MPTCP sockets before subflows, so that subflows are merged into MPTCP sockets.
func mptcpFirst(a, b *socket) int {
	rank := func(s *socket) int {
		if s.Proto == event.MPTCP {
			return 0
		}
		return 1
	}
	return cmp.Compare(rank(a), rank(b))
}
