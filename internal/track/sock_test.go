package track

import (
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// The kernel reuses the addresses of socks. Cookies reveal such a reuse. Without cookies, changes
// belong to one socket only if there is no gap between them.
func TestReusedAddress(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second record.Record
		same          bool
	}{
		{"another cookie",
			change(1, 7, 10, event.SynSent, event.Established), change(1, 8, 20, event.Established, event.CloseWait),
			false},
		{"same cookie, gap",
			change(1, 7, 10, event.SynSent, event.Established), change(1, 7, 20, event.CloseWait, event.LastAck), true},
		{"no cookies",
			change(1, 0, 10, event.SynSent, event.Established), change(1, 0, 20, event.Established, event.CloseWait),
			true},
		{"no cookies, gap",
			change(1, 0, 10, event.SynSent, event.Established),
			change(1, 0, 20, event.CloseWait, event.LastAck), false},
		{"no cookies, closed",
			change(1, 0, 10, event.SynSent, event.Close), change(1, 0, 20, event.Close, event.SynSent), false},
		{"cookie of a child comes late",
			change(1, 0, 10, event.Listen, event.SynRecv), change(1, 7, 20, event.SynRecv, event.Established), true},
		{"child of a listener",
			change(1, 7, 10, event.Close, event.Listen), change(1, 7, 20, event.Listen, event.SynRecv), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, tr Tracker) {
				lines := track(t, tr, test.first, test.second)
				if len(lines) != 2 {
					t.Fatalf("got %d lines, want 2", len(lines))
				}
				if got := lines[0].ID == lines[1].ID; got != test.same {
					t.Errorf("sockets %d and %d", lines[0].ID, lines[1].ID)
				}
				if !test.same && lines[1].Dur != event.Unknown {
					t.Errorf("%d ns in a state of another socket", lines[1].Dur)
				}
			})
		})
	}
}

// If changes may be missing between two changes of a socket, the duration is unknown. Without
// cookies, it is not even known whether it is the same socket.
func TestLosses(t *testing.T) {
	inBoth(t, func(t *testing.T, tr Tracker) {
		lines := track(t, tr,
			change(1, 7, 10, event.Close, event.SynSent),
			withLosses(3, change(1, 7, 20, event.SynSent, event.Established)),
			withLosses(3, change(1, 7, 50, event.Established, event.CloseWait)),
			change(2, 0, 60, event.SynSent, event.Established),
			withLosses(3, change(2, 0, 70, event.Established, event.CloseWait)),
		)
		if len(lines) != 5 {
			t.Fatalf("got %d lines, want 5", len(lines))
		}
		if lines[0].ID != lines[1].ID || lines[1].Dur != event.Unknown || lines[2].Dur != 30 {
			t.Errorf("across a loss: %d ns, after it: %d ns", lines[1].Dur, lines[2].Dur)
		}
		if lines[3].ID == lines[4].ID || lines[4].Dur != event.Unknown {
			t.Errorf("without cookies: sockets %d and %d, %d ns", lines[3].ID, lines[4].ID, lines[4].Dur)
		}
	})
}

// A Lost becomes a line in its place, and does not count as a waiting record.
func TestLost(t *testing.T) {
	lost := record.Record{Kind: record.Lost, Event: event.Event{Type: event.Lost, Mono: 20, RingFull: 3}}
	inBoth(t, func(t *testing.T, tr Tracker) {
		lines := track(t, tr,
			change(1, 7, 10, event.Close, event.SynSent), lost, change(1, 7, 30, event.SynSent, event.Established))
		if len(lines) != 3 || lines[1].Type != event.Lost || lines[1].RingFull != 3 {
			t.Errorf("got lines %+v", lines)
		}
	})
}

// Memory depends on the number of open sockets, not on how many there have ever been.
func TestKernelForgets(t *testing.T) {
	var k Kernel
	emit := func(*event.Event) error { return nil }
	for i := range uint64(10 * keepClosed) {
		for _, r := range []record.Record{
			change(i, i+1, 10, event.Close, event.SynSent), change(i, i+1, 20, event.SynSent, event.Established),
			change(i, i+1, 30, event.Established, event.Close),
		} {
			if err := k.Take(&r, emit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := len(k.socks); got > keepClosed {
		t.Errorf("%d sockets are remembered, and all are closed", got)
	}
	if len(k.listeners) != 0 {
		t.Errorf("%d listeners are remembered", len(k.listeners))
	}
}

func TestRFCForgets(t *testing.T) {
	var m RFC
	emit := func(*event.Event) error { return nil }
	for i := range int64(100_000) {
		at, cookie := i*1000, uint64(i+1)
		for _, r := range []record.Record{
			request(10, at, record.RequestStarted),
			change(11, cookie, at+1, event.Listen, event.SynRecv),
			request(10, at+2, record.RequestCancelled),
			change(11, cookie, at+3, event.SynRecv, event.Established),
			change(11, cookie, at+4, event.Established, event.FinWait1),
			change(11, cookie, at+5, event.FinWait1, event.FinWait2),
			timeWait(20, at+6, record.TimeWaitStarted),
			change(11, cookie, at+7, event.FinWait2, event.Close),
			timeWait(20, at+8, record.TimeWaitCancelled),
			timeWait(20, at+9, record.TimeWaitExpired),
		} {
			if err := m.Take(&r, emit); err != nil {
				t.Fatal(err)
			}
		}
	}
	remembered := len(m.socks) + len(m.requests) + len(m.completed) + len(m.backlog.queue) +
		len(m.awaitingClose) + len(m.awaitingReuse) + len(m.awaitingTimer) + len(m.awaitingReason)
	if remembered > 10 {
		t.Errorf("%d items are remembered", remembered)
	}
	if len(m.free) > 10 || len(m.backlog.unused) > 10 {
		t.Errorf("%d sockets and %d records are kept for reuse", len(m.free), len(m.backlog.unused))
	}
}
