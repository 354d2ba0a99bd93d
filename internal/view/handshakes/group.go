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

// most is how many groups are kept; what belongs to another is counted in others.
const most = 1000

// group counts twice: whole lacks what period has until that is over.
type group struct {
	name          string
	whole, period *tally
}

// tally is what was counted in some time.
type tally struct {
	states map[string]uint64
	why    map[event.Reason]uint64 // of those that failed
	times  [legs]*quantile.Sketch  // of those that succeeded; nil: none
}

func newGroup() *group { return &group{whole: newTally(), period: newTally()} }

func newTally() *tally {
	return &tally{states: make(map[string]uint64), why: make(map[event.Reason]uint64)}
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

// add adds all that o has.
func (t *tally) add(o *tally) error {
	for s, n := range o.states {
		t.states[s] += n
	}
	for r, n := range o.why {
		t.why[r] += n
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
func (h *Handshakes) count(c pair.Conn, state string, of [legs]int64) {
	name := h.name(c)
	g := h.groups[name]
	if g == nil {
		if g = h.others; len(h.groups) < most {
			g = newGroup()
			g.name = name
			h.groups[name] = g
		}
	}
	g.period.states[state]++
	switch state {
	case failed:
		reason, _, _ := why(c)
		g.period.why[reason]++
	case accepted, established:
		for i, ns := range of {
			if ns != event.Unknown {
				g.period.leg(i).Add(ns)
			}
		}
	}
}

// name is that of the group of c; "" if it is not known.
func (h *Handshakes) name(c pair.Conn) string {
	end := c.Server
	if end == nil {
		end = c.Client
	}
	server, remote := end.Local, end.Remote
	if c.Server == nil {
		server = end.Remote
	}
	switch h.By {
	case "port":
		if server.Port() != 0 {
			return strconv.Itoa(int(server.Port()))
		}
	case "remote":
		if remote.Addr().IsValid() {
			return event.Scoped(remote.Addr(), end.Zone()).String()
		}
	case "process":
		return who(end).Comm
	case "container":
		return cmp.Or(end.Container(), end.Unit())
	}
	return ""
}

func (h *Handshakes) idle() bool {
	for _, g := range h.groups {
		if g.period.handshakes() > 0 {
			return false
		}
	}
	return h.others.period.handshakes() == 0 && h.lost.now == 0
}

// span is the time that is told of.
type span struct {
	begin, end int64 // CLOCK_MONOTONIC
	lost       uint64
	final      bool // it is the whole run
}

// endPeriod begins the next one.
func (h *Handshakes) endPeriod(end int64, tell bool) error {
	if tell {
		if err := h.tellAll(span{begin: h.period, end: end, lost: h.lost.now}, func(g *group) *tally { return g.period }); err != nil {
			return err
		}
	}
	h.lost.run, h.lost.now = h.lost.run+h.lost.now, 0
	h.period = end
	for _, g := range h.groups {
		if err := g.endPeriod(); err != nil {
			return err
		}
	}
	return h.others.endPeriod()
}

// sorted gives the groups that have any handshakes, those with most first.
func (h *Handshakes) sorted(of func(*group) *tally) []*group {
	all := slices.Collect(maps.Values(h.groups))
	all = slices.DeleteFunc(all, func(g *group) bool { return of(g).handshakes() == 0 })
	slices.SortFunc(all, func(a, b *group) int {
		return cmp.Or(cmp.Compare(of(b).handshakes(), of(a).handshakes()), cmp.Compare(a.name, b.name))
	})
	return all
}

func (h *Handshakes) tellAll(of span, part func(*group) *tally) error {
	if h.text {
		return h.tables(of, part)
	}
	for _, g := range h.sorted(part) {
		if err := h.lines.JSON(h.summary(of, part(g), g.name, false)); err != nil {
			return err
		}
	}
	if t := part(h.others); t.handshakes() > 0 {
		return h.lines.JSON(h.summary(of, t, "", true))
	}
	return nil
}
