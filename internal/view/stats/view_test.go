package stats

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
	"sstrace/internal/rollup"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

const (
	second = int64(time.Second)
	began  = 1000 * second
	noon   = 1795356000 * second // 2026-11-22 14:00 UTC, at mono 0
)

// connection returns the lines of both ends of a connection that the client closes. It begins at
// mono. Each state lasts for one or more units.
func connection(mono, unit int64, port uint16, peer, comm string) (lines []event.Event) {
	here, there := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port),
		netip.AddrPortFrom(netip.MustParseAddr(peer), 40000)
	line := func(role event.Role, after int64, old, new event.State, dur int64, reason event.Reason) {
		e := event.Event{
			Type: event.Change, Wall: noon + mono + after*unit, Mono: mono + after*unit, Old: old, New: new, Dur: dur,
			Role: role, Reason: reason,
			Local: here, Remote: there, OwnerPID: 4711, OwnerComm: comm, Cgroup: "/system.slice/" + comm + ".service",
			Family: event.IPv4, Proto: event.TCP,
		}
		if role == event.Client {
			e.Local, e.Remote = there, here
		}
		lines = append(lines, e)
	}
	line(event.Client, 0, event.Close, event.SynSent, event.Unknown, 0)
	line(event.Server, 1, event.Listen, event.SynRecv, event.Unknown, 0)
	line(event.Client, 2, event.SynSent, event.Established, 2*unit, 0)
	line(event.Server, 3, event.SynRecv, event.Established, 2*unit, 0)
	line(event.Server, 4, 0, 0, unit, 0)
	lines[4].Type = event.Accept
	line(event.Client, 10, event.Established, event.FinWait1, 8*unit, 0)
	line(event.Server, 11, event.Established, event.CloseWait, 8*unit, 0)
	line(event.Client, 12, event.FinWait1, event.FinWait2, 2*unit, 0)
	line(event.Server, 13, event.CloseWait, event.LastAck, 2*unit, 0)
	line(event.Client, 14, event.FinWait2, event.TimeWait, 2*unit, 0)
	line(event.Server, 15, event.LastAck, event.Close, 2*unit, event.ReasonNormal)
	return lines
}

func lost(mono int64, changes uint64) event.Event {
	return event.Event{Type: event.Lost, Wall: noon + mono, Mono: mono, RingFull: changes}
}

func end(mono int64) event.Event {
	return event.Event{Type: event.End, Wall: noon + mono, Mono: mono, Balance: &event.Balance{}}
}

// story returns the lines for the golden files: three seconds of traffic to two servers with a
// loss, then silence, then a little more traffic.
func story() (lines []event.Event) {
	for i := range int64(30) {
		lines = append(lines, connection(began+i*100_000_000, 1000+i*i*100, 443, "10.0.0.2", "nginx")...)
		if i%3 == 0 {
			lines = append(lines, connection(began+i*100_000_000, 1000_000*(1+i), 6379, "2001:db8::2",
				"redis\x1b[31m")...)
		}
		if i == 20 {
			lines = append(lines, lost(began+i*100_000_000, 12))
		}
	}
	refused := connection(began+10*second, 30_000, 9999, "10.0.0.3", "curl")[:3]
	refused[2].New, refused[2].Reason = event.Close, event.ReasonRefused
	old := connection(began+11*second, 1, 443, "10.0.0.2", "")[9]
	old.Role, old.OwnerPID, old.Cgroup = 0, 0, ""
	gone := old
	gone.Old, gone.New, gone.Dur, gone.Reason = event.TimeWait, event.Close, 60*second, event.ReasonTimeWaitExpired
	return append(lines, refused[0], refused[2], old, gone, end(began+12*second+500_000_000))
}

// run returns the output of a View for lines.
func run(t testing.TB, format string, o Options, lines []event.Event) string {
	t.Helper()
	var out bytes.Buffer
	eventtest.Feed(t, New(&out, format, o), lines...)
	return out.String()
}

func TestGolden(t *testing.T) {
	for _, test := range []struct {
		golden, format string
		o              Options
	}{
		{"whole.text", "text", Options{}},
		{"whole.ndjson", "ndjson", Options{}},
		{"interval.text", "text", Options{Interval: time.Second}},
		{"interval.ndjson", "ndjson", Options{Interval: time.Second}},
		{"port.text", "text", Options{By: "port"}},
		{"remote.text", "text", Options{By: "remote"}},
		{"process.text", "text", Options{By: "process"}},
		{"container.text", "text", Options{By: "container"}},
		{"process.ndjson", "ndjson", Options{By: "process", Interval: 5 * time.Second}},
		{"histogram.text", "text", Options{Histogram: true}},
	} {
		t.Run(test.golden, func(t *testing.T) {
			golden(t, test.golden, run(t, test.format, test.o, story()))
		})
	}
}

// golden compares got with testdata/name. SSTRACE_GOLDEN=write updates the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("SSTRACE_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

// A connect() that sent no SYN is not a change. It is counted separately, with its reason.
func TestConnectFailed(t *testing.T) {
	lines := connection(began, 1000, 443, "10.0.0.2", "nginx")
	failed := lines[0]
	failed.Type, failed.Old, failed.New, failed.Reason, failed.Err, failed.Local = event.ConnectFailed, 0, 0,
		event.ReasonUnreachable, 113, netip.AddrPort{}
	lines = append(lines, failed, failed, end(began+second))
	text := run(t, "text", Options{}, lines)
	for _, want := range []string{
		"  10 changes, 1 accepted, 2 failed to connect in 1s",
		"\nCLOSE       → SYN_SENT             1          0        -        -        -        -        -        -\n" +
			"(connect)   → (failed)             2          0        -        -        -        -        -        -\nLISTEN ", "\nunreachable                        2      66.7%\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if got := run(t, "text", Options{By: "port"}, lines[10+1:]); !strings.Contains(got,
		"\nport 443: no changes, 2 failed to connect\n") {
		t.Errorf("got %s", got)
	}
	got := run(t, "ndjson", Options{}, lines)
	if !strings.Contains(got, `"old":"(connect)","new":"(failed)","count":2,"timed":0,"min_ns":null,`) || !strings.Contains(got, `"reason":"unreachable","count":2}`) {
		t.Errorf("got %s", got)
	}
	checkSchema(t, got)
}

// The same link-local address on two links belongs to two different peers.
func TestZones(t *testing.T) {
	a := connection(began, 1000, 443, "fe80::2", "nginx")[1]
	a.IfIndex, a.IfName = 3, "eth0"
	b := a
	b.IfIndex, b.IfName = 4, "\x1b[31m"
	got := run(t, "text", Options{By: "remote"}, []event.Event{a, b, end(began + second)})
	for _, want := range []string{"\nremote fe80::2%eth0: 1 change\n", "\nremote fe80::2%\\x1b[31m: 1 change\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestLinesMatchSchema(t *testing.T) {
	checkSchema(t, run(t, "ndjson", Options{By: "container", Interval: time.Second}, story()))
}

func checkSchema(t *testing.T, text string) {
	t.Helper()
	const name = "ndjson.schema.json"
	file, err := os.ReadFile("../../../docs/" + name) // the absolute path may not be readable
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	seq := 0
	for line := range strings.Lines(text) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		if seq++; !strings.Contains(line, fmt.Sprintf(`"seq":%d,`, seq)) {
			t.Errorf("line %d: %s", seq, line)
		}
	}
}

func TestManyGroupsAsText(t *testing.T) {
	for _, test := range []struct {
		groups int
		want   string
	}{
		{20, ""}, {21, "one other port: 1 change\n"}, {30, "10 other ports: 15 changes\n"},
		{1001, "all other ports: 3864 changes\n"},
	} {
		t.Run(fmt.Sprint(test.groups, " groups"), func(t *testing.T) {
			var lines []event.Event
			for i := range test.groups {
				for range 1 + i%7 {
					lines = append(lines, connection(began, 1000, uint16(i+1), "10.0.0.2", "nc")[2])
				}
			}
			got := run(t, "text", Options{By: "port"}, append(lines, end(began+second)))
			if n := strings.Count(got, "\nport "); n != min(test.groups, 20) {
				t.Errorf("got %d shown", n)
			}
			if test.want == "" && strings.Contains(got, "other") || !strings.Contains(got, test.want) {
				t.Errorf("no %q in\n%s", test.want, got)
			}
			if noted := strings.Contains(got, "more than 1000 ports"); noted != (test.groups > rollup.Max) {
				t.Errorf("a note about more than 1000 ports: %v", noted)
			}
		})
	}
}

// In a live trace, intervals end by the clock, even without lines.
func TestIntervalsLive(t *testing.T) {
	var out bytes.Buffer
	v := New(&out, "text", Options{Interval: time.Second})
	since := func() string {
		text := out.String()
		out.Reset()
		return text
	}
	idle := func(mono int64) string {
		if err := v.Idle(mono); err != nil {
			t.Fatal(err)
		}
		return since()
	}
	if got := idle(began); got != "Counting: one table every 1s, and one of the whole run at the end\n" {
		t.Errorf("at first: %q", got)
	}
	if got := idle(began + 3*second + 1); got != "" {
		t.Errorf("before the first line, when the time of day is unknown: %q", got)
	}
	e := connection(began+3*second+2, 1000, 443, "10.0.0.2", "nc")[2]
	if err := v.Take(&e); err != nil {
		t.Fatal(err)
	}
	if got := idle(began + 3*second + 5000); got != "\n14:16:43  no changes in 3s\n" {
		t.Errorf("at the first change: %q", got)
	}
	if got := idle(began + 4*second - 1); got != "" {
		t.Errorf("within an interval: %q", got)
	}
	if got := idle(began + 4*second); !strings.HasPrefix(got, "\n14:16:44  1 change in 1s\n") {
		t.Errorf("after it: %q", got)
	}
	if got := idle(began + 5*second); got != "\n14:16:45  no changes in 1s\n" {
		t.Errorf("after one without changes: %q", got)
	}
	last := end(began + 5*second + 250_000_000)
	if err := v.End(&last); err != nil {
		t.Fatal(err)
	}
	if got := since(); !strings.HasPrefix(got, "\n14:16:45  1 change in 5.25s, the whole run\n") {
		t.Errorf("at the end: %q", got)
	}
	if got := run(t, "text", Options{}, []event.Event{end(began)}); got != "14:16:40  no changes in 0s, the whole run\n" {
		t.Errorf("a recording without changes: %q", got)
	}
}

// If a recording was cut off, the report covers what there is. An empty recording has no tables.
func TestWithoutEnd(t *testing.T) {
	lines := connection(began, second, 443, "10.0.0.2", "nc")
	if got := run(t, "text", Options{}, lines); !strings.HasPrefix(got,
		"14:16:55  10 changes, 1 accepted in 15s, the whole run\n") {
		t.Errorf("without end:\n%s", got)
	}
	if got := run(t, "text", Options{}, nil); got != "" {
		t.Errorf("no lines: %q", got)
	}
	if got := run(t, "text", Options{Interval: time.Second},
		[]event.Event{end(began)}); got != "14:16:40  no changes in 0s, the whole run\n" {
		t.Errorf("only an end: %q", got)
	}
}

// The lines of a listing do not count as changes.
func TestSocketsAreNotCounted(t *testing.T) {
	socket := event.Event{Type: event.Socket, Wall: noon + began, Mono: began, New: event.Established, Dur: 5,
		Role: event.Server}
	if got := run(t, "text", Options{By: "port"}, []event.Event{socket,
		end(began)}); got != "14:16:40  no changes in 0s, the whole run\n" {
		t.Errorf("a socket: %q", got)
	}
}

// A jump of the clock causes neither an endless loop nor endless output.
func TestLongSilence(t *testing.T) {
	a := connection(0, 1, 443, "10.0.0.2", "nc")[0]
	b := a
	b.Mono = math.MaxInt64 - 5
	got := run(t, "ndjson", Options{Interval: time.Nanosecond}, []event.Event{a, b, a, end(math.MaxInt64)})
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n, got)
	}
}
