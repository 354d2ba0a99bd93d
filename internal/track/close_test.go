package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// withClosing adds to r the properties of its socket as it closes.
func withClosing(closing record.Closing, errno int32, r record.Record) record.Record {
	r.Closing, r.Err = closing, errno
	return r
}

// endedBySegment returns a record of the segment that ended a mini-socket.
func endedBySegment(sk uint64, mono int64, flags uint8) record.Record {
	r := timer(sk, mono, record.Reset, 0)
	r.Segment = flags
	return r
}

func resetSent(sk uint64, mono int64) record.Record { return timer(sk, mono, record.ResetSent, 0) }

// closes are connections that close in an orderly way, through TIME_WAIT.
var closes = []scenario{
	{
		name: "active close",
		records: []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.FinWait2, event.Close),
			timeWait(20, 200, record.TimeWaitCancelled),
			timeWait(20, 201, record.TimeWaitExpired),
		},
		kernel: []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 CLOSE 111 11"},
		rfc: []string{
			"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 110 10",
			"1 TIME_WAIT CLOSE 201 91 time_wait_expired",
		},
		merged: 2,
	}, {
		name: "orphan in FIN_WAIT2",
		records: []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timer(20, 110, record.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timeWait(20, 150, record.TimeWaitStarted),
			timeWait(20, 200, record.TimeWaitCancelled),
			timeWait(20, 201, record.TimeWaitStarted), // a FIN was retransmitted
		},
		kernel: []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 CLOSE 111 11"},
		rfc:    []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 150 50"},
		merged: 4,
	}, {
		name: "FIN of an orphan unseen",
		records: []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timeWait(20, 200, record.TimeWaitCancelled),
			timeWait(20, 201, record.TimeWaitExpired),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 111 -1"},
		rfc:    []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"},
		merged: 3,
	}, {
		name: "TIME_WAIT reused",
		records: []record.Record{
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.Closing, event.Close),
			timeWait(20, 200, record.TimeWaitCancelled),
			request(10, 201, record.RequestStarted),
		},
		kernel: []string{"1 CLOSING CLOSE 111 -1"},
		rfc: []string{
			"1 CLOSING TIME_WAIT 110 -1", "1 TIME_WAIT CLOSE 200 90 time_wait_reused", "2 LISTEN SYN_RECV 201 -1",
		},
		merged: 1,
	}, {
		name: "close lost",
		records: []record.Record{
			timeWait(20, 110, record.TimeWaitStarted),
			timeWait(20, 200, record.TimeWaitCancelled),
			timeWait(20, 201, record.TimeWaitExpired),
		},
		rfc:    []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"},
		merged: 2,
	}, {
		name: "end of TIME_WAIT lost, address reused",
		records: []record.Record{
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.FinWait2, event.Close),
			withoutLocal(timeWait(20, 210, record.TimeWaitStarted)),
			withoutLocal(change(12, 8, 211, event.FinWait2, event.Close)),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 111 -1", "2 FIN_WAIT2 CLOSE 211 -1"},
		rfc:    []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"},
		merged: 2,
	}, {
		name: "in the snapshot and in the ring buffer",
		records: []record.Record{
			existing(timeWait(20, 120, 0)),
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.FinWait2, event.Close),
			timeWait(20, 200, record.TimeWaitCancelled),
			timeWait(20, 201, record.TimeWaitExpired),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 111 -1"},
		rfc:    []string{"2 FIN_WAIT2 TIME_WAIT 110 -1", "2 TIME_WAIT CLOSE 201 91 time_wait_expired"},
		merged: 2,
	},
}

var (
	reset  = withClosing(record.RecvShut, 104, change(11, 7, 110, event.FinWait2, event.Close))
	orphan = withClosing(record.RecvShut|record.Shut|record.Orphan, 0, change(11, 7, 110, event.FinWait2, event.Close))
	other  = onCPU(1, change(12, 8, 111, event.Established, event.CloseWait))
)

// failures are connections that end early.
var failures = []scenario{
	{
		name:    "RST in FIN_WAIT2",
		records: []record.Record{reset, other},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1 errno 104", "2 ESTABLISHED CLOSE_WAIT 111 -1"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 reset_by_peer errno 104", "2 ESTABLISHED CLOSE_WAIT 111 -1"},
	}, {
		name:    "late data in FIN_WAIT2",
		records: []record.Record{reset, resetSent(11, 112)},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1 errno 104"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 reset_sent_late_data errno 104"},
		merged:  1,
	}, {
		name:    "late data, reported after something else",
		records: []record.Record{reset, other, resetSent(11, 112)},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1 errno 104", "2 ESTABLISHED CLOSE_WAIT 111 -1"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 reset_sent_late_data errno 104", "2 ESTABLISHED CLOSE_WAIT 111 -1"},
		merged:  1,
	}, {
		name:    "late data of another connection",
		records: []record.Record{reset, withoutLocal(resetSent(11, 112))},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1 errno 104"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 reset_by_peer errno 104"},
		merged:  1,
	}, {
		name:    "late data to an orphan",
		records: []record.Record{orphan, resetSent(11, 112)},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 reset_sent_late_data"},
		merged:  1,
	}, {
		name:    "no segment to an orphan",
		records: []record.Record{orphan},
		kernel:  []string{"1 FIN_WAIT2 CLOSE 110 -1"},
		rfc:     []string{"1 FIN_WAIT2 CLOSE 110 -1 fin_wait2_timeout"},
	}, {
		name: "ss -K",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			withFlags(record.Destroyed, ownedBy(7, request(10, 200, record.RequestCancelled))),
			timeWait(20, 210, record.TimeWaitStarted),
			change(11, 7, 211, event.FinWait2, event.Close),
			withFlags(record.Destroyed, ownedBy(7, timeWait(20, 300, record.TimeWaitCancelled))),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 211 -1"},
		rfc: []string{
			"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 aborted", "2 FIN_WAIT2 TIME_WAIT 210 -1",
			"2 TIME_WAIT CLOSE 300 90 aborted",
		},
		merged: 1,
	}, {
		name: "softirq during ss -K",
		records: []record.Record{
			request(10, 100, record.RequestStarted),
			change(11, 7, 200, event.Listen, event.SynRecv),
			withFlags(record.Destroyed, ownedBy(7, request(10, 201, record.RequestCancelled))),
			change(11, 7, 210, event.SynRecv, event.Established),
			timeWait(20, 310, record.TimeWaitStarted),
			change(11, 7, 311, event.FinWait2, event.Close),
			withFlags(record.Destroyed, ownedBy(7, timeWait(20, 400, record.TimeWaitCancelled))),
			request(10, 401, record.RequestStarted),
		},
		kernel: []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10", "1 FIN_WAIT2 CLOSE 311 -1"},
		rfc: []string{
			"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110", "1 FIN_WAIT2 TIME_WAIT 310 -1",
			"1 TIME_WAIT CLOSE 400 90 time_wait_reused",
			"2 LISTEN SYN_RECV 401 -1",
		},
		merged: 3,
	}, {
		name: "network namespace of a TIME_WAIT removed",
		records: []record.Record{
			timeWait(20, 100, record.TimeWaitStarted),
			change(11, 7, 101, event.FinWait2, event.Close),
			withFlags(record.Abandoned, timeWait(20, 110, record.TimeWaitCancelled)),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 101 -1"},
		rfc:    []string{"1 FIN_WAIT2 TIME_WAIT 100 -1", "1 TIME_WAIT CLOSE 110 10 netns_gone"},
		merged: 1,
	},
}

// duplicates are changes that both of the kernel-side programs may have reported.
var duplicates = []scenario{
	{
		name: "reported twice",
		records: []record.Record{
			change(1, 7, 10, event.Close, event.SynSent),
			bySecond(change(1, 7, 11, event.Close, event.SynSent)),
			bySecond(change(1, 7, 20, event.SynSent, event.Established)), // only by the second
			change(1, 7, 30, event.Established, event.Close),
			bySecond(change(1, 7, 31, event.Established, event.Close)),
			withLosses(1, bySecond(change(1, 7, 40, event.Established, event.Close))), // possibly another socket
			change(2, 8, 50, event.Listen, event.SynRecv),
			bySecond(change(2, 8, 51, event.Listen, event.SynRecv)),
			bySecond(change(2, 9, 60, event.Listen, event.SynRecv)),
		},
		kernel: []string{
			"1 CLOSE SYN_SENT 10 -1", "1 SYN_SENT ESTABLISHED 20 10", "1 ESTABLISHED CLOSE 30 10",
			"1 ESTABLISHED CLOSE 40 -1", "2 LISTEN SYN_RECV 50 -1", "3 LISTEN SYN_RECV 60 -1",
		},
		rfc: []string{
			"1 CLOSE SYN_SENT 10 -1", "1 SYN_SENT ESTABLISHED 20 10", "1 ESTABLISHED CLOSE 30 10 unknown",
			"1 ESTABLISHED CLOSE 40 -1 unknown", "2 LISTEN SYN_RECV 50 -1", "3 LISTEN SYN_RECV 60 -1",
		},
	}, {
		name: "connect() reported twice while it waits for its port",
		records: []record.Record{
			withoutLocal(change(11, 7, 100, event.Close, event.SynSent)),
			bySecond(withoutLocal(change(11, 7, 101, event.Close, event.SynSent))),
			change(11, 7, 110, event.SynSent, event.Established),
		},
		kernel: []string{"1 CLOSE SYN_SENT 100 -1 without port", "1 SYN_SENT ESTABLISHED 110 10"},
		rfc:    []string{"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 110 10"},
	}, {
		name: "close reported twice after TIME_WAIT began",
		records: []record.Record{
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.FinWait2, event.Close),
			bySecond(change(11, 7, 112, event.FinWait2, event.Close)),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 111 -1"},
		rfc:    []string{"1 FIN_WAIT2 TIME_WAIT 110 -1"},
		merged: 1,
	}, {
		name: "close reported by the second program alone, address reused",
		records: []record.Record{
			timeWait(20, 110, record.TimeWaitStarted),
			change(11, 7, 111, event.FinWait2, event.Close),
			timeWait(21, 210, record.TimeWaitStarted),
			bySecond(change(11, 8, 211, event.FinWait2, event.Close)),
		},
		kernel: []string{"1 FIN_WAIT2 CLOSE 111 -1", "2 FIN_WAIT2 CLOSE 211 -1"},
		rfc:    []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"},
		merged: 2,
	},
}
