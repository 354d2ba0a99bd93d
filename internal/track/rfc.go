package track

import (
	"net/netip"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// RFC is the Tracker of the vocabulary of RFC 9293. A connection is one socket, whether it is
// currently a request sock, a full socket or a timewait sock, and its lines are one path through
// the diagram of section 3.3.2.
//
// It takes the changes of full sockets and the timers of mini-sockets. Some of these records are
// lines; others are merged into one or add nothing. A record may have to wait for the next ones,
// which supply missing data or show what it means. It waits for 5 ms at most, and so do the lines
// after it.
//
// The zero value is ready to use.
type RFC struct {
	table

	// TimersUnavailable means that mini-sockets are not reported. A full socket's close is then the
	// only sign that TIME_WAIT has started, and the end of TIME_WAIT has no line.
	TimersUnavailable bool

	// CallsUnavailable means that accept() and connect() are not reported.
	CallsUnavailable bool

	// Heirs returns the processes that own sockets after the exit of the process that had called
	// listen(). Sockets that no other process holds are missing from the result. If Heirs is nil,
	// sockets keep their owner.
	Heirs func(sks []uint64, exited uint32) map[uint64]event.Holder

	merged  uint64
	backlog backlog

	requests  map[tuple]*sock // open handshakes
	completed map[uint64]bool // addresses of request socks that have a child, until their timer is cancelled

	// The records that wait in the backlog:

	awaitingClose  map[tuple]*pending
	awaitingReuse  map[tuple]*pending
	awaitingTimer  map[uint32]*pending // by CPU
	awaitingReason map[uint64]*pending // by the socket's address

	replaced     [64]replacedSock // a ring
	nextReplaced int              // in replaced
}

// tuple identifies a connection by its two ends, when nothing else about it is known.
type tuple struct {
	local, remote netip.AddrPort
	netns         uint32
	ifindex       uint32 // of the device to which the socket is bound
}

func tupleOf(r *record.Record) tuple { return tuple{r.Local, r.Remote, r.NetNS, r.IfIndex} }

// Take implements Tracker.
func (t *RFC) Take(r *record.Record, emit func(*event.Event) error) error {
	t.init()
	switch r.Kind {
	case record.Existing:
		t.existing(r)
		return emit(&r.Event)
	case record.Reset:
		t.reset(r)
		return t.Settle(r.Mono, emit)
	}
	if p := t.awaitingTimer[r.CPU]; p != nil && r.Kind != record.Lost {
		delete(t.awaitingTimer, r.CPU)
		t.resolveTimer(p, t.continues(&p.rec, r))
	}
	line := r.Kind == record.Lost || t.apply(r)
	if t.backlog.empty() {
		if line {
			return emit(&r.Event)
		}
		return nil
	}
	if line {
		t.backlog.add(r, awaitsNothing).resolve(true)
	}
	return t.Settle(r.Mono, emit)
}

// Settle implements Tracker.
func (t *RFC) Settle(mono int64, emit func(*event.Event) error) error {
	return t.backlog.settle(mono, t.giveUp, emit)
}

// Waiting implements Tracker.
func (t *RFC) Waiting() uint64 { return t.backlog.waiting() }

// Merged implements Tracker.
func (t *RFC) Merged() uint64 { return t.merged }

func (t *RFC) init() {
	if t.requests != nil {
		return
	}
	t.table.init()
	t.requests, t.completed = make(map[tuple]*sock), make(map[uint64]bool)
	t.awaitingClose, t.awaitingReuse = make(map[tuple]*pending), make(map[tuple]*pending)
	t.awaitingTimer, t.awaitingReason = make(map[uint32]*pending), make(map[uint64]*pending)
}

// apply processes r and reports whether it is a line now. If it is not, it was merged or is in the
// backlog.
func (t *RFC) apply(r *record.Record) (line bool) {
	switch r.Kind {
	case record.Change, record.SecondChange:
		return t.change(r)
	case record.Accepted, record.AcceptedPerhaps:
		return t.accepted(r)
	case record.NoSyn:
		return t.noSyn(r)
	case record.RequestStarted:
		return t.requestStarted(r)
	case record.RequestCancelled:
		return t.requestCancelled(r)
	case record.RequestExpired:
		t.requestExpired(r)
	case record.TimeWaitStarted:
		return t.timeWaitStarted(r)
	case record.TimeWaitCancelled:
		t.awaitTimer(r)
	case record.TimeWaitExpired:
		return t.timeWaitExpired(r)
	case record.SynSentStarted:
		t.synSentStarted(r)
	case record.RequestAcked:
		t.requestAcked(r)
	case record.ConnectReturned:
		t.connectReturned(r)
	case record.ResetSent:
		t.resetSent(r)
	case record.ProcessExited:
		t.processExited(r)
	}
	return false
}

// giveUp ends the wait of p although the awaited record has not arrived. p may then have to await
// something else.
func (t *RFC) giveUp(p *pending) {
	switch p.awaits {
	case awaitsPort, awaitsRemote:
		p.sock.first = nil
		p.resolve(t.transition(p.sock, &p.rec))
	case awaitsClose: // the close was lost or filtered; from here on, the connection is known
		if t.awaitingClose[tupleOf(&p.rec)] == p {
			delete(t.awaitingClose, tupleOf(&p.rec))
		}
		p.resolve(false)
		t.mini(&p.rec)
		t.merged++
	case awaitsTimer:
		delete(t.awaitingTimer, p.rec.CPU)
		t.resolveTimer(p, false)
	case awaitsReuse:
		if t.awaitingReuse[tupleOf(&p.rec)] == p {
			delete(t.awaitingReuse, tupleOf(&p.rec))
		}
		p.resolve(t.end(p.sock, &p.rec, endedBy(&p.rec)))
	case awaitsReason:
		if t.awaitingReason[p.rec.Sk] == p {
			delete(t.awaitingReason, p.rec.Sk)
		}
		p.resolve(true)
	}
}

// existing remembers a socket that is older than the trace.
func (t *RFC) existing(r *record.Record) {
	if !r.Mini {
		t.remember(t.known(r), r)
		return
	}
	s := t.mini(r)
	s.state, s.role, s.listed = r.New, r.Role, r.Mono
	r.ID = s.id
}

// change handles a change of a full socket's state.
func (t *RFC) change(r *record.Record) (line bool) {
	switch {
	case r.Old == r.New:
		t.merged++
		return false
	case t.isDuplicate(r):
		t.duplicates++
		return false
	case r.Old == event.Listen && r.New == event.SynRecv:
		return t.childCreated(r)
	}
	t.completeOpening(r)
	if r.New == event.Close {
		if p := t.awaitingClose[tupleOf(r)]; p != nil {
			t.handOver(p, r)
			return false
		}
	}
	s := t.known(r)
	t.attribute(s, r)
	t.followQueue(s, r)
	if r.Old == event.SynRecv && s.role != event.Server {
		r.ISN = 0 // both ends sent a SYN, so this is the peer's
	}
	switch {
	case r.New == event.SynSent && (r.Local.Port() == 0 || !t.TimersUnavailable):
		t.awaitFirst(s, r, awaitsPort)
		return false
	case r.New == event.Close:
		return t.closed(s, r)
	}
	return t.transition(s, r)
}

// isDuplicate reports whether r is a change that the kernel side's first program has also reported.
// r comes from the second program.
func (t *RFC) isDuplicate(r *record.Record) bool {
	if r.Kind != record.SecondChange {
		return false
	}
	if s := t.socks[r.Sk]; s != nil {
		if s.repeats(r) {
			return true
		}
		if p := s.first; p != nil && p.rec.Old == r.Old && p.rec.New == r.New &&
			(p.rec.Cookie == r.Cookie || p.rec.Cookie == 0) {
			return true
		}
	}
	return r.New == event.Close && r.Cookie != 0 && slices.Contains(t.replaced[:], replacedSock{r.Sk, r.Cookie, r.Old})
}

// known returns the socket of a full socket's record. The result is a new one if another socket was
// at that address.
func (t *RFC) known(r *record.Record) *sock {
	s := t.socks[r.Sk]
	if s != nil && !s.same(r) {
		t.drop(s)
		s = nil
	}
	if s == nil {
		s = t.add(r)
	}
	if r.Cookie != 0 {
		s.cookie = r.Cookie
	}
	s.setUser(r)
	return s
}

// closed handles the change to CLOSE of a full socket that has not been replaced by a timewait
// sock.
func (t *RFC) closed(s *sock, r *record.Record) (line bool) {
	if t.TimersUnavailable && r.Err == 0 && (r.Old == event.FinWait2 || r.Old == event.Closing) {
		return t.handOverUnseen(s, r)
	}
	r.Reason = t.reason(r)
	t.transition(s, r)
	if !resetDecides(r) && (r.Err != 0 || r.Closing&record.InConnect == 0) {
		return true
	}
	t.awaitingReason[r.Sk] = t.backlog.add(r, awaitsReason)
	return false
}

// resolveReason ends the wait of p, now that the reason for its close is known.
func (t *RFC) resolveReason(p *pending, reason event.Reason) {
	delete(t.awaitingReason, p.rec.Sk)
	p.rec.Reason = reason
	if p.rec.Closer == 0 || p.rec.Old == event.SynSent {
		p.rec.Closer = closer(reason)
	}
	p.resolve(true)
}

// resetSent handles the RST with which a socket that has just closed answers a segment.
func (t *RFC) resetSent(r *record.Record) {
	t.merged++
	if p := t.awaitingReason[r.Sk]; p != nil && tupleOf(&p.rec) == tupleOf(r) && resetDecides(&p.rec) {
		t.resolveReason(p, event.ReasonResetSentLateData)
	}
}

// accepted handles an accept(), by which a process takes a connection from its listener's queue.
// The connection has been in that queue since it was established.
func (t *RFC) accepted(r *record.Record) (line bool) {
	s := t.socks[r.Sk]
	another := s != nil && (s.mini || s.cookie != 0 && s.cookie != r.Cookie)
	if r.Kind == record.AcceptedPerhaps && (s == nil || another || s.role != event.Server || s.queued == 0) {
		t.merged++
		return false
	}
	// This record does not create a cookie. If it has none, all changes of its socket were lost, or
	// the kernel has no cookies.
	if s != nil && (another || s.role == event.Client || s.role == event.Listener) {
		t.drop(s)
		s = nil
	}
	switch {
	case s != nil && s.via == event.ViaAccept, // reported before
		s == nil && r.New == event.Close: // over, and never seen
		t.merged++
		return false
	case s == nil:
		s = t.add(r)
		s.cookie = r.Cookie
	}
	s.setUser(r)
	s.pid, s.comm, s.via = r.OwnerPID, r.OwnerComm, event.ViaAccept
	if s.role == 0 {
		s.role, s.state = event.Server, r.New
	}
	r.ID, r.Role, r.OwnerVia, r.Dur = s.id, s.role, s.via, event.Unknown
	if s.queued != 0 && s.losses == r.Losses {
		r.Dur = r.Mono - s.queued
	}
	if r.Cookie == 0 {
		r.Cookie = s.cookie
	}
	return true
}

// transition makes r a line of s. It fills in everything that the history of s shows, and puts s
// into r.New. It returns true.
func (t *RFC) transition(s *sock, r *record.Record) bool {
	r.Type, r.ID, r.Dur = event.Change, s.id, s.duration(r)
	if r.Old != event.SynSent && r.Old != event.SynRecv {
		r.SynRetrans = event.Unknown
	}
	if r.Cookie == 0 {
		r.Cookie = s.cookie
	}
	if r.Old == event.SynRecv && s.acked != 0 {
		r.Deferred = r.Mono - s.acked
	}
	if r.Old == event.Established {
		s.srtt = r.SRTT
	}
	if r.Mini {
		r.UID, r.Cgroup, r.CgroupID = event.NoUID, "", 0
		if s.userKnown {
			r.UID, r.Cgroup, r.CgroupID = s.uid, s.cgroup, s.cgroupID
		}
		r.Totals = s.totals
	}
	if r.Totals.Known {
		r.Totals.SRTTOpen = s.srtt
	}
	s.move(r)
	switch {
	case r.New == event.Established:
		s.queued = r.Mono
	case r.New == event.FinWait1:
		s.closer = event.WeClosed
	case r.New == event.CloseWait:
		s.closer = event.TheyClosed
	case r.New == event.SynSent: // perhaps not its first connection
		s.closer, s.srtt, s.acked = 0, 0, 0
	case r.New == event.Close && s.closer == 0:
		s.closer = closer(r.Reason)
	}
	if r.New == event.Close || r.New == event.TimeWait {
		r.Closer = s.closer
	}
	s.describe(r)
	if r.New == event.Close && !r.Mini {
		t.close(s)
	}
	return true
}

// drop forgets s, which may be nil. If its first change is still waiting, drop gives up on it.
func (t *RFC) drop(s *sock) {
	if s == nil {
		return
	}
	if s.first != nil {
		t.giveUp(s.first)
	}
	if t.requests[s.tuple] == s {
		delete(t.requests, s.tuple)
	}
	t.forget(s)
}

// setUser sets the user and the cgroup of s.
func (s *sock) setUser(r *record.Record) {
	s.uid, s.cgroup, s.cgroupID, s.userKnown = r.UID, r.Cgroup, r.CgroupID, true
}
