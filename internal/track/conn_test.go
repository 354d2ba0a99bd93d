package track

import (
	"net/netip"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// change is an Event as the kernel tells it.
func change(sk, cookie uint64, mono int64, from, to event.State) record.Record {
	return record.Record{Event: event.Event{
		Type: event.Change, Sk: sk, Cookie: cookie, Mono: mono, Old: from, New: to, Family: event.IPv4, Proto: event.TCP,
		Local: netip.MustParseAddrPort("127.0.0.1:7781"), Remote: netip.MustParseAddrPort("127.0.0.1:40602"),
	}}
}

func TestDurations(t *testing.T) {
	var tr Kernel
	for i, test := range []struct {
		e   record.Record
		id  uint64
		dur int64
	}{
		{change(1, 7, 100, event.Close, event.SynSent), 1, event.Unknown},
		{change(1, 7, 150, event.SynSent, event.Established), 1, 50},
		{change(2, 8, 160, event.Established, event.CloseWait), 2, event.Unknown}, // older than the trace
		{change(1, 7, 190, event.Established, event.FinWait1), 1, 40},
		{change(1, 7, 200, event.FinWait1, event.FinWait1), 1, 10}, // shutdown, then close
		{change(1, 7, 230, event.FinWait1, event.Close), 1, 30},
		{change(1, 7, 330, event.Close, event.SynSent), 1, 100}, // connects again
		{change(1, 9, 340, event.Listen, event.SynRecv), 3, event.Unknown},
		{change(1, 9, 345, event.SynRecv, event.Established), 3, 5},
		{change(2, 8, 350, event.LastAck, event.Close), 2, event.Unknown}, // a change was not seen
	} {
		take(&tr, &test.e)
		if test.e.ID != test.id || test.e.Dur != test.dur {
			t.Errorf("change %d: socket %d, %d ns; want socket %d, %d ns", i, test.e.ID, test.e.Dur, test.id, test.dur)
		}
	}
}

// The kernel reuses the address of a sock: with cookies that is seen, without them only a history without gap is one socket's.
func TestReusedAddress(t *testing.T) {
	for _, test := range []struct {
		name   string
		first  record.Record
		second record.Record
		same   bool
	}{
		{"other cookie", change(1, 7, 10, event.SynSent, event.Established), change(1, 8, 20, event.Established, event.CloseWait), false},
		{"same cookie, a gap", change(1, 7, 10, event.SynSent, event.Established), change(1, 7, 20, event.CloseWait, event.LastAck), true},
		{"no cookies", change(1, 0, 10, event.SynSent, event.Established), change(1, 0, 20, event.Established, event.CloseWait), true},
		{"no cookies, a gap", change(1, 0, 10, event.SynSent, event.Established), change(1, 0, 20, event.CloseWait, event.LastAck), false},
		{"no cookies, closed", change(1, 0, 10, event.SynSent, event.Close), change(1, 0, 20, event.Close, event.SynSent), false},
		{"a child's cookie comes late", change(1, 0, 10, event.Listen, event.SynRecv), change(1, 7, 20, event.SynRecv, event.Established), true},
		{"a child is new", change(1, 7, 10, event.Close, event.Listen), change(1, 7, 20, event.Listen, event.SynRecv), false},
	} {
		var tr Kernel
		take(&tr, &test.first)
		take(&tr, &test.second)
		if got := test.first.ID == test.second.ID; got != test.same {
			t.Errorf("%s: sockets %d and %d", test.name, test.first.ID, test.second.ID)
		}
		if !test.same && test.second.Dur != event.Unknown {
			t.Errorf("%s: merged: %d ns", test.name, test.second.Dur)
		}
	}
}

// Where changes may be missing between two of a socket's, no duration is told; without cookies not even that it is the same socket.
func TestLosses(t *testing.T) {
	var tr Kernel
	a := change(1, 7, 10, event.Close, event.SynSent)
	b := change(1, 7, 20, event.SynSent, event.Established)
	c := change(1, 7, 50, event.Established, event.CloseWait)
	b.Losses, c.Losses = 3, 3
	d := change(2, 0, 10, event.SynSent, event.Established)
	e := change(2, 0, 20, event.Established, event.CloseWait)
	e.Losses = 3
	for _, ev := range []*record.Record{&a, &b, &c, &d, &e} {
		take(&tr, ev)
	}
	if a.ID != b.ID || b.Dur != event.Unknown || c.Dur != 30 {
		t.Errorf("across a loss: %d ns, after it: %d ns", b.Dur, c.Dur)
	}
	if d.ID == e.ID || e.Dur != event.Unknown {
		t.Errorf("without cookies: sockets %d and %d, %d ns", d.ID, e.ID, e.Dur)
	}
}

func TestRoleAndOwner(t *testing.T) {
	var tr Kernel
	owned := func(e record.Record, pid uint32) record.Record {
		e.OwnerPID, e.OwnerComm = pid, "p"
		return e
	}
	older := owned(record.Record{Kind: record.Existing, Event: event.Event{Type: event.Socket, Sk: 9, Cookie: 9, New: event.Established, Role: event.Server}}, 50)
	take(&tr, &older)
	for i, test := range []struct {
		e    record.Record
		role event.Role
		pid  uint32
		via  event.Via
	}{
		{owned(change(1, 1, 10, event.Close, event.Listen), 30), event.Listener, 30, event.ViaListen},
		{change(2, 2, 20, event.Listen, event.SynRecv), event.Server, 30, event.ViaListener},
		{change(2, 2, 30, event.SynRecv, event.Established), event.Server, 30, event.ViaListener},
		{owned(change(2, 2, 40, event.Established, event.FinWait1), 31), event.Server, 31, event.ViaClose},
		{change(2, 2, 50, event.FinWait1, event.FinWait2), event.Server, 31, event.ViaClose},
		{owned(change(3, 3, 60, event.Close, event.SynSent), 40), event.Client, 40, event.ViaConnect},
		{change(3, 3, 70, event.SynSent, event.SynRecv), event.Client, 40, event.ViaConnect},
		{change(9, 9, 80, event.Established, event.CloseWait), event.Server, 50, event.ViaSnapshot},
		{change(5, 5, 90, event.SynSent, event.Close), event.Client, 0, 0},
		{change(6, 6, 90, event.Established, event.Close), 0, 0, 0},
		{owned(change(1, 1, 99, event.Listen, event.Close), 30), event.Listener, 30, event.ViaClose},
		{change(7, 7, 99, event.Listen, event.SynRecv), event.Server, 0, 0}, // its listener is gone
	} {
		take(&tr, &test.e)
		if test.e.Role != test.role || test.e.OwnerPID != test.pid || test.e.OwnerVia != test.via {
			t.Errorf("change %d: %v, owner %d via %v; want %v, %d via %v", i, test.e.Role, test.e.OwnerPID, test.e.OwnerVia, test.role, test.pid, test.via)
		}
	}
}

// Which of several listeners on one port a child belongs to: as the kernel looks them up; nobody's where that leaves two processes.
func TestListeners(t *testing.T) {
	listener := func(sk uint64, addr string, family event.Family, pid, netns uint32) record.Record {
		e := change(sk, sk, int64(sk), event.Close, event.Listen)
		e.Local, e.Remote = netip.MustParseAddrPort(addr), netip.AddrPort{}
		e.Family, e.OwnerPID, e.NetNS = family, pid, netns
		return e
	}
	for _, test := range []struct {
		name      string
		listeners []record.Record
		family    event.Family
		addr      netip.Addr
		want      uint32
	}{
		{"one", []record.Record{listener(1, "0.0.0.0:7781", event.IPv4, 30, 0)}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 30},
		{"exact first", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "127.0.0.1:7781", event.IPv4, 31, 0), listener(3, "0.0.0.0:7781", event.IPv4, 32, 0),
		}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 31},
		{"other address", []record.Record{listener(1, "127.0.0.2:7781", event.IPv4, 30, 0)}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 0},
		{"two processes", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0), listener(3, "0.0.0.0:7781", event.IPv4, 30, 0),
		}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 0},
		{"one process twice", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 30, 0),
		}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 30},
		{"dual stack", []record.Record{
			listener(1, "[::]:7781", event.IPv6, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0),
		}, event.Mapped, netip.MustParseAddr("127.0.0.1"), 30},
		{"other namespace", []record.Record{listener(1, "0.0.0.0:7781", event.IPv4, 30, 5)}, event.IPv4, netip.MustParseAddr("127.0.0.1"), 0},
		{"a child without address yet", []record.Record{
			listener(1, "127.0.0.1:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0),
		}, event.IPv4, netip.Addr{}, 31},
	} {
		var tr Kernel
		for i := range test.listeners {
			take(&tr, &test.listeners[i])
		}
		e := change(100, 0, 100, event.Listen, event.SynRecv)
		e.Family, e.Local = test.family, netip.AddrPortFrom(test.addr, 7781)
		take(&tr, &e)
		if e.OwnerPID != test.want {
			t.Errorf("%s: owner %d, want %d", test.name, e.OwnerPID, test.want)
		}
	}
}

// However many sockets come and go, few are remembered.
func TestBounded(t *testing.T) {
	var tr Kernel
	for i := range uint64(10 * keepClosed) {
		for _, e := range []record.Record{
			change(i, i+1, 10, event.Close, event.SynSent), change(i, i+1, 20, event.SynSent, event.Established), change(i, i+1, 30, event.Established, event.Close),
		} {
			take(&tr, &e)
		}
	}
	if got := len(tr.socks); got > keepClosed {
		t.Errorf("%d sockets are remembered, and all are closed", got)
	}
	if len(tr.listeners) != 0 {
		t.Errorf("%d listeners", len(tr.listeners))
	}
}

func BenchmarkTrack(b *testing.B) {
	var tr Kernel
	changes := []record.Record{
		change(0, 0, 10, event.Close, event.SynSent), change(0, 0, 20, event.SynSent, event.Established), change(0, 0, 30, event.Established, event.FinWait1),
		change(0, 0, 40, event.FinWait1, event.FinWait2), change(0, 0, 50, event.FinWait2, event.Close),
	}
	b.ReportAllocs()
	i := uint64(0)
	var e record.Record
	emit := func(*event.Event) error { return nil }
	for b.Loop() {
		e = changes[i%5]
		e.Sk, e.Cookie = i/5%1000, i/5+1
		if err := tr.Take(&e, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// take tracks e and reports whether it is a line.
func take(tr *Kernel, e *record.Record) (line bool) {
	_ = tr.Take(e, func(*event.Event) error {
		line = true
		return nil
	})
	return line
}

// A change that both programs of the kernel side took is told once; one that only the second took is told.
func TestDuplicates(t *testing.T) {
	second := func(e record.Record) record.Record {
		e.Kind = record.SecondChange
		return e
	}
	lost := second(change(1, 7, 40, event.Established, event.Close))
	lost.Losses = 1
	var tr Kernel
	for i, test := range []struct {
		e    record.Record
		line bool
	}{
		{change(1, 7, 10, event.Close, event.SynSent), true},
		{second(change(1, 7, 11, event.Close, event.SynSent)), false},
		{second(change(1, 7, 20, event.SynSent, event.Established)), true},
		{change(1, 7, 30, event.Established, event.Close), true},
		{second(change(1, 7, 31, event.Established, event.Close)), false},
		{lost, true}, // another socket's, for all that is known
		{change(2, 8, 50, event.Listen, event.SynRecv), true},
		{second(change(2, 8, 51, event.Listen, event.SynRecv)), false},
		{second(change(2, 9, 60, event.Listen, event.SynRecv)), true},
	} {
		if got := take(&tr, &test.e); got != test.line {
			t.Errorf("record %d is a line: %v", i, got)
		}
	}
	if tr.Duplicates() != 3 {
		t.Errorf("%d duplicates, want 3", tr.Duplicates())
	}
}
