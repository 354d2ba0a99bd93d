package track

import (
	"net/netip"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// table holds the sockets of a run. It keeps a socket from its first record until some time after
// its change to CLOSE, because a program may connect again with the same socket.
//
// The kernel reuses the address of a struct sock within microseconds. An address leads to a socket,
// but does not prove that it is the same one: see sock.same.
type table struct {
	socks      map[uint64]*sock
	listeners  map[port][]*sock
	closed     []closedSock // a ring of the most recently closed sockets
	nextClosed int          // in closed
	lastID     uint64
	free       []*sock
	duplicates uint64
}

// keepClosed is the number of closed sockets to remember, since they may connect again.
const keepClosed = 8192

// sock is a socket. In the RFC's vocabulary it is a connection, whose request sock, full socket and
// timewait sock are a single sock.
type sock struct {
	id     uint64
	sk     uint64 // its address in the kernel
	cookie uint64
	old    event.State // the state before state
	state  event.State
	since  int64  // Mono of the change into state; 0: not seen
	losses uint64 // record.Record.Losses of that change
	role   event.Role
	pid    uint32
	comm   string
	via    event.Via

	// For a listener:

	addr netip.Addr
	port port
	v6   bool // an AF_INET6 socket

	// For the RFC's vocabulary:

	first     *pending // its first change, while it waits
	closer    event.Closer
	mini      bool  // it is a mini-socket now
	tuple     tuple // of the mini-socket
	listed    int64 // Mono at which the snapshot listed the mini-socket
	userKnown bool  // uid and cgroup are known
	uid       uint32
	cgroup    string
	cgroupID  uint64
	totals    event.Totals // once the full socket is gone
	acked     int64        // Mono of the ACK that its listener dropped to wait for data; 0: none
	queued    int64        // Mono of its change to ESTABLISHED; 0: not seen
	srtt      uint32       // as it left ESTABLISHED, in µs
	listener  uint64       // the address of the listener from which it has its owner; see event.ViaListener
}

// closedSock is a sock and its id when it closed. If the ids differ, the struct now belongs to
// another socket.
type closedSock struct {
	*sock
	id uint64
}

// Duplicates implements Tracker.
func (t *table) Duplicates() uint64 { return t.duplicates }

func (t *table) init() {
	if t.socks == nil {
		t.socks = make(map[uint64]*sock)
		t.listeners = make(map[port][]*sock)
	}
}

// add starts a new socket at the address of r.
func (t *table) add(r *record.Record) *sock {
	var s *sock
	if n := len(t.free); n > 0 {
		s, t.free = t.free[n-1], t.free[:n-1]
	} else {
		s = new(sock)
	}
	t.lastID++
	*s = sock{id: t.lastID, sk: r.Sk}
	t.socks[r.Sk] = s
	return s
}

// forget removes s. Its struct is reused for the next socket.
func (t *table) forget(s *sock) {
	t.unlisten(s)
	if t.socks[s.sk] == s {
		delete(t.socks, s.sk)
	}
	t.free = append(t.free, s)
	s.id = 0
}

// close adds s to the most recently closed sockets, and forgets the oldest of them.
func (t *table) close(s *sock) {
	t.unlisten(s)
	if t.closed == nil {
		t.closed = make([]closedSock, keepClosed)
	}
	oldest := t.closed[t.nextClosed]
	if oldest.sock != nil && oldest.sock.id == oldest.id && oldest.state == event.Close && oldest.first == nil {
		t.forget(oldest.sock)
	}
	t.closed[t.nextClosed] = closedSock{s, s.id}
	t.nextClosed = (t.nextClosed + 1) % keepClosed
}

// remember fills in s from r, which lists it as a full socket that is older than the trace.
func (t *table) remember(s *sock, r *record.Record) {
	r.ID = s.id
	s.state, s.role = r.New, r.Role
	if s.pid, s.comm = r.OwnerPID, r.OwnerComm; s.pid != 0 {
		s.via = event.ViaSnapshot
	}
	if r.New == event.Listen {
		t.listen(s, r)
	}
}

// repeats reports whether r is the change into the current state of s. r comes from the kernel
// side's second program, so the first program has already reported that change. No other record of
// s can come between the two, because the lock of s is held.
func (s *sock) repeats(r *record.Record) bool {
	return r.Kind == record.SecondChange && s.state == r.New && s.old == r.Old && s.losses == r.Losses &&
		(s.cookie == r.Cookie || s.cookie == 0 || r.Cookie == 0)
}

// same reports whether r is about s, and not about another socket at the same address. Two cookies
// prove it either way. If one is missing (up to Linux 5.11; at a child's first change up to 6.12),
// the history must continue without a gap.
func (s *sock) same(r *record.Record) bool {
	switch {
	case r.Old == event.Listen && r.New == event.SynRecv:
		return false // a child is new by definition
	case s.cookie != 0 && r.Cookie != 0:
		return s.cookie == r.Cookie
	}
	return s.state == r.Old && s.losses == r.Losses && s.state != event.Close
}

// duration returns how long s was in the state that it leaves with r. It returns event.Unknown if
// the start of that state was not seen, or if a change may have been lost since then.
func (s *sock) duration(r *record.Record) int64 {
	if s.since != 0 && s.state == r.Old && s.losses == r.Losses {
		return r.Mono - s.since
	}
	return event.Unknown
}

// move puts s into the new state in r.
func (s *sock) move(r *record.Record) {
	s.old, s.state, s.since, s.losses = r.Old, r.New, r.Mono, r.Losses
}

// describe sets the role and the owner of r to those of s.
func (s *sock) describe(r *record.Record) {
	r.Role, r.OwnerPID, r.OwnerComm, r.OwnerVia = s.role, s.pid, s.comm, s.via
}
