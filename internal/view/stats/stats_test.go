package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"

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

// connection makes the lines of one that the client closes: both ends of it, from mono on, each state of which lasts one or more of unit.
func connection(mono, unit int64, port uint16, peer, comm string) (lines []event.Event) {
	here, there := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), netip.AddrPortFrom(netip.MustParseAddr(peer), 40000)
	line := func(role event.Role, after int64, old, new event.State, dur int64, reason event.Reason) {
		e := event.Event{
			Type: event.Change, Wall: noon + mono + after*unit, Mono: mono + after*unit, Old: old, New: new, Dur: dur, Role: role, Reason: reason,
			Local: here, Remote: there, OwnerPID: 4711, OwnerComm: comm, Cgroup: "/system.slice/" + comm + ".service", Family: event.IPv4, Proto: event.TCP,
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

// story is what the golden files are of: three seconds with traffic to two servers, something lost, a silence, and something again.
func story() (lines []event.Event) {
	for i := range int64(30) {
		lines = append(lines, connection(began+i*100_000_000, 1000+i*i*100, 443, "10.0.0.2", "nginx")...)
		if i%3 == 0 {
			lines = append(lines, connection(began+i*100_000_000, 1000_000*(1+i), 6379, "2001:db8::2", "redis\x1b[31m")...)
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

// run gives what a Stats writes about lines.
func run(t testing.TB, format string, o Options, lines []event.Event) string {
	t.Helper()
	var out bytes.Buffer
	s := New(&out, format, o)
	for _, e := range lines {
		if err := s.Take(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(0); err != nil {
		t.Fatal(err)
	}
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

// A connect() that sent no SYN is no change, and is counted with its reason.
func TestConnectFailed(t *testing.T) {
	lines := connection(began, 1000, 443, "10.0.0.2", "nginx")
	failed := lines[0]
	failed.Type, failed.Old, failed.New, failed.Reason, failed.Err, failed.Local = event.ConnectFailed, 0, 0, event.ReasonUnreachable, 113, netip.AddrPort{}
	lines = append(lines, failed, failed, end(began+second))
	text := run(t, "text", Options{}, lines)
	for _, want := range []string{
		"  10 changes, 1 accepted, 2 failed to connect in 1s", "\nCLOSE       → SYN_SENT             1          0        -        -        -        -        -        -\n" +
			"(connect)   → (failed)             2          0        -        -        -        -        -        -\nLISTEN ", "\nunreachable                        2      66.7%\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if got := run(t, "text", Options{By: "port"}, lines[10+1:]); !strings.Contains(got, "\nport 443: no changes, 2 failed to connect\n") {
		t.Errorf("got %s", got)
	}
	got := run(t, "ndjson", Options{}, lines)
	if !strings.Contains(got, `"old":"(connect)","new":"(failed)","count":2,"timed":0,"min_ns":null,`) || !strings.Contains(got, `"reason":"unreachable","count":2}`) {
		t.Errorf("got %s", got)
	}
	keepsSchema(t, got)
}

// The same peer address on two links is two peers.
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

// golden compares with testdata/name; SSTRACE_GOLDEN=write renews it, to be read before it is committed.
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

func TestLinesKeepTheSchema(t *testing.T) {
	keepsSchema(t, run(t, "ndjson", Options{By: "container", Interval: time.Second}, story()))
}

func keepsSchema(t *testing.T, text string) {
	t.Helper()
	const name = "ndjson.schema.json"
	file, err := os.ReadFile("../../../docs/" + name) // not by its absolute path, which need not be open to who runs this
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

// told is a line of NDJSON, of either kind.
type told struct {
	Type     string
	Interval int64 `json:"interval_ns"`
	Final    bool
	By       *string
	Group    *string
	Others   bool
	AtLeast  bool `json:"at_least"`
	Old, New string
	Reason   string
	Count    uint64
	Timed    uint64
	Min      *int64 `json:"min_ns"`
	P50      *int64 `json:"p50_ns"`
	Max      *int64 `json:"max_ns"`
	RingFull uint64 `json:"ring_full"`
}

func parse(t *testing.T, text string) (lines []told) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l told
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, l)
	}
	return lines
}

func (l *told) key(group bool) string {
	key := fmt.Sprint(l.Type, " ", l.Old, " ", l.New, " ", l.Reason)
	switch {
	case group && l.Others:
		return key + " others"
	case group && l.Group != nil:
		return key + " group " + *l.Group
	}
	return key
}

// traffic makes lines of up to names groups, some much larger than others.
func traffic(seed uint64, count, names int) (lines []event.Event) {
	r := rand.New(rand.NewPCG(seed, 2))
	states := event.States()
	mono := began
	for range count {
		mono += r.Int64N(second / 100)
		if r.IntN(1000) == 0 {
			mono += 60 * second
		}
		n := int(float64(names) * math.Pow(r.Float64(), 3))
		e := event.Event{
			Type: event.Change, Mono: mono - r.Int64N(1000), Role: event.Server, Old: states[r.IntN(len(states))], New: states[r.IntN(len(states))],
			Dur: r.Int64() >> r.IntN(63), Local: netip.AddrPortFrom(netip.Addr{}, uint16(n)), OwnerPID: 1, OwnerComm: fmt.Sprint("c", n),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1),
		}
		switch r.IntN(10) {
		case 0:
			e.Dur = event.Unknown
		case 1:
			e.Type, e.Old, e.New = event.Accept, 0, 0
		case 2:
			e.New, e.Reason = event.Close, event.ReasonNormal+event.Reason(r.IntN(3))
		}
		e.Wall = noon + e.Mono
		lines = append(lines, e)
	}
	return append(lines, end(mono))
}

// Whatever comes, nothing is counted twice or not at all; the intervals add up to the whole run, and so do all groups.
func TestCountsAddUp(t *testing.T) {
	for seed, names := range []int{1, 20, 3000, 60000} {
		lines := traffic(uint64(seed), 10000, names)
		want, wantTimed := make(map[string]uint64), make(map[string]uint64)
		for _, e := range lines[:len(lines)-1] {
			l := told{Type: "stats", Old: e.Old.String(), New: e.New.String()}
			if e.Type == event.Accept {
				l.Old, l.New = "(queue)", "(accepted)"
			}
			want[l.key(false)]++
			if e.Dur != event.Unknown {
				wantTimed[l.key(false)]++
			}
			if e.Reason != 0 {
				want[(&told{Type: "reasons", Reason: e.Reason.String()}).key(false)]++
			}
		}
		for _, by := range append([]string{""}, Groupings...) {
			for _, interval := range []time.Duration{0, time.Second, time.Minute} {
				what := fmt.Sprintf("%d groups by %q each %v", names, by, interval)
				count := map[bool]map[string]uint64{false: {}, true: {}}
				timed := map[bool]map[string]uint64{false: {}, true: {}}
				groups := map[bool]map[string]uint64{false: {}, true: {}}
				length := map[bool]int64{}
				atLeast := make(map[string]bool)
				for _, l := range parse(t, run(t, "ndjson", Options{By: by, Interval: interval}, lines)) {
					if l.Type == "end" {
						continue
					}
					count[l.Final][l.key(false)] += l.Count
					groups[l.Final][l.key(true)] += l.Count
					if l.Timed > 0 {
						timed[l.Final][l.key(false)] += l.Timed
					}
					atLeast[l.key(true)] = l.AtLeast
					if interval > 0 && !l.Final && l.Interval > int64(interval) {
						t.Errorf("%s: %d ns are told of at once", what, l.Interval)
					}
					length[l.Final] = max(length[l.Final], l.Interval)
				}
				if !maps.Equal(count[true], want) || !maps.Equal(timed[true], wantTimed) {
					t.Errorf("%s: the whole run has other counts than what was taken", what)
				}
				if length[true] != lines[len(lines)-1].Mono-lines[0].Mono {
					t.Errorf("%s: the whole run is %d ns long", what, length[true])
				}
				if interval == 0 {
					if len(count[false]) > 0 {
						t.Errorf("%s: intervals are told", what)
					}
					continue
				}
				if !maps.Equal(count[false], want) || !maps.Equal(timed[false], wantTimed) {
					t.Errorf("%s: the intervals do not add up to the whole run", what)
				}
				for key, of := range groups[true] { // of a group that was always there no interval is missing
					if !strings.HasSuffix(key, "others") && !atLeast[key] && groups[false][key] != of {
						t.Errorf("%s: %s: %d in the intervals, %d in the whole run", what, key, groups[false][key], of)
					}
				}
			}
		}
	}
}

// Memory: nearly a million groups, and no more than most of them are kept. One that is large is, although it came late, and nothing is forgotten.
func TestGroupsAreBounded(t *testing.T) {
	for _, by := range Groupings[1:] {
		s := New(&bytes.Buffer{}, "ndjson", Options{By: by})
		const count = 1_000_000
		large := 0
		for i := range count {
			n := i
			if i > count/2 && i%100 == 0 {
				n = -1
				large++
			}
			e := event.Event{
				Type: event.Change, Mono: int64(i), Old: event.SynSent, New: event.Close, Dur: int64(i), Reason: event.ReasonRefused, OwnerPID: 1,
				OwnerComm: fmt.Sprint("p", n), Cgroup: fmt.Sprint("/p", n, ".service"),
				Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 1),
			}
			if err := s.Take(&e); err != nil {
				t.Fatal(err)
			}
			if len(s.groups) > most {
				t.Fatalf("%d groups by %s", len(s.groups), by)
			}
		}
		sum := s.others.lines()
		for _, g := range s.groups {
			sum += g.lines()
		}
		if sum != count {
			t.Errorf("by %s: %d lines, want %d", by, sum, count)
		}
		if g := s.sorted((*group).lines)[0]; g.size != uint64(large) || !g.whole.atLeast {
			t.Errorf("by %s: the largest group is %v with %d lines, want one with %d that may be more", by, g.name, g.size, large)
		}
	}
}

// Each edge that there can be, for as many times: what is kept is one tally for each.
func TestEdgesAreBounded(t *testing.T) {
	s := New(&bytes.Buffer{}, "text", Options{By: "port"})
	for _, e := range traffic(1, 200_000, 100)[:200_000] {
		if err := s.Take(&e); err != nil {
			t.Fatal(err)
		}
	}
	for n, g := range s.groups {
		if got, all := len(g.period.edges), len(event.States())*len(event.States())+1; got > all || len(g.period.reasons) > 20 {
			t.Errorf("port %v: %d edges and %d reasons", n, got, len(g.period.reasons))
		}
	}
}

func TestManyGroupsAsText(t *testing.T) {
	of := func(groups int) string {
		var lines []event.Event
		for i := range groups {
			for range 1 + i%7 {
				e := connection(began, 1000, uint16(i+1), "10.0.0.2", "nc")[2]
				lines = append(lines, e)
			}
		}
		return run(t, "text", Options{By: "port"}, append(lines, end(began+second)))
	}
	for groups, want := range map[int]string{20: "", 21: "one other port: 1 change\n", 30: "10 other ports: 15 changes\n", 1001: "all other ports: 3864 changes\n"} {
		got := of(groups)
		if n := strings.Count(got, "\nport "); n != min(groups, 20) {
			t.Errorf("of %d groups %d are shown", groups, n)
		}
		if want == "" && strings.Contains(got, "other") || !strings.Contains(got, want) {
			t.Errorf("of %d groups: no %q in\n%s", groups, want, got)
		}
		if said := strings.Contains(got, "more than 1000 ports"); said != (groups > most) {
			t.Errorf("of %d groups: that there are more than are kept is said: %v", groups, said)
		}
	}
}

// Live, intervals end by the clock.
func TestIntervalsLive(t *testing.T) {
	var out bytes.Buffer
	s := New(&out, "text", Options{Interval: time.Second})
	since := func() string {
		text := out.String()
		out.Reset()
		return text
	}
	flush := func(now int64) string {
		if err := s.Flush(now); err != nil {
			t.Fatal(err)
		}
		return since()
	}
	if got := flush(began); got != "Counting: a table comes each 1s, that of the whole run at the end\n" {
		t.Errorf("at first: %q", got)
	}
	if got := flush(began + 3*second + 1); got != "" {
		t.Errorf("nothing has come, so the time of day is not known: %q", got)
	}
	e := connection(began+3*second+2, 1000, 443, "10.0.0.2", "nc")[2]
	if err := s.Take(&e); err != nil {
		t.Fatal(err)
	}
	if got := flush(began + 3*second + 5000); got != "\n14:16:43  no changes in 3s\n" {
		t.Errorf("at the first change: %q", got)
	}
	if got := flush(began + 4*second - 1); got != "" {
		t.Errorf("within an interval: %q", got)
	}
	if got := flush(began + 4*second); !strings.HasPrefix(got, "\n14:16:44  1 change in 1s\n") {
		t.Errorf("after it: %q", got)
	}
	if got := flush(began + 5*second); got != "\n14:16:45  no changes in 1s\n" {
		t.Errorf("after one without changes: %q", got)
	}
	last := end(began + 5*second + 250_000_000)
	if err := s.Take(&last); err != nil {
		t.Fatal(err)
	}
	if got := flush(began + 9*second); !strings.HasPrefix(got, "\n14:16:45  1 change in 5.25s, the whole run\n") || flush(began+20*second) != "" {
		t.Errorf("at the end: %q", got)
	}
}

// A recording that was cut off is told of as far as it goes, and one with nothing in it makes no tables.
func TestWithoutEnd(t *testing.T) {
	lines := connection(began, second, 443, "10.0.0.2", "nc")
	if got := run(t, "text", Options{}, lines); !strings.HasPrefix(got, "14:16:55  10 changes, 1 accepted in 15s, the whole run\n") {
		t.Errorf("without end:\n%s", got)
	}
	if got := run(t, "text", Options{}, nil); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	if got := run(t, "text", Options{Interval: time.Second}, []event.Event{end(began)}); got != "14:16:40  no changes in 0s, the whole run\n" {
		t.Errorf("of an end alone: %q", got)
	}
}

// What a listing has is no change.
func TestSocketsAreNotCounted(t *testing.T) {
	socket := event.Event{Type: event.Socket, Wall: noon + began, Mono: began, New: event.Established, Dur: 5, Role: event.Server}
	if got := run(t, "text", Options{By: "port"}, []event.Event{socket, end(began)}); got != "14:16:40  no changes in 0s, the whole run\n" {
		t.Errorf("a socket: %q", got)
	}
}

// Times that jump make no endless loop and no endless output.
func TestLongSilence(t *testing.T) {
	a := connection(0, 1, 443, "10.0.0.2", "nc")[0]
	b := a
	b.Mono = math.MaxInt64 - 5
	got := run(t, "ndjson", Options{Interval: time.Nanosecond}, []event.Event{a, b, a, end(math.MaxInt64)})
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n, got)
	}
}

func TestOrder(t *testing.T) {
	var edges []edge
	for _, old := range event.States() {
		for _, new := range event.States() {
			edges = append(edges, edge{old, new})
		}
	}
	edges = append(edges, edge{})
	slices.SortFunc(edges, func(a, b edge) int { return a.place() - b.place() })
	at := make(map[string]int)
	for i, e := range edges {
		if i > 0 && edges[i-1].place() == e.place() {
			t.Errorf("%v and %v stand at the same place", edges[i-1], e)
		}
		from, to := e.names()
		at[from+" "+to] = i
	}
	for _, path := range [][]string{
		{"CLOSE LISTEN", "CLOSE SYN_SENT", "LISTEN SYN_RECV", "LISTEN CLOSE", "SYN_SENT ESTABLISHED", "SYN_SENT CLOSE", "SYN_RECV ESTABLISHED", "SYN_RECV CLOSE", "(queue) (accepted)"},
		{"(queue) (accepted)", "ESTABLISHED FIN_WAIT1", "ESTABLISHED CLOSE_WAIT", "ESTABLISHED CLOSE", "FIN_WAIT1 FIN_WAIT2", "FIN_WAIT2 TIME_WAIT", "TIME_WAIT CLOSE"},
		{"ESTABLISHED CLOSE_WAIT", "CLOSE_WAIT LAST_ACK", "LAST_ACK CLOSE"},
	} {
		if !slices.IsSortedFunc(path, func(a, b string) int { return at[a] - at[b] }) {
			t.Errorf("not in the order of a life: %v", path)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for _, by := range append([]string{"all"}, Groupings...) {
		b.Run(by, func(b *testing.B) {
			s := New(&bytes.Buffer{}, "text", Options{By: by})
			lines := traffic(1, 10000, 200)[:10000]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Take(&lines[i%len(lines)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
