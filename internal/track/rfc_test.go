package track

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// timer is a record of a mini-sock's timer; the ends are those of change.
func timer(sk uint64, mono int64, deed record.Kind, state event.State) record.Record {
	e := change(sk, 0, mono, 0, state)
	e.Kind, e.Mini, e.Origin = deed, true, event.FromTimer
	if state == event.SynRecv {
		e.Listener = 99
	}
	return e
}

// byTask is done by the current task's own call.
func byTask(e record.Record) record.Record {
	e.OwnerPID, e.Flags = 7, e.Flags|record.Destroyed
	return e
}

func retried(e record.Record) record.Record {
	e.Retries = 1
	return e
}

// late has no remote end yet, as up to Linux 6.12.
func late(e record.Record) record.Record {
	e.Remote, e.Cookie = netip.AddrPort{}, 0
	return e
}

func onCPU(cpu uint32, e record.Record) record.Record {
	e.CPU = cpu
	return e
}

// unbound has no local port yet.
func unbound(e record.Record) record.Record {
	e.Local = netip.AddrPort{}
	return e
}

// Each list of records becomes these lines: "id OLD NEW mono dur reason".
func TestMachine(t *testing.T) {
	listening := change(99, 90, 1, event.Close, event.Listen)
	for _, test := range []struct {
		name    string
		records []record.Record
		want    []string
		merged  uint64
	}{
		{"passive open", []record.Record{
			listening,
			timer(10, 100, record.RequestStarted, event.SynRecv),
			change(11, 7, 200, event.Listen, event.SynRecv),
			timer(10, 201, record.RequestCancelled, event.SynRecv),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 210 110"}, 2},
		{"remote end comes late", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			late(change(11, 0, 200, event.Listen, event.SynRecv)),
			timer(10, 201, record.RequestCancelled, event.SynRecv),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110"}, 2},
		{"remote end comes late, and no request was seen", []record.Record{
			late(change(11, 0, 200, event.Listen, event.SynRecv)),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10"}, 0},
		{"SYN-ACK sent again", []record.Record{
			listening,
			timer(10, 100, record.RequestStarted, event.SynRecv),
			timer(10, 200, record.RequestCancelled, event.SynRecv),
			timer(10, 201, record.RequestExpired, event.SynRecv),
			retried(timer(10, 202, record.RequestStarted, event.SynRecv)),
			change(11, 7, 300, event.Listen, event.SynRecv),
			timer(10, 301, record.RequestCancelled, event.SynRecv),
			change(11, 7, 310, event.SynRecv, event.Established),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 310 210"}, 5},
		{"handshake given up", []record.Record{
			listening,
			timer(10, 100, record.RequestStarted, event.SynRecv),
			timer(10, 200, record.RequestCancelled, event.SynRecv),
			timer(10, 201, record.RequestExpired, event.SynRecv),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV CLOSE 201 101 handshake_abandoned"}, 1},
		{"request ended, and its address taken by the next", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			timer(10, 200, record.RequestCancelled, event.SynRecv),
			unbound(timer(10, 201, record.RequestStarted, event.SynRecv)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 unknown", "2 LISTEN SYN_RECV 201 -1"}, 0},
		{"ended by an administrator", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			byTask(timer(10, 200, record.RequestCancelled, event.SynRecv)),
			timer(20, 210, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 211, event.FinWait2, event.Close),
			byTask(timer(20, 300, record.TimeWaitCancelled, event.TimeWait)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 aborted", "2 FIN_WAIT2 TIME_WAIT 210 -1", "2 TIME_WAIT CLOSE 300 90 aborted"}, 1},
		{"something else runs on top of an administrator's task", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			change(11, 7, 200, event.Listen, event.SynRecv),
			byTask(timer(10, 201, record.RequestCancelled, event.SynRecv)),
			change(11, 7, 210, event.SynRecv, event.Established),
			timer(20, 310, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 311, event.FinWait2, event.Close),
			byTask(timer(20, 400, record.TimeWaitCancelled, event.TimeWait)),
			timer(10, 401, record.RequestStarted, event.SynRecv),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110", "1 FIN_WAIT2 TIME_WAIT 310 -1", "1 TIME_WAIT CLOSE 400 90 time_wait_reused",
			"2 LISTEN SYN_RECV 401 -1"}, 3},
		{"SYN comes twice", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			timer(10, 200, record.RequestCancelled, event.SynRecv),
			timer(10, 201, record.RequestStarted, event.SynRecv),
			change(11, 7, 300, event.Listen, event.SynRecv),
			timer(10, 301, record.RequestCancelled, event.SynRecv),
			change(11, 7, 310, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 310 210"}, 4},
		{"request's cancelling lost, and its address taken by the next", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			change(11, 7, 110, event.Listen, event.SynRecv),
			change(11, 7, 120, event.SynRecv, event.Established),
			unbound(timer(10, 130, record.RequestStarted, event.SynRecv)),
			change(11, 7, 140, event.Established, event.CloseWait),
			unbound(timer(10, 150, record.RequestCancelled, event.SynRecv)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 120 20", "2 LISTEN SYN_RECV 130 -1", "1 ESTABLISHED CLOSE_WAIT 140 20",
			"2 SYN_RECV CLOSE 150 20 unknown"}, 1},
		{"timewait's end lost, and its address taken by the next", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			unbound(timer(20, 210, record.TimeWaitStarted, event.TimeWait)),
			unbound(change(12, 8, 211, event.FinWait2, event.Close)),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"}, 2},
		{"seen by the snapshot and in the ring", []record.Record{
			func() record.Record {
				e := timer(20, 120, 0, event.TimeWait)
				e.Type, e.Kind = event.Socket, record.Existing
				return e
			}(),
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, record.TimeWaitExpired, event.TimeWait),
		}, []string{"2 FIN_WAIT2 TIME_WAIT 110 -1", "2 TIME_WAIT CLOSE 201 91 time_wait_expired"}, 2},
		{"connect told twice while it waits", []record.Record{
			unbound(change(11, 7, 100, event.Close, event.SynSent)),
			func() record.Record {
				e := unbound(change(11, 7, 101, event.Close, event.SynSent))
				e.Kind = record.SecondChange
				return e
			}(),
			change(11, 7, 110, event.SynSent, event.Established),
		}, []string{"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 110 10"}, 0},
		{"active close", []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, record.TimeWaitExpired, event.TimeWait),
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 110 10", "1 TIME_WAIT CLOSE 201 91 time_wait_expired"}, 2},
		{"orphaned FIN_WAIT2", []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timer(20, 110, record.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 150, record.TimeWaitStarted, event.TimeWait),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, record.TimeWaitStarted, event.TimeWait), // the FIN once more
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 150 50"}, 4},
		{"TIME_WAIT reused", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.Closing, event.Close),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(10, 201, record.RequestStarted, event.SynRecv),
		}, []string{"1 CLOSING TIME_WAIT 110 -1", "1 TIME_WAIT CLOSE 200 90 time_wait_reused", "2 LISTEN SYN_RECV 201 -1"}, 1},
		{"port comes late", []record.Record{
			unbound(change(11, 7, 100, event.Close, event.SynSent)),
			onCPU(1, timer(10, 101, record.RequestStarted, event.SynRecv)),
			timer(11, 102, record.SynSentStarted, event.SynSent),
			change(11, 7, 110, event.SynSent, event.Established),
		}, []string{"1 CLOSE SYN_SENT 100 -1", "2 LISTEN SYN_RECV 101 -1", "1 SYN_SENT ESTABLISHED 110 10"}, 1},
		{"told twice", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			func() record.Record {
				e := change(11, 7, 112, event.FinWait2, event.Close)
				e.Kind = record.SecondChange
				return e
			}(),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1"}, 1},
		{"told by the second program alone, at an address used again", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(21, 210, record.TimeWaitStarted, event.TimeWait),
			func() record.Record {
				e := change(11, 8, 211, event.FinWait2, event.Close)
				e.Kind = record.SecondChange
				return e
			}(),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"}, 2},
		{"FIN of an orphan not seen", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, record.TimeWaitExpired, event.TimeWait),
		}, []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"}, 3},
		{"close lost", []record.Record{
			timer(20, 110, record.TimeWaitStarted, event.TimeWait),
			timer(20, 200, record.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, record.TimeWaitExpired, event.TimeWait),
		}, []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m RFC
			var got []string
			emit := func(e *event.Event) error {
				if e.Type == event.Socket {
					return nil
				}
				line := fmt.Sprint(e.ID, " ", e.Old, " ", e.New, " ", e.Mono, " ", e.Dur)
				if e.Reason != 0 {
					line += " " + e.Reason.String()
				}
				if e.New == event.SynSent && e.Local.Port() == 0 {
					line += " without port"
				}
				got = append(got, line)
				return nil
			}
			for _, e := range test.records {
				if err := m.Take(&e, emit); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Settle(math.MaxInt64, emit); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			records := uint64(0)
			for _, e := range test.records {
				if e.Type != event.Socket {
					records++
				}
			}
			if lines := uint64(len(got)); m.Merged() != test.merged || lines+m.Merged()+m.Duplicates() != records || m.Waiting() != 0 {
				t.Errorf("%d records are %d lines, %d merged, %d twice, %d waiting; want %d merged", len(test.records), lines, m.Merged(), m.Duplicates(), m.Waiting(), test.merged)
			}
		})
	}
}

// What a record after the one of a CLOSE says of it is on its line, and the line comes in its place.
func TestUnclear(t *testing.T) {
	closes := func(e record.Record, errno int32, at record.Closing) record.Record {
		e.Err, e.Closing = errno, at
		return e
	}
	segment := func(sk uint64, mono int64, flags uint8) record.Record {
		e := timer(sk, mono, record.Reset, 0)
		e.Segment = flags
		return e
	}
	answered := func(sk uint64, mono int64) record.Record { return timer(sk, mono, record.ResetSent, 0) }
	returned := func(sk uint64, mono int64, errno int32) record.Record {
		e := timer(sk, mono, record.ConnectReturned, 0)
		e.Err = errno
		return e
	}
	flagged := func(e record.Record, f record.Flags) record.Record {
		e.Flags |= f
		return e
	}
	const (
		syn     = 1 << 1
		connect = record.Owned | record.InConnect | record.NoSegment
	)
	reset := closes(change(11, 7, 110, event.FinWait2, event.Close), 104, record.RecvShut)
	orphan := closes(change(11, 7, 110, event.FinWait2, event.Close), 0, record.RecvShut|record.Shut|record.Orphan)
	inConnect := closes(unbound(change(11, 7, 110, event.SynSent, event.Close)), 0, connect)
	other := onCPU(1, change(12, 8, 111, event.Established, event.CloseWait))
	for _, test := range []struct {
		name    string
		records []record.Record
		want    string
	}{
		{"RST in FIN_WAIT2", []record.Record{reset, other}, "FIN_WAIT2 CLOSE 110 reset_by_peer 104"},
		{"late data in FIN_WAIT2", []record.Record{reset, answered(11, 112)}, "FIN_WAIT2 CLOSE 110 reset_sent_late_data 104"},
		{"late data, told after something else", []record.Record{reset, other, answered(11, 112)}, "FIN_WAIT2 CLOSE 110 reset_sent_late_data 104"},
		{"of another socket", []record.Record{reset, unbound(answered(11, 112))}, "FIN_WAIT2 CLOSE 110 reset_by_peer 104"},
		{"late data to an orphan", []record.Record{orphan, answered(11, 112)}, "FIN_WAIT2 CLOSE 110 reset_sent_late_data 0"},
		{"no segment to an orphan", []record.Record{orphan}, "FIN_WAIT2 CLOSE 110 fin_wait2_timeout 0"},
		{"no port", []record.Record{inConnect, returned(11, 112, 99)}, "SYN_SENT CLOSE 110 no_port 99"},
		{"no route any more", []record.Record{inConnect, returned(11, 112, 113)}, "SYN_SENT CLOSE 110 unreachable 113"},
		{"AF_UNSPEC", []record.Record{inConnect, returned(11, 112, 0)}, "SYN_SENT CLOSE 110 aborted 0"},
		{"accept queue full, tcp_abort_on_overflow", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			flagged(timer(10, 110, record.RequestCancelled, event.SynRecv), record.QueueFull),
			segment(10, 112, 1<<4),
		}, "SYN_RECV CLOSE 110 accept_queue_full 0"},
		{"a SYN to a half-open connection", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			timer(10, 110, record.RequestCancelled, event.SynRecv),
			segment(10, 112, syn),
		}, "SYN_RECV CLOSE 110 reset_sent_syn 0"},
		{"ICMP to a half-open connection", []record.Record{
			timer(10, 100, record.RequestStarted, event.SynRecv),
			flagged(timer(10, 110, record.RequestCancelled, event.SynRecv), record.ByICMP),
		}, "SYN_RECV CLOSE 110 unreachable 0"},
		{"the namespace of a TIME_WAIT goes", []record.Record{
			timer(20, 100, record.TimeWaitStarted, event.TimeWait),
			change(11, 7, 101, event.FinWait2, event.Close),
			flagged(timer(20, 110, record.TimeWaitCancelled, event.TimeWait), record.Abandoned),
		}, "TIME_WAIT CLOSE 110 netns_gone 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m RFC
			var lines []string
			var last int64
			emit := func(e *event.Event) error {
				if e.Mono < last {
					t.Errorf("a line of %d comes after one of %d", e.Mono, last)
				}
				last = e.Mono
				lines = append(lines, fmt.Sprint(e.Old, " ", e.New, " ", e.Mono, " ", e.Reason, " ", e.Err))
				return nil
			}
			for _, e := range test.records {
				if err := m.Take(&e, emit); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Settle(math.MaxInt64, emit); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(lines, test.want) {
				t.Errorf("got %q, want %q among them", lines, test.want)
			}
			if uint64(len(lines))+m.Merged() != uint64(len(test.records)) || m.Waiting() != 0 || len(m.awaitingReason) != 0 {
				t.Errorf("%d records are %d lines and %d merged; %d wait", len(test.records), len(lines), m.Merged(), m.Waiting())
			}
		})
	}
}

// The sequence number that comes in a handshake is the client's only at the server: where both ends send a SYN it is the peer's.
func TestISN(t *testing.T) {
	syn := timer(10, 100, record.RequestStarted, event.SynRecv)
	for name, before := range map[string][]record.Record{
		"simultaneous open": {change(11, 7, 100, event.Close, event.SynSent), timer(11, 101, record.SynSentStarted, 0), change(11, 7, 110, event.SynSent, event.SynRecv)},
		"passive open":      {syn, change(11, 7, 110, event.Listen, event.SynRecv)},
	} {
		t.Run(name, func(t *testing.T) {
			var m RFC
			var got uint32
			emit := func(e *event.Event) error {
				if e.New == event.Established {
					got = e.ISN
				}
				return nil
			}
			last := change(11, 7, 120, event.SynRecv, event.Established)
			last.ISN = 77
			for _, e := range append(before, last) {
				if err := m.Take(&e, emit); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Settle(math.MaxInt64, emit); err != nil {
				t.Fatal(err)
			}
			if want := map[string]uint32{"passive open": 77}[name]; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}

// A handshake whose listener closed goes on at another one, as one connection with the new listener's owner.
func TestMigration(t *testing.T) {
	listens := func(sk uint64, pid uint32) record.Record {
		e := change(sk, sk, 1, event.Close, event.Listen)
		e.Local, e.Remote, e.OwnerPID, e.OwnerComm = netip.MustParseAddrPort("127.0.0.1:7781"), netip.AddrPort{}, pid, "server"
		return e
	}
	closes := listens(1, 100)
	closes.Old, closes.New, closes.Mono = event.Listen, event.Close, 50
	request := func(sk, listener uint64, mono int64, deed record.Kind, retries uint8) record.Record {
		e := timer(sk, mono, deed, event.SynRecv)
		e.Listener, e.Retries, e.ISN = listener, retries, 77
		return e
	}
	var m RFC
	var lines []string
	emit := func(e *event.Event) error {
		lines = append(lines, fmt.Sprint(e.ID, " ", e.Old, " ", e.New, " ", e.Dur, " ", e.OwnerPID))
		return nil
	}
	for _, e := range []record.Record{
		listens(1, 100), listens(2, 200),
		request(10, 1, 20, record.RequestStarted, 0),
		request(20, 1, 30, record.RequestStarted, 0), change(21, 5, 31, event.Listen, event.SynRecv), // another one, which is in its queue
		request(20, 1, 32, record.RequestCancelled, 0), change(21, 5, 33, event.SynRecv, event.Established),
		closes,
		request(10, 1, 60, record.RequestCancelled, 0), request(10, 1, 61, record.RequestExpired, 0), request(12, 2, 62, record.RequestStarted, 1),
		change(11, 7, 80, event.Listen, event.SynRecv), request(12, 2, 81, record.RequestCancelled, 1),
		change(11, 7, 82, event.SynRecv, event.Established), change(21, 5, 90, event.Established, event.CloseWait),
	} {
		if e.Sk >= 20 {
			e.Remote = netip.MustParseAddrPort("127.0.0.1:5")
		}
		if err := m.Take(&e, emit); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"1 CLOSE LISTEN -1 100", "2 CLOSE LISTEN -1 200", "3 LISTEN SYN_RECV -1 100", "4 LISTEN SYN_RECV -1 100",
		"4 SYN_RECV ESTABLISHED 3 100", "1 LISTEN CLOSE 49 100", "3 SYN_RECV ESTABLISHED 62 200", "4 ESTABLISHED CLOSE_WAIT 57 200"}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}

// The owner of a listener whose process exits is the one that it left it to; so is that of the connections that wait for accept().
func TestHeir(t *testing.T) {
	var m RFC
	m.Heirs = func(sks []uint64, gone uint32) map[uint64]event.Holder {
		if !slices.Equal(sks, []uint64{1}) || gone != 100 {
			t.Errorf("asked who has %d after %d", sks, gone)
		}
		return map[uint64]event.Holder{1: {PID: 101, Comm: "daemon"}}
	}
	listen := change(1, 1, 1, event.Close, event.Listen)
	listen.Remote, listen.OwnerPID, listen.OwnerComm = netip.AddrPort{}, 100, "start"
	syn := timer(10, 10, record.RequestStarted, event.SynRecv)
	syn.Listener = 1
	exit := record.Record{Kind: record.ProcessExited, Event: event.Event{OwnerPID: 100, Mono: 20}}
	var owners []string
	emit := func(e *event.Event) error {
		owners = append(owners, fmt.Sprint(e.New, " ", e.OwnerPID, " ", e.OwnerComm, " ", e.OwnerVia))
		return nil
	}
	for _, e := range []record.Record{
		listen, syn, exit, change(11, 7, 30, event.Listen, event.SynRecv), timer(10, 31, record.RequestCancelled, event.SynRecv),
		change(11, 7, 32, event.SynRecv, event.Established), change(1, 1, 40, event.Listen, event.Close),
	} {
		if err := m.Take(&e, emit); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"LISTEN 100 start listen", "SYN_RECV 100 start listener", "ESTABLISHED 101 daemon listener", "CLOSE 101 daemon snapshot"}
	if !slices.Equal(owners, want) {
		t.Errorf("got %q, want %q", owners, want)
	}
}

// An ACK that was dropped to wait for data counts as the end of the handshake's last leg, and a connect() without SYN is a line.
func TestDeferredAndFailed(t *testing.T) {
	failed := change(30, 9, 50, 0, 0)
	failed.Type, failed.Kind, failed.Err, failed.Role = event.ConnectFailed, record.NoSyn, 113, event.Client
	var m RFC
	var lines []string
	emit := func(e *event.Event) error {
		lines = append(lines, fmt.Sprint(e.Type, " ", e.ID, " ", e.New, " ", e.Deferred, " ", e.Reason))
		return nil
	}
	for _, e := range []record.Record{
		timer(10, 10, record.RequestStarted, event.SynRecv), timer(10, 14, record.RequestAcked, event.SynRecv),
		change(11, 7, 40, event.Listen, event.SynRecv), timer(10, 41, record.RequestCancelled, event.SynRecv),
		change(11, 7, 44, event.SynRecv, event.Established), failed, change(11, 7, 60, event.Established, event.CloseWait),
	} {
		if err := m.Take(&e, emit); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"change 1 SYN_RECV 0 ", "change 1 ESTABLISHED 30 ", "connect_failed 2  0 unreachable", "change 1 CLOSE_WAIT 0 "}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// Why a full sock closed, by what it was like.
func TestReasons(t *testing.T) {
	const own = record.Owned
	for _, test := range []struct {
		old  event.State
		err  int32
		at   record.Closing
		want event.Reason
	}{
		{event.Established, 110, record.Keepalive, event.ReasonKeepaliveTimeout},
		{event.Established, 110, record.Keepalive | record.Unacked, event.ReasonTimedOut},
		{event.SynSent, 110, record.Keepalive | record.Unacked, event.ReasonTimedOut},
		{event.FinWait1, 110, record.Keepalive | record.Unacked | record.Orphan, event.ReasonTimedOut},
		{event.Established, 111, 0, event.ReasonUnreachable},
		{event.SynSent, 111, 0, event.ReasonRefused},
		{event.SynRecv, 111, 0, event.ReasonPortUnreachable}, // of a simultaneous open; RST would be ECONNRESET
		{event.SynSent, 13, 0, event.ReasonUnreachable},
		{event.Established, 113, own | record.Shut | record.Unread, event.ReasonResetSentUnread}, // an error of before
		{event.LastAck, 113, record.Shut, event.ReasonNormal},
		{event.LastAck, 104, record.Shut | record.Unacked, event.ReasonResetByPeer},
		{event.LastAck, 0, record.Shut | record.Orphan, event.ReasonNormal},
		{event.LastAck, 0, record.Shut | record.Orphan | record.Unacked, event.ReasonTooManyOrphans},
		{event.LastAck, 0, record.Shut | record.Orphan | record.Unacked | record.NetNSGone, event.ReasonNetNSGone},
		{event.LastAck, 0, own | record.Shut | record.Unacked | record.Linger0, event.ReasonAborted}, // its FIN is on its way
		{event.LastAck, 0, own | record.Shut | record.Unacked | record.Unread, event.ReasonResetSentUnread},
		{event.LastAck, 0, own | record.Shut | record.Unacked | record.Unsent | record.Linger0, event.ReasonResetSentLinger},
		{event.Established, 113, own | record.InConnect, event.ReasonAborted}, // an error of before
		{event.Established, 104, own | record.InConnect, event.ReasonResetByPeer},
		{event.SynSent, 113, own | record.InConnect, event.ReasonUnreachable},
		{event.LastAck, 0, own | record.Shut | record.Unacked | record.InConnect, event.ReasonAborted},
		{event.SynSent, 0, own | record.Shut, event.ReasonGivenUp},
		{event.SynSent, 0, own | record.NoSegment, event.ReasonGivenUp}, // shutdown()
		{event.Established, 0, own | record.Shut | record.Unread | record.Linger0, event.ReasonResetSentUnread},
		{event.Established, 0, own | record.Shut | record.Linger0, event.ReasonResetSentLinger},
		{event.Established, 0, own | record.Shut | record.Repair, event.ReasonRepaired},
		{event.Established, 0, own, event.ReasonAborted},
		{event.Established, 0, own | record.Unaccepted | record.Shut, event.ReasonListenerClosed},
		{event.FinWait1, 0, own | record.Shut | record.Unread | record.Unacked, event.ReasonResetSentUnread},
		{event.FinWait2, 0, own | record.Shut | record.Linger0, event.ReasonResetSentLinger},
		{event.FinWait2, 0, own | record.InConnect, event.ReasonAborted},
		{event.FinWait2, 0, record.Shut | record.Orphan | record.NoFinWait2, event.ReasonResetSentLinger2},
		{event.FinWait2, 0, record.Shut | record.Orphan | record.TimeWaitFull, event.ReasonTimeWaitOverflow},
		{event.FinWait2, 0, record.FinCame, event.ReasonTimeWaitOverflow},
		{event.FinWait1, 0, record.Shut | record.Orphan | record.Unacked, event.ReasonTooManyOrphans},
		{event.Closing, 0, own | record.FinCame | record.Unacked, event.ReasonAborted},
		{event.FinWait1, 0, record.Unacked, event.ReasonUnexplained},
	} {
		e := change(1, 1, 1, test.old, event.Close)
		e.Err, e.Closing = test.err, test.at
		if got := new(RFC).reason(&e); got != test.want {
			t.Errorf("from %v with errno %d, %#x: %v, want %v", test.old, test.err, test.at, got, test.want)
		}
	}
}

// An accept is told once; what only may be one, of a connection that nobody has accepted yet, is one.
func TestAccepts(t *testing.T) {
	accept := func(sk, cookie uint64, deed record.Kind) record.Record {
		e := byTask(change(sk, cookie, 300, event.Established, event.Established))
		e.Type, e.Kind = event.Accept, deed
		return e
	}
	server := []record.Record{change(11, 7, 100, event.Listen, event.SynRecv), change(11, 7, 110, event.SynRecv, event.Established)}
	client := []record.Record{change(11, 7, 100, event.Close, event.SynSent), change(11, 7, 110, event.SynSent, event.Established)}
	older := change(11, 7, 110, 0, event.Established)
	older.Type, older.Kind, older.Role = event.Socket, record.Existing, event.Server
	for _, test := range []struct {
		name    string
		records []record.Record
		want    int
	}{
		{"accept()", append(slices.Clone(server), accept(11, 7, record.Accepted)), 1},
		{"perhaps", append(slices.Clone(server), accept(11, 7, record.AcceptedPerhaps)), 1},
		{"perhaps, then for sure", append(slices.Clone(server), accept(11, 7, record.AcceptedPerhaps), accept(11, 7, record.Accepted)), 1},
		{"for sure, then a number like it", append(slices.Clone(server), accept(11, 7, record.Accepted), accept(11, 7, record.AcceptedPerhaps)), 1},
		{"a client's number", append(slices.Clone(client), accept(11, 7, record.AcceptedPerhaps)), 0},
		{"another socket at its address", append(slices.Clone(server), accept(11, 8, record.AcceptedPerhaps)), 0},
		{"older than the trace", []record.Record{older, accept(11, 7, record.AcceptedPerhaps)}, 0},
		{"not known", []record.Record{accept(11, 7, record.AcceptedPerhaps)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m RFC
			got, id := 0, uint64(0)
			for _, e := range append(test.records, change(11, 7, 400, event.Established, event.CloseWait)) {
				err := m.Take(&e, func(e *event.Event) error {
					if e.Type == event.Accept {
						got++
					}
					if id == 0 {
						id = e.ID
					}
					if e.ID != id {
						t.Errorf("socket %d became %d", id, e.ID)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if got != test.want {
				t.Errorf("%d accepts, want %d", got, test.want)
			}
		})
	}
}

// A line waits for a few ms at most, and those after it with it.
func TestPatience(t *testing.T) {
	var m RFC
	var got []int64
	emit := func(e *event.Event) error {
		got = append(got, e.Mono)
		return nil
	}
	for _, e := range []record.Record{
		unbound(change(11, 7, 100, event.Close, event.SynSent)),
		change(12, 8, 200, event.Established, event.CloseWait),
	} {
		if err := m.Take(&e, emit); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 0 || m.Waiting() != 2 {
		t.Errorf("%v are told, %d wait", got, m.Waiting())
	}
	if err := m.Settle(100+patience, emit); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []int64{100, 200}) || m.Waiting() != 0 {
		t.Errorf("%v are told, %d wait", got, m.Waiting())
	}
}

// What is over is forgotten: memory does not grow with the number of connections.
func TestMachineForgets(t *testing.T) {
	var m RFC
	emit := func(*event.Event) error { return nil }
	for i := range int64(100_000) {
		at := i * 1000
		for _, e := range []record.Record{
			timer(10, at, record.RequestStarted, event.SynRecv),
			change(11, uint64(i+1), at+1, event.Listen, event.SynRecv),
			timer(10, at+2, record.RequestCancelled, event.SynRecv),
			change(11, uint64(i+1), at+3, event.SynRecv, event.Established),
			change(11, uint64(i+1), at+4, event.Established, event.FinWait1),
			change(11, uint64(i+1), at+5, event.FinWait1, event.FinWait2),
			timer(20, at+6, record.TimeWaitStarted, event.TimeWait),
			change(11, uint64(i+1), at+7, event.FinWait2, event.Close),
			timer(20, at+8, record.TimeWaitCancelled, event.TimeWait),
			timer(20, at+9, record.TimeWaitExpired, event.TimeWait),
		} {
			if err := m.Take(&e, emit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(m.socks) + len(m.requests) + len(m.completed) + len(m.awaitingClose) + len(m.awaitingReuse) + len(m.awaitingTimer) + len(m.backlog.queue); n > 10 {
		t.Errorf("%d things are remembered", n)
	}
	if len(m.free) > 10 || len(m.backlog.unused) > 10 {
		t.Errorf("%d socks and %d records are kept for reuse", len(m.free), len(m.backlog.unused))
	}
}

func BenchmarkMachine(b *testing.B) {
	var m RFC
	emit := func(*event.Event) error { return nil }
	records := []record.Record{
		timer(10, 0, record.RequestStarted, event.SynRecv), change(11, 7, 1, event.Listen, event.SynRecv), timer(10, 2, record.RequestCancelled, event.SynRecv),
		change(11, 7, 3, event.SynRecv, event.Established), change(11, 7, 4, event.Established, event.FinWait1), change(11, 7, 5, event.FinWait1, event.FinWait2),
		timer(20, 6, record.TimeWaitStarted, event.TimeWait), change(11, 7, 7, event.FinWait2, event.Close), timer(20, 8, record.TimeWaitCancelled, event.TimeWait),
		timer(20, 9, record.TimeWaitExpired, event.TimeWait),
	}
	b.ReportAllocs()
	i := 0
	var e record.Record
	for b.Loop() {
		e = records[i%len(records)]
		e.Mono += int64(i)
		if err := m.Take(&e, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
