package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// listening is the listener that request uses.
var listening = change(99, 90, 1, event.Close, event.Listen)

// handshakes are passive opens.
var handshakes = []scenario{
	{
		name: "passive open",
		records: []record.Record{
			listening,
			request(10, 100, record.RequestStarted),
			change(11, 7, 200, event.Listen, event.SynRecv),
			request(10, 201, record.RequestCancelled),
			change(11, 7, 210, event.SynRecv, event.Established),
		},
		kernel: []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 200 -1", "2 SYN_RECV ESTABLISHED 210 10"},
		rfc:    []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 210 110"},
		merged: 2,
	}, {
		name: "remote end comes late",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			withoutRemote(change(11, 0, 200, event.Listen, event.SynRecv)),
			request(10, 201, record.RequestCancelled),
			change(11, 7, 210, event.SynRecv, event.Established),
		},
		kernel: []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10"},
		rfc:    []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110"},
		merged: 2,
	}, {
		name: "remote end comes late, request unseen",
		records: []record.Record{
			withoutRemote(change(11, 0, 200, event.Listen, event.SynRecv)),
			change(11, 7, 210, event.SynRecv, event.Established),
		},
		kernel: []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10"},
		rfc:    []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10"},
	}, {
		name: "SYN-ACK retransmitted",
		records: []record.Record{
			listening,
			request(10, 100, record.RequestStarted),
			request(10, 200, record.RequestCancelled),
			request(10, 201, record.RequestExpired),
			retransmitted(request(10, 202, record.RequestStarted)),
			change(11, 7, 300, event.Listen, event.SynRecv),
			request(10, 301, record.RequestCancelled),
			change(11, 7, 310, event.SynRecv, event.Established),
		},
		kernel: []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 300 -1", "2 SYN_RECV ESTABLISHED 310 10"},
		rfc:    []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 310 210"},
		merged: 5,
	}, {
		name: "SYN retransmitted",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			request(10, 200, record.RequestCancelled),
			request(10, 201, record.RequestStarted),
			change(11, 7, 300, event.Listen, event.SynRecv),
			request(10, 301, record.RequestCancelled),
			change(11, 7, 310, event.SynRecv, event.Established),
		},
		kernel: []string{"1 LISTEN SYN_RECV 300 -1", "1 SYN_RECV ESTABLISHED 310 10"},
		rfc:    []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 310 210"},
		merged: 4,
	}, {
		name: "handshake abandoned",
		records: []record.Record{
			listening,
			request(10, 100, record.RequestStarted),
			request(10, 200, record.RequestCancelled),
			request(10, 201, record.RequestExpired),
		},
		kernel: []string{"1 CLOSE LISTEN 1 -1"},
		rfc: []string{
			"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV CLOSE 201 101 handshake_abandoned",
		},
		merged: 1,
	}, {
		name: "request ended, address reused",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			request(10, 200, record.RequestCancelled),
			withoutLocal(request(10, 201, record.RequestStarted)),
		},
		rfc: []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 unknown", "2 LISTEN SYN_RECV 201 -1"},
	}, {
		name: "cancellation of a request lost, address reused",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			change(11, 7, 110, event.Listen, event.SynRecv),
			change(11, 7, 120, event.SynRecv, event.Established),
			withoutLocal(request(10, 130, record.RequestStarted)),
			change(11, 7, 140, event.Established, event.CloseWait),
			withoutLocal(request(10, 150, record.RequestCancelled)),
		},
		kernel: []string{
			"1 LISTEN SYN_RECV 110 -1", "1 SYN_RECV ESTABLISHED 120 10", "1 ESTABLISHED CLOSE_WAIT 140 20",
		},
		rfc: []string{
			"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 120 20", "2 LISTEN SYN_RECV 130 -1",
			"1 ESTABLISHED CLOSE_WAIT 140 20",
			"2 SYN_RECV CLOSE 150 20 unknown",
		},
		merged: 1,
	}, {
		name: "accept queue full, tcp_abort_on_overflow",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			withFlags(record.QueueFull, request(10, 110, record.RequestCancelled)),
			endedBySegment(10, 112, 1<<4),
		},
		rfc:    []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 110 10 accept_queue_full"},
		merged: 1,
	}, {
		name: "SYN ends a half-open connection",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			request(10, 110, record.RequestCancelled),
			endedBySegment(10, 112, flagSYN),
		},
		rfc:    []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 110 10 reset_sent_syn"},
		merged: 1,
	}, {
		name: "ICMP ends a half-open connection",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			withFlags(record.ByICMP, request(10, 110, record.RequestCancelled)),
		},
		rfc: []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 110 10 unreachable"},
	},
}

// connects are active opens.
var connects = []scenario{
	{
		name: "active open",
		records: []record.Record{
			withoutLocal(change(11, 7, 100, event.Close, event.SynSent)),
			onCPU(1, request(10, 101, record.RequestStarted)),
			timer(11, 102, record.SynSentStarted, event.SynSent),
			change(11, 7, 110, event.SynSent, event.Established),
		},
		kernel: []string{"1 CLOSE SYN_SENT 100 -1 without port", "1 SYN_SENT ESTABLISHED 110 10"},
		rfc:    []string{"1 CLOSE SYN_SENT 100 -1", "2 LISTEN SYN_RECV 101 -1", "1 SYN_SENT ESTABLISHED 110 10"},
		merged: 1,
	}, {
		name: "no more records",
		records: []record.Record{
			withoutLocal(change(11, 7, 100, event.Close, event.SynSent)),
			change(12, 8, 200, event.Established, event.CloseWait),
		},
		kernel: []string{"1 CLOSE SYN_SENT 100 -1 without port", "2 ESTABLISHED CLOSE_WAIT 200 -1"},
		rfc:    []string{"1 CLOSE SYN_SENT 100 -1 without port", "2 ESTABLISHED CLOSE_WAIT 200 -1"},
	}, {
		name: "connects again",
		records: []record.Record{
			change(1, 7, 100, event.Close, event.SynSent),
			change(1, 7, 150, event.SynSent, event.Established),
			change(2, 8, 160, event.Established, event.CloseWait), // older than the trace
			change(1, 7, 190, event.Established, event.FinWait1),
			change(1, 7, 200, event.FinWait1, event.FinWait1), // shutdown(), then close()
			change(1, 7, 230, event.FinWait1, event.Close),
			change(1, 7, 330, event.Close, event.SynSent),
			change(1, 9, 340, event.Listen, event.SynRecv),
			change(1, 9, 345, event.SynRecv, event.Established),
			change(2, 8, 350, event.LastAck, event.Close), // one change was not seen
		},
		kernel: []string{
			"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 150 50", "2 ESTABLISHED CLOSE_WAIT 160 -1",
			"1 ESTABLISHED FIN_WAIT1 190 40", "1 FIN_WAIT1 FIN_WAIT1 200 10", "1 FIN_WAIT1 CLOSE 230 30",
			"1 CLOSE SYN_SENT 330 100", "3 LISTEN SYN_RECV 340 -1", "3 SYN_RECV ESTABLISHED 345 5",
			"2 LAST_ACK CLOSE 350 -1",
		},
		rfc: []string{
			"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 150 50", "2 ESTABLISHED CLOSE_WAIT 160 -1",
			"1 ESTABLISHED FIN_WAIT1 190 40", "1 FIN_WAIT1 CLOSE 230 40 unknown", "1 CLOSE SYN_SENT 330 100",
			"3 LISTEN SYN_RECV 340 -1", "3 SYN_RECV ESTABLISHED 345 5", "2 LAST_ACK CLOSE 350 -1 normal",
		},
		merged: 1,
	}, {
		name: "connect() finds no port",
		records: []record.Record{
			closedInConnect,
			connectReturned(11, 112, 99),
		},
		kernel: []string{"1 SYN_SENT CLOSE 110 -1"},
		rfc:    []string{"1 SYN_SENT CLOSE 110 -1 no_port errno 99"},
		merged: 1,
	}, {
		name: "connect() finds no route",
		records: []record.Record{
			closedInConnect,
			connectReturned(11, 112, 113),
		},
		kernel: []string{"1 SYN_SENT CLOSE 110 -1"},
		rfc:    []string{"1 SYN_SENT CLOSE 110 -1 unreachable errno 113"},
		merged: 1,
	}, {
		name: "connect() to AF_UNSPEC",
		records: []record.Record{
			closedInConnect,
			connectReturned(11, 112, 0),
		},
		kernel: []string{"1 SYN_SENT CLOSE 110 -1"},
		rfc:    []string{"1 SYN_SENT CLOSE 110 -1 aborted"},
		merged: 1,
	},
}

// closedInConnect is a change to CLOSE during connect(), for a socket without a port.
var closedInConnect = withClosing(record.Owned|record.InConnect|record.NoSegment, 0,
	withoutLocal(change(11, 7, 110, event.SynSent, event.Close)))

func connectReturned(sk uint64, mono int64, errno int32) record.Record {
	r := timer(sk, mono, record.ConnectReturned, 0)
	r.Err = errno
	return r
}
