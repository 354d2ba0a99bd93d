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

// reason tells why a full sock closed, by what it was like at that moment. The errors are those that net/ipv4/tcp_input.c,
// tcp_timer.c, tcp_ipv4.c and tcp.c leave in sk_err before they close (Linux 6.18).
func reason(e *event.Event) event.Reason {
	switch e.Err {
	case 0:
	case 111: // ECONNREFUSED
		return event.ReasonRefused
	case 104, 32: // ECONNRESET; EPIPE in CLOSE_WAIT
		return event.ReasonResetByPeer
	case 110: // ETIMEDOUT
		if e.AtClose&event.Keepalive != 0 {
			return event.ReasonKeepaliveTimeout
		}
		return event.ReasonTimedOut
	case 103: // ECONNABORTED
		return event.ReasonAborted
	case 101, 113, 64, 92, 112: // ENETUNREACH, EHOSTUNREACH; ENONET, ENOPROTOOPT, EHOSTDOWN, by ICMP
		return event.ReasonUnreachable
	default:
		return event.ReasonUnexplained
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
