package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// requestStarted handles the start of a request's timer: a SYN has arrived, perhaps not for the
// first time, or the SYN-ACK is retransmitted.
func (t *RFC) requestStarted(r *record.Record) (line bool) {
	if t.findMini(r) != nil || r.Retries > 0 {
		t.mini(r).role = event.Server
		t.merged++
		return false
	}
	t.reuse(r)
	delete(t.completed, r.Sk) // the record of its cancellation may have been lost
	s := t.add(r)
	t.replaceByMini(s, r)
	s.role = event.Server
	t.inherit(s, r.Listener)
	r.Old = event.Listen
	return t.transition(s, r)
}

// requestAcked handles the ACK of a handshake that was dropped in order to wait for data.
func (t *RFC) requestAcked(r *record.Record) {
	t.merged++
	if s := t.findMini(r); s != nil {
		s.acked = r.Mono
	}
}

// requestCancelled handles the cancellation of a request's timer. If a child takes over, it was
// created just before, on the same CPU.
func (t *RFC) requestCancelled(r *record.Record) (line bool) {
	if s := t.findMini(r); s != nil {
		if child := t.childWithoutRemote(r); child != nil {
			t.adopt(s, child)
		}
	}
	if !t.completed[r.Sk] {
		t.awaitTimer(r)
		return false
	}
	delete(t.completed, r.Sk)
	t.merged++
	return false
}

// requestExpired handles the expiry of a request's timer, which is the end of the handshake unless
// the timer is started again.
func (t *RFC) requestExpired(r *record.Record) {
	l := t.socks[r.Listener]
	r.Reason = expired(r, l != nil && l.state == event.Listen)
	t.awaitTimer(r)
}

// migrate reports whether r starts a request sock that continues a handshake on another listener,
// because the handshake's own listener was closed (net.ipv4.tcp_migrate_req; reqsk_timer_handler in
// net/ipv4/inet_connection_sock.c, from Linux 5.14). The connection is still the same, but has
// another owner.
func (t *RFC) migrate(before, r *record.Record) bool {
	if before.Kind != record.RequestExpired || r.Kind != record.RequestStarted ||
		r.Retries == 0 || before.ISN != r.ISN {
		return false
	}
	if s := t.findMini(before); s != nil {
		t.replaceByMini(s, r)
		t.inherit(s, r.Listener)
	}
	return true
}

// childCreated handles the change from LISTEN to SYN_RECV of a full socket, which the kernel
// creates when the ACK arrives. The connection itself is as old as its SYN, unless it had no
// request (SYN cookies, TCP Fast Open).
func (t *RFC) childCreated(r *record.Record) (line bool) {
	t.drop(t.socks[r.Sk])
	if request := t.requests[tupleOf(r)]; request != nil {
		t.replaceByChild(request, r)
		return false
	}
	s := t.known(r)
	t.attribute(s, r)
	if r.Remote.Port() == 0 { // up to Linux 6.12
		t.awaitFirst(s, r, awaitsRemote)
		s.state = event.SynRecv
		return false
	}
	return t.transition(s, r)
}

// childWithoutRemote returns the child of the request of r if it is still awaiting its remote end.
func (t *RFC) childWithoutRemote(r *record.Record) *pending {
	for p := range t.backlog.all() {
		if p.awaits == awaitsRemote && p.rec.CPU == r.CPU &&
			p.rec.NetNS == r.NetNS && p.rec.Local.Port() == r.Local.Port() {
			return p
		}
	}
	return nil
}

// adopt makes child the full socket of request. Until now child was a separate connection, because
// its remote end was unknown.
func (t *RFC) adopt(request *sock, child *pending) {
	child.resolve(false)
	child.sock.first = nil
	t.drop(child.sock)
	t.replaceByChild(request, &child.rec)
}

// replaceByChild makes the full socket that r creates stand for request. The request's timer has
// yet to be cancelled.
func (t *RFC) replaceByChild(request *sock, r *record.Record) {
	delete(t.requests, request.tuple)
	delete(t.socks, request.sk)
	t.completed[request.sk] = true
	request.sk, request.mini = r.Sk, false
	t.socks[r.Sk] = request
	if r.Cookie != 0 {
		request.cookie = r.Cookie
	}
	t.merged++
}
