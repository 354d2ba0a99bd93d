package track

import (
	"net/netip"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// Machine tells what sockets do in the vocabulary of RFC 9293: request sock, sock and timewait sock of one connection are one
// identity, and its lines one path through the diagram of section 3.3.2. It takes the kernel's changes of full socks and the timers of
// mini-socks; some of these records are lines, some say the same as another or become part of one. A record may have to wait for the
// next ones to tell what it lacks, or what it means; the lines after it then wait with it, so that all come out in the order of their
// records.
//
// Its zero value is ready; it is not safe for concurrent use.
type Machine struct {
	Tracker
	// Blind: mini-socks are not seen. A hand-over to TIME_WAIT is then told by the sock, its end not at all.
	Blind bool
	// Deaf: system calls are not seen, so neither who accepts nor what connect() returned.
	Deaf bool
	// Merged is how many records were told in another's line, or said nothing new.
	Merged uint64
	// Heirs returns the processes that some sockets belong to now that process gone, which had called listen(), has exited. Those
	// that no other process holds are missing. nil: they are unknown.
	Heirs func(sks []uint64, gone uint32) map[uint64]event.Holder

	requests map[ends]*sock    // handshakes that are not over
	adopted  map[uint64]bool   // addresses of requests that have a child, and whose timer is still to be cancelled
	handed   map[ends]*pending // timewait socks whose sock has not closed yet
	gone     map[ends]*pending // timewait socks that ended early
	cpus     map[uint32]*pending
	unclear  map[uint64]*pending // socks that closed, and what follows shows why

	handedSocks [64]handedSock // the socks that handed over last
	nextHanded  int

	queue  []*pending // from the first that waits on
	head   int        // in queue
	unused []*pending
}

// patience is how long a record waits for what it lacks, in ns. What it waits for is made by the same system call or softirq.
const patience = 5e6

// ends finds a connection that is known by its two ends alone.
type ends struct {
	local, remote netip.AddrPort
	netns         uint32
	ifindex       uint32 // of the device that the socket is bound to
}

// handedSock is a sock that has closed because a timewait sock has taken over.
type handedSock struct {
	sk     uint64
	cookie uint64
	old    event.State
}

func endsOf(e *record.Record) ends { return ends{e.Local, e.Remote, e.NetNS, e.IfIndex} }

// record is one that waits, or a line behind it.
type pending struct {
	rec   record.Record
	s     *sock
	waits wait
	line  bool // it is one; valid when it waits no more
}

// wait is what a record waits for.
type wait uint8

const (
	noMore    wait = iota
	forPort        // a connect() for its port and its sequence number
	forRemote      // a child for its remote end
	forClose       // a timewait sock for the end of its sock
	forNext        // a timer that was cancelled or has expired for what its CPU does next
	forReuse       // a timewait sock that ended early for who takes its place
	forReason      // a sock that closed for the RST that it answers with, or for the error that connect() returns
)

// Take takes a record, in the order of its source, and calls emit for each line that is ready.
func (m *Machine) Take(e *record.Record, emit func(*event.Event) error) error {
	if m.requests == nil {
		m.init()
		m.adopted = make(map[uint64]bool)
		m.requests, m.handed, m.gone = make(map[ends]*sock), make(map[ends]*pending), make(map[ends]*pending)
		m.cpus, m.unclear = make(map[uint32]*pending), make(map[uint64]*pending)
	}
	if e.Kind == record.Existing {
		m.found(e)
		return emit(&e.Event)
	}
	if e.Kind == record.Reset {
		m.reset(e)
		return m.Settle(e.Mono, emit)
	}
	if before := m.cpus[e.CPU]; before != nil && e.Kind != record.Lost {
		delete(m.cpus, e.CPU)
		m.decide(before, endsOf(&before.rec) == endsOf(e) && (before.rec.Sk == e.Sk && goesOn(&before.rec, e) || m.migrates(&before.rec, e)))
	}
	line := e.Kind == record.Lost || m.take(e)
	if m.head == len(m.queue) {
		if line {
			return emit(&e.Event)
		}
		return nil
	}
	if line {
		m.enqueue(e, nil, noMore).line = true
	}
	return m.Settle(e.Mono, emit)
}

// take makes a line of e and reports whether it is one; if not, it waits, or is merged.
func (m *Machine) take(e *record.Record) bool {
	switch e.Kind {
	case record.Change, record.SecondChange:
		return m.change(e)
	case record.Accepted, record.AcceptedPerhaps:
		return m.accepted(e)
	case record.NoSyn:
		return m.connectFailed(e)
	case record.RequestAcked:
		m.Merged++
		if s := m.at(e); s != nil {
			s.acked = e.Mono
		}
		return false
	case record.ConnectReturned:
		m.returned(e)
		return false
	case record.ResetSent:
		m.Merged++
		if r := m.unclear[e.Sk]; r != nil && endsOf(&r.rec) == endsOf(e) && answerTells(&r.rec) {
			m.settleReason(r, event.ReasonResetSentLateData)
		}
		return false
	case record.ProcessExited:
		m.exited(e)
		return false
	case record.RequestStarted:
		return m.requested(e)
	case record.RequestCancelled:
		return m.cancelled(e)
	case record.TimeWaitStarted:
		return m.timeWait(e)
	case record.TimeWaitExpired:
		s := m.endsIn(e)
		reason := event.ReasonTimeWaitExpired
		if s.state == event.FinWait2 {
			reason = event.ReasonFinWait2Timeout
		}
		return m.end(s, e, reason)
	case record.SynSentStarted:
		return m.synSent(e)
	}
	if e.Kind == record.RequestExpired { // if it is not started again
		l := m.socks[e.Listener]
		e.Reason = expired(e, l != nil && l.state == event.Listen)
	}
	m.cpus[e.CPU] = m.enqueue(e, nil, forNext)
	return false
}

// Settle emits what is ready, after giving up on what at mono has waited for long enough.
func (m *Machine) Settle(mono int64, emit func(*event.Event) error) error {
	for m.head < len(m.queue) {
		r := m.queue[m.head]
		for r.waits != noMore && mono-r.rec.Mono >= patience {
			m.giveUp(r)
		}
		if r.waits != noMore {
			break
		}
		m.queue[m.head] = nil
		m.head++
		if r.line {
			if err := emit(&r.rec.Event); err != nil {
				return err
			}
		}
		r.s = nil
		m.unused = append(m.unused, r)
	}
	switch {
	case m.head == len(m.queue):
		m.queue, m.head = m.queue[:0], 0
	case m.head > 64 && 2*m.head >= len(m.queue):
		m.queue = m.queue[:copy(m.queue, m.queue[m.head:])]
		m.head = 0
	}
	return nil
}

// Waiting is how many lines and records that may become one wait.
func (m *Machine) Waiting() (n uint64) {
	for _, r := range m.queue[m.head:] {
		if (r.line || r.waits != noMore) && r.rec.Kind != record.Lost {
			n++
		}
	}
	return n
}

func (m *Machine) enqueue(e *record.Record, s *sock, why wait) *pending {
	var r *pending
	if n := len(m.unused); n > 0 {
		r, m.unused = m.unused[n-1], m.unused[:n-1]
	} else {
		r = new(pending)
	}
	*r = pending{rec: *e, s: s, waits: why}
	m.queue = append(m.queue, r)
	return r
}

// giveUp tells r as it is: what it waits for does not come.
func (m *Machine) giveUp(r *pending) {
	why := r.waits
	r.waits = noMore
	switch why {
	case forPort, forRemote:
		r.s.first = nil
		r.line = m.tell(r.s, &r.rec)
	case forClose: // its sock's close was lost, or left out by a filter: from here on the connection is known
		if m.handed[endsOf(&r.rec)] == r {
			delete(m.handed, endsOf(&r.rec))
		}
		m.mini(&r.rec)
		m.Merged++
	case forNext:
		delete(m.cpus, r.rec.CPU)
		m.decide(r, false)
	case forReuse:
		if m.gone[endsOf(&r.rec)] == r {
			delete(m.gone, endsOf(&r.rec))
		}
		r.line = m.end(r.s, &r.rec, endedBy(&r.rec))
	case forReason:
		if m.unclear[r.rec.Sk] == r {
			delete(m.unclear, r.rec.Sk)
		}
	}
}

// goesOn reports whether e, of the same timer, is the second half of what before began: a cancelled timer expires or is started again (a
// request's when its SYN comes once more), and a request's that has expired is started again to send the SYN-ACK once more.
func goesOn(before, e *record.Record) bool {
	switch before.Kind {
	case record.RequestCancelled:
		return e.Kind == record.RequestExpired || e.Kind == record.RequestStarted
	case record.RequestExpired:
		return e.Kind == record.RequestStarted && e.Retries > 0
	}
	return e.Kind == record.TimeWaitExpired || e.Kind == record.TimeWaitStarted
}

// migrates reports whether e begins the request sock of the same handshake at another listener, whose own was closed
// (net.ipv4.tcp_migrate_req; reqsk_timer_handler in net/ipv4/inet_connection_sock.c, from Linux 5.14). Then it is the same connection.
func (m *Machine) migrates(before, e *record.Record) bool {
	if before.Kind != record.RequestExpired || e.Kind != record.RequestStarted || e.Retries == 0 || before.ISN != e.ISN {
		return false
	}
	if s := m.at(before); s != nil {
		m.becomeMini(s, e)
		m.inherit(s, e.Listener)
	}
	return true
}

// inherit makes the owner of a listener that of one of its connections.
func (m *Machine) inherit(s *sock, listener uint64) {
	if l := m.socks[listener]; l != nil && l.pid != 0 {
		s.pid, s.comm, s.via, s.listener = l.pid, l.comm, event.ViaListener, listener
	}
}

// moved assigns s, which nobody has accepted yet, a new owner if its listener was closed without it: then it is in the accept queue of
// another one on that port (net.ipv4.tcp_migrate_req; inet_csk_listen_stop in net/ipv4/inet_connection_sock.c, from Linux 5.14).
func (m *Machine) moved(s *sock, e *record.Record) {
	if s.via != event.ViaListener || s.listener == 0 || e.New == event.Close {
		return
	}
	if l := m.socks[s.listener]; l != nil && l.state == event.Listen {
		return
	}
	s.pid, s.comm, s.via, s.listener = 0, "", 0, 0
	if l := m.listener(e); l != nil {
		m.inherit(s, l.sk)
	}
}

// decide tells what it meant that a timer was cancelled or expired, now that its CPU has gone on with the same timer, or with something
// else.
func (m *Machine) decide(r *pending, goesOn bool) {
	r.waits = noMore
	switch {
	case goesOn:
		m.Merged++
	case r.rec.Kind == record.TimeWaitCancelled:
		r.waits, r.s = forReuse, m.endsIn(&r.rec)
		delete(m.socks, r.rec.Sk)
		m.gone[endsOf(&r.rec)] = r
	case r.rec.Kind == record.RequestCancelled:
		r.line = m.end(m.mini(&r.rec), &r.rec, endedBy(&r.rec))
	default:
		r.line = m.end(m.mini(&r.rec), &r.rec, r.rec.Reason)
	}
}

// found remembers a socket that is older than the trace.
func (m *Machine) found(e *record.Record) {
	if !e.Mini {
		_ = m.Tracker.Take(e, nil) // a Socket is no line
		m.socks[e.Sk].user(e)
		return
	}
	s := m.mini(e)
	s.state, s.role, s.found = e.New, e.Role, e.Mono
	e.ID = s.id
}

// at gives the connection whose mini-sock e is about, or nil if it is not known. What else was at its address is gone, its end lost; and
// what was found there by looking around is told from its beginning, if that is in the ring as well.
func (m *Machine) at(e *record.Record) *sock {
	s := m.socks[e.Sk]
	if s != nil && (!s.mini || s.ends != endsOf(e) || e.Mono <= s.found && e.Kind != record.Existing) {
		m.drop(s)
		return nil
	}
	return s
}

// mini gives the connection of a mini-sock, a new one if it is not known.
func (m *Machine) mini(e *record.Record) *sock {
	s := m.at(e)
	if s == nil {
		s = m.add(e)
		s.state, s.cookie = e.New, e.Cookie
		m.becomeMini(s, e)
	}
	return s
}

// endsIn gives the connection of a timewait sock that ends. If it is in TIME_WAIT and that was not seen to begin, nobody knows since when.
func (m *Machine) endsIn(e *record.Record) *sock {
	if r := m.handed[endsOf(e)]; r != nil && r.rec.Sk == e.Sk { // so soon that it still waited for its sock's close
		delete(m.handed, endsOf(e))
		r.waits = noMore
		m.Merged++
	}
	s := m.mini(e)
	if e.New != event.SynRecv && s.state != e.New {
		s.state, s.since = e.New, 0
	}
	return s
}

// becomeMini makes s findable by its mini-sock instead.
func (m *Machine) becomeMini(s *sock, e *record.Record) {
	if m.socks[s.sk] == s {
		delete(m.socks, s.sk)
	}
	s.sk, s.mini, s.ends = e.Sk, true, endsOf(e)
	m.socks[e.Sk] = s
	if e.New == event.SynRecv {
		m.requests[s.ends] = s
		s.user(e)
	}
}

// user learns whose a socket is.
func (s *sock) user(e *record.Record) {
	s.uid, s.cgroup, s.cgroupID, s.userKnown = e.UID, e.Cgroup, e.CgroupID, true
}

// requested: a SYN has arrived, perhaps once more, or its SYN-ACK is sent again.
func (m *Machine) requested(e *record.Record) bool {
	if m.at(e) != nil || e.Retries > 0 {
		m.mini(e).role = event.Server
		m.Merged++
		return false
	}
	m.reuse(e)
	delete(m.adopted, e.Sk) // if its cancelling was lost
	s := m.add(e)
	m.becomeMini(s, e)
	s.role = event.Server
	m.inherit(s, e.Listener)
	e.Old = event.Listen
	return m.tell(s, e)
}

// reuse: e may take the place of a connection in TIME_WAIT.
func (m *Machine) reuse(e *record.Record) {
	if r := m.gone[endsOf(e)]; r != nil {
		delete(m.gone, endsOf(e))
		r.waits = noMore
		r.line = m.end(r.s, &r.rec, event.ReasonTimeWaitReused)
	}
}

// cancelled: the timer of a request. The child, which takes over, was made before, on the same CPU.
func (m *Machine) cancelled(e *record.Record) bool {
	if s := m.at(e); s != nil {
		for _, r := range m.queue[m.head:] {
			if r.waits == forRemote && r.rec.CPU == e.CPU && r.rec.NetNS == e.NetNS && r.rec.Local.Port() == e.Local.Port() {
				m.adopt(s, r)
				break
			}
		}
	}
	if !m.adopted[e.Sk] {
		m.cpus[e.CPU] = m.enqueue(e, nil, forNext)
		return false
	}
	delete(m.adopted, e.Sk)
	m.Merged++
	return false
}

// adopt makes the child, which waited for its remote end and was a connection of its own so far, the sock of request.
func (m *Machine) adopt(request *sock, child *pending) {
	child.waits = noMore
	child.s.first = nil
	m.drop(child.s)
	m.child(request, &child.rec)
}

// child: e is the beginning of request's own sock. Its timer is still to be cancelled.
func (m *Machine) child(request *sock, e *record.Record) {
	delete(m.requests, request.ends)
	delete(m.socks, request.sk)
	m.adopted[request.sk] = true
	request.sk, request.mini = e.Sk, false
	m.socks[e.Sk] = request
	if e.Cookie != 0 {
		request.cookie = e.Cookie
	}
	m.Merged++
}

// reset: a segment has ended a mini-sock, whose timer was cancelled just before, on the same CPU.
func (m *Machine) reset(e *record.Record) {
	m.Merged++
	r := m.cpus[e.CPU]
	if r != nil && r.rec.Sk == e.Sk {
		delete(m.cpus, e.CPU)
		r.s = m.endsIn(&r.rec)
	} else if r = m.gone[endsOf(e)]; r != nil && r.rec.Sk == e.Sk {
		delete(m.gone, endsOf(e))
	} else {
		return
	}
	r.waits = noMore
	r.line = m.end(r.s, &r.rec, bySegment(&r.rec, e.Segment))
}

// settleReason: it is clear now why the sock of r closed.
func (m *Machine) settleReason(r *pending, why event.Reason) {
	delete(m.unclear, r.rec.Sk)
	r.waits, r.rec.Reason = noMore, why
	if r.rec.Closer == 0 || r.rec.Old == event.SynSent {
		r.rec.Closer = closer(why)
	}
}

// returned: a connect() in which a sock has closed returns. Where that was not by connect() to AF_UNSPEC, its error says why.
func (m *Machine) returned(e *record.Record) {
	m.Merged++
	r := m.unclear[e.Sk]
	switch {
	case r == nil || r.rec.Cookie != 0 && e.Cookie != 0 && r.rec.Cookie != e.Cookie:
	case e.Err == 0:
		m.settleReason(r, event.ReasonAborted)
	default:
		r.rec.Err = e.Err
		m.settleReason(r, event.ErrnoReason(e.Err))
	}
}

// connectFailed makes a line of a connect() that has changed no state.
func (m *Machine) connectFailed(e *record.Record) bool {
	e.Reason = event.ErrnoReason(e.Err)
	e.ID = m.lastID + 1
	if s := m.socks[e.Sk]; s != nil && s.cookie != 0 && s.cookie == e.Cookie {
		e.ID = s.id
	} else {
		m.lastID++
	}
	return true
}

// exited: a process that called listen() has exited. If its listener goes on, so do those that inherited it by fork(): the owner, also
// of the connections that nobody has accepted yet, is one of them.
func (m *Machine) exited(e *record.Record) {
	m.Merged++
	if m.Heirs == nil {
		return
	}
	var left []uint64
	for _, s := range m.socks {
		if s.state == event.Listen && s.pid == e.OwnerPID {
			left = append(left, s.sk)
		}
	}
	if len(left) == 0 {
		return
	}
	heirs := m.Heirs(left, e.OwnerPID)
	for _, s := range m.socks {
		if heir, ok := heirs[s.sk]; ok && s.state == event.Listen {
			s.pid, s.comm, s.via = heir.PID, heir.Comm, event.ViaSnapshot
		} else if heir, ok := heirs[s.listener]; ok && s.via == event.ViaListener {
			s.pid, s.comm = heir.PID, heir.Comm
		}
	}
}

// synSent: a connect() has got its port.
func (m *Machine) synSent(e *record.Record) bool {
	m.Merged++
	m.reuse(e)
	if s := m.socks[e.Sk]; s != nil && s.first != nil && s.first.waits == forPort {
		m.complete(s, e)
	}
	return false
}

// complete tells the first line of s, which waited for what e knows.
func (m *Machine) complete(s *sock, e *record.Record) {
	r := s.first
	s.first, r.waits = nil, noMore
	r.rec.Local, r.rec.Remote, r.rec.Family = e.Local, e.Remote, e.Family
	r.rec.IfIndex, r.rec.IfName = e.IfIndex, e.IfName
	if r.rec.ISN == 0 {
		r.rec.ISN = e.ISN
	}
	if r.rec.Cookie == 0 {
		r.rec.Cookie = e.Cookie
	}
	r.line = m.tell(s, &r.rec)
}

// change: a full sock changes its state.
func (m *Machine) change(e *record.Record) bool {
	switch {
	case e.Old == e.New:
		m.Merged++
		return false
	case m.knowsAlready(e):
		m.Duplicates++
		return false
	case e.Old == event.Listen && e.New == event.SynRecv:
		return m.passive(e)
	}
	if e.New == event.SynSent && e.Flags&record.PortStale != 0 {
		e.Local = netip.AddrPortFrom(e.Local.Addr(), 0)
	}
	s := m.socks[e.Sk]
	if e.New == event.Close && e.Closing&(record.NoSegment|record.Shut) == record.NoSegment && s != nil && s.first != nil && s.first.waits == forPort {
		e.Local = netip.AddrPortFrom(e.Local.Addr(), 0) // it never got one: what is there is its last connection's
	}
	if s != nil && s.first != nil && s.first.waits == forRemote {
		if request := m.requests[endsOf(e)]; request != nil {
			m.adopt(request, s.first)
			s = request
		}
	}
	if s != nil && s.first != nil {
		m.complete(s, e)
	}
	if e.New == event.Close {
		if r := m.handed[endsOf(e)]; r != nil {
			m.handOver(r, e)
			return false
		}
	}
	s = m.known(e)
	m.play(s, e)
	m.moved(s, e)
	if e.Old == event.SynRecv && s.role != event.Server {
		e.ISN = 0 // both ends sent a SYN: it is the peer's
	}
	switch {
	case e.New == event.SynSent && (e.Local.Port() == 0 || !m.Blind): // the SYN's timer has the port and the sequence number
		s.first = m.enqueue(e, s, forPort)
		return false
	case e.New == event.Close && m.Blind && e.Err == 0 && (e.Old == event.FinWait2 || e.Old == event.Closing):
		return m.blindHandOver(s, e)
	case e.New == event.Close:
		e.Reason = m.reason(e)
		m.tell(s, e)
		if answerTells(e) || e.Err == 0 && e.Closing&record.InConnect != 0 {
			r := m.enqueue(e, nil, forReason)
			r.line = true
			m.unclear[e.Sk] = r
			return false
		}
		return true
	}
	return m.tell(s, e)
}

// knowsAlready reports whether e is a change that was told, by the kernel side's second program.
func (m *Machine) knowsAlready(e *record.Record) bool {
	if e.Kind != record.SecondChange {
		return false
	}
	if s := m.socks[e.Sk]; s != nil {
		if s.knows(e) || s.first != nil && s.first.rec.Old == e.Old && s.first.rec.New == e.New && (s.first.rec.Cookie == e.Cookie || s.first.rec.Cookie == 0) {
			return true
		}
	}
	return e.New == event.Close && e.Cookie != 0 && slices.Contains(m.handedSocks[:], handedSock{e.Sk, e.Cookie, e.Old})
}

// known gives the connection of a full sock, a new one if it is another than was at its address.
func (m *Machine) known(e *record.Record) *sock {
	s := m.socks[e.Sk]
	if s != nil && !s.same(e) {
		m.drop(s)
		s = nil
	}
	if s == nil {
		s = m.add(e)
	}
	if e.Cookie != 0 {
		s.cookie = e.Cookie
	}
	s.user(e)
	return s
}

// passive: the sock of a passive connection is made when the ACK has come; the connection itself is as old as the SYN, unless it had no
// request (SYN cookies, Fast Open).
func (m *Machine) passive(e *record.Record) bool {
	m.drop(m.socks[e.Sk])
	if request := m.requests[endsOf(e)]; request != nil {
		m.child(request, e)
		return false
	}
	s := m.known(e)
	m.play(s, e)
	if e.Remote.Port() == 0 { // up to Linux 6.12
		s.first = m.enqueue(e, s, forRemote)
		s.state = event.SynRecv
		return false
	}
	return m.tell(s, e)
}

// accepted: a process has taken the connection from its listener's queue, in which it was since it was established.
func (m *Machine) accepted(e *record.Record) bool {
	s := m.socks[e.Sk]
	if e.Kind == record.AcceptedPerhaps && (s == nil || s.mini || s.role != event.Server || s.queued == 0 || s.cookie != 0 && s.cookie != e.Cookie) {
		m.Merged++
		return false
	}
	// The record does not make a cookie, so one without is about a socket whose changes were all lost; or the kernel has none.
	if s != nil && (s.mini || s.role == event.Client || s.role == event.Listener || s.cookie != 0 && s.cookie != e.Cookie) {
		m.drop(s)
		s = nil
	}
	switch {
	case s != nil && s.via == event.ViaAccept, // told before
		s == nil && e.New == event.Close: // over, and not known
		m.Merged++
		return false
	case s == nil:
		s = m.add(e)
		s.cookie = e.Cookie
	}
	s.user(e)
	s.pid, s.comm, s.via = e.OwnerPID, e.OwnerComm, event.ViaAccept
	if s.role == 0 {
		s.role, s.state = event.Server, e.New
	}
	e.ID, e.Role, e.OwnerVia, e.Dur = s.id, s.role, s.via, event.Unknown
	if s.queued != 0 && s.losses == e.Losses {
		e.Dur = e.Mono - s.queued
	}
	if e.Cookie == 0 {
		e.Cookie = s.cookie
	}
	return true
}

// timeWait: a timewait sock begins, or goes on in another state.
func (m *Machine) timeWait(e *record.Record) bool {
	s := m.at(e)
	switch {
	case s == nil:
		m.handed[endsOf(e)] = m.enqueue(e, nil, forClose)
		return false
	case s.state == e.New:
		m.Merged++
		return false
	}
	e.Old = s.state
	return m.tell(s, e)
}

// handOver: a sock closes because a timewait sock has taken over.
func (m *Machine) handOver(r *pending, e *record.Record) {
	delete(m.handed, endsOf(e))
	r.waits = noMore
	s := m.known(e)
	m.play(s, e)
	s.totals = e.Totals
	m.becomeMini(s, &r.rec)
	m.handedSocks[m.nextHanded] = handedSock{e.Sk, e.Cookie, e.Old}
	m.nextHanded = (m.nextHanded + 1) % len(m.handedSocks)
	m.Merged++
	if r.rec.New == e.Old { // still FIN_WAIT2, but no process has it any more
		m.Merged++
		return
	}
	r.rec.Old = e.Old
	r.line = m.tell(s, &r.rec)
}

// blindHandOver tells what a sock alone tells of its hand-over: the peer's FIN has come, or not yet. In that case it may go on as a timewait sock, unseen.
func (m *Machine) blindHandOver(s *sock, e *record.Record) bool {
	line := e.Closing&record.FinCame != 0
	if line {
		e.New = event.TimeWait
		m.tell(s, e)
	} else {
		m.Merged++
	}
	m.drop(s)
	return line
}

// end: a mini-sock is gone.
func (m *Machine) end(s *sock, e *record.Record, why event.Reason) bool {
	e.Old, e.New, e.Reason = s.state, event.Close, why
	m.tell(s, e)
	m.drop(s)
	return true
}

// drop forgets s, if there is one.
func (m *Machine) drop(s *sock) {
	if s == nil {
		return
	}
	if s.first != nil {
		m.giveUp(s.first)
	}
	if m.requests[s.ends] == s {
		delete(m.requests, s.ends)
	}
	m.forget(s)
}

// tell makes e a line of s: what its history tells is filled in.
func (m *Machine) tell(s *sock, e *record.Record) bool {
	e.Type, e.ID, e.Dur = event.Change, s.id, event.Unknown
	if e.Old != event.SynSent && e.Old != event.SynRecv {
		e.SynRetrans = event.Unknown
	}
	if s.since != 0 && s.losses == e.Losses && s.state == e.Old {
		e.Dur = e.Mono - s.since
	}
	if e.Cookie == 0 {
		e.Cookie = s.cookie
	}
	if e.Old == event.SynRecv && s.acked != 0 {
		e.Deferred = e.Mono - s.acked
	}
	if e.Old == event.Established {
		s.srtt = e.SRTT
	}
	if e.Mini {
		e.UID, e.Cgroup, e.CgroupID = event.NoUID, "", 0
		if s.userKnown {
			e.UID, e.Cgroup, e.CgroupID = s.uid, s.cgroup, s.cgroupID
		}
		e.Totals = s.totals
	}
	if e.Totals.Known {
		e.Totals.SRTTOpen = s.srtt
	}
	s.old, s.state, s.since, s.losses = e.Old, e.New, e.Mono, e.Losses
	switch {
	case e.New == event.Established:
		s.queued = e.Mono
	case e.New == event.FinWait1:
		s.closer = event.WeClosed
	case e.New == event.CloseWait:
		s.closer = event.TheyClosed
	case e.New == event.SynSent:
		s.closer, s.srtt, s.acked = 0, 0, 0 // connects again
	case e.New == event.Close && s.closer == 0:
		s.closer = closer(e.Reason)
	}
	if e.New == event.Close || e.New == event.TimeWait {
		e.Closer = s.closer
	}
	e.Role, e.OwnerPID, e.OwnerComm, e.OwnerVia = s.role, s.pid, s.comm, s.via
	if e.New == event.Close && !e.Mini {
		m.close(s)
	}
	return true
}
