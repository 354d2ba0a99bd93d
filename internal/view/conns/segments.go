package conns

import (
	"sstrace/internal/event"
	"sstrace/internal/pair"
)

// segments returns the segment whose arrival is the only possible cause of a change (RFC 9293
// section 3.10.7), or the segment that e sends with it (sections 3.10.1 and 3.10.4).
func segments(e *pair.End, old, state event.State) (received, sent string) {
	switch state {
	case event.SynSent:
		return "", "SYN"
	case event.SynRecv:
		if old == event.SynSent || e.SynArrived() != nil {
			return "SYN", ""
		}
	case event.Established:
		switch {
		case old == event.SynSent:
			return "SYN-ACK", ""
		case old == event.SynRecv && e.Deferred > 0:
			return afterAck(e), ""
		case old == event.SynRecv:
			return "ACK", ""
		}
	case event.CloseWait, event.Closing:
		return "FIN", ""
	case event.FinWait1, event.LastAck:
		return "", "FIN"
	case event.FinWait2:
		return "ACK", ""
	case event.TimeWait:
		switch old {
		case event.FinWait1:
			return "FIN, ACK", ""
		case event.FinWait2:
			return "FIN", ""
		case event.Closing:
			return "ACK", ""
		}
	case event.Close:
		return lastSegment(e, old)
	}
	return "", ""
}

// lastSegment returns the segment that ended e, or that e sent when it ended.
func lastSegment(e *pair.End, old event.State) (received, sent string) {
	switch e.Reason {
	case event.ReasonRefused, event.ReasonResetByPeer:
		return "RST", ""
	case event.ReasonPortUnreachable:
		if e.Peer == nil { // otherwise the host that sent it is unknown
			return "ICMP", ""
		}
	case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2,
		event.ReasonResetSentLateData, event.ReasonResetSentSyn, event.ReasonTooManyOrphans:
		return "", "RST"
	case event.ReasonNormal:
		if old == event.LastAck {
			return "ACK", ""
		}
	}
	return "", ""
}

// afterAck returns what ended the wait for data of a server's end: a segment with more than an ACK,
// or, if the SYN-ACK was retransmitted because none came, an ACK alone (tcp_check_req in
// net/ipv4/tcp_minisocks.c).
func afterAck(e *pair.End) string {
	if e.SynRetrans != 0 {
		return "ACK or data"
	}
	if e.Pairing > pair.Perhaps && !e.Peer.Lost() {
		if fin := e.Peer.Step(event.FinWait1); fin == nil || fin.Mono > e.Step(event.Established).Mono {
			return "data"
		}
	}
	return "data or FIN"
}
