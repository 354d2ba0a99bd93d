// Package track follows each socket through its changes: it gives it an identity, tells how long it was in the state that it leaves,
// which role it plays and who owns it. It only ever sees Events, so it is the same on every system.
package track

import (
	"net/netip"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// Tracker follows sockets. Its zero value is ready; it is not safe for concurrent use.
//
// A socket is kept from its first change (or the snapshot) until its →CLOSE, and a while longer: a program may connect again with
// the same socket. The kernel reuses the address of a struct sock within microseconds, so the address finds a socket but never
// proves that it is the same: see same.
type Tracker struct {
	// Duplicates is how many records told a change that another had told.
	Duplicates uint64

	socks     map[uint64]*sock
	listeners map[port][]*sock
	closed    []closedSock // a ring of the sockets closed last
	next      int          // in closed
	lastID    uint64
	free      []*sock
}

// keepClosed is how many closed sockets are remembered for a connect() to come.
const keepClosed = 8192

type sock struct {
	id     uint64
	sk     uint64
	cookie uint64
	old    event.State // before state
	state  event.State
	queued int64  // Mono of a passive connection's change to ESTABLISHED; 0: not seen
	since  int64  // Mono of the change into state; 0: not seen
	losses uint64 // of the run at that change
	role   event.Role
	pid    uint32
	comm   string
	via    event.Via
	addr   netip.Addr // of a listener
	port   port       // of a listener
	v6     bool       // of a listener: an AF_INET6 socket

	// For the rfc vocabulary:

	first     *pending // the first line, if it waits
	closer    event.Closer
	mini      bool  // it is a mini-sock now
	ends      ends  // its ends, then
	found     int64 // Mono at which a snapshot had it so
	userKnown bool  // uid and cgroup are
	uid       uint32
	cgroup    string
	cgroupID  uint64
	totals    event.Totals // once the full socket is gone
	acked     int64        // Mono of the ACK that its listener dropped, to wait for data; 0: none
	srtt      uint32       // as it left ESTABLISHED, µs
	listener  uint64       // whose owner is its owner, of ViaListener
}

type closedSock struct {
	*sock
	id uint64
}

// port is where listeners are found.
type port struct {
	netns uint32
	port  uint16
}

// Take takes a Change, fills in what its socket's history tells (ID, Dur, Role and owner), and gives it to emit. A Socket it only
// remembers. It must see every change of the run in the order of its source, before any filter.
func (t *Tracker) Take(e *record.Record, emit func(*event.Event) error) error {
	if e.Kind == record.Lost {
		return emit(&e.Event)
	}
	t.init()
	s := t.socks[e.Sk]
	if s != nil && s.knows(e) {
		t.Duplicates++
		return nil
	}
	if s != nil && !s.same(e) {
		t.forget(s)
		s = nil
	}
	if s == nil {
		s = t.add(e)
	}
	if e.Cookie != 0 {
		s.cookie = e.Cookie
	}
	if e.Kind == record.Existing {
		e.ID = s.id
		s.state, s.role = e.New, e.Role
		if s.pid, s.comm = e.OwnerPID, e.OwnerComm; s.pid != 0 {
			s.via = event.ViaSnapshot
		}
		if e.New == event.Listen {
			t.listen(s, e)
		}
		return nil
	}

	e.ID = s.id
	e.Dur = event.Unknown
	if s.since != 0 && s.state == e.Old && s.losses == e.Losses {
		e.Dur = e.Mono - s.since
	}
	s.old, s.state, s.since, s.losses = e.Old, e.New, e.Mono, e.Losses
	t.play(s, e)
	e.Role = s.role
	e.OwnerPID, e.OwnerComm, e.OwnerVia = s.pid, s.comm, s.via
	if e.New == event.Close {
		t.close(s)
	}
	return emit(&e.Event)
}

// knows reports whether e, taken by the kernel side's second program, is the change by which s came into its state: then the first
// one had taken it, too. Nothing else of s is between the two, for its lock is held.
func (s *sock) knows(e *record.Record) bool {
	return e.Kind == record.SecondChange && s.state == e.New && s.old == e.Old && s.losses == e.Losses && (s.cookie == e.Cookie || s.cookie == 0 || e.Cookie == 0)
}

func (t *Tracker) init() {
	if t.socks == nil {
		t.socks = make(map[uint64]*sock)
		t.listeners = make(map[port][]*sock)
	}
}

// same reports whether e is about s, and not about another socket at the same address. Two cookies prove it either way. Where
// one is missing (up to Linux 5.11; at a child's first change up to 6.12) the history must go on without a gap.
func (s *sock) same(e *record.Record) bool {
	switch {
	case e.Old == event.Listen && e.New == event.SynRecv:
		return false // a child is new by definition
	case s.cookie != 0 && e.Cookie != 0:
		return s.cookie == e.Cookie
	}
	return s.state == e.Old && s.losses == e.Losses && s.state != event.Close
}

func (t *Tracker) add(e *record.Record) *sock {
	var s *sock
	if n := len(t.free); n > 0 {
		s, t.free = t.free[n-1], t.free[:n-1]
	} else {
		s = new(sock)
	}
	t.lastID++
	*s = sock{id: t.lastID, sk: e.Sk}
	t.socks[e.Sk] = s
	return s
}

// forget drops s. Its struct serves the next socket; whoever still points to it compares the id.
func (t *Tracker) forget(s *sock) {
	t.unlisten(s)
	if t.socks[s.sk] == s {
		delete(t.socks, s.sk)
	}
	t.free = append(t.free, s)
	s.id = 0
}

// close puts s among the sockets that are remembered for a while.
func (t *Tracker) close(s *sock) {
	t.unlisten(s)
	if t.closed == nil {
		t.closed = make([]closedSock, keepClosed)
	}
	if old := t.closed[t.next]; old.sock != nil && old.sock.id == old.id && old.state == event.Close && old.first == nil {
		t.forget(old.sock)
	}
	t.closed[t.next] = closedSock{s, s.id}
	t.next = (t.next + 1) % keepClosed
}

// play learns role and owner from a change. e.OwnerPID is set if the current task made the change by its own call.
func (t *Tracker) play(s *sock, e *record.Record) {
	via := event.ViaClose
	switch {
	case e.New == event.SynSent:
		s.role, via = event.Client, event.ViaConnect
	case e.Old == event.SynSent:
		s.role = event.Client
	case e.New == event.Listen:
		s.role, via = event.Listener, event.ViaListen
	case e.Old == e.New:
	case e.Old == event.Listen && e.New != event.Close: // of MPTCP's sockets straight to ESTABLISHED
		s.role = event.Server
		if l := t.listener(e); l != nil {
			s.pid, s.comm, s.via, s.listener = l.pid, l.comm, event.ViaListener, l.sk
		}
	case e.Old == event.Listen:
		s.role = event.Listener
	}
	if e.OwnerPID != 0 {
		s.pid, s.comm, s.via = e.OwnerPID, e.OwnerComm, via
	}
	if e.New == event.Listen {
		t.listen(s, e)
	}
}

func (t *Tracker) listen(s *sock, e *record.Record) {
	t.unlisten(s)
	s.port = port{e.NetNS, e.Local.Port()}
	s.addr, s.v6 = e.Local.Addr(), e.Family != event.IPv4
	t.listeners[s.port] = append(t.listeners[s.port], s)
}

func (t *Tracker) unlisten(s *sock) {
	if s.port.port == 0 {
		return
	}
	all := t.listeners[s.port]
	for i := range all {
		if all[i] == s {
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			break
		}
	}
	if len(all) == 0 {
		delete(t.listeners, s.port)
	} else {
		t.listeners[s.port] = all
	}
	s.port = port{}
}

// listener finds the listener whose child begins with e, or nil if it is not known or several processes have one there
// (SO_REUSEPORT). One bound to the address comes before one bound to all, as in the kernel (inet_lookup_listener). The child of
// a listener on all addresses has no address of its own yet, up to Linux 6.12.
func (t *Tracker) listener(e *record.Record) *sock {
	var found *sock
	var exact, ambiguous bool
	for _, l := range t.listeners[port{e.NetNS, e.Local.Port()}] {
		isExact := l.addr == e.Local.Addr()
		isAny := !l.addr.IsValid() || l.addr.IsUnspecified()
		switch {
		case l.v6 != (e.Family != event.IPv4) || !isExact && !isAny || exact && !isExact:
		case found == nil || isExact && !exact:
			found, exact, ambiguous = l, isExact, false
		case found.pid != l.pid:
			ambiguous = true
		}
	}
	if found == nil || found.pid == 0 || ambiguous {
		return nil
	}
	return found
}
