package lines

import (
	"bytes"
	"encoding/csv"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

func change(local, remote string) event.Event {
	return event.Event{
		Type: event.Change, ID: 1, Wall: 1795356131123456789, Mono: 5e9, Family: event.IPv4, Proto: event.TCP, Old: event.SynSent, New: event.Established, Dur: 57254,
		Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), OwnerPID: 4194304, OwnerComm: "redis-server", OwnerVia: event.ViaConnect,
	}
}

func lines(t *testing.T, format, clock string, color bool, events ...event.Event) []string {
	t.Helper()
	var out bytes.Buffer
	p, err := New(&out, format, clock, color)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err := p.Take(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(0); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// column gives where text begins in line, in characters.
func column(line, text string) int {
	at := strings.Index(line, text)
	if at < 0 {
		return -1
	}
	return utf8.RuneCountInString(line[:at])
}

func TestColumnsStayAligned(t *testing.T) {
	long := change("[2001:db8:1111:2222:3333:4444:5555:6666]:65535", "[2001:db8:1111:2222:3333:4444:5555:7777]:65535")
	unknown := change("127.0.0.1:1", "127.0.0.1:2")
	unknown.Local, unknown.Remote, unknown.Dur, unknown.OwnerPID = netip.AddrPort{}, netip.AddrPort{}, event.Unknown, 0
	for _, format := range []string{"text", "wide"} {
		for _, clock := range Clocks {
			got := lines(t, format, clock, false, change("255.255.255.255:65535", "255.255.255.255:65535"), unknown, change("[::1]:1", "[::1]:2"))
			for _, line := range got[1:] {
				if column(line, "→") != column(got[0], "→") {
					t.Errorf("%s %s: the arrows are not below one another:\n%s\n%s", format, clock, got[0], line)
				}
			}
			for i, addr := range map[int]string{1: "255.255.255.255:65535", 3: "[::1]:1"} {
				if column(got[i], addr) != column(got[0], "LOCAL") {
					t.Errorf("%s %s: LOCAL is not aligned:\n%s\n%s", format, clock, got[0], got[i])
				}
			}
			if column(got[1], "4194304/redis-server") != column(got[0], "OWNER") {
				t.Errorf("%s %s: OWNER is not aligned:\n%s\n%s", format, clock, got[0], got[1])
			}
		}
	}
	got := lines(t, "text", "wall", false, change("127.0.0.1:1", "127.0.0.1:2"), long, change("127.0.0.1:3", "127.0.0.1:4"), long)
	if a, b, c := column(got[2], "4194304"), column(got[3], "4194304"), column(got[4], "4194304"); a != b || b != c {
		t.Errorf("after a long address columns stay: %d, %d, %d\n%s", a, b, c, strings.Join(got, "\n"))
	}
}

// A link-local address has its zone, which is any text; other addresses of a bound socket have it in wide output, as ss prints it.
func TestZones(t *testing.T) {
	link := change("[fe80::1]:8080", "[fe80::2]:40000")
	link.IfIndex, link.IfName = 3, "eth0"
	number := link
	number.IfName = ""
	harm := link
	harm.IfName = "\x1b[31m"
	far := link
	far.Remote = netip.MustParseAddrPort("[2001:db8::2]:40000")
	v4 := change("10.0.0.1:80", "10.0.0.2:40000")
	v4.IfIndex, v4.IfName = 7, "vrf-red"
	free := change("[fe80::1]:8080", "[fe80::2]:40000")
	half := link
	half.Local = netip.AddrPortFrom(link.Local.Addr(), 0)
	any4 := v4
	any4.Local, any4.Remote = netip.MustParseAddrPort("0.0.0.0:80"), netip.AddrPort{}
	for _, test := range []struct {
		e          event.Event
		text, wide string
	}{
		{link, " [fe80::1%eth0]:8080 [fe80::2%eth0]:40000 ", " [fe80::1%eth0]:8080 [fe80::2%eth0]:40000 "},
		{number, " [fe80::1%3]:8080 [fe80::2%3]:40000 ", " [fe80::1%3]:8080 [fe80::2%3]:40000 "},
		{harm, ` [fe80::1%\x1b[31m]:8080 [fe80::2%\x1b[31m]:40000 `, ` [fe80::1%\x1b[31m]:8080 [fe80::2%\x1b[31m]:40000 `},
		{far, " [fe80::1%eth0]:8080 [2001:db8::2]:40000 ", " [fe80::1%eth0]:8080 [2001:db8::2]:40000 "},
		{v4, " 10.0.0.1:80 10.0.0.2:40000 ", " 10.0.0.1%vrf-red:80 10.0.0.2:40000 "},
		{free, " [fe80::1]:8080 [fe80::2]:40000 ", " [fe80::1]:8080 [fe80::2]:40000 "},
		{half, " [fe80::1%eth0]:- [fe80::2%eth0]:40000 ", " [fe80::1%eth0]:- [fe80::2%eth0]:40000 "},
		{any4, " 0.0.0.0:80 - ", " 0.0.0.0%vrf-red:80 - "},
	} {
		for format, want := range map[string]string{"text": test.text, "wide": test.wide} {
			if got := strings.Join(strings.Fields(lines(t, format, "wall", false, test.e)[1]), " "); !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", format, got, want)
			}
		}
	}
}

// What has a longer address or a process of the host's widens its column, for good.
func TestColumnsOfLongZones(t *testing.T) {
	long := change("[fe80::1111:2222:3333:4444]:65535", "[fe80::1111:2222:3333:5555]:65535")
	long.IfIndex, long.IfName = 3, "a-long-name-if0"
	hosts := change("127.0.0.1:3", "127.0.0.1:4")
	hosts.OwnerPID, hosts.TaskPID = 4194304|event.HostPID, 4194303|event.HostPID
	for _, format := range []string{"text", "wide"} {
		got := lines(t, format, "wall", false, hosts, long, hosts, change("127.0.0.1:3", "127.0.0.1:4"))
		what := "4194304/redis-server"
		a, b, c := column(got[2], what), column(got[3], "host:"+what), column(got[4], what)
		if a != b || b != c || len(got[2]) != len(got[3]) || len(got[3]) != len(got[4]) {
			t.Errorf("%s: columns are %d, %d, %d\n%s", format, a, b, c, strings.Join(got, "\n"))
		}
		if !strings.Contains(got[1], " host:4194304/redis-server ") || format == "wide" && !strings.Contains(got[1], " host:4194303/ ") {
			t.Errorf("%s: %s", format, got[1])
		}
	}
}

// A connect() that sent no SYN went from no state to none.
func TestConnectFailed(t *testing.T) {
	e := change("127.0.0.1:1", "127.0.0.1:2")
	e.Type, e.Old, e.New, e.Dur, e.Reason, e.Err, e.Local = event.ConnectFailed, 0, 0, event.Unknown, event.ReasonUnreachable, 113, netip.AddrPort{}
	got := strings.Join(strings.Fields(lines(t, "text", "wall", false, e)[1])[1:], " ")
	if want := "- (connect) → (failed) - 127.0.0.1:2 4194304/redis-server unreachable EHOSTUNREACH"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.Join(lines(t, "csv", "wall", false, e), "\n"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"type": "connect_failed", "old": "", "new": "", "dur_ns": "", "queue_ns": "", "origin": "", "reason": "unreachable", "err": "113", "laddr": "", "rport": "2", "syn_retrans": "",
	} {
		if got := rows[1][slices.Index(rows[0], key)]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestClocks(t *testing.T) {
	first, second := change("127.0.0.1:1", "127.0.0.1:2"), change("127.0.0.1:1", "127.0.0.1:2")
	second.Mono += 60000000001
	before := first
	before.Mono -= 5
	for clock, want := range map[string]string{"mono": "65.000000001", "rel": "60.000000001", "delta": "60.000000001"} {
		if got := lines(t, "text", clock, false, first, second); !strings.Contains(got[2], " "+want+" ") {
			t.Errorf("%s: %q, want %s", clock, got[2], want)
		}
	}
	if got := lines(t, "text", "delta", false, first, before); !strings.Contains(got[2], " -0.000000005 ") {
		t.Errorf("an earlier line: %q", got[2])
	}
}

func TestUnknownIsADash(t *testing.T) {
	e := event.Event{Type: event.Change, Family: event.IPv4, Proto: event.TCP, Old: event.Close, New: event.SynSent, Dur: event.Unknown}
	for addr, want := range map[netip.AddrPort]string{
		{}: " - ", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0): " 127.0.0.1:- ", netip.AddrPortFrom(netip.MustParseAddr("::1"), 0): " [::1]:- ",
		netip.AddrPortFrom(netip.Addr{}, 7781): " -:7781 ",
	} {
		e.Local = addr
		if got := lines(t, "text", "wall", false, e)[1]; !strings.Contains(got, want) || strings.Contains(got, "invalid") {
			t.Errorf("%v: %q", addr, got)
		}
	}
}

func TestColor(t *testing.T) {
	e := change("127.0.0.1:1", "127.0.0.1:2")
	e.Err = 111
	if got := lines(t, "text", "wall", false, e)[1]; strings.Contains(got, "\x1b") || !strings.HasSuffix(got, " ECONNREFUSED") {
		t.Errorf("without colour: %q", got)
	}
	if got := lines(t, "text", "wall", true, e)[1]; !strings.Contains(got, "\x1b[32mESTABLISHED\x1b[0m ") || !strings.Contains(got, "\x1b[31mECONNREFUSED\x1b[0m") {
		t.Errorf("with colour: %q", got)
	}
	e.Err = 7
	if got := lines(t, "text", "wall", false, e)[1]; !strings.HasSuffix(got, " errno 7") {
		t.Errorf("an errno without name here: %q", got)
	}
}

func TestCSV(t *testing.T) {
	e := change("127.0.0.1:1", "[::1]:2")
	e.OwnerComm, e.TaskComm, e.TaskPID, e.TaskTID = `a"b,c`, "x\ny", 8471|event.HostPID, 8472|event.HostPID
	e.IfIndex, e.IfName, e.ISN, e.Deferred, e.Totals = 3, "a,b\n", 1<<32-1, 5, event.Totals{Known: true, SRTTOpen: 35}
	got := lines(t, "csv", "wall", false, e, event.Event{Type: event.Lost, RingFull: 12})
	rows, err := csv.NewReader(strings.NewReader(strings.Join(got, "\n"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	cell := func(row int, key string) string {
		for i, k := range rows[0] {
			if k == key {
				return rows[row][i]
			}
		}
		t.Fatalf("no column %s", key)
		return ""
	}
	for key, want := range map[string]string{
		"seq": "1", "owner_comm": `a"b,c`, "task_comm": `x\ny`, "raddr": "::1", "rport": "2", "dur_ns": "57254", "cookie": "", "reason": "", "ring_full": "",
		"ifindex": "3", "ifname": `a,b\n`, "isn": "4294967295", "defer_ns": "5", "srtt_us": "", "srtt_open_us": "35", "owner_pid": "4194304", "owner_host_pid": "",
		"task_pid": "", "task_tid": "", "task_host_pid": "8471",
	} {
		if got := cell(1, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if cell(2, "type") != "lost" || cell(2, "ring_full") != "12" || cell(2, "seq") != "2" {
		t.Errorf("lost: %q", rows[2])
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestWriteErrors(t *testing.T) {
	gone := errors.New("gone")
	if _, err := New(failing{gone}, "text", "wall", false); !errors.Is(err, gone) {
		t.Errorf("the header: %v", err)
	}
	p, err := New(failing{gone}, "ndjson", "wall", false)
	if err != nil {
		t.Fatal(err)
	}
	e := change("127.0.0.1:1", "127.0.0.1:2")
	for range 1000 {
		if err = p.Take(&e); err != nil {
			break
		}
	}
	if !errors.Is(err, gone) {
		t.Errorf("1000 lines fit into the buffer: %v", err)
	}
}

func BenchmarkPrint(b *testing.B) {
	for _, format := range Formats {
		b.Run(format, func(b *testing.B) {
			p, err := New(discard{}, format, "wall", false)
			if err != nil {
				b.Fatal(err)
			}
			e := change("127.0.0.1:1", "127.0.0.1:2")
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Take(&e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
