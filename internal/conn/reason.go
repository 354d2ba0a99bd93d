package conn

import "sstrace/internal/event"

// endedBy tells why a mini-sock's timer was cancelled, if nothing else does: the current task asked for that, or it is not known.
func endedBy(e *event.Event) event.Reason {
	if e.OwnerPID != 0 {
		return event.ReasonAborted
	}
	return event.ReasonUnexplained
}

// closer tells who ended a connection that no FIN did.
func closer(r event.Reason) event.Closer {
	switch r {
	case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonAborted, event.ReasonGivenUp, event.ReasonListenerClosed:
		return event.WeClosed
	case event.ReasonRefused, event.ReasonResetByPeer:
		return event.TheyClosed
	}
	return 0
}

// reason tells why a full sock closed, by what it was like at that moment. The kernel leaves an error in
// sk_err before it closes.
func reason(e *event.Event) event.Reason {
	switch r := event.ErrnoReason(e.Err); {
	case e.Err == 0:
	case r == event.ReasonTimedOut && e.AtClose&event.Keepalive != 0:
		return event.ReasonKeepaliveTimeout
	default:
		return r
	}
	switch e.Old {
	case event.Listen, event.LastAck:
		return event.ReasonNormal
	case event.SynSent:
		return event.ReasonGivenUp
	case event.FinWait2, event.Closing: // no hand-over to a timewait sock: tcp_time_wait in net/ipv4/tcp_minisocks.c, or tcp_rcv_state_process in tcp_input.c
		switch {
		case e.AtClose&event.FinCame != 0:
			return event.ReasonTimeWaitOverflow
		case e.AtClose&(event.Orphan|event.TimeWaitFull|event.NoFinWait2) == event.Orphan:
			return event.ReasonResetSentLateData
		}
	case event.SynRecv, event.Established, event.CloseWait:
		switch {
		case e.AtClose&event.Unaccepted != 0:
			return event.ReasonListenerClosed
		case e.Old == event.SynRecv:
		case e.AtClose&event.Shut == 0:
			return event.ReasonAborted
		case e.AtClose&event.Linger0 != 0:
			return event.ReasonResetSentLinger
		default:
			return event.ReasonResetSentUnread
		}
	}
	return event.ReasonUnexplained
}
