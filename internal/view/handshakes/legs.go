package handshakes

import (
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/pair"
)

// The possible states of a handshake.
const (
	accepted    = "accepted"
	established = "established" // accept() was not seen, or the server is on another host
	failed      = "failed"
	open        = "open"
	lost        = "lost"
)

// precedence orders the states. When the two ends differ, the handshake has the state that comes
// first.
var precedence = []string{lost, failed, open, accepted, established, ""}

// stateOf returns the state of a handshake.
func stateOf(c pair.Conn) string {
	return precedence[min(slices.Index(precedence, endState(c.Client)), slices.Index(precedence, endState(c.Server)))]
}

// endState returns how far e got in the handshake, or "" if e is nil.
func endState(e *pair.End) string {
	switch {
	case e == nil:
		return ""
	case e.AcceptedAt != 0:
		return accepted
	}
	for _, s := range e.Path {
		if s.State != event.SynSent && s.State != event.SynRecv {
			return established
		}
	}
	switch {
	case e.Gone:
		return lost
	case e.Over:
		return failed
	}
	return open
}

// isOver reports whether the handshake is complete, so that nothing more can happen in it. A
// server's end that is established still waits for accept().
func isOver(c pair.Conn) bool {
	client, server := endState(c.Client), endState(c.Server)
	return client != open && server != open && (server != established || c.Server.Over)
}

// isHandshake reports whether any part of the handshake was seen at either end.
func isHandshake(c pair.Conn) bool {
	for e := range c.Ends {
		if !e.Older || e.Path[0].State == event.SynSent || e.Path[0].State == event.SynRecv {
			return true
		}
	}
	return false
}

// The legs of a handshake: first the legs that run from one end to the other, then the two sums of
// legs that a single end can measure, and last the wait for data after the ACK.
const (
	syn = iota
	synAck
	ack
	accept
	connect // syn + synAck, measured at the client
	serve   // synAck + ack, measured at the server
	deferred
	legs
)

// times returns the time of each leg. A leg that was not measured is event.Unknown.
func times(c pair.Conn) (t [legs]int64) {
	for i := range t {
		t[i] = event.Unknown
	}
	if c.Client != nil {
		t[connect] = setup(c.Client)
	}
	if c.Server != nil {
		t[accept] = c.Server.Queued
		if c.Server.Deferred > 0 {
			t[deferred] = c.Server.Deferred
		}
		if s := c.Server.SynArrived(); s != nil && s.Dur != event.Unknown {
			t[serve] = s.Dur - c.Server.Deferred
		}
	}
	if c.Certain() {
		t[syn] = pair.Between(c.Client.Step(event.SynSent), c.Server.SynArrived())
		t[synAck] = pair.Between(c.Server.SynArrived(), c.Client.Step(event.Established))
		t[ack] = pair.Between(c.Client.Step(event.Established), c.Server.AckArrived())
	}
	return t
}

// setup returns the time that a client spent in SYN_SENT. In a simultaneous open, it includes the
// time in SYN_RECV.
func setup(e *pair.End) (sum int64) {
	for _, s := range e.Path {
		if s.State != event.SynSent && s.State != event.SynRecv {
			break
		}
		if s.Dur == event.Unknown {
			return event.Unknown
		}
		sum += s.Dur
	}
	if sum == 0 { // the client was first seen in another state
		return event.Unknown
	}
	return sum
}

// failure returns why a handshake failed, and at which end. If both ends failed, it returns the
// client. If neither did, the end is nil.
func failure(c pair.Conn) (reason event.Reason, err int32, end *pair.End) {
	for e := range c.Ends {
		if endState(e) == failed {
			return e.Reason, e.Err, e
		}
	}
	return 0, 0, nil
}

// failedAfter returns how long after its start the handshake of e failed, or event.Unknown.
func failedAfter(e *pair.End) int64 {
	if e.Role == event.Server {
		if s := e.SynArrived(); s != nil {
			return s.Dur
		}
		return event.Unknown
	}
	return setup(e)
}

// owner returns the process that owned an end when the handshake was over.
func owner(e *pair.End) pair.Process {
	switch {
	case e == nil:
		return pair.Process{}
	case e.Accepted.PID != 0:
		return e.Accepted
	case e.Connected.PID != 0:
		return e.Connected
	}
	return e.Owner
}

// began returns the time of the first line about either end.
func began(c pair.Conn) (mono, wall int64) {
	for e := range c.Ends {
		if m, w := e.Began(); mono == 0 || m < mono {
			mono, wall = m, w
		}
	}
	return mono, wall
}
