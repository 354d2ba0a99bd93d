package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// endedBy returns why a request or timewait sock's timer was cancelled, if nothing that followed says so.
func endedBy(e *record.Record) event.Reason {
	switch {
	case e.Flags&record.Destroyed != 0:
		return event.ReasonAborted
	case e.Flags&record.ByICMP != 0:
		return event.ReasonUnreachable
	case e.Flags&record.Abandoned != 0:
		return event.ReasonNetNSGone
	}
	return event.ReasonUnexplained
}

// expired returns why a handshake came to nothing when its SYN-ACK had been sent for the last time. listening reports whether its
// listener is still there.
func expired(e *record.Record, listening bool) event.Reason {
	switch {
	case !listening:
		return event.ReasonListenerClosed
	case e.Flags&record.Acked != 0 && (e.Flags&record.Defers == 0 || e.Flags&record.QueueFull != 0):
		return event.ReasonAcceptQueueFull
	}
	return event.ReasonHandshakeAbandoned
}

// The flags of a TCP header (RFC 9293 section 3.1).
const (
	flagSYN = 1 << 1
	flagRST = 1 << 2
)

// bySegment returns why a mini-sock ended, by the segment that ended it: r is the record of its end, and flags are the segment's.
// A request sock is ended by RST or SYN in tcp_check_req, which also answers the ACK with RST if the accept queue is full and
// tcp_abort_on_overflow is set; a timewait sock in FIN_WAIT2 by RST, by SYN, or by data that nobody will read
// (tcp_timewait_state_process; both in net/ipv4/tcp_minisocks.c).
func bySegment(r *record.Record, flags uint8) event.Reason {
	switch {
	case flags&flagRST != 0:
		return event.ReasonResetByPeer
	case flags&flagSYN != 0:
		return event.ReasonResetSentSyn
	case r.Kind != record.RequestCancelled:
		return event.ReasonResetSentLateData
	case r.Flags&record.QueueFull != 0:
		return event.ReasonAcceptQueueFull
	}
	return event.ReasonUnexplained
}

// closer returns which end ended a connection that no FIN did.
func closer(r event.Reason) event.Closer {
	switch r {
	case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2, event.ReasonResetSentSyn, event.ReasonAborted,
		event.ReasonGivenUp, event.ReasonListenerClosed, event.ReasonRepaired:
		return event.WeClosed
	case event.ReasonRefused, event.ReasonResetByPeer:
		return event.TheyClosed
	}
	return 0
}

// answerTells reports whether only an RST sent right after a full sock closed, or its absence, shows why: see reset_sent in
// bpf/sstrace.bpf.c.
func answerTells(e *record.Record) bool {
	switch {
	case e.New != event.Close || e.Old != event.FinWait1 && e.Old != event.FinWait2:
		return false
	case e.Err != 0:
		return e.Err == errReset && e.Closing&record.RecvShut != 0
	}
	return e.Old == event.FinWait2 && e.Closing&(record.Orphan|record.FinCame|record.NoFinWait2) == record.Orphan
}

// Errors that mean more than one thing (include/uapi/asm-generic/errno.h); event.ErrnoReason has the others.
const (
	errReset    = 104 // ECONNRESET
	errTimedOut = 110 // ETIMEDOUT
	errRefused  = 111 // ECONNREFUSED
)

// reason returns why a full sock closed, by what it was like at that moment. The errors are those that net/ipv4/tcp_input.c,
// tcp_timer.c, tcp_ipv4.c and tcp.c leave in sk_err before they close (Linux 6.18). The error that a process
// read with SO_ERROR about an unanswered SYN is in e.Err afterwards.
func (m *Machine) reason(e *record.Record) event.Reason {
	if e.Err == 0 && e.Old == event.SynSent && e.SoftErr != 0 && e.Closing&record.InConnect == 0 {
		e.Err = e.SoftErr
	}
	switch {
	case e.Old == event.LastAck && e.Closing&record.Unacked == 0:
		return event.ReasonNormal // whatever error was left from before
	case e.Err == 0, closedHere(e):
		return m.withoutError(e)
	case e.Err == errTimedOut && e.Closing&(record.Keepalive|record.Unacked) == record.Keepalive:
		return event.ReasonKeepaliveTimeout // tcp_keepalive_timer probes only while nothing is outstanding
	case e.Err != errRefused:
		return event.ErrnoReason(e.Err)
	case e.Old != event.SynSent && e.Old != event.SynRecv:
		return event.ReasonUnreachable // only a SYN is refused by RST
	case e.Old == event.SynRecv || e.SoftErr != 0 || e.Totals.Known && e.Totals.SegsIn == 0:
		return event.ReasonPortUnreachable
	}
	return event.ReasonRefused
}

// closedHere reports whether it was a process's close() or its connect() to AF_UNSPEC that ended a connection with RST: an error that
// its socket has is left from before (IP_RECVERR, kernel TLS). close() alone shuts down both ways in these states; and a connect() that
// waits for its handshake may find only the peer's RST besides.
func closedHere(e *record.Record) bool {
	if e.Closing&record.InConnect != 0 {
		return e.Old != event.SynSent && e.Old != event.SynRecv && event.ErrnoReason(e.Err) != event.ReasonResetByPeer
	}
	return (e.Old == event.Established || e.Old == event.CloseWait) && e.Closing&(record.Shut|record.Owned|record.Orphan) == record.Shut|record.Owned
}

// withoutError returns why a sock without an error closed.
func (m *Machine) withoutError(e *record.Record) event.Reason {
	at := func(bits record.Closing) bool { return e.Closing&bits == bits }
	switch {
	case e.Old == event.Listen && e.Flags&record.Destroyed != 0:
		return event.ReasonAborted
	case e.Old == event.Listen:
		return event.ReasonNormal
	case at(record.Orphan):
		return orphaned(e)
	case at(record.Owned | record.Repair):
		return event.ReasonRepaired
	case at(record.InConnect):
		return event.ReasonAborted // to AF_UNSPEC, unless what it returns shows otherwise
	case e.Old == event.SynSent && m.Deaf && at(record.Owned) && !at(record.Shut):
		return event.ReasonUnexplained // no port, connect() to AF_UNSPEC, or shutdown()
	case e.Old == event.SynSent:
		return event.ReasonGivenUp
	case at(record.Unaccepted):
		return event.ReasonListenerClosed
	case at(record.FinCame) && !at(record.Unacked):
		return event.ReasonTimeWaitOverflow
	case !at(record.Owned):
		return event.ReasonUnexplained
	case !at(record.Shut):
		return event.ReasonAborted
	case at(record.Unread):
		return event.ReasonResetSentUnread
	case at(record.Linger0) && (e.Old != event.Closing && e.Old != event.LastAck || at(record.Unsent)): // as tcp_disconnect asks
		return event.ReasonResetSentLinger
	}
	return event.ReasonAborted // in CLOSING and LAST_ACK without an RST (tcp_need_reset in net/ipv4/tcp.c)
}

// orphaned returns why a sock that no process has any more closed: tcp_rcv_state_process in net/ipv4/tcp_input.c, tcp_time_wait in
// tcp_minisocks.c, tcp_keepalive_timer and tcp_out_of_resources in tcp_timer.c, __tcp_close in tcp.c.
func orphaned(e *record.Record) event.Reason {
	at := func(bits record.Closing) bool { return e.Closing&bits == bits }
	switch {
	case at(record.NetNSGone):
		return event.ReasonNetNSGone
	case (e.Old == event.FinWait2 || e.Old == event.Closing) && at(record.FinCame) && !at(record.Unacked):
		return event.ReasonTimeWaitOverflow
	case e.Old == event.FinWait2 && at(record.NoFinWait2):
		return event.ReasonResetSentLinger2
	case e.Old == event.FinWait2 && at(record.TimeWaitFull):
		return event.ReasonTimeWaitOverflow
	case e.Old == event.FinWait2:
		return event.ReasonFinWait2Timeout
	case e.Old == event.FinWait1, e.Old == event.Closing, e.Old == event.LastAck:
		return event.ReasonTooManyOrphans
	}
	return event.ReasonUnexplained
}
