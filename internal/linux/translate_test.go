//go:build linux

package linux

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
)

func TestClockFollowsRealtime(t *testing.T) {
	var c Clock
	now := Monotonic()
	first := c.Wall(now)
	offset := c.offset
	if got := c.Wall(now+5) - first; got != 5 {
		t.Errorf("5 ns of monotonic time are %d ns of wall time", got)
	}
	c.measured = 1 // a long time ago
	c.Wall(now)
	if c.offset != offset && c.offset-offset < 1000 && offset-c.offset < 1000 {
		t.Errorf("the offset moved by %d ns, less than the precision of a measurement", c.offset-offset)
	}
	c.offset += 1e9 // as if the clock had been set
	c.measured = 1
	if got := c.Wall(now) - first; got > 5e8 || got < -5e8 {
		t.Errorf("after the clock was set, wall time is off by %d ns", got)
	}
}

func TestTuple(t *testing.T) {
	v4, v6, any4, any6 := "::ffff:127.0.0.1", "2001:db8::1", "::ffff:0.0.0.0", "::"
	for _, test := range []struct {
		name          string
		family        uint16
		laddr, raddr  string
		lport, rport  uint16
		wildcard      bool
		want          event.Family
		local, remote string
	}{
		{"IPv4", 2, v4, v4, 1, 2, false, event.IPv4, "127.0.0.1:1", "127.0.0.1:2"},
		{"IPv6", 10, v6, v6, 1, 2, false, event.IPv6, "[2001:db8::1]:1", "[2001:db8::1]:2"},
		{"IPv4-mapped", 10, v4, v4, 1, 2, false, event.Mapped, "127.0.0.1:1", "127.0.0.1:2"},
		{"unbound client", 2, v4, v4, 0, 2, false, event.IPv4, "127.0.0.1:0", "127.0.0.1:2"},
		{"listener on 0.0.0.0", 2, any4, any4, 1, 0, true, event.IPv4, "0.0.0.0:1", "invalid AddrPort"},
		{"listener on ::", 10, any6, any6, 1, 0, true, event.IPv6, "[::]:1", "invalid AddrPort"},
		{"child without addresses", 10, any6, any6, 1, 0, false, event.IPv6, "invalid AddrPort", "invalid AddrPort"},
	} {
		t.Run(test.name, func(t *testing.T) {
			laddr, raddr := netip.MustParseAddr(test.laddr).As16(), netip.MustParseAddr(test.raddr).As16()
			f, l, r := Tuple(test.family, &laddr, &raddr, test.lport, test.rport, test.wildcard)
			if f != test.want || l.String() != test.local || r.String() != test.remote {
				t.Errorf("got %v %v %v, want %v %v %v", f, l, r, test.want, test.local, test.remote)
			}
			if l.Port() != test.lport || r.Port() != test.rport {
				t.Errorf("got ports %d and %d, want %d and %d", l.Port(), r.Port(), test.lport, test.rport)
			}
		})
	}
}

func TestOneNumber(t *testing.T) {
	for _, test := range []struct {
		name  string
		nspid []uint64
		want  bool
	}{
		{"own /proc", []uint64{7}, true},
		{"/proc of an outer namespace", []uint64{4711, 7}, false},
		{"kernel without PID namespaces", nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oneNumber(test.nspid); got != test.want {
				t.Errorf("oneNumber(%v) = %v, want %v", test.nspid, got, test.want)
			}
		})
	}
}

func TestPIDNamespace(t *testing.T) {
	inode, own := PIDNamespace()
	if inode == 0 || own != (inode != initialPIDNamespace) {
		t.Errorf("PIDNamespace() = %d, %v", inode, own)
	}
}

func TestFindSymbols(t *testing.T) {
	const kallsyms = `ffffffff81000000 T _stext
ffffffff81c00000 t tw_timer_handler
ffffffff81c00100 T tcp_v4_err
ffffffff81c00100 T __alias_of_it
ffffffff81c00900 T tcp_v4_early_demux
ffffffffa0000000 t tw_other	[module]
`
	const timer = 0xffffffff81c00000
	for _, test := range []struct {
		name      string
		kallsyms  string
		addresses []string
		want      map[string]uint64 // nil: an error
		code      Range             // of the function tcp_v4_err
	}{
		{"all", kallsyms, []string{"tw_timer_handler"},
			map[string]uint64{"tw_timer_handler": timer}, Range{0xffffffff81c00100, 0xffffffff81c00900}},
		{"one is missing", kallsyms, []string{"tw_timer_handler", "reqsk_timer_handler"}, nil, Range{}},
		{"hidden", "0000000000000000 t tw_timer_handler\n", []string{"tw_timer_handler"}, nil, Range{}},
		{"malformed", "xyz t tw_timer_handler\n", []string{"tw_timer_handler"}, nil, Range{}},
		{"no range", "ffffffff81c00000 t tw_timer_handler\n", []string{"tw_timer_handler"},
			map[string]uint64{"tw_timer_handler": timer}, Range{}},
		{"the end of the range is unknown", "f0 t tw_timer_handler\nff T tcp_v4_err\n", []string{"tw_timer_handler"},
			map[string]uint64{"tw_timer_handler": 0xf0}, Range{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, code, err := findSymbols(strings.NewReader(test.kallsyms), test.addresses, []string{"tcp_v4_err"})
			if !maps.Equal(got, test.want) || (err == nil) != (test.want != nil) {
				t.Errorf("got %#x, %v; want %#x", got, err, test.want)
			}
			if err == nil && !slices.Equal(code, []Range{test.code}) {
				t.Errorf("tcp_v4_err is at %#x, want %#x", code, test.code)
			}
		})
	}
}
