package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// replacedSock is a full socket that has closed because a timewait sock replaced it.
type replacedSock struct {
	sk     uint64
	cookie uint64
	old    event.State
}

// timeWaitStarted handles a timewait sock that is new, or that continues in another state.
func (t *RFC) timeWaitStarted(r *record.Record) (line bool) {
	s := t.findMini(r)
	switch {
	case s == nil:
		t.awaitingClose[tupleOf(r)] = t.backlog.add(r, awaitsClose)
		return false
	case s.state == r.New:
		t.merged++
		return false
	}
	r.Old = s.state
	return t.transition(s, r)
}

// timeWaitExpired handles the end of a timewait sock whose time is over.
func (t *RFC) timeWaitExpired(r *record.Record) (line bool) {
	s := t.endingTimeWait(r)
	reason := event.ReasonTimeWaitExpired
	if s.state == event.FinWait2 {
		reason = event.ReasonFinWait2Timeout
	}
	return t.end(s, r, reason)
}

// handOver handles r, the close of a full socket that the timewait sock of p has replaced.
func (t *RFC) handOver(p *pending, r *record.Record) {
	delete(t.awaitingClose, tupleOf(r))
	p.resolve(false)
	s := t.known(r)
	t.attribute(s, r)
	s.totals = r.Totals
	t.replaceByMini(s, &p.rec)
	t.replaced[t.nextReplaced] = replacedSock{r.Sk, r.Cookie, r.Old}
	t.nextReplaced = (t.nextReplaced + 1) % len(t.replaced)
	t.merged++
	if p.rec.New == r.Old { // FIN_WAIT2 continues, without a process
		t.merged++
		return
	}
	p.rec.Old = r.Old
	p.resolve(t.transition(s, &p.rec))
}

// handOverUnseen handles the close of a full socket that a timewait sock may have replaced. Without
// timers, only the full socket shows whether the peer's FIN has arrived and the connection is
// therefore in TIME_WAIT. If the FIN has not arrived, the connection may continue unseen, as a
// timewait sock in FIN_WAIT2.
func (t *RFC) handOverUnseen(s *sock, r *record.Record) (line bool) {
	if r.Closing&record.FinCame != 0 {
		r.New = event.TimeWait
		line = t.transition(s, r)
	} else {
		t.merged++
	}
	t.drop(s)
	return line
}

// endingTimeWait returns the connection of a mini-socket that ends. If the connection is in
// TIME_WAIT and the start of that state was not seen, its age is unknown.
func (t *RFC) endingTimeWait(r *record.Record) *sock {
	if p := t.awaitingClose[tupleOf(r)]; p != nil && p.rec.Sk == r.Sk { // it is still awaiting the close
		delete(t.awaitingClose, tupleOf(r))
		p.resolve(false)
		t.merged++
	}
	s := t.mini(r)
	if r.New != event.SynRecv && s.state != r.New {
		s.state, s.since = r.New, 0
	}
	return s
}

// reuse handles the start of a connection. If a timewait sock with its tuple has just ended early,
// the connection has reused that tuple.
func (t *RFC) reuse(r *record.Record) {
	if p := t.awaitingReuse[tupleOf(r)]; p != nil {
		delete(t.awaitingReuse, tupleOf(r))
		p.resolve(t.end(p.sock, &p.rec, event.ReasonTimeWaitReused))
	}
}
