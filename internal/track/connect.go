package track

import (
	"net/netip"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// awaitFirst puts the first change of s into the backlog.
func (t *RFC) awaitFirst(s *sock, r *record.Record, a awaited) {
	s.first = t.backlog.add(r, a)
	s.first.sock = s
}

// completeOpening completes the first line of the socket of r, if it is still waiting. It also
// removes the port from r if that is the port of an earlier connection.
func (t *RFC) completeOpening(r *record.Record) {
	if r.New == event.SynSent && r.Flags&record.PortStale != 0 {
		r.Local = netip.AddrPortFrom(r.Local.Addr(), 0)
	}
	s := t.socks[r.Sk]
	if s == nil || s.first == nil {
		return
	}
	switch s.first.awaits {
	case awaitsPort:
		if r.New == event.Close && r.Closing&(record.NoSegment|record.Shut) == record.NoSegment {
			r.Local = netip.AddrPortFrom(r.Local.Addr(), 0) // this connect() never chose one
		}
	case awaitsRemote:
		if request := t.requests[tupleOf(r)]; request != nil {
			t.adopt(request, s.first)
			return
		}
	}
	t.completeFirst(s, r)
}

// completeFirst uses r to complete the first change of s, and turns that change into a line.
func (t *RFC) completeFirst(s *sock, r *record.Record) {
	p := s.first
	s.first = nil
	p.rec.Local, p.rec.Remote, p.rec.Family = r.Local, r.Remote, r.Family
	p.rec.IfIndex, p.rec.IfName = r.IfIndex, r.IfName
	if p.rec.ISN == 0 {
		p.rec.ISN = r.ISN
	}
	if p.rec.Cookie == 0 {
		p.rec.Cookie = r.Cookie
	}
	p.resolve(t.transition(s, &p.rec))
}

// synSentStarted handles the timer of a SYN: connect() has chosen its port.
func (t *RFC) synSentStarted(r *record.Record) {
	t.merged++
	t.reuse(r)
	if s := t.socks[r.Sk]; s != nil && s.first != nil && s.first.awaits == awaitsPort {
		t.completeFirst(s, r)
	}
}

// connectReturned handles the return of a connect() during which the socket closed. The error gives
// the reason, unless it was connect() to AF_UNSPEC, which succeeds.
func (t *RFC) connectReturned(r *record.Record) {
	t.merged++
	p := t.awaitingReason[r.Sk]
	switch {
	case p == nil || p.rec.Cookie != 0 && r.Cookie != 0 && p.rec.Cookie != r.Cookie:
	case r.Err == 0:
		t.resolveReason(p, event.ReasonAborted)
	default:
		p.rec.Err = r.Err
		t.resolveReason(p, event.ErrnoReason(r.Err))
	}
}

// noSyn makes a line for a connect() that failed and changed no state.
func (t *RFC) noSyn(r *record.Record) (line bool) {
	r.Reason = event.ErrnoReason(r.Err)
	if s := t.socks[r.Sk]; s != nil && s.cookie != 0 && s.cookie == r.Cookie {
		r.ID = s.id
	} else {
		t.lastID++
		r.ID = t.lastID
	}
	return true
}
