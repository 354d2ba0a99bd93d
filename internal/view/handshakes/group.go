package handshakes

import (
	"cmp"
	"strconv"

	"sstrace/internal/event"
	"sstrace/internal/pair"
	"sstrace/internal/quantile"
	"sstrace/internal/rollup"
)

// tally holds the counts for a period of time.
type tally struct {
	states  map[string]uint64
	reasons map[event.Reason]uint64 // for handshakes that failed
	times   [legs]*quantile.Sketch  // for handshakes that succeeded; nil if the leg was never measured
}

func newTally() *tally {
	return &tally{states: make(map[string]uint64), reasons: make(map[event.Reason]uint64)}
}

// Total implements rollup.Counts.
func (t *tally) Total() (n uint64) {
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

// Merge implements rollup.Counts.
func (t *tally) Merge(o *tally) error {
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

// count adds a handshake to its group.
func (v *View) count(c pair.Conn, state string, of [legs]int64) error {
	t, err := v.groups.At(v.groupName(c))
	if err != nil {
		return err
	}
	t.states[state]++
	switch state {
	case failed:
		reason, _, _ := failure(c)
		t.reasons[reason]++
	case accepted, established:
		for i, ns := range of {
			if ns != event.Unknown {
				t.leg(i).Add(ns)
			}
		}
	}
	return nil
}

// groupName returns the name of the group that c belongs to, or "" if it is unknown.
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

// report holds the counts for an interval or for the whole run.
type report = rollup.Report[string, *tally]

// summarize reports the percentiles of each group. It reports nothing for an idle interval.
func (v *View) summarize(r *report) error {
	switch {
	case r.Idle() && !r.Final:
		return nil
	case v.text:
		return v.tables(r)
	}
	for _, g := range r.Groups {
		if err := v.lines.JSON(v.newSummary(r, g.Counts, g.Key, false)); err != nil {
			return err
		}
	}
	if r.Rest.Total() > 0 {
		return v.lines.JSON(v.newSummary(r, r.Rest, "", true))
	}
	return nil
}
