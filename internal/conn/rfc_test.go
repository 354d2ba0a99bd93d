package conn

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"sstrace/internal/event"
)

// timer is a record of a mini-sock's timer; the ends are those of change.
func timer(sk uint64, mono int64, deed event.Deed, state event.State) event.Event {
	e := change(sk, 0, mono, 0, state)
	e.Type, e.Deed, e.Mini, e.Origin = event.Timer, deed, true, event.FromTimer
	if state == event.SynRecv {
		e.Listener = 99
	}
	return e
}

// byTask is done by the current task's own call.
func byTask(e event.Event) event.Event {
	e.OwnerPID, e.Flags = 7, e.Flags|event.Destroyed
	return e
}

func retried(e event.Event) event.Event {
	e.Retries = 1
	return e
}

// late has no remote end yet, as up to Linux 6.12.
func late(e event.Event) event.Event {
	e.Remote, e.Cookie = netip.AddrPort{}, 0
	return e
}

func onCPU(cpu uint32, e event.Event) event.Event {
	e.CPU = cpu
	return e
}

// unbound has no local port yet.
func unbound(e event.Event) event.Event {
	e.Local = netip.AddrPort{}
	return e
}

// Each list of records becomes these lines: "id OLD NEW mono dur reason".
func TestMachine(t *testing.T) {
	listening := change(99, 90, 1, event.Close, event.Listen)
	for _, test := range []struct {
		name    string
		records []event.Event
		want    []string
		merged  uint64
	}{
		{"passive open", []event.Event{
			listening,
			timer(10, 100, event.RequestStarted, event.SynRecv),
			change(11, 7, 200, event.Listen, event.SynRecv),
			timer(10, 201, event.RequestCancelled, event.SynRecv),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 210 110"}, 2},
		{"remote end comes late", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			late(change(11, 0, 200, event.Listen, event.SynRecv)),
			timer(10, 201, event.RequestCancelled, event.SynRecv),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110"}, 2},
		{"remote end comes late, and no request was seen", []event.Event{
			late(change(11, 0, 200, event.Listen, event.SynRecv)),
			change(11, 7, 210, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 200 -1", "1 SYN_RECV ESTABLISHED 210 10"}, 0},
		{"SYN-ACK sent again", []event.Event{
			listening,
			timer(10, 100, event.RequestStarted, event.SynRecv),
			timer(10, 200, event.RequestCancelled, event.SynRecv),
			timer(10, 201, event.RequestExpired, event.SynRecv),
			retried(timer(10, 202, event.RequestStarted, event.SynRecv)),
			change(11, 7, 300, event.Listen, event.SynRecv),
			timer(10, 301, event.RequestCancelled, event.SynRecv),
			change(11, 7, 310, event.SynRecv, event.Established),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV ESTABLISHED 310 210"}, 5},
		{"handshake given up", []event.Event{
			listening,
			timer(10, 100, event.RequestStarted, event.SynRecv),
			timer(10, 200, event.RequestCancelled, event.SynRecv),
			timer(10, 201, event.RequestExpired, event.SynRecv),
		}, []string{"1 CLOSE LISTEN 1 -1", "2 LISTEN SYN_RECV 100 -1", "2 SYN_RECV CLOSE 201 101 handshake_abandoned"}, 1},
		{"request ended, and its address taken by the next", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			timer(10, 200, event.RequestCancelled, event.SynRecv),
			unbound(timer(10, 201, event.RequestStarted, event.SynRecv)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 unknown", "2 LISTEN SYN_RECV 201 -1"}, 0},
		{"ended by an administrator", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			byTask(timer(10, 200, event.RequestCancelled, event.SynRecv)),
			timer(20, 210, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 211, event.FinWait2, event.Close),
			byTask(timer(20, 300, event.TimeWaitCancelled, event.TimeWait)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV CLOSE 200 100 aborted", "2 FIN_WAIT2 TIME_WAIT 210 -1", "2 TIME_WAIT CLOSE 300 90 aborted"}, 1},
		{"something else runs on top of an administrator's task", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			change(11, 7, 200, event.Listen, event.SynRecv),
			byTask(timer(10, 201, event.RequestCancelled, event.SynRecv)),
			change(11, 7, 210, event.SynRecv, event.Established),
			timer(20, 310, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 311, event.FinWait2, event.Close),
			byTask(timer(20, 400, event.TimeWaitCancelled, event.TimeWait)),
			timer(10, 401, event.RequestStarted, event.SynRecv),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 210 110", "1 FIN_WAIT2 TIME_WAIT 310 -1", "1 TIME_WAIT CLOSE 400 90 time_wait_reused",
			"2 LISTEN SYN_RECV 401 -1"}, 3},
		{"SYN comes twice", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			timer(10, 200, event.RequestCancelled, event.SynRecv),
			timer(10, 201, event.RequestStarted, event.SynRecv),
			change(11, 7, 300, event.Listen, event.SynRecv),
			timer(10, 301, event.RequestCancelled, event.SynRecv),
			change(11, 7, 310, event.SynRecv, event.Established),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 310 210"}, 4},
		{"request's cancelling lost, and its address taken by the next", []event.Event{
			timer(10, 100, event.RequestStarted, event.SynRecv),
			change(11, 7, 110, event.Listen, event.SynRecv),
			change(11, 7, 120, event.SynRecv, event.Established),
			unbound(timer(10, 130, event.RequestStarted, event.SynRecv)),
			change(11, 7, 140, event.Established, event.CloseWait),
			unbound(timer(10, 150, event.RequestCancelled, event.SynRecv)),
		}, []string{"1 LISTEN SYN_RECV 100 -1", "1 SYN_RECV ESTABLISHED 120 20", "2 LISTEN SYN_RECV 130 -1", "1 ESTABLISHED CLOSE_WAIT 140 20",
			"2 SYN_RECV CLOSE 150 20 unknown"}, 1},
		{"timewait's end lost, and its address taken by the next", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			unbound(timer(20, 210, event.TimeWaitStarted, event.TimeWait)),
			unbound(change(12, 8, 211, event.FinWait2, event.Close)),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"}, 2},
		{"seen by the snapshot and in the ring", []event.Event{
			func() event.Event {
				e := timer(20, 120, 0, event.TimeWait)
				e.Type = event.Socket
				return e
			}(),
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, event.TimeWaitExpired, event.TimeWait),
		}, []string{"2 FIN_WAIT2 TIME_WAIT 110 -1", "2 TIME_WAIT CLOSE 201 91 time_wait_expired"}, 2},
		{"connect told twice while it waits", []event.Event{
			unbound(change(11, 7, 100, event.Close, event.SynSent)),
			func() event.Event {
				e := unbound(change(11, 7, 101, event.Close, event.SynSent))
				e.Deed = event.SecondChange
				return e
			}(),
			change(11, 7, 110, event.SynSent, event.Established),
		}, []string{"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 110 10"}, 0},
		{"active close", []event.Event{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, event.TimeWaitExpired, event.TimeWait),
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 110 10", "1 TIME_WAIT CLOSE 201 91 time_wait_expired"}, 2},
		{"orphaned FIN_WAIT2", []event.Event{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			timer(20, 110, event.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 150, event.TimeWaitStarted, event.TimeWait),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, event.TimeWaitStarted, event.TimeWait), // the FIN once more
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 150 50"}, 4},
		{"TIME_WAIT reused", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.Closing, event.Close),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(10, 201, event.RequestStarted, event.SynRecv),
		}, []string{"1 CLOSING TIME_WAIT 110 -1", "1 TIME_WAIT CLOSE 200 90 time_wait_reused", "2 LISTEN SYN_RECV 201 -1"}, 1},
		{"port comes late", []event.Event{
			unbound(change(11, 7, 100, event.Close, event.SynSent)),
			onCPU(1, timer(10, 101, event.RequestStarted, event.SynRecv)),
			timer(11, 102, event.SynSentStarted, event.SynSent),
			change(11, 7, 110, event.SynSent, event.Established),
		}, []string{"1 CLOSE SYN_SENT 100 -1", "2 LISTEN SYN_RECV 101 -1", "1 SYN_SENT ESTABLISHED 110 10"}, 1},
		{"told twice", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			func() event.Event {
				e := change(11, 7, 112, event.FinWait2, event.Close)
				e.Deed = event.SecondChange
				return e
			}(),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1"}, 1},
		{"told by the second program alone, at an address used again", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(21, 210, event.TimeWaitStarted, event.TimeWait),
			func() event.Event {
				e := change(11, 8, 211, event.FinWait2, event.Close)
				e.Deed = event.SecondChange
				return e
			}(),
		}, []string{"1 FIN_WAIT2 TIME_WAIT 110 -1", "2 FIN_WAIT2 TIME_WAIT 210 -1"}, 2},
		{"FIN of an orphan not seen", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.FinWait2),
			change(11, 7, 111, event.FinWait2, event.Close),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, event.TimeWaitExpired, event.TimeWait),
		}, []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"}, 3},
		{"close lost", []event.Event{
			timer(20, 110, event.TimeWaitStarted, event.TimeWait),
			timer(20, 200, event.TimeWaitCancelled, event.TimeWait),
			timer(20, 201, event.TimeWaitExpired, event.TimeWait),
		}, []string{"1 TIME_WAIT CLOSE 201 -1 time_wait_expired"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Machine
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
			if lines := uint64(len(got)); m.Merged != test.merged || lines+m.Merged+m.Duplicates != records || m.Waiting() != 0 {
				t.Errorf("%d records are %d lines, %d merged, %d twice, %d waiting; want %d merged", len(test.records), lines, m.Merged, m.Duplicates, m.Waiting(), test.merged)
			}
		})
	}
}

// An accept is told once; what only may be one, of a connection that nobody has accepted yet, is one.
func TestAccepts(t *testing.T) {
	accept := func(sk, cookie uint64, deed event.Deed) event.Event {
		e := byTask(change(sk, cookie, 300, event.Established, event.Established))
		e.Type, e.Deed = event.Accept, deed
		return e
	}
	server := []event.Event{change(11, 7, 100, event.Listen, event.SynRecv), change(11, 7, 110, event.SynRecv, event.Established)}
	client := []event.Event{change(11, 7, 100, event.Close, event.SynSent), change(11, 7, 110, event.SynSent, event.Established)}
	older := change(11, 7, 110, 0, event.Established)
	older.Type, older.Role = event.Socket, event.Server
	for _, test := range []struct {
		name    string
		records []event.Event
		want    int
	}{
		{"accept()", append(slices.Clone(server), accept(11, 7, event.Accepted)), 1},
		{"perhaps", append(slices.Clone(server), accept(11, 7, event.AcceptedPerhaps)), 1},
		{"perhaps, then for sure", append(slices.Clone(server), accept(11, 7, event.AcceptedPerhaps), accept(11, 7, event.Accepted)), 1},
		{"for sure, then a number like it", append(slices.Clone(server), accept(11, 7, event.Accepted), accept(11, 7, event.AcceptedPerhaps)), 1},
		{"a client's number", append(slices.Clone(client), accept(11, 7, event.AcceptedPerhaps)), 0},
		{"another socket at its address", append(slices.Clone(server), accept(11, 8, event.AcceptedPerhaps)), 0},
		{"older than the trace", []event.Event{older, accept(11, 7, event.AcceptedPerhaps)}, 0},
		{"not known", []event.Event{accept(11, 7, event.AcceptedPerhaps)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m Machine
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
	var m Machine
	var got []int64
	emit := func(e *event.Event) error {
		got = append(got, e.Mono)
		return nil
	}
	for _, e := range []event.Event{
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
	var m Machine
	emit := func(*event.Event) error { return nil }
	for i := range int64(100_000) {
		at := i * 1000
		for _, e := range []event.Event{
			timer(10, at, event.RequestStarted, event.SynRecv),
			change(11, uint64(i+1), at+1, event.Listen, event.SynRecv),
			timer(10, at+2, event.RequestCancelled, event.SynRecv),
			change(11, uint64(i+1), at+3, event.SynRecv, event.Established),
			change(11, uint64(i+1), at+4, event.Established, event.FinWait1),
			change(11, uint64(i+1), at+5, event.FinWait1, event.FinWait2),
			timer(20, at+6, event.TimeWaitStarted, event.TimeWait),
			change(11, uint64(i+1), at+7, event.FinWait2, event.Close),
			timer(20, at+8, event.TimeWaitCancelled, event.TimeWait),
			timer(20, at+9, event.TimeWaitExpired, event.TimeWait),
		} {
			if err := m.Take(&e, emit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(m.socks) + len(m.requests) + len(m.adopted) + len(m.handed) + len(m.gone) + len(m.cpus) + len(m.queue); n > 10 {
		t.Errorf("%d things are remembered", n)
	}
	if len(m.free) > 10 || len(m.unused) > 10 {
		t.Errorf("%d socks and %d records are kept for reuse", len(m.free), len(m.unused))
	}
}

func BenchmarkMachine(b *testing.B) {
	var m Machine
	emit := func(*event.Event) error { return nil }
	records := []event.Event{
		timer(10, 0, event.RequestStarted, event.SynRecv), change(11, 7, 1, event.Listen, event.SynRecv), timer(10, 2, event.RequestCancelled, event.SynRecv),
		change(11, 7, 3, event.SynRecv, event.Established), change(11, 7, 4, event.Established, event.FinWait1), change(11, 7, 5, event.FinWait1, event.FinWait2),
		timer(20, 6, event.TimeWaitStarted, event.TimeWait), change(11, 7, 7, event.FinWait2, event.Close), timer(20, 8, event.TimeWaitCancelled, event.TimeWait),
		timer(20, 9, event.TimeWaitExpired, event.TimeWait),
	}
	b.ReportAllocs()
	i := 0
	var e event.Event
	for b.Loop() {
		e = records[i%len(records)]
		e.Mono += int64(i)
		if err := m.Take(&e, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
