package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// endedBy returns why the timer of a request or timewait sock was cancelled, if no later record
// shows the reason.
func endedBy(r *record.Record) event.Reason {
	switch {
	case r.Flags&record.Destroyed != 0:
		return event.ReasonAborted
	case r.Flags&record.ByICMP != 0:
		return event.ReasonUnreachable
	case r.Flags&record.Abandoned != 0:
		return event.ReasonNetNSGone
	}
	return event.ReasonUnexplained
}

// expired returns why a handshake failed if its SYN-ACK will not be retransmitted again. listening
// reports whether its listener still exists.
func expired(r *record.Record, listening bool) event.Reason {
	switch {
	case !listening:
		return event.ReasonListenerClosed
	case r.Flags&record.Acked != 0 && (r.Flags&record.Defers == 0 || r.Flags&record.QueueFull != 0):
		return event.ReasonAcceptQueueFull
	}
	return event.ReasonHandshakeAbandoned
}

// The flags of a TCP header (RFC 9293 section 3.1).
const (
	flagSYN = 1 << 1
	flagRST = 1 << 2
)

// bySegment returns why a mini-socket ended. r is the record of its end, and flags are the flags of
// the segment that ended it.
//
// RST or SYN ends a request sock in tcp_check_req, which also answers the ACK with an RST if the
// accept queue is full and tcp_abort_on_overflow is set. A timewait sock in FIN_WAIT2 is ended by
// RST, by SYN, or by data that no process will read (tcp_timewait_state_process). Both functions
// are in net/ipv4/tcp_minisocks.c.
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

// closer returns the end that closed a connection that ended without a FIN.
func closer(reason event.Reason) event.Closer {
	switch reason {
	case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2,
		event.ReasonResetSentSyn, event.ReasonAborted, event.ReasonGivenUp, event.ReasonListenerClosed,
		event.ReasonRepaired:
		return event.WeClosed
	case event.ReasonRefused, event.ReasonResetByPeer:
		return event.TheyClosed
	}
	return 0
}

// resetDecides reports whether the reason why a full socket closed depends on whether it sends an
// RST right afterwards: see reset_sent in bpf/sstrace.bpf.c.
func resetDecides(r *record.Record) bool {
	switch {
	case r.New != event.Close || r.Old != event.FinWait1 && r.Old != event.FinWait2:
		return false
	case r.Err != 0:
		return r.Err == errReset && r.Closing&record.RecvShut != 0
	}
	return r.Old == event.FinWait2 && r.Closing&(record.Orphan|record.FinCame|record.NoFinWait2) == record.Orphan
}

// Errors that have more than one meaning (include/uapi/asm-generic/errno.h); event.ErrnoReason has
// the others.
const (
	errReset    = 104 // ECONNRESET
	errTimedOut = 110 // ETIMEDOUT
	errRefused  = 111 // ECONNREFUSED
)

// reason returns why a full socket closed, judging by its state at that moment. If a process has
// used SO_ERROR to read the error about an unanswered SYN, reason sets r.Err to it.
//
// The errors are the ones that net/ipv4/tcp_input.c, tcp_timer.c, tcp_ipv4.c and tcp.c leave in
// sk_err before they close (Linux 6.18).
func (t *RFC) reason(r *record.Record) event.Reason {
	if r.Err == 0 && r.Old == event.SynSent && r.SoftErr != 0 && r.Closing&record.InConnect == 0 {
		r.Err = r.SoftErr
	}
	switch {
	case r.Old == event.LastAck && r.Closing&record.Unacked == 0:
		return event.ReasonNormal // any error is an old one
	case r.Proto == event.MPTCP && r.Err == 0 && (r.Old == event.FinWait2 || r.Old == event.Closing):
		// MPTCP has no TIME_WAIT: the peer's DATA_FIN or its acknowledgment ends the connection,
		// and so does the worker's timeout (mptcp_check_data_fin and mptcp_worker in
		// net/mptcp/protocol.c).
		return event.ReasonUnexplained
	case r.Err == 0, closedLocally(r):
		return t.reasonWithoutError(r)
	case r.Err == errTimedOut && r.Closing&(record.Keepalive|record.Unacked) == record.Keepalive:
		return event.ReasonKeepaliveTimeout // tcp_keepalive_timer probes only while nothing is outstanding
	case r.Err != errRefused:
		return event.ErrnoReason(r.Err)
	case r.Old != event.SynSent && r.Old != event.SynRecv:
		return event.ReasonUnreachable // RST refuses only a SYN
	case r.Old == event.SynRecv || r.SoftErr != 0 || r.Totals.Known && r.Totals.SegsIn == 0:
		return event.ReasonPortUnreachable
	}
	return event.ReasonRefused
}

// closedLocally reports whether a process ended the connection with RST, by close() or by connect()
// to AF_UNSPEC. Any error on its socket is then an old one (IP_RECVERR, kernel TLS). In these
// states, only close() shuts down both directions, and the only other thing that can end a
// connect() waiting for its handshake is the peer's RST.
func closedLocally(r *record.Record) bool {
	if r.Closing&record.InConnect != 0 {
		return r.Old != event.SynSent && r.Old != event.SynRecv && event.ErrnoReason(r.Err) != event.ReasonResetByPeer
	}
	return (r.Old == event.Established || r.Old == event.CloseWait) &&
		r.Closing&(record.Shut|record.Owned|record.Orphan) == record.Shut|record.Owned
}

// reasonWithoutError returns why a full socket without an error closed.
func (t *RFC) reasonWithoutError(r *record.Record) event.Reason {
	is := func(bits record.Closing) bool { return r.Closing&bits == bits }
	switch {
	case r.Old == event.Listen && r.Flags&record.Destroyed != 0:
		return event.ReasonAborted
	case r.Old == event.Listen:
		return event.ReasonNormal
	case is(record.Orphan):
		return orphaned(r)
	case is(record.Owned | record.Repair):
		return event.ReasonRepaired
	case is(record.InConnect):
		return event.ReasonAborted // by connect() to AF_UNSPEC, unless its return shows otherwise
	case r.Old == event.SynSent && t.CallsUnavailable && is(record.Owned) && !is(record.Shut):
		return event.ReasonUnexplained // no port, connect() to AF_UNSPEC, or shutdown()
	case r.Old == event.SynSent:
		return event.ReasonGivenUp
	case is(record.Unaccepted):
		return event.ReasonListenerClosed
	case is(record.FinCame) && !is(record.Unacked):
		return event.ReasonTimeWaitOverflow
	case !is(record.Owned):
		return event.ReasonUnexplained
	case !is(record.Shut):
		return event.ReasonAborted
	case is(record.Unread):
		return event.ReasonResetSentUnread
	case is(record.Linger0) && (r.Old != event.Closing && r.Old != event.LastAck || is(record.Unsent)):
		return event.ReasonResetSentLinger // the condition is tcp_disconnect's
	}
	return event.ReasonAborted // in CLOSING and LAST_ACK, without an RST (tcp_need_reset in net/ipv4/tcp.c)
}

// orphaned returns why a full socket that no process held closed: see tcp_rcv_state_process in
// net/ipv4/tcp_input.c, tcp_time_wait in tcp_minisocks.c, tcp_keepalive_timer and
// tcp_out_of_resources in tcp_timer.c, and __tcp_close in tcp.c.
func orphaned(r *record.Record) event.Reason {
	is := func(bits record.Closing) bool { return r.Closing&bits == bits }
	switch {
	case is(record.NetNSGone):
		return event.ReasonNetNSGone
	case (r.Old == event.FinWait2 || r.Old == event.Closing) && is(record.FinCame) && !is(record.Unacked):
		return event.ReasonTimeWaitOverflow
	case r.Old == event.FinWait2 && is(record.NoFinWait2):
		return event.ReasonResetSentLinger2
	case r.Old == event.FinWait2 && is(record.TimeWaitFull):
		return event.ReasonTimeWaitOverflow
	case r.Old == event.FinWait2:
		return event.ReasonFinWait2Timeout
	case r.Old == event.FinWait1, r.Old == event.Closing, r.Old == event.LastAck:
		return event.ReasonTooManyOrphans
	}
	return event.ReasonUnexplained
}
