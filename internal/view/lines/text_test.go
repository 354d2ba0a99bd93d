package lines

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

// column returns the column in which text begins in line, in characters, or -1.
func column(line, text string) int {
	before, _, ok := strings.Cut(line, text)
	if !ok {
		return -1
	}
	return utf8.RuneCountInString(before)
}

func TestColumnsStayAligned(t *testing.T) {
	unknown := change("127.0.0.1:1", "127.0.0.1:2")
	unknown.Local, unknown.Remote, unknown.Dur, unknown.OwnerPID = netip.AddrPort{}, netip.AddrPort{}, event.Unknown, 0
	longest := change("255.255.255.255:65535", "255.255.255.255:65535")
	for _, format := range []string{"text", "wide"} {
		for _, clock := range Clocks {
			t.Run(format+" "+clock, func(t *testing.T) {
				got := lines(t, format, clock, false, longest, unknown, change("[::1]:1", "[::1]:2"))
				for _, line := range got[1:] {
					if column(line, "→") != column(got[0], "→") {
						t.Errorf("the arrows are not aligned:\n%s\n%s", got[0], line)
					}
				}
				for i, addr := range map[int]string{1: "255.255.255.255:65535", 3: "[::1]:1"} {
					if column(got[i], addr) != column(got[0], "LOCAL") {
						t.Errorf("LOCAL is not aligned:\n%s\n%s", got[0], got[i])
					}
				}
				if column(got[1], "4194304/redis-server") != column(got[0], "OWNER") {
					t.Errorf("OWNER is not aligned:\n%s\n%s", got[0], got[1])
				}
			})
		}
	}
}

// A long address, or a process in the initial PID namespace, makes its column wider from then on.
func TestColumnsOnlyGrow(t *testing.T) {
	long := change("[2001:db8:1111:2222:3333:4444:5555:6666]:65535", "[2001:db8:1111:2222:3333:4444:5555:7777]:65535")
	short := change("127.0.0.1:1", "127.0.0.1:2")
	got := lines(t, "text", "wall", false, short, long, short, long)
	if a, b, c := column(got[2], "4194304"), column(got[3], "4194304"), column(got[4], "4194304"); a != b || b != c {
		t.Errorf("OWNER is in columns %d, %d, %d:\n%s", a, b, c, strings.Join(got, "\n"))
	}

	scoped := change("[fe80::1111:2222:3333:4444]:65535", "[fe80::1111:2222:3333:5555]:65535")
	scoped.IfIndex, scoped.IfName = 3, "a-long-name-if0"
	host := change("127.0.0.1:3", "127.0.0.1:4")
	host.OwnerPID, host.TaskPID = 4194304|event.HostPID, 4194303|event.HostPID
	for _, format := range []string{"text", "wide"} {
		t.Run(format, func(t *testing.T) {
			got := lines(t, format, "wall", false, host, scoped, host, change("127.0.0.1:3", "127.0.0.1:4"))
			const owner = "4194304/redis-server"
			a, b, c := column(got[2], owner), column(got[3], "host:"+owner), column(got[4], owner)
			if a != b || b != c || len(got[2]) != len(got[3]) || len(got[3]) != len(got[4]) {
				t.Errorf("OWNER is in columns %d, %d, %d:\n%s", a, b, c, strings.Join(got, "\n"))
			}
			if !strings.Contains(got[1], " host:"+owner+" ") {
				t.Errorf("no owner in %s", got[1])
			}
			if format == "wide" && !strings.Contains(got[1], " host:4194303/ ") {
				t.Errorf("no task in %s", got[1])
			}
		})
	}
}

// A link-local address includes its zone, which may be any text. For other addresses of a bound
// socket, only wide output includes the zone, as in ss.
func TestZones(t *testing.T) {
	bound := func(local, remote string, index uint32, name string) event.Event {
		e := change(local, remote)
		e.IfIndex, e.IfName = index, name
		return e
	}
	const local, remote = "[fe80::1]:8080", "[fe80::2]:40000"
	portless := bound(local, remote, 3, "eth0")
	portless.Local = netip.AddrPortFrom(portless.Local.Addr(), 0)
	listener := bound("0.0.0.0:80", remote, 7, "vrf-red")
	listener.Remote = netip.AddrPort{}
	for _, test := range []struct {
		name       string
		e          event.Event
		text, wide string // wide: "" means the same as text
	}{
		{"name", bound(local, remote, 3, "eth0"), "[fe80::1%eth0]:8080 [fe80::2%eth0]:40000", ""},
		{"number", bound(local, remote, 3, ""), "[fe80::1%3]:8080 [fe80::2%3]:40000", ""},
		{"hostile name", bound(local, remote, 3, "\x1b[31m"), `[fe80::1%\x1b[31m]:8080 [fe80::2%\x1b[31m]:40000`, ""},
		{"global remote address", bound(local, "[2001:db8::2]:40000", 3, "eth0"),
			"[fe80::1%eth0]:8080 [2001:db8::2]:40000", ""},
		{"IPv4", bound("10.0.0.1:80", "10.0.0.2:40000", 7, "vrf-red"), "10.0.0.1:80 10.0.0.2:40000",
			"10.0.0.1%vrf-red:80 10.0.0.2:40000"},
		{"not bound", change(local, remote), "[fe80::1]:8080 [fe80::2]:40000", ""},
		{"unknown port", portless, "[fe80::1%eth0]:- [fe80::2%eth0]:40000", ""},
		{"wildcard", listener, "0.0.0.0:80 -", "0.0.0.0%vrf-red:80 -"},
	} {
		if test.wide == "" {
			test.wide = test.text
		}
		for format, want := range map[string]string{"text": test.text, "wide": test.wide} {
			t.Run(test.name+" "+format, func(t *testing.T) {
				got := strings.Join(strings.Fields(lines(t, format, "wall", false, test.e)[1]), " ")
				if !strings.Contains(got, " "+want+" ") {
					t.Errorf("got %q, want %q in it", got, want)
				}
			})
		}
	}
}

func TestClocks(t *testing.T) {
	first, second := change("127.0.0.1:1", "127.0.0.1:2"), change("127.0.0.1:1", "127.0.0.1:2")
	second.Mono += 60000000001
	earlier := first
	earlier.Mono -= 5
	for _, test := range []struct {
		clock string
		e     event.Event
		want  string
	}{
		{"wall", first, "123456789"}, // the hour depends on the time zone
		{"mono", second, " 65.000000001"},
		{"rel", second, " 60.000000001"},
		{"delta", second, " 60.000000001"},
		{"delta", earlier, " -0.000000005"},
	} {
		t.Run(test.clock+test.want, func(t *testing.T) {
			if got := lines(t, "text", test.clock, false, first, test.e); !strings.Contains(got[2], test.want+" ") {
				t.Errorf("got %q, want %q in it", got[2], test.want)
			}
		})
	}
}

func TestUnknownAddress(t *testing.T) {
	e := event.Event{
		Type: event.Change, Family: event.IPv4, Proto: event.TCP,
		Old: event.Close, New: event.SynSent, Dur: event.Unknown,
	}
	for want, addr := range map[string]netip.AddrPort{
		"-":           {},
		"127.0.0.1:-": netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0),
		"[::1]:-":     netip.AddrPortFrom(netip.MustParseAddr("::1"), 0),
		"-:7781":      netip.AddrPortFrom(netip.Addr{}, 7781),
	} {
		t.Run(want, func(t *testing.T) {
			e.Local = addr
			got := lines(t, "text", "wall", false, e)[1]
			if _, rest, _ := strings.Cut(got, "→ SYN_SENT "); strings.Fields(rest)[0] != want {
				t.Errorf("got %q, want %q in it", got, want)
			}
		})
	}
}

func TestColor(t *testing.T) {
	e := change("127.0.0.1:1", "127.0.0.1:2")
	e.Err = 111
	got := lines(t, "text", "wall", false, e)[1]
	if strings.Contains(got, "\x1b") || !strings.HasSuffix(got, " ECONNREFUSED") {
		t.Errorf("without color: %q", got)
	}
	got = lines(t, "text", "wall", true, e)[1]
	if !strings.Contains(got, "\x1b[32mESTABLISHED\x1b[0m ") || !strings.Contains(got, "\x1b[31mECONNREFUSED\x1b[0m") {
		t.Errorf("with color: %q", got)
	}
}

func TestUnnamedErrno(t *testing.T) {
	e := change("127.0.0.1:1", "127.0.0.1:2")
	e.Err = 7
	if got := lines(t, "text", "wall", false, e)[1]; !strings.HasSuffix(got, " errno 7") {
		t.Errorf("got %q, want errno 7 at its end", got)
	}
}
