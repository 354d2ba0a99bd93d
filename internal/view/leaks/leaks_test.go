package leaks

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
)

// line is a change of socket id at a time, in ms.
func line(id uint64, ms int64, from, to event.State) event.Event {
	return event.Event{
		Type: event.Change, ID: id, Sk: id, Mono: ms * 1e6, Wall: ms * 1e6, Family: event.IPv4, Proto: event.TCP, Old: from, New: to, Dur: event.Unknown,
		Local: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 7781), Remote: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 40000+uint16(id)),
		OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaAccept,
	}
}

// exists is the same socket as a look finds it.
func exists(id uint64, ms int64, state event.State, holders ...event.Holder) event.Event {
	e := line(id, ms, 0, state)
	e.Type, e.Status = event.Socket, &event.Status{RecvQueue: 5, SendQueue: 0, AtLeast: event.Unknown, Left: event.Unknown, Holders: holders}
	if state == event.Listen {
		e.Remote = netip.AddrPort{}
	}
	return e
}

func lost(ms int64) event.Event {
	return event.Event{Type: event.Lost, Mono: ms * 1e6, Wall: ms * 1e6, RingFull: 3}
}

func end(ms int64) event.Event {
	return event.Event{Type: event.End, Mono: ms * 1e6, Wall: ms * 1e6, Balance: new(event.Balance)}
}

func everything(*event.Event) bool { return true }

var second = map[event.State]time.Duration{event.CloseWait: time.Second, event.SynSent: time.Second}

func told(t *testing.T, wanted func(*event.Event) bool, kernel Kernel, feed func(v *View)) []string {
	t.Helper()
	t.Setenv("TZ", "UTC")
	time.Local = time.UTC
	var out bytes.Buffer
	v := New(&out, "text", second, wanted, kernel)
	feed(v)
	if err := v.Flush(0); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func take(t *testing.T, v *View, events ...event.Event) {
	t.Helper()
	for _, e := range events {
		if err := v.Take(&e); err != nil {
			t.Fatal(err)
		}
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

// In a recording the time is that of its lines, and what is told has the time at which it was too old.
func TestRecording(t *testing.T) {
	expect(t, told(t, everything, Kernel{}, func(v *View) {
		take(t, v,
			line(1, 1000, event.Established, event.CloseWait),
			line(2, 1100, event.Established, event.CloseWait),
			line(2, 1300, event.CloseWait, event.LastAck), // in time
			line(3, 1400, event.Close, event.SynSent),
			line(4, 5000, event.Established, event.FinWait1), // has no limit here
			line(1, 6000, event.CloseWait, event.LastAck),
			end(7000))
	}),
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    of 17/nc",
		"00:00:02.400 SYN_SENT          1s 127.0.0.1:7781 ↔ 127.0.0.1:40003",
		"    of 17/nc",
		"00:00:06.000 CLOSE_WAIT        5s 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → LAST_ACK  17/nc",
		"",
		"17/nc: 1 socket in SYN_SENT since 00:00:01.400")
}

// A client's port may not be known when its SYN_SENT begins. That does not hide it, nor does it look stuck when it has gone on.
func TestPortComesLate(t *testing.T) {
	early := line(1, 1000, event.Close, event.SynSent)
	early.Local = netip.AddrPortFrom(early.Local.Addr(), 0)
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			return []event.Event{exists(1, 2100, event.SynSent, event.Holder{PID: 8, FD: 3, Comm: "nc"})}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, told(t, everything, kernel, func(v *View) {
		take(t, v, early)
		if err := v.Flush(2100e6); err != nil {
			t.Fatal(err)
		}
		take(t, v, line(1, 4000, event.SynSent, event.Close))
	}),
		"00:00:02.100 SYN_SENT        1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    held by 8/nc fd 3",
		"00:00:04.000 SYN_SENT          3s 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → CLOSE  17/nc")
	expect(t, told(t, everything, Kernel{}, func(v *View) {
		take(t, v, early, line(1, 1500, event.SynSent, event.Established), end(5000))
	}),
		"Nothing is stuck.")
}

// Live, the kernel is asked who holds what is too old, once for all of them; and nobody is told what has gone on meanwhile.
func TestLive(t *testing.T) {
	looks := 0
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			looks++
			return []event.Event{
				exists(1, 3000, event.CloseWait, event.Holder{PID: 8, FD: 3, Comm: "a\x1b"}, event.Holder{PID: 9, FD: 4, Comm: "b"}),
				exists(2, 3000, event.LastAck),
			}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, told(t, everything, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait))
		for ms := int64(1100); ms < 3500; ms += 100 {
			if err := v.Flush(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
		take(t, v, line(2, 3400, event.CloseWait, event.LastAck), end(3600))
	}),
		"00:00:02.100 CLOSE_WAIT      1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  4 bytes and the end of file unread",
		`    held by 8/a\x1b fd 3`,
		"    held by 9/b fd 4",
		"",
		`8/a\x1b: 1 socket in CLOSE_WAIT since 00:00:01.000`,
		"9/b: 1 socket in CLOSE_WAIT since 00:00:01.000")
	if looks != 2 { // the second for the one that had gone on
		t.Errorf("the kernel was asked %d times", looks)
	}
}

// A filter decides once, when the socket is too old.
func TestUnwanted(t *testing.T) {
	looks := 0
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			looks++
			return []event.Event{exists(1, 3000, event.CloseWait)}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, told(t, func(*event.Event) bool { return false }, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait))
		for ms := int64(1100); ms < 5000; ms += 100 {
			if err := v.Flush(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
		take(t, v, line(1, 5000, event.CloseWait, event.LastAck), end(5100))
	}), "Nothing is stuck.")
	if looks != 1 {
		t.Errorf("the kernel was asked %d times", looks)
	}
}

// A listener's queue is full, and has room again; one of two that share a port.
func TestQueue(t *testing.T) {
	waiting := int64(3)
	listeners := func() ([]event.Event, error) {
		a, b := exists(1, 1000, event.Listen, event.Holder{PID: 8, FD: 3, Comm: "a"}), exists(2, 1000, event.Listen, event.Holder{PID: 9, FD: 3, Comm: "b"})
		a.Status.RecvQueue, a.Status.SendQueue = 2, 2
		b.Status.RecvQueue, b.Status.SendQueue = waiting, 2
		return []event.Event{a, b}, nil
	}
	expect(t, told(t, everything, Kernel{Sockets: listeners, Listeners: listeners}, func(v *View) {
		for ms := int64(1100); ms < 9000; ms += 1000 {
			if ms > 4000 {
				waiting = 1
			}
			if err := v.Flush(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
	}),
		"00:00:01.100 LISTEN        ≥100ms 127.0.0.1:7781  accept queue full: 3 wait, 2 may",
		"    held by 9/b fd 3",
		"00:00:04.100 LISTEN         ≥3.1s 127.0.0.1:7781  over: the accept queue has room")
}

// After a loss only what the kernel still has in the same state is believed.
func TestLoss(t *testing.T) {
	kernel := Kernel{
		Sockets:   func() ([]event.Event, error) { return []event.Event{exists(2, 3000, event.CloseWait)}, nil },
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	got := told(t, everything, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait), lost(1500))
		if err := v.Flush(1600e6); err != nil {
			t.Fatal(err)
		}
		for _, s := range v.stuck {
			if s.ID != 2 || s.exact || len(v.stuck) != 1 {
				t.Errorf("watched after the loss: %+v", s)
			}
		}
		take(t, v, end(1700))
	})
	if !strings.Contains(got[0], "3 changes were lost here") {
		t.Errorf("%q", got)
	}
}

// After a loss nobody can be asked about a recording: what was told is neither over nor still so.
func TestLossInRecording(t *testing.T) {
	expect(t, told(t, everything, Kernel{}, func(v *View) {
		take(t, v,
			line(1, 1000, event.Established, event.CloseWait),
			line(2, 1000, event.Established, event.CloseWait),
			line(3, 5000, event.Established, event.CloseWait),
			lost(5500),
			line(4, 8000, event.Close, event.Listen),
			line(1, 100000, event.CloseWait, event.LastAck),
			end(100001))
	}),
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    of 17/nc",
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40002",
		"    of 17/nc",
		"00:00:05.500 3 changes were lost here: a socket may have been stuck, or may have gone on, unseen",
		"00:01:40.000 CLOSE_WAIT         - 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → LAST_ACK  17/nc",
		"Nothing is stuck.")
}

// What a look does not find is not looked for again and again; nor is another socket with the same ends it.
func TestLooksAreFew(t *testing.T) {
	looks := 0
	other := exists(1, 3000, event.CloseWait)
	other.Cookie = 99
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			looks++
			return []event.Event{other}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, told(t, everything, kernel, func(v *View) {
		one, two := line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait)
		one.Cookie, two.Cookie = 5, 6
		take(t, v, one, two)
		for ms := int64(1100); ms < 60000; ms += 100 {
			if err := v.Flush(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
		take(t, v, end(60001))
	}), "Nothing is stuck.")
	if looks != 2 {
		t.Errorf("the kernel was asked %d times", looks)
	}
}

// What is over is forgotten.
func TestForgets(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, "ndjson", Limits, everything, Kernel{})
	for id := range uint64(100_000) {
		ms := int64(id)
		accept := line(id, ms, 0, 0)
		accept.Type = event.Accept
		take(t, v, line(id, ms, event.Listen, event.SynRecv), line(id, ms, event.SynRecv, event.Established), accept,
			line(id, ms, event.Established, event.CloseWait), line(id, ms, event.CloseWait, event.LastAck), line(id, ms, event.LastAck, event.Close))
	}
	if n := len(v.opened) + len(v.stuck) + len(v.full); n != 0 || out.Len() != 0 {
		t.Errorf("%d sockets are remembered, %d bytes told", n, out.Len())
	}
}

// ofMPTCP is e as of MPTCP; held is the address of the MPTCP socket that a subflow belongs to.
func ofMPTCP(e event.Event) event.Event {
	e.Proto = event.MPTCP
	return e
}

func subflow(e event.Event, held uint64) event.Event {
	e.Status.HeldAs = held
	return e
}

// age sets how long e has been in its state at least.
func age(e event.Event, atLeast time.Duration) event.Event {
	e.Status.AtLeast = atLeast.Nanoseconds()
	return e
}

// A subflow and its MPTCP socket in the same state are one, whatever the subflow's ends are.
func TestSubflowsAreMerged(t *testing.T) {
	nc := event.Holder{PID: 8, FD: 3, Comm: "nc"}
	second := func(e event.Event) event.Event { // a subflow by another path
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
		if err := v.Flush(ms * 1e6); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, told(t, everything, kernel, func(v *View) {
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
	expect(t, told(t, only, kernel, func(v *View) { // what is not reported stands for no other
		take(t, v,
			ofMPTCP(line(1, 1000, event.Established, event.CloseWait)),
			line(1, 1001, event.Established, event.CloseWait))
		live(2100, v)
	}),
		"00:00:02.100 CLOSE_WAIT      1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  4 bytes and the end of file unread",
		"    held by 8/nc fd 3")
}

// A recording does not have the MPTCP socket of a subflow: the first one has its ends. What was merged is reported once it is alone.
func TestSubflowsAreMergedInRecording(t *testing.T) {
	sub := line(1, 1000, event.Established, event.CloseWait)
	of := ofMPTCP(line(2, 1100, event.Established, event.CloseWait))
	over := ofMPTCP(line(2, 5000, event.CloseWait, event.LastAck))
	of.Remote, over.Remote = sub.Remote, sub.Remote
	expect(t, told(t, everything, Kernel{}, func(v *View) {
		take(t, v, sub, of, line(5, 3000, event.Close, event.Listen), over, line(5, 7000, event.Listen, event.Close), end(7500))
	}),
		"00:00:02.100 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  mptcp",
		"    of 17/nc",
		"00:00:05.000 CLOSE_WAIT      3.9s 127.0.0.1:7781 ↔ 127.0.0.1:40001  mptcp  over: → LAST_ACK  17/nc",
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    of 17/nc",
		"",
		"17/nc: 1 socket in CLOSE_WAIT since 00:00:01.000")
}

// A full queue of an MPTCP listener is that of its first subflow.
func TestQueueOfMPTCP(t *testing.T) {
	listeners := func() ([]event.Event, error) {
		a, b := subflow(exists(2, 1000, event.Listen), 1), ofMPTCP(exists(1, 1000, event.Listen))
		a.Status.RecvQueue, a.Status.SendQueue, b.Status.RecvQueue, b.Status.SendQueue = 3, 2, 3, 2
		return []event.Event{a, b}, nil
	}
	for name, kernel := range map[string]Kernel{"live": {Sockets: listeners, Listeners: listeners}, "once": {}} {
		got := told(t, everything, kernel, func(v *View) {
			if name == "once" {
				both, _ := listeners()
				take(t, v, append(both, end(1100))...)
			} else if err := v.Flush(1100e6); err != nil {
				t.Fatal(err)
			}
		})
		if !strings.HasSuffix(got[0], " 127.0.0.1:7781  mptcp  accept queue full: 3 wait, 2 may") || strings.Count(strings.Join(got, "\n"), "queue full: 3") != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A single look does not know how long some have been in their state: it says that they are there, and reports none of them.
func TestUnknownAges(t *testing.T) {
	nc := event.Holder{PID: 8, FD: 3, Comm: "nc"}
	left := exists(9, 1000, event.FinWait2) // a timer ends it
	left.Status.Left = 5e9
	unwanted := exists(10, 1000, event.LastAck)
	unwanted.NetNS = 5
	sockets := []event.Event{
		ofMPTCP(exists(1, 1000, event.CloseWait, nc)),
		subflow(exists(1, 1000, event.CloseWait, nc), 1), // merged into it
		ofMPTCP(exists(2, 1000, event.CloseWait, nc, event.Holder{PID: 8, FD: 4, Comm: "nc"})),
		exists(3, 1000, event.LastAck, []event.Holder{}...),
		left, unwanted,
	}
	sockets[3].Status.Holders = []event.Holder{}
	wanted := func(e *event.Event) bool { return e.NetNS == 0 }
	limits := second
	second = map[event.State]time.Duration{event.CloseWait: 1, event.LastAck: 1, event.FinWait2: 1} // all but no time is too long
	defer func() { second = limits }()
	expect(t, told(t, wanted, Kernel{}, func(v *View) {
		take(t, v, append(slices.Clone(sockets), end(2000))...)
		if v.Found() {
			t.Error("something was found")
		}
	}),
		"Nothing is known to be stuck.",
		"8/nc: 2 MPTCP sockets in CLOSE_WAIT, for an unknown time: sstrace leaks watches them",
		"no process found: 1 socket in LAST_ACK, for an unknown time: sstrace leaks watches it")

	sockets[1] = age(sockets[1], time.Minute) // so the first connection is stuck for sure
	expect(t, told(t, wanted, Kernel{}, func(v *View) {
		take(t, v, append(slices.Clone(sockets), end(2000))...)
		if !v.Found() {
			t.Error("nothing was found")
		}
	}),
		"00:00:02.000 CLOSE_WAIT     ≥1m1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  4 bytes and the end of file unread",
		"    held by 8/nc fd 3",
		"",
		"8/nc: 1 socket in CLOSE_WAIT since before 23:59:01.000",
		"8/nc: 1 MPTCP socket in CLOSE_WAIT, for an unknown time: sstrace leaks watches it",
		"no process found: 1 socket in LAST_ACK, for an unknown time: sstrace leaks watches it")
}

// A source uses its Events, and what they point to, again: each socket keeps its own holders.
func TestSocketsAreKept(t *testing.T) {
	got := told(t, everything, Kernel{}, func(v *View) {
		e, status := exists(1, 5000, event.CloseWait, event.Holder{PID: 7, FD: 3, Comm: "nc"}), new(event.Status)
		*status = *e.Status
		status.AtLeast, e.Status = 2e9, status
		take(t, v, e)
		next := exists(2, 5000, event.Established)
		*status, next.Status = *next.Status, status
		take(t, v, next, end(5000))
	})
	if !strings.Contains(strings.Join(got, "\n"), "    held by 7/nc fd 3\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
