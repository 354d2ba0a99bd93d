package watch

import (
	"net/netip"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/view/ls"
)

const (
	// linger is how long what has happened to a socket stays marked, in ns.
	linger = 2e9
	// mostGone bounds those that are still shown although they are gone: nobody reads more.
	mostGone = 500
	// ours marks the ids of sockets that no line has told of: see look.
	ours = 1 << 63
)

// mark tells what has just happened to a socket.
type mark uint8

const (
	nothing mark = iota
	born
	changed
	gone
)

// row is a socket. Neither it nor its Event changes once it is made, so it may be read while the table goes on.
type row struct {
	*event.Event       // a Socket; Mono is when its Status was so
	since        int64 // CLOCK_MONOTONIC: when it came to its state,
	exact        bool  // or, if this does not say so, a moment at which it was in it
	mark         mark
	marked       int64 // when that happened
	came         int64 // when it was born, or 0
	before       *row  // what it was before that; nil at the latest when a look comes by after the mark has faded
	doubt        int   // so many looks in a row have found it otherwise, and no line has told of it meanwhile
}

// at makes a Socket of what r is like now.
func (r *row) at(now int64) event.Event {
	if r.mark == gone {
		now = r.marked
	}
	e, status := *r.Event, *r.Status
	e.Dur, status.AtLeast = event.Unknown, event.Unknown
	if age := max(now-r.since, 0); r.exact {
		e.Dur = age
	} else {
		status.AtLeast = age
	}
	if status.Left != event.Unknown {
		status.Left = max(status.Left-(now-e.Mono), 0)
	}
	e.Status = &status
	return e
}

// place is where a socket is: at most one connection at a time has these ends. What has no two ends (yet) is known by the address of its sock.
type place struct {
	netns, device uint32
	proto         event.Proto // a subflow and its MPTCP socket have the same ends
	local, remote netip.AddrPort
	sk            uint64
}

func placeOf(e *event.Event) place {
	if e.Remote.Addr().IsValid() && e.Remote.Port() != 0 && e.Local.Port() != 0 {
		return place{netns: e.NetNS, device: e.IfIndex, proto: e.Proto, local: e.Local, remote: e.Remote}
	}
	return place{netns: e.NetNS, sk: e.Sk}
}

// table has the sockets that exist, and those that did a moment ago.
type table struct {
	rows   map[uint64]*row // by id
	places map[place]uint64
	gone   []*row // the oldest first

	lost      uint64 // changes that are lost
	unsure    bool   // some were, since the last look
	strangers map[place]bool
	lastOurs  uint64
	offset    int64 // of wall time to CLOCK_MONOTONIC; 0: not known
}

func newTable() *table {
	return &table{rows: make(map[uint64]*row), places: make(map[place]uint64)}
}

// take takes a line.
func (t *table) take(e *event.Event) {
	t.offset = e.Wall - e.Mono
	switch e.Type {
	case event.Socket:
		t.put(e.ID, found(e))
	case event.Change:
		t.change(e)
	case event.Accept:
		if old := t.known(e); old != nil {
			next := *old.Event
			status := *old.Status
			status.Holders, status.Attached = nil, 0 // it is who accepts, and the next look tells by which descriptor
			next.Status, next.UID = &status, e.UID
			next.OwnerPID, next.OwnerComm, next.OwnerVia = e.OwnerPID, e.OwnerComm, e.OwnerVia
			r := *old
			r.Event, r.doubt, r.before = &next, 0, nil
			r.mark, r.marked = markOf(old, e.Mono), e.Mono
			t.put(e.ID, &r)
		}
	case event.Lost:
		t.lost += e.RingFull
		t.unsure = true
	}
}

// found makes a row of a Socket.
func found(e *event.Event) *row {
	kept := *e
	return &row{Event: &kept, since: e.Mono - max(e.Dur, e.Status.AtLeast, 0), exact: e.Dur != event.Unknown}
}

// markOf gives the mark of a row that changes: one that was born a moment ago is still new.
func markOf(old *row, now int64) mark {
	if old.came != 0 && now-old.came < linger {
		return born
	}
	return changed
}

func (t *table) change(e *event.Event) {
	old := t.known(e)
	if e.New == event.Close {
		if old != nil {
			t.remove(e.ID)
			last := *old
			last.mark, last.marked = gone, e.Mono
			t.gone = append(t.gone, &last)
			if len(t.gone) > mostGone {
				t.gone = slices.Delete(t.gone, 0, len(t.gone)-mostGone)
			}
		}
		return
	}
	next := *e
	next.Type, next.Dur = event.Socket, event.Unknown
	status := event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown, Left: event.Unknown}
	r := &row{Event: &next, since: e.Mono, exact: true, mark: born, marked: e.Mono, came: e.Mono}
	if old != nil {
		r.mark, r.came = markOf(old, e.Mono), old.came
		last := *old
		last.mark, last.marked, last.before = gone, e.Mono, nil
		r.before = &last
		status.RecvQueue, status.SendQueue = old.Status.RecvQueue, old.Status.SendQueue
		status.Holders, status.Attached = old.Status.Holders, old.Status.Attached
	}
	switch {
	case e.New == event.TimeWait:
		status.RecvQueue, status.SendQueue = event.Unknown, event.Unknown
		fallthrough
	case e.New == event.SynRecv && e.Old == event.Listen, old == nil && e.OwnerVia == event.ViaListener:
		status.Holders, status.Attached = []event.Holder{}, 0 // no process has it, or not yet
	}
	next.Status = &status
	t.put(e.ID, r)
}

// known gives the row that a line is about, or nil. It is under the line's id then, also if a look had brought it.
func (t *table) known(e *event.Event) *row {
	if r := t.rows[e.ID]; r != nil {
		return r
	}
	id := t.places[placeOf(e)]
	if id&ours == 0 {
		return nil
	}
	r := t.rows[id]
	t.remove(id)
	t.put(e.ID, r)
	return r
}

// put sets a row. Whatever else was there is gone: its end is lost.
func (t *table) put(id uint64, r *row) {
	at := placeOf(r.Event)
	if old := t.rows[id]; old != nil && placeOf(old.Event) != at {
		t.remove(id)
	}
	if other, ok := t.places[at]; ok && other != id {
		t.remove(other)
	}
	t.rows[id], t.places[at] = r, id
}

func (t *table) remove(id uint64) {
	at := placeOf(t.rows[id].Event)
	if t.places[at] == id {
		delete(t.places, at)
	}
	delete(t.rows, id)
}

// look takes what a full look at the sockets has found: all that lines do not tell, and what they should have told but was lost. A look takes a
// while, and lines about that while are still to come: so where it differs from them it is believed only if they lacked something, or if it has
// differed twice. wanted tells which sockets may be in the table.
func (t *table) look(all []event.Event, wanted func(*event.Event) bool) {
	listed := make(map[uint64]bool, len(t.rows))
	strangers := make(map[place]bool)
	for i := range all {
		s := &all[i]
		t.offset = s.Wall - s.Mono
		at := placeOf(s)
		id, ok := t.places[at]
		if ok && sameSocket(t.rows[id].Event, s) {
			listed[id] = true
			t.confirm(id, s)
			continue
		}
		switch {
		case !wanted(s):
		case t.unsure || t.strangers[at]:
			t.lastOurs++
			s.ID = ours | t.lastOurs
			t.put(s.ID, found(s))
			listed[s.ID] = true
		default:
			strangers[at] = true
		}
	}
	for id, r := range t.rows {
		if !listed[id] && t.doubted(id, r) {
			t.remove(id)
		}
	}
	t.strangers, t.unsure = strangers, false
}

// sameSocket reports whether a and b, which have the same tuple, are the same socket. A mini-socket
// has a cookie of its own, or none.
func sameSocket(a, b *event.Event) bool {
	return mini(a) || mini(b) || a.Cookie == 0 || b.Cookie == 0 || a.Cookie == b.Cookie
}

// mini reports whether e may be about a mini-socket.
func mini(e *event.Event) bool {
	return e.Status != nil && e.Status.Mini || e.New == event.SynRecv || e.New == event.TimeWait
}

// doubted notes that a look has found r otherwise, and reports whether the look is right.
func (t *table) doubted(id uint64, r *row) bool {
	next := *r
	next.doubt++
	t.rows[id] = &next
	return t.unsure || next.doubt > 1
}

// confirm adds what a look has found of a row.
func (t *table) confirm(id uint64, s *event.Event) {
	r := t.rows[id]
	if s.New != r.New {
		if t.doubted(id, r) {
			next := found(s)
			next.ID, next.mark, next.marked = id, changed, s.Mono
			t.put(id, next)
		}
		return
	}
	next := *r
	next.doubt = 0
	if s.Mono-r.marked >= linger {
		next.before = nil
	}
	if seen := found(s); !r.exact && (seen.exact || seen.since < r.since) {
		next.since, next.exact = seen.since, seen.exact
	}
	if !sameStatus(r.Event, s) {
		e := *r.Event
		e.Mono, e.Status = s.Mono, s.Status
		if e.UID == event.NoUID {
			e.UID, e.Cgroup, e.CgroupID = s.UID, s.Cgroup, s.CgroupID
		}
		next.Event = &e
	}
	if next != *r {
		t.rows[id] = &next
	}
}

// sameStatus reports whether b says nothing new about a. A time that is left is the same if it ends at the same moment, but for what a jiffy may be.
func sameStatus(a, b *event.Event) bool {
	x, y := a.Status, b.Status
	const jiffies = 50e6
	end := (a.Mono + x.Left) - (b.Mono + y.Left)
	return x.RecvQueue == y.RecvQueue && x.SendQueue == y.SendQueue && slices.Equal(x.Holders, y.Holders) && (x.Holders == nil) == (y.Holders == nil) &&
		x.Attached == y.Attached && x.V6Only == y.V6Only &&
		(x.Left == event.Unknown) == (y.Left == event.Unknown) && (x.Left == event.Unknown || max(end, -end) < jiffies)
}

// snapshot is what the table is like at a moment.
type snapshot struct {
	now    int64 // CLOCK_MONOTONIC
	wall   int64 // 0: not known
	rows   []*row
	there  int // of them; the others are gone
	sums   ls.Sums
	lost   uint64
	unsure bool
}

// snapshot gives the rows that listed wants.
func (t *table) snapshot(now int64, listed func(*event.Event) bool) *snapshot {
	s := &snapshot{now: now, rows: make([]*row, 0, len(t.rows)), lost: t.lost, unsure: t.unsure}
	if t.offset != 0 {
		s.wall = now + t.offset
	}
	var left []*row
	for _, r := range t.rows {
		if e := r.at(now); listed(&e) {
			s.rows = append(s.rows, r)
			s.sums[r.New]++
		} else if r.before != nil && now-r.marked < linger && len(left) < mostGone { // it may have left what is asked for
			left = append(left, r.before)
		}
	}
	s.there = len(s.rows)
	old := slices.IndexFunc(t.gone, func(r *row) bool { return now-r.marked < linger })
	if old < 0 {
		old = len(t.gone)
	}
	t.gone = slices.Delete(t.gone, 0, old)
	for _, r := range append(left, t.gone...) {
		if e := r.at(now); listed(&e) {
			s.rows = append(s.rows, r)
		}
	}
	return s
}
