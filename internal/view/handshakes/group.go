package handshakes

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"sstrace/internal/event"
	"sstrace/internal/pair"
	"sstrace/internal/quantile"
)

// maxGroups bounds the number of groups. The rest is counted in View.others.
const maxGroups = 1000

// group counts handshakes. Each one is first in period only; whole receives it when that ends.
type group struct {
	name          string
	whole, period *tally
}

// tally is what was counted in some time.
type tally struct {
	states  map[string]uint64
	reasons map[event.Reason]uint64 // of the handshakes that failed
	times   [legs]*quantile.Sketch  // of the handshakes that succeeded; nil if a leg was never measured
}

func newGroup() *group { return &group{whole: newTally(), period: newTally()} }

func newTally() *tally {
	return &tally{states: make(map[string]uint64), reasons: make(map[event.Reason]uint64)}
}

func (t *tally) handshakes() (n uint64) {
	for _, count := range t.states {
		n += count
	}
	return n
}

func (t *tally) leg(i int) *quantile.Sketch {
	if t.times[i] == nil {
		t.times[i] = quantile.New()
	}
	return t.times[i]
}

// add adds everything in o.
func (t *tally) add(o *tally) error {
	for s, n := range o.states {
		t.states[s] += n
	}
	for r, n := range o.reasons {
		t.reasons[r] += n
	}
	for i, times := range o.times {
		if times == nil {
			continue
		}
		if err := t.leg(i).Merge(times); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) endPeriod() error {
	err := g.whole.add(g.period)
	g.period = newTally()
	return err
}

// count adds a handshake to its group.
func (v *View) count(c pair.Conn, state string, of [legs]int64) {
	name := v.groupName(c)
	g := v.groups[name]
	if g == nil {
		if g = v.others; len(v.groups) < maxGroups {
			g = newGroup()
			g.name = name
			v.groups[name] = g
		}
	}
	g.period.states[state]++
	switch state {
	case failed:
		reason, _, _ := failure(c)
		g.period.reasons[reason]++
	case accepted, established:
		for i, ns := range of {
			if ns != event.Unknown {
				g.period.leg(i).Add(ns)
			}
		}
	}
}

// groupName returns the name of the group of c, or "" if it is unknown.
func (v *View) groupName(c pair.Conn) string {
	end := c.Server
	if end == nil {
		end = c.Client
	}
	server, remote := end.Local, end.Remote
	if c.Server == nil {
		server = end.Remote
	}
	switch v.By {
	case "port":
		if server.Port() != 0 {
			return strconv.Itoa(int(server.Port()))
		}
	case "remote":
		if remote.Addr().IsValid() {
			return event.Scoped(remote.Addr(), end.Zone()).String()
		}
	case "process":
		return owner(end).Comm
	case "container":
		return cmp.Or(end.Container(), end.Unit())
	}
	return ""
}

// idle reports whether nothing happened in the current interval.
func (v *View) idle() bool {
	for _, g := range v.groups {
		if g.period.handshakes() > 0 {
			return false
		}
	}
	return v.others.period.handshakes() == 0 && v.lost.period == 0
}

// span is the time that a summary is about.
type span struct {
	begin, end int64 // CLOCK_MONOTONIC
	lost       uint64
	final      bool // the whole run
}

// endPeriod ends the current interval, reports it if report is set, and begins the next one.
func (v *View) endPeriod(end int64, report bool) error {
	if report {
		period := span{begin: v.period, end: end, lost: v.lost.period}
		if err := v.summarize(period, func(g *group) *tally { return g.period }); err != nil {
			return err
		}
	}
	v.lost.before, v.lost.period = v.lost.before+v.lost.period, 0
	v.period = end
	for _, g := range v.groups {
		if err := g.endPeriod(); err != nil {
			return err
		}
	}
	return v.others.endPeriod()
}

// sorted returns the groups that have handshakes, the largest first.
func (v *View) sorted(part func(*group) *tally) []*group {
	all := slices.Collect(maps.Values(v.groups))
	all = slices.DeleteFunc(all, func(g *group) bool { return part(g).handshakes() == 0 })
	slices.SortFunc(all, func(a, b *group) int {
		return cmp.Or(cmp.Compare(part(b).handshakes(), part(a).handshakes()), cmp.Compare(a.name, b.name))
	})
	return all
}

// summarize reports the percentiles of each group in a span. part selects its tally of a group.
func (v *View) summarize(of span, part func(*group) *tally) error {
	if v.text {
		return v.tables(of, part)
	}
	for _, g := range v.sorted(part) {
		if err := v.lines.JSON(v.newSummary(of, part(g), g.name, false)); err != nil {
			return err
		}
	}
	if t := part(v.others); t.handshakes() > 0 {
		return v.lines.JSON(v.newSummary(of, t, "", true))
	}
	return nil
}
