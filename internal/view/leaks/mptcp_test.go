package leaks

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
)

// ofMPTCP returns e as an MPTCP socket.
func ofMPTCP(e event.Event) event.Event {
	e.Proto = event.MPTCP
	return e
}

// subflow returns e as a subflow of the MPTCP socket whose address is held.
func subflow(e event.Event, held uint64) event.Event {
	e.Status.HeldAs = held
	return e
}

// age returns e with the minimum time that it has spent in its state.
func age(e event.Event, atLeast time.Duration) event.Event {
	e.Status.AtLeast = atLeast.Nanoseconds()
	return e
}

// A subflow and its MPTCP socket in the same state are one leak, whatever the tuple of the subflow
// is.
func TestSubflowsAreMerged(t *testing.T) {
	nc := event.Holder{PID: 8, FD: 3, Comm: "nc"}
	second := func(e event.Event) event.Event { // a subflow over another path
		e.ID, e.Sk, e.Local = 3, 3, netip.MustParseAddrPort("127.0.0.2:999")
		return e
	}
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			return []event.Event{
				ofMPTCP(exists(1, 3000, event.CloseWait, nc)),
				subflow(exists(1, 3000, event.CloseWait, nc), 1),
				second(subflow(exists(3, 3000, event.CloseWait, nc), 1)),
				exists(4, 3000, event.CloseWait, nc),
			}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	live := func(ms int64, v *View) {
		t.Helper()
		if err := v.Idle(ms * 1e6); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, run(t, everything, kernel, func(v *View) {
		take(t, v,
			line(1, 1000, event.Established, event.CloseWait),
			ofMPTCP(line(1, 1001, event.Established, event.CloseWait)),
			second(line(3, 1002, event.Established, event.CloseWait)),
			line(4, 1003, event.Established, event.CloseWait))
		live(2100, v)
		live(3200, v)
		take(t, v, end(3300))
	}),
		"00:00:02.100 CLOSE_WAIT      1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  mptcp",
		"    held by 8/nc fd 3",
		"00:00:02.100 CLOSE_WAIT      1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40004  4 bytes and the end of file unread",
		"    held by 8/nc fd 3",
		"",
		"8/nc: 1 MPTCP socket in CLOSE_WAIT since 00:00:01.001",
		"8/nc: 1 socket in CLOSE_WAIT since 00:00:01.003")
	only := func(e *event.Event) bool {
		return e.Proto == event.TCP && e.Local.Port() == 7781 && e.Remote.Port() == 40001
	}
	expect(t, run(t, only, kernel, func(v *View) { // one that is not reported replaces no other
		take(t, v,
			ofMPTCP(line(1, 1000, event.Established, event.CloseWait)),
			line(1, 1001, event.Established, event.CloseWait))
		live(2100, v)
	}),
		"00:00:02.100 CLOSE_WAIT      1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  4 bytes and the end of file unread",
		"    held by 8/nc fd 3")
}

// A recording does not contain the address of a subflow's MPTCP socket, but the first subflow has
// the same 4-tuple. If a merged socket is the only one left, it is reported.
func TestSubflowsAreMergedInRecording(t *testing.T) {
	sub := line(1, 1000, event.Established, event.CloseWait)
	of := ofMPTCP(line(2, 1100, event.Established, event.CloseWait))
	over := ofMPTCP(line(2, 5000, event.CloseWait, event.LastAck))
	of.Remote, over.Remote = sub.Remote, sub.Remote
	expect(t, run(t, everything, Kernel{}, func(v *View) {
		take(t, v, sub, of, line(5, 3000, event.Close, event.Listen), over, line(5, 7000, event.Listen, event.Close),
			end(7500))
	}),
		"00:00:02.100 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  mptcp",
		"    owner 17/nc",
		"00:00:05.000 CLOSE_WAIT      3.9s 127.0.0.1:7781 ↔ 127.0.0.1:40001  mptcp  over: → LAST_ACK  17/nc",
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    owner 17/nc",
		"",
		"17/nc: 1 socket in CLOSE_WAIT since 00:00:01.000")
}

// If the queue of an MPTCP listener is full, the listener and its first subflow are reported once.
func TestFullQueueOfMPTCP(t *testing.T) {
	listeners := func() ([]event.Event, error) {
		a, b := subflow(exists(2, 1000, event.Listen), 1), ofMPTCP(exists(1, 1000, event.Listen))
		a.Status.RecvQueue, a.Status.SendQueue, b.Status.RecvQueue, b.Status.SendQueue = 3, 2, 3, 2
		return []event.Event{a, b}, nil
	}
	for name, kernel := range map[string]Kernel{"live": {Sockets: listeners, Listeners: listeners}, "once": {}} {
		t.Run(name, func(t *testing.T) {
			got := run(t, everything, kernel, func(v *View) {
				if name == "once" {
					both, _ := listeners()
					take(t, v, append(both, end(1100))...)
				} else if err := v.Idle(1100e6); err != nil {
					t.Fatal(err)
				}
			})
			if !strings.HasSuffix(got[0], " 127.0.0.1:7781  mptcp  accept queue full: 3 waiting, backlog 2") ||
				strings.Count(strings.Join(got, "\n"), "queue full: 3") != 1 {
				t.Errorf("got %q", got)
			}
		})
	}
}
