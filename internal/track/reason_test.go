package track

import (
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// The reason why a full socket closed follows from the socket's properties.
func TestReason(t *testing.T) {
	const owned = record.Owned
	for _, test := range []struct {
		name    string
		old     event.State
		err     int32
		closing record.Closing
		want    event.Reason
	}{
		{"keep-alive probes unanswered", event.Established, 110, record.Keepalive, event.ReasonKeepaliveTimeout},
		{"data unanswered, with SO_KEEPALIVE",
			event.Established, 110, record.Keepalive | record.Unacked, event.ReasonTimedOut},
		{"SYN unanswered, with SO_KEEPALIVE",
			event.SynSent, 110, record.Keepalive | record.Unacked, event.ReasonTimedOut},
		{"FIN of an orphan unanswered, with SO_KEEPALIVE",
			event.FinWait1, 110, record.Keepalive | record.Unacked | record.Orphan, event.ReasonTimedOut},
		{"port unreachable in ESTABLISHED", event.Established, 111, 0, event.ReasonUnreachable},
		{"SYN refused by RST", event.SynSent, 111, 0, event.ReasonRefused},
		{"port unreachable in a simultaneous open",
			event.SynRecv, 111, 0, event.ReasonPortUnreachable}, // a RST would be ECONNRESET
		{"SYN prohibited", event.SynSent, 13, 0, event.ReasonUnreachable},
		{"close() with unread data, after an error",
			event.Established, 113, owned | record.Shut | record.Unread, event.ReasonResetSentUnread},
		{"FIN acknowledged, after an error", event.LastAck, 113, record.Shut, event.ReasonNormal},
		{"RST in LAST_ACK", event.LastAck, 104, record.Shut | record.Unacked, event.ReasonResetByPeer},
		{"FIN of an orphan acknowledged", event.LastAck, 0, record.Shut | record.Orphan, event.ReasonNormal},
		{"orphan in LAST_ACK gives up",
			event.LastAck, 0, record.Shut | record.Orphan | record.Unacked, event.ReasonTooManyOrphans},
		{"orphan in LAST_ACK, network namespace removed",
			event.LastAck, 0, record.Shut | record.Orphan | record.Unacked | record.NetNSGone, event.ReasonNetNSGone},
		{"SO_LINGER 0 in LAST_ACK, FIN sent",
			event.LastAck, 0, owned | record.Shut | record.Unacked | record.Linger0, event.ReasonAborted},
		{"close() with unread data in LAST_ACK",
			event.LastAck, 0, owned | record.Shut | record.Unacked | record.Unread, event.ReasonResetSentUnread},
		{"SO_LINGER 0 in LAST_ACK, FIN unsent",
			event.LastAck, 0, owned | record.Shut | record.Unacked | record.Unsent | record.Linger0,
			event.ReasonResetSentLinger},
		{"connect() to AF_UNSPEC, after an error",
			event.Established, 113, owned | record.InConnect, event.ReasonAborted},
		{"RST, then connect()", event.Established, 104, owned | record.InConnect, event.ReasonResetByPeer},
		{"host unreachable during connect()", event.SynSent, 113, owned | record.InConnect, event.ReasonUnreachable},
		{"connect() to AF_UNSPEC in LAST_ACK",
			event.LastAck, 0, owned | record.Shut | record.Unacked | record.InConnect, event.ReasonAborted},
		{"close() in SYN_SENT", event.SynSent, 0, owned | record.Shut, event.ReasonGivenUp},
		{"shutdown() in SYN_SENT", event.SynSent, 0, owned | record.NoSegment, event.ReasonGivenUp},
		{"close() with unread data and SO_LINGER 0",
			event.Established, 0, owned | record.Shut | record.Unread | record.Linger0, event.ReasonResetSentUnread},
		{"SO_LINGER 0", event.Established, 0, owned | record.Shut | record.Linger0, event.ReasonResetSentLinger},
		{"close() in TCP_REPAIR", event.Established, 0, owned | record.Shut | record.Repair, event.ReasonRepaired},
		{"not shut down, by a system call", event.Established, 0, owned, event.ReasonAborted},
		{"close() of the listener",
			event.Established, 0, owned | record.Unaccepted | record.Shut, event.ReasonListenerClosed},
		{"close() with unread data in FIN_WAIT1",
			event.FinWait1, 0, owned | record.Shut | record.Unread | record.Unacked, event.ReasonResetSentUnread},
		{"SO_LINGER 0 in FIN_WAIT2",
			event.FinWait2, 0, owned | record.Shut | record.Linger0, event.ReasonResetSentLinger},
		{"connect() to AF_UNSPEC in FIN_WAIT2", event.FinWait2, 0, owned | record.InConnect, event.ReasonAborted},
		{"TCP_LINGER2 below 0",
			event.FinWait2, 0, record.Shut | record.Orphan | record.NoFinWait2, event.ReasonResetSentLinger2},
		{"too many TIME_WAIT for an orphan in FIN_WAIT2",
			event.FinWait2, 0, record.Shut | record.Orphan | record.TimeWaitFull, event.ReasonTimeWaitOverflow},
		{"too many TIME_WAIT, the peer's FIN arrived", event.FinWait2, 0, record.FinCame, event.ReasonTimeWaitOverflow},
		{"orphan in FIN_WAIT1 gives up",
			event.FinWait1, 0, record.Shut | record.Orphan | record.Unacked, event.ReasonTooManyOrphans},
		{"close() in CLOSING", event.Closing, 0, owned | record.FinCame | record.Unacked, event.ReasonAborted},
		{"no known cause in FIN_WAIT1", event.FinWait1, 0, record.Unacked, event.ReasonUnexplained},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := change(1, 1, 1, test.old, event.Close)
			r.Err, r.Closing = test.err, test.closing
			if got := new(RFC).reason(&r); got != test.want {
				t.Errorf("from %v with errno %d, %#x: got %v, want %v", test.old, test.err, test.closing, got, test.want)
			}
		})
	}
}

// Where a TCP socket would enter TIME_WAIT, an MPTCP socket ends in CLOSE. It also ends in CLOSE
// after a timeout.
func TestReasonMPTCP(t *testing.T) {
	for _, test := range []struct {
		old     event.State
		closing record.Closing
		want    event.Reason
	}{
		{event.FinWait2, record.Shut | record.Orphan, event.ReasonUnexplained},
		{event.FinWait2, record.Shut | record.Owned, event.ReasonUnexplained},
		{event.Closing, record.Shut | record.Orphan, event.ReasonUnexplained},
		{event.LastAck, record.Shut | record.Orphan, event.ReasonNormal},
	} {
		r := change(1, 1, 1, test.old, event.Close)
		r.Proto, r.Closing = event.MPTCP, test.closing
		if got := new(RFC).reason(&r); got != test.want {
			t.Errorf("from %v with %#x: got %v, want %v", test.old, test.closing, got, test.want)
		}
	}
}

// Without records of connect(), the reason may be unknown if a SYN_SENT ends in a system call.
func TestReasonCallsUnavailable(t *testing.T) {
	for _, test := range []struct {
		name    string
		closing record.Closing
		want    event.Reason
	}{
		{"no port, connect() to AF_UNSPEC or shutdown()", record.Owned, event.ReasonUnexplained},
		{"close()", record.Owned | record.Shut, event.ReasonGivenUp},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := change(1, 1, 1, event.SynSent, event.Close)
			r.Closing = test.closing
			if got := (&RFC{CallsUnavailable: true}).reason(&r); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
