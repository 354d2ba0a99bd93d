package rollup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
)

const second = int64(time.Second)

// sum is the simplest possible Counts.
type sum struct{ n uint64 }

func (s *sum) Total() uint64          { return s.n }
func (s *sum) Merge(other *sum) error { s.n += other.n; return nil }

// recorder collects the reports of a Rollup as text, one line for each.
type recorder struct {
	*Rollup[int, *sum]
	reports []string
	last    Report[int, *sum]
}

func newRecorder(interval time.Duration, evict bool) *recorder {
	r := new(recorder)
	r.Rollup = New(Options[int, *sum]{
		Interval: interval, New: func() *sum { return new(sum) }, Compare: cmp.Compare[int], Evict: evict,
		Report: func(report *Report[int, *sum]) error {
			r.last = *report
			line := fmt.Sprintf("%d-%d", report.Begin/second, report.End/second)
			if report.Final {
				line += " final"
			}
			for _, g := range report.Groups {
				line += fmt.Sprintf(" %d:%d", g.Key, g.Counts.n)
			}
			if report.Rest.n > 0 {
				line += fmt.Sprintf(" rest:%d", report.Rest.n)
			}
			if report.Lost > 0 {
				line += fmt.Sprintf(" lost:%d", report.Lost)
			}
			r.reports = append(r.reports, line)
			return nil
		},
	})
	return r
}

// count counts one event of group key at time at.
func (r *recorder) count(t testing.TB, at int64, key int) {
	t.Helper()
	if err := r.See(&event.Event{Mono: at, Wall: at + 100*second}); err != nil {
		t.Fatal(err)
	}
	c, err := r.At(key)
	if err != nil {
		t.Fatal(err)
	}
	c.n++
}

func (r *recorder) advance(t testing.TB, now int64) {
	t.Helper()
	if err := r.Advance(now); err != nil {
		t.Fatal(err)
	}
}

func (r *recorder) finish(t testing.TB) {
	t.Helper()
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
}

func TestReports(t *testing.T) {
	const s = second
	for _, test := range []struct {
		name     string
		interval time.Duration
		feed     func(r *recorder)
		want     []string
	}{
		{"whole run", 0, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.count(t, 2*s, 2)
			r.count(t, 3*s, 2)
			r.finish(t)
		}, []string{"1-3 final 2:2 1:1"}},
		{"groups of one size are in the order of their keys", 0, func(r *recorder) {
			for _, key := range []int{3, 1, 2} {
				r.count(t, s, key)
			}
			r.finish(t)
		}, []string{"1-1 final 1:1 2:1 3:1"}},
		{"intervals add up to the run", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.count(t, 2*s, 1)
			r.count(t, 2*s, 2)
			r.Lost(3)
			r.count(t, 3*s, 1)
			r.finish(t)
		}, []string{"1-2 1:1", "2-3 1:1 2:1 lost:3", "3-3 1:1", "1-3 final 1:3 2:1 lost:3"}},
		{"idle intervals are one report", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.count(t, 9*s, 1)
			r.finish(t)
		}, []string{"1-2 1:1", "2-9", "9-9 1:1", "1-9 final 1:2"}},
		{"no last interval if it is idle", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.advance(t, 2*s)
			r.finish(t)
		}, []string{"1-2 1:1", "1-2 final 1:1"}},
		{"an interval with nothing but a loss is not idle", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.advance(t, 2*s)
			r.Lost(1)
			r.finish(t)
		}, []string{"1-2 1:1", "2-2 lost:1", "1-2 final 1:1 lost:1"}},
		{"a late event counts when it arrives", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.count(t, 2*s, 1)
			r.count(t, 2*s-1, 1)
			r.finish(t)
		}, []string{"1-2 1:1", "2-2 1:2", "1-2 final 1:3"}},
		{"no reports before the wall time is known", time.Second, func(r *recorder) {
			r.advance(t, 1*s)
			r.advance(t, 5*s)
			r.count(t, 5*s, 1)
			r.finish(t)
		}, []string{"1-5", "5-5 1:1", "1-5 final 1:1"}},
		{"no reports of a run without events", time.Second, func(r *recorder) {
			r.advance(t, 1*s)
			r.advance(t, 5*s)
			r.finish(t)
		}, nil},
		{"the run ends once", time.Second, func(r *recorder) {
			r.count(t, 1*s, 1)
			r.finish(t)
			r.advance(t, 9*s)
			r.finish(t)
		}, []string{"1-1 1:1", "1-1 final 1:1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRecorder(test.interval, false)
			if test.feed(r); !slices.Equal(r.reports, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(r.reports, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Without eviction, the first Max groups are kept.
func TestRest(t *testing.T) {
	r := newRecorder(0, false)
	for key := range Max + 10 {
		r.count(t, 0, key)
		r.count(t, 0, key)
	}
	r.finish(t)
	if n := len(r.last.Groups); n != Max || r.last.Rest.n != 20 {
		t.Errorf("%d groups and %d events in the rest, want %d and 20", n, r.last.Rest.n, Max)
	}
	for _, g := range r.last.Groups {
		if g.Key >= Max || g.Counts.n != 2 || g.AtLeast {
			t.Fatalf("group %+v", g)
		}
	}
}

// With eviction, a large group that appears late is kept. Memory stays bounded, and each event is
// counted exactly once.
func TestEviction(t *testing.T) {
	const events, large = 100_000, -1
	r := newRecorder(time.Second, true)
	for i := range events {
		key := i
		if i > events/2 && i%100 == 0 {
			key = large
		}
		r.count(t, int64(i)*second/1000, key)
		if n := len(r.groups); n > Max {
			t.Fatalf("%d groups are kept", n)
		}
	}
	r.finish(t)
	sum := r.last.Rest.n
	for _, g := range r.last.Groups {
		sum += g.Counts.n
	}
	if sum != events {
		t.Errorf("got %d events counted, want %d", sum, events)
	}
	if g := r.last.Groups[0]; g.Key != large || g.Counts.n != events/200-1 || !g.AtLeast {
		t.Errorf("the largest group is %+v", g)
	}
}

// AtLeast covers the span of one report. An eviction in an earlier interval does not affect a group
// in the current one.
func TestAtLeast(t *testing.T) {
	r := newRecorder(time.Second, true)
	for key := range Max + 1 {
		r.count(t, 0, key)
	}
	r.count(t, second, 5000)
	r.advance(t, 2*second)
	if g := r.last.Groups; len(g) != 1 || g[0].AtLeast {
		t.Errorf("in the interval after the eviction: %+v", g)
	}
	r.finish(t)
	for _, g := range r.last.Groups {
		if want := g.Key >= Max; g.AtLeast != want {
			t.Errorf("group %d of the run: AtLeast is %v, want %v", g.Key, g.AtLeast, want)
		}
	}
}

func TestErrorsOfReportsAreReturned(t *testing.T) {
	broken := errors.New("broken")
	r := New(Options[int, *sum]{
		Interval: time.Second, New: func() *sum { return new(sum) }, Compare: cmp.Compare[int],
		Report: func(*Report[int, *sum]) error { return broken },
	})
	if err := r.See(&event.Event{}); err != nil {
		t.Fatal(err)
	}
	if err := r.Advance(second); !errors.Is(err, broken) {
		t.Errorf("Advance returned %v", err)
	}
	if err := r.Finish(); !errors.Is(err, broken) {
		t.Errorf("Finish returned %v", err)
	}
}

func TestHeading(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	for _, test := range []struct {
		name   string
		report Report[int, *sum]
		want   string
	}{
		{"interval", Report[int, *sum]{End: 2*second + 400_000, interval: time.Second}, "00:01:40  3 events in 2s\n"},
		{"interval of less than a second", Report[int, *sum]{End: second / 10, interval: time.Second / 10},
			"00:01:40.000  3 events in 100ms\n"},
		{"run", Report[int, *sum]{End: 17, Final: true}, "00:01:40  3 events in 17ns, the whole run\n"},
		{"loss", Report[int, *sum]{End: second, Lost: 4}, "00:01:40  3 events in 1s\n" +
			"--- 4 changes lost in this period, the ring buffer was full: a filter or a larger --buffer helps ---\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.report.Wall = 100 * second
			if got := test.report.Heading("3 events"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
