package stats

import (
	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/quantile"
)

// about holds the keys that follow the Head in each line of NDJSON. docs/ndjson.md describes the
// keys.
type about struct {
	Interval int64   `json:"interval_ns"`
	Final    bool    `json:"final"`
	By       *string `json:"by"`
	Group    *string `json:"group"`
	Others   bool    `json:"others"`
	AtLeast  bool    `json:"at_least"`
}

type edgeLine struct {
	ndjson.Head
	about
	Old   string `json:"old"`
	New   string `json:"new"`
	Count uint64 `json:"count"`
	Timed uint64 `json:"timed"`
	Min   *int64 `json:"min_ns"`
	P50   *int64 `json:"p50_ns"`
	P90   *int64 `json:"p90_ns"`
	P99   *int64 `json:"p99_ns"`
	P999  *int64 `json:"p999_ns"`
	Max   *int64 `json:"max_ns"`
}

type reasonLine struct {
	ndjson.Head
	about
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

func (v *View) reportJSON(r *report) error {
	a := about{Interval: r.End - r.Begin, Final: r.Final, By: ndjson.Known(v.By, "")}
	for _, g := range r.Groups {
		a.Group, a.AtLeast = g.Key.value(), g.AtLeast
		if err := v.countsJSON(r, a, g.Counts); err != nil {
			return err
		}
	}
	a.Group, a.AtLeast, a.Others = nil, false, true
	return v.countsJSON(r, a, r.Rest)
}

func (v *View) countsJSON(r *report, a about, c *counts) error {
	head := func(kind string) ndjson.Head { return ndjson.NewHead(kind, r.Wall, r.End) }
	for _, e := range c.rows() {
		if err := v.lines.JSON(newEdgeLine(head("stats"), a, e, c.edges[e])); err != nil {
			return err
		}
	}
	for _, reason := range c.byFrequency() {
		line := reasonLine{Head: head("reasons"), about: a, Reason: reason.String(), Count: c.reasons[reason]}
		if err := v.lines.JSON(&line); err != nil {
			return err
		}
	}
	return nil
}

func newEdgeLine(head ndjson.Head, a about, e event.Edge, t *quantile.Tally) *edgeLine {
	from, to := titles(e)
	q := func(q float64) *int64 { return quantileOf(t.Times, q) }
	return &edgeLine{
		Head: head, about: a, Old: from, New: to, Count: t.Count, Timed: t.Times.Count(),
		Min: q(0), P50: q(0.5), P90: q(0.9), P99: q(0.99), P999: q(0.999), Max: q(1),
	}
}

// quantileOf returns the q-quantile of times, or nil if there are no times.
func quantileOf(times *quantile.Sketch, q float64) *int64 {
	if times.Count() == 0 {
		return nil
	}
	ns := times.Quantile(q)
	return &ns
}
