package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// port is a local port in a network namespace.
type port struct {
	netns uint32
	port  uint16
}

// attribute derives the role and the owner of s from a change. r.OwnerPID is set if the current
// task made the change by its own system call.
func (t *table) attribute(s *sock, r *record.Record) {
	via := event.ViaClose
	switch {
	case r.New == event.SynSent:
		s.role, via = event.Client, event.ViaConnect
	case r.Old == event.SynSent:
		s.role = event.Client
	case r.New == event.Listen:
		s.role, via = event.Listener, event.ViaListen
	case r.Old == r.New:
	case r.Old == event.Listen && r.New != event.Close: // MPTCP sockets go straight to ESTABLISHED
		s.role = event.Server
		if l := t.listener(r); l != nil {
			s.pid, s.comm, s.via, s.listener = l.pid, l.comm, event.ViaListener, l.sk
		}
	case r.Old == event.Listen:
		s.role = event.Listener
	}
	if r.OwnerPID != 0 {
		s.pid, s.comm, s.via = r.OwnerPID, r.OwnerComm, via
	}
	if r.New == event.Listen {
		t.listen(s, r)
	}
}

// listen enters s as a listener at the local end of r.
func (t *table) listen(s *sock, r *record.Record) {
	t.unlisten(s)
	s.port = port{r.NetNS, r.Local.Port()}
	s.addr, s.v6 = r.Local.Addr(), r.Family != event.IPv4
	t.listeners[s.port] = append(t.listeners[s.port], s)
}

// unlisten removes s from the listeners, if it is one.
func (t *table) unlisten(s *sock) {
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

// listener returns the listener whose child r creates. It returns nil if the listener is unknown,
// or if several processes listen there (SO_REUSEPORT). A listener bound to the address precedes one
// bound to all addresses, as in the kernel (inet_lookup_listener). Up to Linux 6.12 the child of a
// listener on all addresses does not have its own address yet.
func (t *table) listener(r *record.Record) *sock {
	var found *sock
	var exact, ambiguous bool
	for _, l := range t.listeners[port{r.NetNS, r.Local.Port()}] {
		isExact := l.addr == r.Local.Addr()
		isAny := !l.addr.IsValid() || l.addr.IsUnspecified()
		switch {
		case l.v6 != (r.Family != event.IPv4) || !isExact && !isAny || exact && !isExact:
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

// inherit gives s the owner of the listener at that address, if the owner is known.
func (t *table) inherit(s *sock, listener uint64) {
	if l := t.socks[listener]; l != nil && l.pid != 0 {
		s.pid, s.comm, s.via, s.listener = l.pid, l.comm, event.ViaListener, listener
	}
}

// followQueue gives s another owner if s is still waiting for accept() and its listener has closed.
// s is then in the accept queue of another listener on the same port (net.ipv4.tcp_migrate_req;
// inet_csk_listen_stop in net/ipv4/inet_connection_sock.c, from Linux 5.14).
func (t *table) followQueue(s *sock, r *record.Record) {
	if s.via != event.ViaListener || s.listener == 0 || r.New == event.Close {
		return
	}
	if l := t.socks[s.listener]; l != nil && l.state == event.Listen {
		return
	}
	s.pid, s.comm, s.via, s.listener = 0, "", 0, 0
	if l := t.listener(r); l != nil {
		t.inherit(s, l.sk)
	}
}

// processExited handles the exit of a process that had called listen(). Its listeners may still be
// open in processes that inherited them by fork(). One of these processes becomes the owner of the
// listeners and of the connections waiting for accept().
func (t *RFC) processExited(r *record.Record) {
	t.merged++
	if t.Heirs == nil {
		return
	}
	var left []uint64
	for _, s := range t.socks {
		if s.state == event.Listen && s.pid == r.OwnerPID {
			left = append(left, s.sk)
		}
	}
	if len(left) == 0 {
		return
	}
	heirs := t.Heirs(left, r.OwnerPID)
	for _, s := range t.socks {
		if heir, ok := heirs[s.sk]; ok && s.state == event.Listen {
			s.pid, s.comm, s.via = heir.PID, heir.Comm, event.ViaSnapshot
		} else if heir, ok := heirs[s.listener]; ok && s.via == event.ViaListener {
			s.pid, s.comm = heir.PID, heir.Comm
		}
	}
}
