package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// findMini returns the connection of the mini-socket that r is about, or nil if it is unknown. If
// another socket was at that address, the record of its end was lost, and findMini drops it. It
// also drops a mini-socket that the snapshot listed after r was made: its history then starts with
// r.
func (t *RFC) findMini(r *record.Record) *sock {
	s := t.socks[r.Sk]
	if s != nil && (!s.mini || s.tuple != tupleOf(r) || r.Mono <= s.listed && r.Kind != record.Existing) {
		t.drop(s)
		return nil
	}
	return s
}

// mini returns the connection of the mini-socket that r is about, or a new one if it is unknown.
func (t *RFC) mini(r *record.Record) *sock {
	s := t.findMini(r)
	if s == nil {
		s = t.add(r)
		s.state, s.cookie = r.New, r.Cookie
		t.replaceByMini(s, r)
	}
	return s
}

// replaceByMini makes the mini-socket of r stand for s.
func (t *RFC) replaceByMini(s *sock, r *record.Record) {
	if t.socks[s.sk] == s {
		delete(t.socks, s.sk)
	}
	s.sk, s.mini, s.tuple = r.Sk, true, tupleOf(r)
	t.socks[r.Sk] = s
	if r.New == event.SynRecv {
		t.requests[s.tuple] = s
		s.setUser(r)
	}
}

// awaitTimer puts r, the cancellation or expiry of a timer, into the backlog. Its meaning depends
// on whether its CPU then continues with the same timer.
func (t *RFC) awaitTimer(r *record.Record) {
	t.awaitingTimer[r.CPU] = t.backlog.add(r, awaitsTimer)
}

// continues reports whether r, the next record of the same CPU, continues what before started.
func (t *RFC) continues(before, r *record.Record) bool {
	return tupleOf(before) == tupleOf(r) && (before.Sk == r.Sk && restarts(before, r) || t.migrate(before, r))
}

// restarts reports whether r completes what before started, for the same timer. A cancelled timer
// expires or is started again; for a request, this happens when its SYN is retransmitted. The timer
// of a request that has expired is started again when its SYN-ACK is retransmitted.
func restarts(before, r *record.Record) bool {
	switch before.Kind {
	case record.RequestCancelled:
		return r.Kind == record.RequestExpired || r.Kind == record.RequestStarted
	case record.RequestExpired:
		return r.Kind == record.RequestStarted && r.Retries > 0
	}
	return r.Kind == record.TimeWaitExpired || r.Kind == record.TimeWaitStarted
}

// resolveTimer ends the wait of p, the cancellation or expiry of a timer. If its CPU did not
// continue with the same mini-socket, the mini-socket is gone.
func (t *RFC) resolveTimer(p *pending, continues bool) {
	p.resolve(false)
	switch {
	case continues:
		t.merged++
	case p.rec.Kind == record.TimeWaitCancelled:
		p.awaits, p.sock = awaitsReuse, t.endingTimeWait(&p.rec)
		delete(t.socks, p.rec.Sk)
		t.awaitingReuse[tupleOf(&p.rec)] = p
	case p.rec.Kind == record.RequestCancelled:
		p.resolve(t.end(t.mini(&p.rec), &p.rec, endedBy(&p.rec)))
	default:
		p.resolve(t.end(t.mini(&p.rec), &p.rec, p.rec.Reason))
	}
}

// reset handles the segment that ended a mini-socket. The mini-socket's timer was cancelled just
// before, on the same CPU.
func (t *RFC) reset(r *record.Record) {
	t.merged++
	p := t.awaitingTimer[r.CPU]
	if p != nil && p.rec.Sk == r.Sk {
		delete(t.awaitingTimer, r.CPU)
		p.sock = t.endingTimeWait(&p.rec)
	} else if p = t.awaitingReuse[tupleOf(r)]; p != nil && p.rec.Sk == r.Sk {
		delete(t.awaitingReuse, tupleOf(r))
	} else {
		return
	}
	p.resolve(t.end(p.sock, &p.rec, bySegment(&p.rec, r.Segment)))
}

// end makes r the line with which the mini-socket of s ends. It returns true.
func (t *RFC) end(s *sock, r *record.Record, reason event.Reason) bool {
	r.Old, r.New, r.Reason = s.state, event.Close, reason
	t.transition(s, r)
	t.drop(s)
	return true
}
