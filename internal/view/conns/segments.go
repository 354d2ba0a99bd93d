package conns

import (
	"sstrace/internal/event"
	"sstrace/internal/pair"
)

// segments returns the segments that go with a change of state. received is the only segment whose
// arrival can cause the change (RFC 9293 section 3.10.7). sent is the segment that e sends when it
// makes the change (sections 3.10.1 and 3.10.4).
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

// lastSegment returns the segment that ended e, or the segment that e sent as it ended.
func lastSegment(e *pair.End, old event.State) (received, sent string) {
	switch e.Reason {
	case event.ReasonRefused, event.ReasonResetByPeer:
		return "RST", ""
	case event.ReasonPortUnreachable:
		if e.Peer == nil { // otherwise it is unknown which host sent it
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

// afterAck returns the segment that ended a server's wait for data. Usually that segment carries
// more than an ACK. If no data came and the SYN-ACK was retransmitted, an ACK alone is enough
// (tcp_check_req in net/ipv4/tcp_minisocks.c).
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
