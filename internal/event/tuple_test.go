package event

import (
	"net/netip"
	"slices"
	"testing"
)

func TestLifecycleHasEveryStateOnce(t *testing.T) {
	all, want := Lifecycle(), States()
	for i, s := range all {
		if s.Position() != i+1 {
			t.Errorf("%v: got position %d, want %d", s, s.Position(), i+1)
		}
	}
	slices.Sort(all)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("Lifecycle has %v, want %v", all, want)
	}
	if p := State(0).Position(); p != 0 {
		t.Errorf("the unknown state has position %d", p)
	}
}

func TestEdge(t *testing.T) {
	e := Event{Old: SynSent, New: Established}
	if e.Edge() != SynSent.To(Established) || e.Edge().String() != "SYN_SENT → ESTABLISHED" {
		t.Errorf("got %v", e.Edge())
	}
}

func TestTupleCompare(t *testing.T) {
	addr := netip.MustParseAddrPort
	base := Tuple{Local: addr("127.0.0.1:80"), Remote: addr("127.0.0.1:9"), NetNS: 1, IfIndex: 1, Proto: TCP}
	for _, test := range []struct {
		name   string
		change func(*Tuple)
	}{
		{"local address", func(o *Tuple) { o.Local = addr("127.0.0.2:1") }},
		{"local port", func(o *Tuple) { o.Local, o.Remote = addr("127.0.0.1:443"), addr("10.0.0.1:1") }},
		{"address family", func(o *Tuple) { o.Local = addr("[::1]:1") }},
		{"remote port, as a number", func(o *Tuple) { o.Remote, o.NetNS = addr("127.0.0.1:40001"), 0 }},
		{"namespace", func(o *Tuple) { o.NetNS, o.IfIndex = 2, 0 }},
		{"device", func(o *Tuple) { o.IfIndex, o.Proto = 2, 0 }},
		{"protocol", func(o *Tuple) { o.Proto = MPTCP }},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := base
			test.change(&other)
			if base.Compare(&other) >= 0 || other.Compare(&base) <= 0 {
				t.Errorf("%v is not before %v", base, other)
			}
		})
	}
	if same := base; base.Compare(&same) != 0 {
		t.Error("a tuple differs from itself")
	}
}

func TestIdentity(t *testing.T) {
	addr := netip.MustParseAddrPort
	conn := Event{Local: addr("127.0.0.1:80"), Remote: addr("127.0.0.1:40001"), NetNS: 1, Proto: TCP, Sk: 7}
	with := func(change func(*Event)) Event {
		e := conn
		change(&e)
		return e
	}
	noPort := func(e *Event) { e.Local = netip.AddrPortFrom(e.Local.Addr(), 0) }
	listener := func(e *Event) { e.Remote = netip.AddrPort{} }
	for _, test := range []struct {
		name string
		a, b Event
		same bool
	}{
		{"a timewait sock", conn, with(func(e *Event) { e.Sk = 8 }), true},
		{"another namespace", conn, with(func(e *Event) { e.NetNS = 2 }), false},
		{"another device", conn, with(func(e *Event) { e.IfIndex = 2 }), false},
		{"the MPTCP socket of a subflow", conn, with(func(e *Event) { e.Proto = MPTCP }), false},
		{"two listeners with one address", with(listener), with(func(e *Event) { listener(e); e.Sk = 8 }), false},
		{"a client before its local address is known", with(noPort),
			with(func(e *Event) { e.Local = netip.AddrPort{} }), true},
		{"two clients without a port", with(noPort), with(func(e *Event) { noPort(e); e.Sk = 8 }), false},
		{"two listeners whose address is unknown", with(func(e *Event) { listener(e); e.Sk = 0 }),
			with(func(e *Event) { listener(e); e.Sk, e.Local = 0, addr("127.0.0.1:81") }), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.a.Identity() == test.b.Identity(); got != test.same {
				t.Errorf("same identity: got %v, want %v", got, test.same)
			}
		})
	}
}
