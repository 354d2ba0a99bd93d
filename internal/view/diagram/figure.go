package diagram

import (
	"slices"

	"sstrace/internal/event"
)

// edge is a change from one state to another.
type edge struct{ old, new event.State }

// arrow is an edge of the figure, with what it writes there: what causes it, and what is done then.
type arrow struct {
	edge
	cause, action string
}

// figure is RFC 9293's figure 5, in section 3.3.2: Its CLOSED is the kernel's CLOSE, its SYN-RECEIVED SYN_RECV.
//
// Linux never takes three of the ways that the RFC speaks of: a half-open connection that is reset goes to CLOSE, for its listener has stayed
// in LISTEN; send() on a listener fails (EPIPE); and FIN-WAIT-1 to TIME-WAIT, which note 2 says the figure omits, goes by FIN_WAIT2
// (tcp_rcv_state_process in net/ipv4/tcp_input.c).
var figure = []arrow{
	{edge{event.Close, event.Listen}, "passive OPEN", "create TCB"},
	{edge{event.Listen, event.Close}, "CLOSE", "delete TCB"},
	{edge{event.Close, event.SynSent}, "active OPEN", "snd SYN"},
	{edge{event.SynSent, event.Close}, "CLOSE", "delete TCB"},
	{edge{event.SynRecv, event.Listen}, "rcv RST (note 1)", ""},
	{edge{event.Listen, event.SynRecv}, "rcv SYN", "snd SYN,ACK"},
	{edge{event.Listen, event.SynSent}, "SEND", "snd SYN"},
	{edge{event.SynSent, event.SynRecv}, "rcv SYN", "snd SYN,ACK"},
	{edge{event.SynRecv, event.Established}, "rcv ACK of SYN", ""},
	{edge{event.SynSent, event.Established}, "rcv SYN,ACK", "snd ACK"},
	{edge{event.SynRecv, event.FinWait1}, "CLOSE", "snd FIN"},
	{edge{event.Established, event.FinWait1}, "CLOSE", "snd FIN"},
	{edge{event.Established, event.CloseWait}, "rcv FIN", "snd ACK"},
	{edge{event.FinWait1, event.Closing}, "rcv FIN", "snd ACK"},
	{edge{event.FinWait1, event.FinWait2}, "rcv ACK of FIN", ""},
	{edge{event.CloseWait, event.LastAck}, "CLOSE", "snd FIN"},
	{edge{event.FinWait2, event.TimeWait}, "rcv FIN", "snd ACK"},
	{edge{event.Closing, event.TimeWait}, "rcv ACK of FIN", ""},
	{edge{event.LastAck, event.Close}, "rcv ACK of FIN", ""},
	{edge{event.TimeWait, event.Close}, "timeout 2MSL", "delete TCB"},
}

func (a *arrow) caption() string {
	if a.action == "" {
		return a.cause
	}
	return a.cause + " / " + a.action
}

// inFigure reports whether a change is an edge of the figure. Of the ends that go to CLOSE this is decided by the reason, for the figure means
// but one: from LISTEN and SYN_SENT the process's CLOSE, from LAST_ACK the last ACK, from TIME_WAIT the timeout. The kernel's vocabulary has
// no reasons; there the socket's error tells.
func inFigure(e *event.Event) bool {
	if e.New != event.Close {
		return slices.ContainsFunc(figure, func(f arrow) bool { return f.edge == edge{e.Old, e.New} })
	}
	var reason event.Reason
	switch e.Old {
	case event.Listen, event.LastAck:
		reason = event.ReasonNormal
	case event.SynSent:
		reason = event.ReasonGivenUp
	case event.TimeWait:
		reason = event.ReasonTimeWaitExpired
	default:
		return false
	}
	return e.Reason == reason || e.Reason == 0 && e.Err == 0
}
