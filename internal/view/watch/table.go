package watch

import (
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/view/ls"
)

const (
	// markTime is how long a change stays marked, in ns.
	markTime = 2e9
	// maxGone is how many closed sockets are still shown. No one reads more.
	maxGone = 500
	// foundID is set in each id that look assigns to a socket without lines.
	foundID = 1 << 63
)

// mark says what has just happened to a socket.
type mark uint8

const (
	unmarked mark = iota
	born
	changed
	gone
)

// row is a socket. Neither the row nor its Event changes once it has been made, so the terminal may
// read it without a lock.
type row struct {
	*event.Event       // a Socket, whose Mono is the time of its Status
	since        int64 // CLOCK_MONOTONIC: the start of the state if exact is set, otherwise a later moment
	exact        bool
	mark         mark
	marked       int64 // when the marked change happened
	opened       int64 // when the socket was opened; 0 if before the trace
	before       *row  // the row before the mark, until look updates the row after markTime
	mismatches   int   // how many calls of look in a row have contradicted this row, without a line in between
}

// at returns r as a Socket as of the time now.
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

// table holds the sockets that exist, and those that were closed a moment ago.
type table struct {
	rows map[uint64]*row // by id
	ids  map[event.Identity]uint64
	gone []*row // the oldest first

	lost    uint64                  // the number of lost changes
	unsure  bool                    // some changes were lost since the last call of look
	unknown map[event.Identity]bool // sockets that the last call of look found, but no line has shown
	founds  uint64                  // how many ids look has assigned
	offset  int64                   // wall time minus CLOCK_MONOTONIC; 0 if unknown
}

func newTable() *table {
	return &table{rows: make(map[uint64]*row), ids: make(map[event.Identity]uint64)}
}

// take adds one line.
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
			status.Holders, status.Attached = nil, 0 // look finds the accepting process and its descriptor next
			next.Status, next.UID = &status, e.UID
			next.OwnerPID, next.OwnerComm, next.OwnerVia = e.OwnerPID, e.OwnerComm, e.OwnerVia
			r := *old
			r.Event, r.mismatches, r.before = &next, 0, nil
			r.mark, r.marked = markOf(old, e.Mono), e.Mono
			t.put(e.ID, &r)
		}
	case event.Lost:
		t.lost += e.RingFull
		t.unsure = true
	}
}

// found returns a row for a Socket.
func found(e *event.Event) *row {
	kept := *e
	return &row{Event: &kept, since: e.Mono - max(e.Dur, e.Status.AtLeast, 0), exact: e.Dur != event.Unknown}
}

// markOf returns the mark for a row that changes. A socket that was opened a moment ago still
// counts as new.
func markOf(old *row, now int64) mark {
	if old.opened != 0 && now-old.opened < markTime {
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
			if len(t.gone) > maxGone {
				t.gone = slices.Delete(t.gone, 0, len(t.gone)-maxGone)
			}
		}
		return
	}
	next := *e
	next.Type, next.Dur = event.Socket, event.Unknown
	status := event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown,
		Left: event.Unknown}
	r := &row{Event: &next, since: e.Mono, exact: true, mark: born, marked: e.Mono, opened: e.Mono}
	if old != nil {
		r.mark, r.opened = markOf(old, e.Mono), old.opened
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
		status.Holders, status.Attached = []event.Holder{}, 0 // no process holds it any more, or none does yet
	}
	next.Status = &status
	t.put(e.ID, r)
}

// known returns the row that a line is about, or nil. If look found the socket earlier, its row
// moves to the id of the line.
func (t *table) known(e *event.Event) *row {
	if r := t.rows[e.ID]; r != nil {
		return r
	}
	id := t.ids[e.Identity()]
	if id&foundID == 0 {
		return nil
	}
	r := t.rows[id]
	t.remove(id)
	t.put(e.ID, r)
	return r
}

// put sets a row. If another socket has the same identity, that socket must have been closed by a
// change that was lost.
func (t *table) put(id uint64, r *row) {
	at := r.Identity()
	if old := t.rows[id]; old != nil && old.Identity() != at {
		t.remove(id)
	}
	if other, ok := t.ids[at]; ok && other != id {
		t.remove(other)
	}
	t.rows[id], t.ids[at] = r, id
}

func (t *table) remove(id uint64) {
	at := t.rows[id].Identity()
	if t.ids[at] == id {
		delete(t.ids, at)
	}
	delete(t.rows, id)
}

// look updates the table with all sockets that exist, because lines do not show queues and holders,
// and some lines may have been lost. Finding the sockets takes a while, so lines about this period
// may still arrive. If the result contradicts the lines, it is therefore used only if lines were
// lost, or if the next call gives the same result. wanted reports whether a socket may be in the
// table.
func (t *table) look(all []event.Event, wanted func(*event.Event) bool) {
	listed := make(map[uint64]bool, len(t.rows))
	unknown := make(map[event.Identity]bool)
	for i := range all {
		s := &all[i]
		t.offset = s.Wall - s.Mono
		at := s.Identity()
		id, ok := t.ids[at]
		if ok && sameSocket(t.rows[id].Event, s) {
			listed[id] = true
			t.confirm(id, s)
			continue
		}
		switch {
		case !wanted(s):
		case t.unsure || t.unknown[at]:
			t.founds++
			s.ID = foundID | t.founds
			t.put(s.ID, found(s))
			listed[s.ID] = true
		default:
			unknown[at] = true
		}
	}
	for id, r := range t.rows {
		if !listed[id] && t.mismatch(id, r) {
			t.remove(id)
		}
	}
	t.unknown, t.unsure = unknown, false
}

// sameSocket reports whether a and b, which have the same identity, are the same socket. A
// mini-socket has a cookie of its own, or none.
func sameSocket(a, b *event.Event) bool {
	return mini(a) || mini(b) || a.Cookie == 0 || b.Cookie == 0 || a.Cookie == b.Cookie
}

// mini reports whether e may be a mini-socket: a request sock or a timewait sock.
func mini(e *event.Event) bool {
	return e.Status != nil && e.Status.Mini || e.New == event.SynRecv || e.New == event.TimeWait
}

// mismatch records that a socket found by look contradicts r. It reports whether the new result is
// to be used.
func (t *table) mismatch(id uint64, r *row) bool {
	next := *r
	next.mismatches++
	t.rows[id] = &next
	return t.unsure || next.mismatches > 1
}

// confirm updates a row with what look found.
func (t *table) confirm(id uint64, s *event.Event) {
	r := t.rows[id]
	if s.New != r.New {
		if t.mismatch(id, r) {
			next := found(s)
			next.ID, next.mark, next.marked = id, changed, s.Mono
			t.put(id, next)
		}
		return
	}
	next := *r
	next.mismatches = 0
	if s.Mono-r.marked >= markTime {
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

// sameStatus reports whether a and b have the same Status. Two timers count as equal if they expire
// within a jiffy of each other.
func sameStatus(a, b *event.Event) bool {
	x, y := a.Status, b.Status
	const jiffies = 50e6
	end := (a.Mono + x.Left) - (b.Mono + y.Left)
	return x.RecvQueue == y.RecvQueue && x.SendQueue == y.SendQueue &&
		slices.Equal(x.Holders, y.Holders) && (x.Holders == nil) == (y.Holders == nil) &&
		x.Attached == y.Attached && x.V6Only == y.V6Only &&
		(x.Left == event.Unknown) == (y.Left == event.Unknown) && (x.Left == event.Unknown || max(end, -end) < jiffies)
}

// snapshot is the table at one moment.
type snapshot struct {
	now    int64 // CLOCK_MONOTONIC
	wall   int64 // 0: unknown
	rows   []*row
	exist  int // the number of rows that exist; the rest are closed
	sums   ls.Sums
	lost   uint64
	unsure bool
}

// snapshot returns the table with only the rows for which listed returns true.
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
		} else if r.before != nil && now-r.marked < markTime &&
			len(left) < maxGone { // the socket has changed, and may no longer be wanted
			left = append(left, r.before)
		}
	}
	s.exist = len(s.rows)
	old := slices.IndexFunc(t.gone, func(r *row) bool { return now-r.marked < markTime })
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
