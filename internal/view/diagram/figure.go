package diagram

import (
	"slices"

	"sstrace/internal/event"
)

// arrow is an edge in the figure. Its caption names the cause and the action taken.
type arrow struct {
	event.Edge
	cause, action string
}

// figure is figure 5 of RFC 9293 (section 3.3.2). The kernel calls two of its states by other
// names: CLOSED is CLOSE, and SYN-RECEIVED is SYN_RECV.
//
// Linux never takes three of the edges. First, when a half-open connection is reset, it goes to
// CLOSE, since its listener has stayed in LISTEN. Second, send() on a listener fails with EPIPE.
// Third, the edge from FIN-WAIT-1 to TIME-WAIT, which note 2 says the figure omits, passes through
// FIN_WAIT2 on Linux (tcp_rcv_state_process in net/ipv4/tcp_input.c).
var figure = []arrow{
	{event.Close.To(event.Listen), "passive OPEN", "create TCB"},
	{event.Listen.To(event.Close), "CLOSE", "delete TCB"},
	{event.Close.To(event.SynSent), "active OPEN", "snd SYN"},
	{event.SynSent.To(event.Close), "CLOSE", "delete TCB"},
	{event.SynRecv.To(event.Listen), "rcv RST (note 1)", ""},
	{event.Listen.To(event.SynRecv), "rcv SYN", "snd SYN,ACK"},
	{event.Listen.To(event.SynSent), "SEND", "snd SYN"},
	{event.SynSent.To(event.SynRecv), "rcv SYN", "snd SYN,ACK"},
	{event.SynRecv.To(event.Established), "rcv ACK of SYN", ""},
	{event.SynSent.To(event.Established), "rcv SYN,ACK", "snd ACK"},
	{event.SynRecv.To(event.FinWait1), "CLOSE", "snd FIN"},
	{event.Established.To(event.FinWait1), "CLOSE", "snd FIN"},
	{event.Established.To(event.CloseWait), "rcv FIN", "snd ACK"},
	{event.FinWait1.To(event.Closing), "rcv FIN", "snd ACK"},
	{event.FinWait1.To(event.FinWait2), "rcv ACK of FIN", ""},
	{event.CloseWait.To(event.LastAck), "CLOSE", "snd FIN"},
	{event.FinWait2.To(event.TimeWait), "rcv FIN", "snd ACK"},
	{event.Closing.To(event.TimeWait), "rcv ACK of FIN", ""},
	{event.LastAck.To(event.Close), "rcv ACK of FIN", ""},
	{event.TimeWait.To(event.Close), "timeout 2MSL", "delete TCB"},
}

// caption returns the cause and the action as the figure shows them.
func (a *arrow) caption() string {
	if a.action == "" {
		return a.cause
	}
	return a.cause + " / " + a.action
}

// captionOf returns the caption of an edge in the figure.
func captionOf(e event.Edge) string {
	return figure[slices.IndexFunc(figure, func(a arrow) bool { return a.Edge == e })].caption()
}

// inFigure reports whether a change is an edge in the figure. For a change to CLOSE, the reason
// decides, since the figure shows only one of several possible reasons: the process's CLOSE from
// LISTEN and SYN_SENT, the last ACK from LAST_ACK, and the timeout from TIME_WAIT. The kernel's
// vocabulary has no reasons, so the socket's error decides instead.
func inFigure(e *event.Event) bool {
	if e.New != event.Close {
		return slices.ContainsFunc(figure, func(a arrow) bool { return a.Edge == e.Edge() })
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
