package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/rollup"
)

// line is an NDJSON line of either kind.
type line struct {
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

func parse(t *testing.T, text string) (lines []line) {
	t.Helper()
	for text := range strings.Lines(text) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines = append(lines, l)
	}
	return lines
}

// key returns what l counts. It includes the group if group is set.
func (l *line) key(group bool) string {
	key := fmt.Sprint(l.Type, " ", l.Old, " ", l.New, " ", l.Reason)
	switch {
	case group && l.Others:
		return key + " others"
	case group && l.Group != nil:
		return key + " group " + *l.Group
	}
	return key
}

// traffic returns lines in up to names groups, some of which are much larger than others.
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
			Type: event.Change, Mono: mono - r.Int64N(1000), Role: event.Server, Old: states[r.IntN(len(states))],
			New: states[r.IntN(len(states))],
			Dur: r.Int64() >> r.IntN(63), Local: netip.AddrPortFrom(netip.Addr{}, uint16(n)), OwnerPID: 1,
			OwnerComm: fmt.Sprint("c", n),
			Remote:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1),
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

// Whatever the groups and intervals are, everything is counted exactly once. The intervals add up
// to the whole run, and so do the groups.
func TestCountsAddUp(t *testing.T) {
	for seed, names := range []int{1, 20, 3000, 60000} {
		lines := traffic(uint64(seed), 10000, names)
		for _, by := range append([]string{""}, Groupings...) {
			for _, interval := range []time.Duration{0, time.Second, time.Minute} {
				t.Run(fmt.Sprintf("%d names, by %q, every %v", names, by, interval), func(t *testing.T) {
					checkSums(t, lines, Options{By: by, Interval: interval})
				})
			}
		}
	}
}

// sums contains counts and the numbers of known times, by line.key.
type sums struct{ count, timed map[string]uint64 }

func (s *sums) add(key string, count, timed uint64) {
	s.count[key] += count
	if timed > 0 {
		s.timed[key] += timed
	}
}

func newSums() *sums { return &sums{make(map[string]uint64), make(map[string]uint64)} }

func (s *sums) equal(o *sums) bool {
	return maps.Equal(s.count, o.count) && maps.Equal(s.timed, o.timed)
}

// sumsOf returns what a View should count for events.
func sumsOf(events []event.Event) *sums {
	s := newSums()
	for _, e := range events {
		if e.Type == event.End {
			continue
		}
		l := line{Type: "stats", Old: e.Old.String(), New: e.New.String()}
		if e.Type == event.Accept {
			l.Old, l.New = "(queue)", "(accepted)"
		}
		timed := uint64(0)
		if e.Dur != event.Unknown {
			timed = 1
		}
		s.add(l.key(false), 1, timed)
		if e.Reason != 0 {
			s.add((&line{Type: "reasons", Reason: e.Reason.String()}).key(false), 1, 0)
		}
	}
	return s
}

func checkSums(t *testing.T, events []event.Event, o Options) {
	t.Helper()
	intervals, whole := newSums(), newSums()
	groupsInIntervals, groupsInRun := newSums(), newSums()
	atLeast := make(map[string]bool)
	var length int64
	for _, l := range parse(t, run(t, "ndjson", o, events)) {
		key, groupKey := l.key(false), l.key(true)
		switch {
		case l.Type == "end":
		case l.Final:
			whole.add(key, l.Count, l.Timed)
			groupsInRun.add(groupKey, l.Count, 0)
			atLeast[groupKey] = l.AtLeast
			length = l.Interval
		default:
			intervals.add(key, l.Count, l.Timed)
			groupsInIntervals.add(groupKey, l.Count, 0)
			if l.Interval > int64(o.Interval) {
				t.Errorf("an interval of %d ns", l.Interval)
			}
		}
	}
	want := sumsOf(events)
	if !whole.equal(want) {
		t.Error("the counts of the whole run differ from what was taken")
	}
	if got, want := length, events[len(events)-1].Mono-events[0].Mono; got != want {
		t.Errorf("the whole run is %d ns long, want %d", got, want)
	}
	if o.Interval == 0 {
		if len(intervals.count) > 0 {
			t.Error("intervals are reported")
		}
		return
	}
	if !intervals.equal(want) {
		t.Error("the counts of the intervals differ from what was taken")
	}
	for key, n := range groupsInRun.count {
		if strings.HasSuffix(key, "others") || atLeast[key] {
			continue // groups may have been evicted
		}
		if got := groupsInIntervals.count[key]; got != n {
			t.Errorf("%s: %d in the intervals, %d in the whole run", key, got, n)
		}
	}
}

// Every grouping keeps the largest group, even if there are very many groups.
func TestLargestGroupIsKept(t *testing.T) {
	for _, by := range Groupings {
		t.Run(by, func(t *testing.T) {
			var lines []event.Event
			for i := range 20_000 {
				n := 1 + i%10_000
				if i > 5000 && i%10 == 0 {
					n = 20_000
				}
				addr := netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
				lines = append(lines, event.Event{
					Type: event.Change, Mono: int64(i), Old: event.SynSent, New: event.Close, Dur: int64(i),
					Role: event.Client, OwnerPID: 1,
					OwnerComm: fmt.Sprint("p", n), Cgroup: fmt.Sprint("/p", n, ".service"),
					Remote: netip.AddrPortFrom(addr, uint16(n)),
				})
			}
			got := parse(t, run(t, "ndjson", Options{By: by}, append(lines, end(20_000))))
			if len(got) > rollup.Max+2 {
				t.Errorf("%d lines", len(got))
			}
			if l := got[0]; l.Group == nil || l.Count != 1499 || !l.AtLeast {
				t.Errorf("the first group is %+v", l)
			}
		})
	}
}

// A group has one tally for each edge, however many lines are counted.
func TestEdgesAreBounded(t *testing.T) {
	c := newCounts()
	for _, e := range traffic(1, 200_000, 100)[:200_000] {
		c.add(&e)
	}
	if got, all := len(c.edges), len(event.States())*len(event.States())+1; got > all || len(c.reasons) > 3 {
		t.Errorf("%d edges and %d reasons", got, len(c.reasons))
	}
}

// The edges in a table are in the order of a connection's life, and no two have the same position.
func TestOrderOfRows(t *testing.T) {
	edges := []event.Edge{queueAccepted, connectFailed}
	for _, old := range event.States() {
		for _, new := range event.States() {
			edges = append(edges, old.To(new))
		}
	}
	slices.SortFunc(edges, compareEdges)
	at := make(map[string]int)
	for i, e := range edges {
		if i > 0 && compareEdges(edges[i-1], e) == 0 {
			t.Errorf("%v and %v have the same position", edges[i-1], e)
		}
		from, to := titles(e)
		at[from+" "+to] = i
	}
	for _, path := range [][]string{
		{"CLOSE LISTEN", "CLOSE SYN_SENT", "(connect) (failed)", "LISTEN SYN_RECV"},
		{"CLOSE LISTEN", "CLOSE SYN_SENT", "LISTEN SYN_RECV", "LISTEN CLOSE", "SYN_SENT ESTABLISHED", "SYN_SENT CLOSE",
			"SYN_RECV ESTABLISHED", "SYN_RECV CLOSE", "(queue) (accepted)"},
		{"(queue) (accepted)", "ESTABLISHED FIN_WAIT1", "ESTABLISHED CLOSE_WAIT", "ESTABLISHED CLOSE",
			"FIN_WAIT1 FIN_WAIT2", "FIN_WAIT2 TIME_WAIT", "TIME_WAIT CLOSE"},
		{"ESTABLISHED CLOSE_WAIT", "CLOSE_WAIT LAST_ACK", "LAST_ACK CLOSE"},
	} {
		if !slices.IsSortedFunc(path, func(a, b string) int { return at[a] - at[b] }) {
			t.Errorf("out of order: %v", path)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for _, by := range append([]string{"all"}, Groupings...) {
		b.Run(by, func(b *testing.B) {
			v := New(&bytes.Buffer{}, "text", Options{By: by})
			lines := traffic(1, 10000, 200)[:10000]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := v.Take(&lines[i%len(lines)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
