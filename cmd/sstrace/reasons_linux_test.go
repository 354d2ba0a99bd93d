package main

import (
	"os"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// cell is one way in which a connection can end. It names the state, what happens to the connection
// in that state, how the connection ends, and which kernel counters change.
type cell struct {
	state, steps string
	old          event.State
	reason       event.Reason
	err          int32
	closer       event.Closer
	counters     string
}

// cells are the combinations that can occur. After close(), FIN_WAIT2 is a timewait sock. With a
// long TCP_LINGER2, it is a full socket.
var cells = []cell{
	{"SYN_SENT", "close", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, ""},
	{"SYN_SENT", "SO_LINGER 0, close", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, "TCPAbortOnData 1"},
	{"SYN_SENT", "disconnect", event.SynSent, event.ReasonAborted, 0, event.WeClosed, ""},
	{"SYN_SENT", "shutdown(RD)", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, ""},
	{"SYN_SENT", "shutdown(WR)", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, ""},
	{"SYN_SENT", "shutdown(RDWR)", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, ""},
	{"SYN_SENT", "SIGKILL", event.SynSent, event.ReasonGivenUp, 0, event.WeClosed, ""},
	{"SYN_SENT", "TCP_REPAIR, close", event.SynSent, event.ReasonRepaired, 0, event.WeClosed, ""},
	{"SYN_SENT", "RST in", event.SynSent, event.ReasonRefused, 111, event.TheyClosed, "AttemptFails 1"},
	{"SYN_SENT", "ICMP host unreachable", event.SynSent, event.ReasonUnreachable, 113, 0, "AttemptFails 1"},
	{"SYN_SENT", "ICMP port unreachable", event.SynSent, event.ReasonPortUnreachable, 111, 0, "AttemptFails 1"},
	{"SYN_SENT", "SO_KEEPALIVE, TCP_USER_TIMEOUT", event.SynSent, event.ReasonTimedOut, 110, 0,
		"TCPAbortOnTimeout 1, AttemptFails 1"},
	{"SYN_SENT", "ss -K", event.SynSent, event.ReasonAborted, 103, event.WeClosed, "AttemptFails 1"},
	{"SYN_RECV", "close, RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"SYN_RECV", "SO_LINGER 0, close", event.SynRecv, event.ReasonResetSentLinger, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"SYN_RECV", "disconnect", event.SynRecv, event.ReasonAborted, 0, event.WeClosed, "OutRsts 1"},
	{"SYN_RECV", "TCP_REPAIR, close", event.SynRecv, event.ReasonRepaired, 0, event.WeClosed, ""},
	{"SYN_RECV", "RST in", event.SynRecv, event.ReasonResetByPeer, 104, event.TheyClosed, "AttemptFails 1"},
	{"SYN_RECV", "ICMP host unreachable", event.SynRecv, event.ReasonUnreachable, 113, 0, "AttemptFails 1"},
	{"SYN_RECV", "ICMP port unreachable", event.SynRecv, event.ReasonPortUnreachable, 111, 0, "AttemptFails 1"},
	{"SYN_RECV", "SO_KEEPALIVE, TCP_USER_TIMEOUT", event.SynRecv, event.ReasonTimedOut, 110, 0,
		"TCPAbortOnTimeout 1, AttemptFails 1"},
	{"SYN_RECV", "ss -K", event.SynRecv, event.ReasonAborted, 103, event.WeClosed, "OutRsts 1, AttemptFails 1"},
	{"SYN_RECV of a request", "RST in", event.SynRecv, event.ReasonResetByPeer, 0, event.TheyClosed,
		"AttemptFails 1, EmbryonicRsts 1"},
	{"SYN_RECV of a request", "another SYN in", event.SynRecv, event.ReasonResetSentSyn, 0, event.WeClosed,
		"OutRsts 1, AttemptFails 1, EmbryonicRsts 1"},
	{"SYN_RECV of a request", "ICMP of no return", event.SynRecv, event.ReasonUnreachable, 0, 0, ""},
	{"SYN_RECV of a request", "ss -K", event.SynRecv, event.ReasonAborted, 0, event.WeClosed, ""},
	{"SYN_RECV of a request", "SYN-ACK unanswered", event.SynRecv, event.ReasonHandshakeAbandoned, 0, 0, ""},
	{"SYN_RECV of a request", "close the listener", event.SynRecv, event.ReasonListenerClosed, 0, event.WeClosed, ""},
	{"SYN_RECV of a request", "accept queue full, ACK in", event.SynRecv, event.ReasonAcceptQueueFull, 0, 0,
		"ListenOverflows 1"},
	{"SYN_RECV of a request", "accept queue full, abort on overflow, ACK in",
		event.SynRecv, event.ReasonAcceptQueueFull, 0, 0, "OutRsts 1, EmbryonicRsts 1, ListenOverflows 1"},
	{"SYN_RECV of a request", "accept queue full, RST in", event.SynRecv, event.ReasonResetByPeer, 0, event.TheyClosed,
		"AttemptFails 1, EmbryonicRsts 1"},
	{"SYN_RECV of a request", "accept queue full, SYN-ACK unanswered",
		event.SynRecv, event.ReasonHandshakeAbandoned, 0, 0, ""},
	{"ESTABLISHED", "data in, close", event.Established, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "data in, shutdown(RD), close", event.Established, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "data in, SO_LINGER 0, close", event.Established, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "data in, SIGKILL", event.Established, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "SO_LINGER 0, close", event.Established, event.ReasonResetSentLinger, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "SO_LINGER 0, SIGKILL", event.Established, event.ReasonResetSentLinger, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "disconnect", event.Established, event.ReasonAborted, 0, event.WeClosed,
		"OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "data in, disconnect", event.Established, event.ReasonAborted, 0, event.WeClosed,
		"OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "SO_LINGER 0, disconnect", event.Established, event.ReasonAborted, 0, event.WeClosed,
		"OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "TCP_REPAIR, close", event.Established, event.ReasonRepaired, 0, event.WeClosed, "EstabResets 1"},
	{"ESTABLISHED", "data in, TCP_REPAIR, close", event.Established, event.ReasonRepaired, 0, event.WeClosed,
		"EstabResets 1"},
	{"ESTABLISHED", "RST in", event.Established, event.ReasonResetByPeer, 104, event.TheyClosed, "EstabResets 1"},
	{"ESTABLISHED", "data in, RST in", event.Established, event.ReasonResetByPeer, 104, event.TheyClosed,
		"EstabResets 1"},
	{"ESTABLISHED", "data out, TCP_USER_TIMEOUT", event.Established, event.ReasonTimedOut, 110, 0,
		"TCPAbortOnTimeout 1, EstabResets 1"},
	{"ESTABLISHED", "SO_KEEPALIVE, data out, TCP_USER_TIMEOUT", event.Established, event.ReasonTimedOut, 110, 0,
		"TCPAbortOnTimeout 1, EstabResets 1"},
	{"ESTABLISHED", "SO_KEEPALIVE, zero window, TCP_USER_TIMEOUT", event.Established, event.ReasonTimedOut, 110, 0,
		"TCPAbortOnTimeout 1, EstabResets 1"},
	{"ESTABLISHED", "keep-alive", event.Established, event.ReasonKeepaliveTimeout, 110, 0,
		"TCPAbortOnTimeout 1, OutRsts 1, EstabResets 1, TCPKeepAlive 1"},
	{"ESTABLISHED", "data in, keep-alive", event.Established, event.ReasonKeepaliveTimeout, 110, 0,
		"TCPAbortOnTimeout 1, OutRsts 1, EstabResets 1, TCPKeepAlive 1"},
	{"ESTABLISHED", "data out, ICMP host unreachable, TCP_USER_TIMEOUT",
		event.Established, event.ReasonUnreachable, 113, 0, "TCPAbortOnTimeout 1, EstabResets 1"},
	{"ESTABLISHED", "data out, ICMP port unreachable, TCP_USER_TIMEOUT",
		event.Established, event.ReasonUnreachable, 111, 0, "TCPAbortOnTimeout 1, EstabResets 1"},
	{"ESTABLISHED", "IP_RECVERR, data in, data out, ICMP host unreachable, close",
		event.Established, event.ReasonResetSentUnread, 113, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "IP_RECVERR, data out, ICMP host unreachable, SO_LINGER 0, close",
		event.Established, event.ReasonResetSentLinger, 113, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "IP_RECVERR, data out, ICMP host unreachable, disconnect",
		event.Established, event.ReasonAborted, 113, event.WeClosed, "OutRsts 1, EstabResets 1"},
	{"ESTABLISHED", "ss -K", event.Established, event.ReasonAborted, 103, event.WeClosed, "OutRsts 1, EstabResets 1"},
	{"FIN_WAIT1", "data in, close", event.FinWait1, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"FIN_WAIT1", "data in, SIGKILL", event.FinWait1, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"FIN_WAIT1", "SO_LINGER 0, close", event.FinWait1, event.ReasonResetSentLinger, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "disconnect", event.FinWait1, event.ReasonAborted, 0, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT1", "TCP_REPAIR, close", event.FinWait1, event.ReasonRepaired, 0, event.WeClosed, ""},
	{"FIN_WAIT1", "RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT1", "shutdown(RD), RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT1", "shutdown(RD), data in too late", event.FinWait1, event.ReasonResetSentLateData, 104, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "shutdown(RD), data and ACK in too late",
		event.FinWait2, event.ReasonResetSentLateData, 104, event.WeClosed, "TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "SO_KEEPALIVE, TCP_USER_TIMEOUT", event.FinWait1, event.ReasonTimedOut, 110, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"FIN_WAIT1", "ICMP host unreachable, TCP_USER_TIMEOUT",
		event.FinWait1, event.ReasonUnreachable, 113, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"FIN_WAIT1", "ss -K", event.FinWait1, event.ReasonAborted, 103, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT1", "close, RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT1", "close, data in too late", event.FinWait1, event.ReasonResetSentLateData, 104, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "close, data and ACK in too late", event.FinWait2, event.ReasonResetSentLateData, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "close", event.FinWait1, event.ReasonTimedOut, 110, event.WeClosed, "TCPAbortOnTimeout 1"},
	{"FIN_WAIT1", "SO_KEEPALIVE, close", event.FinWait1, event.ReasonTimedOut, 110, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"FIN_WAIT1", "close, ICMP host unreachable", event.FinWait1, event.ReasonUnreachable, 113, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"FIN_WAIT1", "close, ss -K", event.FinWait1, event.ReasonAborted, 103, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT1", "SIGKILL, RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT1", "TCP_LINGER2 -1, close, ACK in", event.FinWait2, event.ReasonResetSentLinger2, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT1", "TCP_LINGER2 -1, close, RST in", event.FinWait1, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT2", "data in, close", event.FinWait2, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"FIN_WAIT2", "data in, SIGKILL", event.FinWait2, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"FIN_WAIT2", "SO_LINGER 0, close", event.FinWait2, event.ReasonResetSentLinger, 0, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT2", "disconnect", event.FinWait2, event.ReasonAborted, 0, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT2", "TCP_REPAIR, close", event.FinWait2, event.ReasonRepaired, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "RST in", event.FinWait2, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT2", "shutdown(RD), RST in", event.FinWait2, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT2", "shutdown(RD), data in too late", event.FinWait2, event.ReasonResetSentLateData, 104, event.WeClosed,
		"TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT2", "keep-alive", event.FinWait2, event.ReasonKeepaliveTimeout, 110, event.WeClosed,
		"TCPAbortOnTimeout 1, OutRsts 1, TCPKeepAlive 1"},
	{"FIN_WAIT2", "ss -K", event.FinWait2, event.ReasonAborted, 103, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT2", "TCP_LINGER2 -1, close", event.FinWait2, event.ReasonResetSentLinger2, 0, event.WeClosed,
		"TCPAbortOnLinger 1, OutRsts 1"},
	{"FIN_WAIT2", "close, RST in", event.FinWait2, event.ReasonResetByPeer, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "close, data and ACK in too late", event.FinWait2, event.ReasonResetSentLateData, 0, event.WeClosed,
		"OutRsts 1"},
	{"FIN_WAIT2", "close, another SYN in", event.FinWait2, event.ReasonResetSentSyn, 0, event.WeClosed, "OutRsts 1"},
	{"FIN_WAIT2", "close, ss -K", event.FinWait2, event.ReasonAborted, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "SIGKILL, RST in", event.FinWait2, event.ReasonResetByPeer, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "TCP_LINGER2 1, close", event.FinWait2, event.ReasonFinWait2Timeout, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "close, network namespace removed", event.FinWait2, event.ReasonNetNSGone, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "too many TIME_WAITs, close", event.FinWait2, event.ReasonTimeWaitOverflow, 0, event.WeClosed, ""},
	{"FIN_WAIT2", "TCP_LINGER2 61, close, RST in", event.FinWait2, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"FIN_WAIT2", "TCP_LINGER2 61, close, data and ACK in too late",
		event.FinWait2, event.ReasonResetSentLateData, 104, event.WeClosed, "TCPAbortOnData 1, OutRsts 1"},
	{"FIN_WAIT2", "TCP_LINGER2 61, close, ss -K", event.FinWait2, event.ReasonAborted, 103, event.WeClosed,
		"OutRsts 1"},
	{"FIN_WAIT2", "TCP_LINGER2 61, close", event.FinWait2, event.ReasonFinWait2Timeout, 0, event.WeClosed, ""},
	{"CLOSING", "data in before FIN, close", event.Closing, event.ReasonResetSentUnread, 0, event.WeClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"CLOSING", "SO_LINGER 0, close", event.Closing, event.ReasonAborted, 0, event.WeClosed, "TCPAbortOnData 1"},
	{"CLOSING", "disconnect", event.Closing, event.ReasonAborted, 0, event.WeClosed, ""},
	{"CLOSING", "TCP_REPAIR, close", event.Closing, event.ReasonRepaired, 0, event.WeClosed, ""},
	{"CLOSING", "RST in", event.Closing, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"CLOSING", "SO_KEEPALIVE, TCP_USER_TIMEOUT", event.Closing, event.ReasonTimedOut, 110, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"CLOSING", "ICMP host unreachable, TCP_USER_TIMEOUT", event.Closing, event.ReasonUnreachable, 113, event.WeClosed,
		"TCPAbortOnTimeout 1"},
	{"CLOSING", "ss -K", event.Closing, event.ReasonAborted, 103, event.WeClosed, ""},
	{"CLOSING", "close, RST in", event.Closing, event.ReasonResetByPeer, 104, event.WeClosed, ""},
	{"CLOSING", "close", event.Closing, event.ReasonTimedOut, 110, event.WeClosed, "TCPAbortOnTimeout 1"},
	{"CLOSING", "close, ss -K", event.Closing, event.ReasonAborted, 103, event.WeClosed, ""},
	{"CLOSE_WAIT", "data in before FIN, close", event.CloseWait, event.ReasonResetSentUnread, 0, event.TheyClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"CLOSE_WAIT", "data in before FIN, SIGKILL", event.CloseWait, event.ReasonResetSentUnread, 0, event.TheyClosed,
		"TCPAbortOnClose 1, OutRsts 1, EstabResets 1"},
	{"CLOSE_WAIT", "SO_LINGER 0, close", event.CloseWait, event.ReasonResetSentLinger, 0, event.TheyClosed,
		"TCPAbortOnData 1, OutRsts 1, EstabResets 1"},
	{"CLOSE_WAIT", "disconnect", event.CloseWait, event.ReasonAborted, 0, event.TheyClosed, "OutRsts 1, EstabResets 1"},
	{"CLOSE_WAIT", "TCP_REPAIR, close", event.CloseWait, event.ReasonRepaired, 0, event.TheyClosed, "EstabResets 1"},
	{"CLOSE_WAIT", "RST in", event.CloseWait, event.ReasonResetByPeer, 32, event.TheyClosed, "EstabResets 1"},
	{"CLOSE_WAIT", "SO_KEEPALIVE, data out, TCP_USER_TIMEOUT",
		event.CloseWait, event.ReasonTimedOut, 110, event.TheyClosed, "TCPAbortOnTimeout 1, EstabResets 1"},
	{"CLOSE_WAIT", "keep-alive", event.CloseWait, event.ReasonKeepaliveTimeout, 110, event.TheyClosed,
		"TCPAbortOnTimeout 1, OutRsts 1, EstabResets 1, TCPKeepAlive 1"},
	{"CLOSE_WAIT", "data out, ICMP host unreachable, TCP_USER_TIMEOUT",
		event.CloseWait, event.ReasonUnreachable, 113, event.TheyClosed,
		"TCPAbortOnTimeout 1, EstabResets 1"},
	{"CLOSE_WAIT", "IP_RECVERR, data out, ICMP host unreachable, SO_LINGER 0, close",
		event.CloseWait, event.ReasonResetSentLinger, 113, event.TheyClosed,
		"TCPAbortOnData 1, OutRsts 1, EstabResets 1"},
	{"CLOSE_WAIT", "ss -K", event.CloseWait, event.ReasonAborted, 103, event.TheyClosed, "OutRsts 1, EstabResets 1"},
	{"LAST_ACK", "data in before FIN, close", event.LastAck, event.ReasonResetSentUnread, 0, event.TheyClosed,
		"TCPAbortOnClose 1, OutRsts 1"},
	{"LAST_ACK", "SO_LINGER 0, close", event.LastAck, event.ReasonAborted, 0, event.TheyClosed, "TCPAbortOnData 1"},
	{"CLOSE_WAIT", "zero window, shutdown(WR) behind data, SO_LINGER 0, close",
		event.LastAck, event.ReasonResetSentLinger, 0, event.TheyClosed, "TCPAbortOnData 1, OutRsts 1"},
	{"LAST_ACK", "disconnect", event.LastAck, event.ReasonAborted, 0, event.TheyClosed, ""},
	{"LAST_ACK", "TCP_REPAIR, close", event.LastAck, event.ReasonRepaired, 0, event.TheyClosed, ""},
	{"LAST_ACK", "RST in", event.LastAck, event.ReasonResetByPeer, 104, event.TheyClosed, ""},
	{"LAST_ACK", "SO_KEEPALIVE, TCP_USER_TIMEOUT", event.LastAck, event.ReasonTimedOut, 110, event.TheyClosed,
		"TCPAbortOnTimeout 1"},
	{"LAST_ACK", "ICMP host unreachable, TCP_USER_TIMEOUT",
		event.LastAck, event.ReasonUnreachable, 113, event.TheyClosed,
		"TCPAbortOnTimeout 1"},
	{"LAST_ACK", "ss -K", event.LastAck, event.ReasonAborted, 103, event.TheyClosed, ""},
	{"LAST_ACK", "ACK in", event.LastAck, event.ReasonNormal, 0, event.TheyClosed, ""},
	{"LAST_ACK", "close, ACK in", event.LastAck, event.ReasonNormal, 0, event.TheyClosed, ""},
	{"LAST_ACK", "close, RST in", event.LastAck, event.ReasonResetByPeer, 104, event.TheyClosed, ""},
	{"LAST_ACK", "SO_KEEPALIVE, close", event.LastAck, event.ReasonTimedOut, 110, event.TheyClosed,
		"TCPAbortOnTimeout 1"},
	{"LAST_ACK", "close, ICMP host unreachable", event.LastAck, event.ReasonUnreachable, 113, event.TheyClosed,
		"TCPAbortOnTimeout 1"},
	{"LAST_ACK", "close, ss -K", event.LastAck, event.ReasonAborted, 103, event.TheyClosed, ""},
	{"TIME_WAIT", "RST in", event.TimeWait, event.ReasonResetByPeer, 0, event.WeClosed, ""},
	{"TIME_WAIT", "ss -K", event.TimeWait, event.ReasonAborted, 0, event.WeClosed, ""},
	{"TIME_WAIT", "network namespace removed", event.TimeWait, event.ReasonNetNSGone, 0, event.WeClosed, ""},
}

// Each way of ending a connection has its own reason. The kernel's counters confirm the reason.
func TestReasons(t *testing.T) {
	f := startFeed(t)
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			var all []func()
			for _, c := range cells {
				all = append(all, func() {
					t.Run(c.state+"/"+c.steps, func(t *testing.T) { c.check(t, f, family) })
				})
			}
			together(8, all)
		})
	}
}

// check runs c and compares the end. If a CPU runs a process that the kernel protects, BPF does not
// see what a timer does on that CPU (see hidden). So check repeats a run once if its result
// differs.
func (c cell) check(t *testing.T, f *feed, family string) {
	for _, report := range []func(string, ...any){t.Logf, t.Errorf} {
		got, lines := c.run(t, f, family)
		if got == c {
			checkPaths(t, &recordedRun{changes: lines})
			return
		}
		report("got  %+v\nwant %+v\n%s", got, c, strings.Join(recordedRun{changes: lines}.paths(), "\n"))
	}
}

func (c cell) run(t *testing.T, f *feed, family string) (got cell, changes []event.Event) {
	p := newEndpoint(t, family)
	way := ways[c.state]
	steps, early := strings.CutPrefix(c.steps, "data in before FIN, ")
	if early {
		way = strings.Replace(way, "FIN in", "data in, FIN in", 1)
	}
	p.do(way)
	before := p.h.counters()
	p.do(steps)
	got = cell{state: c.state, steps: c.steps}
	ours := func(e *event.Event) bool { return e.Type == event.Change && e.Remote.Port() == p.peer.Port() }
	if p.awaitEnd != nil {
		p.awaitEnd()
		f.settle(p.h)
		got.counters = moved(before, p.h.counters())
	} else {
		await(t, "the end", func() bool {
			return len(f.of(p.h, func(e *event.Event) bool { return ours(e) && e.New == event.Close })) > 0
		})
	}
	changes = f.of(p.h, ours)
	for _, e := range changes {
		if e.New != event.Close {
			continue
		}
		if got.reason != 0 {
			t.Errorf("got a second end: %+v", e)
		}
		got.old, got.reason, got.err, got.closer = e.Old, e.Reason, e.Err, e.Closer
		owned := e.Old == event.SynSent || e.Old == event.Established || e.Old == event.CloseWait
		if p.owner != 0 && owned && e.OwnerPID != uint32(p.owner) {
			t.Errorf("got owner %d, want %d", e.OwnerPID, p.owner)
		}
	}
	if p.open {
		_ = unix.Close(p.fd)
	}
	if p.l.h != nil {
		p.l.close()
	}
	return got, changes
}

// If there are more orphans than tcp_max_orphans allows, close() resets the connection, and so does
// an orphan's timer. The limit applies to the whole machine, so the test lowers it only for a
// moment.
func TestTooManyOrphans(t *testing.T) {
	f := startFeed(t)
	const limit = "/proc/sys/net/ipv4/tcp_max_orphans"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Skipf("only the first network namespace has it: %v", err)
	}
	restore := func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	check := func(p *endpoint, old event.State, closer event.Closer) {
		t.Helper()
		f.settle(p.h)
		ours := func(e *event.Event) bool { return e.Type == event.Change && e.Remote == p.peer }
		r := recordedRun{changes: f.of(p.h, ours)}
		if got, want := r.ends(), (ended{old, event.ReasonTooManyOrphans, 0, closer}); len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		checkPaths(t, &r)
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		var timers []*endpoint
		states := []string{"FIN_WAIT1", "CLOSING", "LAST_ACK"}
		for _, state := range states {
			p := newEndpoint(t, family)
			p.h.sysctl("tcp_orphan_retries", "8")
			p.do(ways[state] + ", close")
			timers = append(timers, p)
		}
		other := newEndpoint(t, family) // an orphan with nothing to retransmit
		other.do(ways["FIN_WAIT2"] + ", TCP_LINGER2 61, close")
		h := []map[string]int{timers[0].h.counters(), timers[1].h.counters(), timers[2].h.counters()}
		if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		var closed *endpoint
		await(t, "the kernel counts orphans", func() bool {
			closed = newEndpoint(t, family)
			closed.do(ways["ESTABLISHED"] + ", close")
			return closed.h.counters()["TCPAbortOnMemory"] == 1
		})
		for _, p := range timers {
			p.awaitEnd()
		}
		restore()
		check(closed, event.FinWait1, event.WeClosed)
		for i, p := range timers {
			closer := event.WeClosed
			if states[i] == "LAST_ACK" {
				closer = event.TheyClosed
			}
			check(p, []event.State{event.FinWait1, event.Closing, event.LastAck}[i], closer)
			if got, want := moved(h[i], p.h.counters()), "TCPAbortOnMemory 1, OutRsts 1"; got != want {
				t.Errorf("%s: got counters %s, want %s", states[i], got, want)
			}
		}
	}
}
