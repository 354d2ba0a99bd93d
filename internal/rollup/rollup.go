// Package rollup counts the events in each group, for each interval and for the whole run. Its
// memory is bounded: it keeps a limited number of groups and counts the rest together.
package rollup

import (
	"cmp"
	"slices"
	"time"

	"sstrace/internal/event"
)

// Max is the number of groups that a Rollup keeps.
const Max = 1000

// Counts is what a view counts for one group in one span of time. T is a pointer.
type Counts[T any] interface {
	// Total returns the number of events counted.
	Total() uint64
	// Merge adds the counts of other, which it leaves unchanged.
	Merge(other T) error
}

// Options configure a Rollup.
type Options[K comparable, T Counts[T]] struct {
	Interval time.Duration               // 0: report the whole run only
	New      func() T                    // returns empty counts
	Compare  func(a, b K) int            // orders groups of the same size
	Report   func(r *Report[K, T]) error // called at the end of each interval and of the run

	// Evict selects what happens to a new group when there are Max already. If it is set, the
	// smaller half of the groups moves to the rest, so a group that appears late and grows large is
	// kept. If it is not set, the new group is counted in the rest.
	Evict bool
}

// Report holds what was counted from Begin to End.
type Report[K comparable, T Counts[T]] struct {
	Begin, End int64         // CLOCK_MONOTONIC
	Wall       int64         // End, in ns since 1970 UTC
	Lost       uint64        // changes lost in this time
	Final      bool          // this is the whole run
	Groups     []Group[K, T] // those with any events, the largest first
	Rest       T             // the events that are in no group

	interval time.Duration
}

// Group holds what was counted for one group.
type Group[K comparable, T Counts[T]] struct {
	Key     K
	Counts  T
	AtLeast bool // there may be more: groups were evicted before this one appeared
}

// Rollup counts in groups. It is not safe for concurrent use.
type Rollup[K comparable, T Counts[T]] struct {
	Options[K, T]

	groups map[K]*group[K, T]
	last   *group[K, T] // the group of the last event, often that of the next one, too
	rest   group[K, T]
	// evicted records whether groups were moved to the rest since the run or the interval started.
	evicted struct{ run, interval bool }
	// lost counts lost changes: run excludes those in the current interval.
	lost struct{ run, interval uint64 }

	started       bool // the clock has a time
	begin, now    int64
	intervalBegin int64
	wall          int64 // distance from CLOCK_MONOTONIC to wall time, once seen is set
	seen          bool  // an event was seen
	active        bool  // something was counted in this interval
	finished      bool
}

// group counts twice: run excludes the counts of the current interval until it ends.
type group[K comparable, T any] struct {
	key           K
	run, interval counts[T]
}

type counts[T any] struct {
	T       T
	atLeast bool
}

// New returns an empty Rollup.
func New[K comparable, T Counts[T]](o Options[K, T]) *Rollup[K, T] {
	r := &Rollup[K, T]{Options: o, groups: make(map[K]*group[K, T])}
	r.rest.run.T, r.rest.interval.T = o.New(), o.New()
	return r
}

// See sets the clock from e, and reports the intervals that ended before it.
func (r *Rollup[K, T]) See(e *event.Event) error {
	r.seen, r.wall = true, e.Wall-e.Mono
	return r.Advance(e.Mono)
}

// Advance sets the clock to now, in ns of CLOCK_MONOTONIC, and reports the intervals that have
// ended. The run starts at the time of the first call. Before the first event there are no reports,
// because the wall time is unknown. Events from several CPUs are not strictly in order. The clock
// does not go back, so a late event counts in the interval in which it arrives.
func (r *Rollup[K, T]) Advance(now int64) error {
	if r.finished {
		return nil
	}
	if !r.started {
		r.started, r.begin, r.intervalBegin, r.now = true, now, now, now
	}
	r.now = max(r.now, now)
	interval := int64(r.Interval)
	if interval == 0 || !r.seen {
		return nil
	}
	for r.now-r.intervalBegin >= interval {
		end := r.intervalBegin + interval
		if r.idle() { // idle intervals share one report
			end = r.now - (r.now-r.intervalBegin)%interval
		}
		if err := r.endInterval(end, true); err != nil {
			return err
		}
	}
	return nil
}

// Lost counts changes that were lost.
func (r *Rollup[K, T]) Lost(changes uint64) { r.lost.interval += changes }

// At returns the counts of a group in the current interval. The caller adds an event to them.
func (r *Rollup[K, T]) At(key K) (T, error) {
	r.active = true
	if r.last != nil && r.last.key == key {
		return r.last.interval.T, nil
	}
	g := r.groups[key]
	if g == nil {
		if len(r.groups) >= Max {
			if !r.Evict {
				return r.rest.interval.T, nil
			}
			if err := r.evict(); err != nil {
				return r.rest.interval.T, err
			}
		}
		g = &group[K, T]{key: key, run: counts[T]{r.New(), r.evicted.run},
			interval: counts[T]{r.New(), r.evicted.interval}}
		r.groups[key] = g
	}
	r.last = g
	return g.interval.T, nil
}

// Finish reports the last interval, which may be shorter, and the whole run. It does nothing if no
// event was seen, or if it is called again.
func (r *Rollup[K, T]) Finish() error {
	if r.finished || !r.seen {
		return nil
	}
	r.finished = true
	if err := r.endInterval(r.now, r.Interval > 0 && !r.idle()); err != nil {
		return err
	}
	return r.report(
		Report[K, T]{Begin: r.begin, End: r.now, Lost: r.lost.run, Final: true, Rest: r.rest.run.T},
		func(g *group[K, T]) *counts[T] { return &g.run },
	)
}

// idle reports whether nothing was counted in this interval.
func (r *Rollup[K, T]) idle() bool { return !r.active && r.lost.interval == 0 }

// endInterval ends the interval at end, and starts the next one.
func (r *Rollup[K, T]) endInterval(end int64, report bool) error {
	if report {
		err := r.report(
			Report[K, T]{Begin: r.intervalBegin, End: end, Lost: r.lost.interval, Rest: r.rest.interval.T},
			func(g *group[K, T]) *counts[T] { return &g.interval },
		)
		if err != nil {
			return err
		}
	}
	if r.active {
		for _, g := range r.groups {
			if err := r.startInterval(g); err != nil {
				return err
			}
		}
		if err := r.startInterval(&r.rest); err != nil {
			return err
		}
	}
	r.lost.run, r.lost.interval = r.lost.run+r.lost.interval, 0
	r.evicted.interval, r.active = false, false
	r.intervalBegin = end
	return nil
}

func (r *Rollup[K, T]) startInterval(g *group[K, T]) error {
	g.interval.atLeast = false
	if g.interval.T.Total() == 0 {
		return nil
	}
	err := g.run.T.Merge(g.interval.T)
	g.interval.T = r.New()
	return err
}

// evict moves the smaller half of the groups to the rest.
func (r *Rollup[K, T]) evict() error {
	all := r.sorted(func(g *group[K, T]) uint64 { return g.run.T.Total() + g.interval.T.Total() })
	for _, z := range all[len(all)/2:] {
		if err := r.rest.run.T.Merge(z.run.T); err != nil {
			return err
		}
		if err := r.rest.interval.T.Merge(z.interval.T); err != nil {
			return err
		}
		delete(r.groups, z.key)
	}
	r.evicted.run, r.evicted.interval = true, true
	return nil
}

// sized is a group with its size.
type sized[K comparable, T any] struct {
	*group[K, T]
	size uint64
}

// sorted returns the groups whose size is not 0, the largest first.
func (r *Rollup[K, T]) sorted(size func(*group[K, T]) uint64) []sized[K, T] {
	all := make([]sized[K, T], 0, len(r.groups))
	for _, g := range r.groups {
		if n := size(g); n > 0 {
			all = append(all, sized[K, T]{g, n})
		}
	}
	slices.SortFunc(all, func(a, b sized[K, T]) int {
		if a.size != b.size {
			return cmp.Compare(b.size, a.size)
		}
		return r.Compare(a.key, b.key)
	})
	return all
}

// report completes a Report with the counts that part selects.
func (r *Rollup[K, T]) report(report Report[K, T], part func(*group[K, T]) *counts[T]) error {
	report.Wall, report.interval = report.End+r.wall, r.Interval
	for _, g := range r.sorted(func(g *group[K, T]) uint64 { return part(g).T.Total() }) {
		c := part(g.group)
		report.Groups = append(report.Groups, Group[K, T]{Key: g.key, Counts: c.T, AtLeast: c.atLeast})
	}
	return r.Report(&report)
}
