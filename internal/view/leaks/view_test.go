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

// line returns a change of socket id at ms milliseconds.
func line(id uint64, ms int64, from, to event.State) event.Event {
	return event.Event{
		Type: event.Change, ID: id, Sk: id, Mono: ms * 1e6, Wall: ms * 1e6, Family: event.IPv4, Proto: event.TCP,
		Old: from, New: to, Dur: event.Unknown,
		Local:    netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 7781),
		Remote:   netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 40000+uint16(id)),
		OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaAccept,
	}
}

// exists returns the same socket as a look at the kernel finds it.
func exists(id uint64, ms int64, state event.State, holders ...event.Holder) event.Event {
	e := line(id, ms, 0, state)
	e.Type, e.Status = event.Socket, &event.Status{RecvQueue: 5, SendQueue: 0, AtLeast: event.Unknown,
		Left: event.Unknown, Holders: holders}
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

// run returns the lines of text that a View writes for what feed passes to it.
func run(t *testing.T, wanted func(*event.Event) bool, kernel Kernel, feed func(v *View)) []string {
	t.Helper()
	t.Setenv("TZ", "UTC")
	time.Local = time.UTC
	var out bytes.Buffer
	v := New(&out, "text", second, wanted, kernel)
	feed(v)
	if err := v.out.lines.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func take(t *testing.T, v *View, events ...event.Event) {
	t.Helper()
	for _, e := range events {
		do := v.Take
		if e.Type == event.End {
			do = v.End
		}
		if err := do(&e); err != nil {
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

// In a recording, the lines are the only clock. A socket is reported with the time at which it
// exceeded its limit.
func TestRecording(t *testing.T) {
	expect(t, run(t, everything, Kernel{}, func(v *View) {
		take(t, v,
			line(1, 1000, event.Established, event.CloseWait),
			line(2, 1100, event.Established, event.CloseWait),
			line(2, 1300, event.CloseWait, event.LastAck), // within the limit
			line(3, 1400, event.Close, event.SynSent),
			line(4, 5000, event.Established, event.FinWait1), // no limit in this test
			line(1, 6000, event.CloseWait, event.LastAck),
			end(7000))
	}),
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    owner 17/nc",
		"00:00:02.400 SYN_SENT          1s 127.0.0.1:7781 ↔ 127.0.0.1:40003",
		"    owner 17/nc",
		"00:00:06.000 CLOSE_WAIT        5s 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → LAST_ACK  17/nc",
		"",
		"17/nc: 1 socket in SYN_SENT since 00:00:01.400")
}

// A client's port may be unknown when its SYN_SENT begins. The socket is found anyway, and is not
// reported once it has left SYN_SENT.
func TestLatePort(t *testing.T) {
	early := line(1, 1000, event.Close, event.SynSent)
	early.Local = netip.AddrPortFrom(early.Local.Addr(), 0)
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			return []event.Event{exists(1, 2100, event.SynSent, event.Holder{PID: 8, FD: 3, Comm: "nc"})}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, run(t, everything, kernel, func(v *View) {
		take(t, v, early)
		if err := v.Idle(2100e6); err != nil {
			t.Fatal(err)
		}
		take(t, v, line(1, 4000, event.SynSent, event.Close))
	}),
		"00:00:02.100 SYN_SENT        1.1s 127.0.0.1:7781 ↔ 127.0.0.1:40001",
		"    held by 8/nc fd 3",
		"00:00:04.000 SYN_SENT          3s 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → CLOSE  17/nc")
	expect(t, run(t, everything, Kernel{}, func(v *View) {
		take(t, v, early, line(1, 1500, event.SynSent, event.Established), end(5000))
	}),
		"Nothing is stuck.")
}

// In a live trace, one look at the kernel finds the holders of all sockets that are too old.
// Sockets that have left their state in the meantime are not reported.
func TestLive(t *testing.T) {
	looks := 0
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			looks++
			return []event.Event{
				exists(1, 3000, event.CloseWait, event.Holder{PID: 8, FD: 3, Comm: "a\x1b"},
					event.Holder{PID: 9, FD: 4, Comm: "b"}),
				exists(2, 3000, event.LastAck),
			}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, run(t, everything, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait))
		for ms := int64(1100); ms < 3500; ms += 100 {
			if err := v.Idle(ms * 1e6); err != nil {
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
	if looks != 2 { // the second look was for the socket that had left its state
		t.Errorf("%d looks", looks)
	}
}

// The filter is applied only once, when the socket becomes too old.
func TestUnwanted(t *testing.T) {
	looks := 0
	kernel := Kernel{
		Sockets: func() ([]event.Event, error) {
			looks++
			return []event.Event{exists(1, 3000, event.CloseWait)}, nil
		},
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	expect(t, run(t, func(*event.Event) bool { return false }, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait))
		for ms := int64(1100); ms < 5000; ms += 100 {
			if err := v.Idle(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
		take(t, v, line(1, 5000, event.CloseWait, event.LastAck), end(5100))
	}), "Nothing is stuck.")
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
}

// Two listeners share a port. The queue of one becomes full, and later has room again.
func TestFullQueue(t *testing.T) {
	waiting := int64(3)
	listeners := func() ([]event.Event, error) {
		a, b := exists(1, 1000, event.Listen, event.Holder{PID: 8, FD: 3, Comm: "a"}),
			exists(2, 1000, event.Listen, event.Holder{PID: 9, FD: 3, Comm: "b"})
		a.Status.RecvQueue, a.Status.SendQueue = 2, 2
		b.Status.RecvQueue, b.Status.SendQueue = waiting, 2
		return []event.Event{a, b}, nil
	}
	expect(t, run(t, everything, Kernel{Sockets: listeners, Listeners: listeners}, func(v *View) {
		for ms := int64(1100); ms < 9000; ms += 1000 {
			if ms > 4000 {
				waiting = 1
			}
			if err := v.Idle(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
	}),
		"00:00:01.100 LISTEN        ≥100ms 127.0.0.1:7781  accept queue full: 3 waiting, backlog 2",
		"    held by 9/b fd 3",
		"00:00:04.100 LISTEN         ≥3.1s 127.0.0.1:7781  over: the accept queue has room again")
}

// After a loss, only sockets that the kernel still has in the same state are watched.
func TestLoss(t *testing.T) {
	kernel := Kernel{
		Sockets:   func() ([]event.Event, error) { return []event.Event{exists(2, 3000, event.CloseWait)}, nil },
		Listeners: func() ([]event.Event, error) { return nil, nil },
	}
	got := run(t, everything, kernel, func(v *View) {
		take(t, v, line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait), lost(1500))
		if err := v.Idle(1600e6); err != nil {
			t.Fatal(err)
		}
		for _, s := range v.watched {
			if s.ID != 2 || s.exact || len(v.watched) != 1 {
				t.Errorf("watched after the loss: %+v", s)
			}
		}
		take(t, v, end(1700))
	})
	if !strings.Contains(got[0], "3 changes were lost here") {
		t.Errorf("%q", got)
	}
}

// In a recording, there is no kernel to ask after a loss. What was reported is neither over nor
// still stuck.
func TestLossInRecording(t *testing.T) {
	expect(t, run(t, everything, Kernel{}, func(v *View) {
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
		"    owner 17/nc",
		"00:00:02.000 CLOSE_WAIT        1s 127.0.0.1:7781 ↔ 127.0.0.1:40002",
		"    owner 17/nc",
		"00:00:05.500 3 changes were lost here: a socket may have become stuck, or have recovered, unseen",
		"00:01:40.000 CLOSE_WAIT         - 127.0.0.1:7781 ↔ 127.0.0.1:40001  over: → LAST_ACK  17/nc",
		"Nothing is stuck.")
}

// If a look does not find a socket, later looks do not search for it. Another socket with the same
// tuple is not mistaken for it.
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
	expect(t, run(t, everything, kernel, func(v *View) {
		one, two := line(1, 1000, event.Established, event.CloseWait), line(2, 1000, event.Established, event.CloseWait)
		one.Cookie, two.Cookie = 5, 6
		take(t, v, one, two)
		for ms := int64(1100); ms < 60000; ms += 100 {
			if err := v.Idle(ms * 1e6); err != nil {
				t.Fatal(err)
			}
		}
		take(t, v, end(60001))
	}), "Nothing is stuck.")
	if looks != 2 {
		t.Errorf("%d looks", looks)
	}
}

// Closed sockets use no memory.
func TestMemoryIsBounded(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, "ndjson", Limits, everything, Kernel{})
	for id := range uint64(100_000) {
		ms := int64(id)
		accept := line(id, ms, 0, 0)
		accept.Type = event.Accept
		take(t, v, line(id, ms, event.Listen, event.SynRecv), line(id, ms, event.SynRecv, event.Established), accept,
			line(id, ms, event.Established, event.CloseWait), line(id, ms, event.CloseWait, event.LastAck),
			line(id, ms, event.LastAck, event.Close))
	}
	if n := len(v.openers) + len(v.watched) + len(v.full); n != 0 || out.Len() != 0 {
		t.Errorf("%d sockets are kept, %d bytes were written", n, out.Len())
	}
}

// For some sockets, a listing does not know how long they have been in their state. The summary
// counts them, but not as found.
func TestUnknownAges(t *testing.T) {
	nc := event.Holder{PID: 8, FD: 3, Comm: "nc"}
	left := exists(9, 1000, event.FinWait2) // a timer will end it
	left.Status.Left = 5e9
	unwanted := exists(10, 1000, event.LastAck)
	unwanted.NetNS = 5
	sockets := []event.Event{
		ofMPTCP(exists(1, 1000, event.CloseWait, nc)),
		subflow(exists(1, 1000, event.CloseWait, nc), 1), // merged into the MPTCP socket
		ofMPTCP(exists(2, 1000, event.CloseWait, nc, event.Holder{PID: 8, FD: 4, Comm: "nc"})),
		exists(3, 1000, event.LastAck, []event.Holder{}...),
		left, unwanted,
	}
	sockets[3].Status.Holders = []event.Holder{}
	wanted := func(e *event.Event) bool { return e.NetNS == 0 }
	limits := second
	second = map[event.State]time.Duration{event.CloseWait: 1, event.LastAck: 1,
		event.FinWait2: 1} // so that nearly any time is too long
	defer func() { second = limits }()
	expect(t, run(t, wanted, Kernel{}, func(v *View) {
		take(t, v, append(slices.Clone(sockets), end(2000))...)
		if v.Found() {
			t.Error("something was found")
		}
	}),
		"Nothing is known to be stuck.",
		"8/nc: 2 MPTCP sockets in CLOSE_WAIT for an unknown time: sstrace leaks can watch them",
		"no process found: 1 socket in LAST_ACK for an unknown time: sstrace leaks can watch it")

	sockets[1] = age(sockets[1], time.Minute) // the first connection is now known to be stuck
	expect(t, run(t, wanted, Kernel{}, func(v *View) {
		take(t, v, append(slices.Clone(sockets), end(2000))...)
		if !v.Found() {
			t.Error("nothing was found")
		}
	}),
		"00:00:02.000 CLOSE_WAIT     ≥1m1s 127.0.0.1:7781 ↔ 127.0.0.1:40001  4 bytes and the end of file unread",
		"    held by 8/nc fd 3",
		"",
		"8/nc: 1 socket in CLOSE_WAIT since before 23:59:01.000",
		"8/nc: 1 MPTCP socket in CLOSE_WAIT for an unknown time: sstrace leaks can watch it",
		"no process found: 1 socket in LAST_ACK for an unknown time: sstrace leaks can watch it")
}

// A source reuses its Events and what they point to, so each socket has a copy of its holders.
func TestSocketsAreCopied(t *testing.T) {
	got := run(t, everything, Kernel{}, func(v *View) {
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

// Each line about a socket without holders says why there are none.
func TestNoHolder(t *testing.T) {
	for _, test := range []struct {
		attached event.Attached
		want     string
	}{
		{event.AttachedNothing, "held by no process: the kernel will end it"},
		{event.AttachedQueue, "held by no process: not accepted yet, in the accept queue of its listener"},
		{event.AttachedKernel, "held by no process: opened by the kernel for itself, as NFS does"},
		{event.AttachedDescriptor, "holder not found: the descriptor may be in flight on a UNIX socket, in a hidden PID namespace, or in use by the kernel"},
	} {
		t.Run(test.attached.String(), func(t *testing.T) {
			got := run(t, everything, Kernel{}, func(v *View) {
				e := age(exists(1, 5000, event.CloseWait), time.Minute)
				e.Status.Holders, e.Status.Attached = []event.Holder{}, test.attached
				take(t, v, e, end(5000))
			})
			if got[1] != "    "+test.want {
				t.Errorf("got %q, want %q", got[1], test.want)
			}
		})
	}
}
