package main

import (
	"slices"
	"testing"

	"sstrace/internal/event"
)

// figure is figure 5 in RFC 9293, section 3.3.2, as a listing of sockets shows it. There, a
// connection of a listener begins in LISTEN.
var figure = map[event.State][]event.State{
	event.Close:       {event.Listen, event.SynSent},
	event.Listen:      {event.SynRecv, event.Close},
	event.SynSent:     {event.SynRecv, event.Established, event.Close},
	event.SynRecv:     {event.Established, event.FinWait1},
	event.Established: {event.FinWait1, event.CloseWait},
	event.FinWait1:    {event.FinWait2, event.Closing, event.TimeWait},
	event.FinWait2:    {event.TimeWait},
	event.Closing:     {event.TimeWait},
	event.CloseWait:   {event.LastAck},
	event.LastAck:     {event.Close},
	event.TimeWait:    {event.Close},
}

// checkPaths checks what is true of every connection in the rfc vocabulary. Its lines follow one
// path through the figure. A reset, a timeout or the like may end the path anywhere. Times do not
// go backwards, and durations add up to the lifetime of the connection.
func checkPaths(t *testing.T, r *recordedRun) {
	t.Helper()
	type conn struct {
		state event.State
		mono  int64
	}
	conns := make(map[uint64]conn)
	for _, e := range r.changes {
		c, known := conns[e.ID]
		abnormal := e.New == event.Close && e.Reason != event.ReasonNormal && e.Reason != 0
		switch {
		case !slices.Contains(figure[e.Old], e.New) && !abnormal:
			t.Errorf("%v→%v is not in the figure: %+v", e.Old, e.New, e)
		case known && c.state != e.Old:
			t.Errorf("connection %d: got a change from %v, want from %v", e.ID, e.Old, c.state)
		case known && e.Dur != e.Mono-c.mono && len(r.lost) == 0:
			t.Errorf("connection %d in %v from %d to %d: got duration %d", e.ID, c.state, c.mono, e.Mono, e.Dur)
		case (e.New == event.Close) != (e.Reason != 0):
			t.Errorf("%v→%v: got reason %q", e.Old, e.New, e.Reason)
		}
		if known && e.Mono < c.mono {
			t.Errorf("connection %d: time goes back by %d ns at line %d", e.ID, c.mono-e.Mono, e.Seq)
		}
		conns[e.ID] = conn{e.New, e.Mono}
	}
}
