package stats

import (
	"strconv"

	"sstrace/internal/ndjson"
	"sstrace/internal/quantile"
)

// about is how each line of NDJSON goes on after its Head; docs/ndjson.md has the keys.
type about struct {
	Interval int64   `json:"interval_ns"`
	Final    bool    `json:"final"`
	By       *string `json:"by"`
	Group    *string `json:"group"`
	Others   bool    `json:"others"`
	AtLeast  bool    `json:"at_least"`
}

type changeLine struct {
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

func (n name) json() *string {
	text := n.text
	switch {
	case n.port != 0:
		text = strconv.Itoa(int(n.port))
	case n.addr.IsValid():
		text = n.addr.String()
	}
	return ndjson.Known(text, "")
}

func (s *Stats) tellJSON(of span, groups []sized, part func(*group) *part) error {
	a := about{Interval: of.end - of.begin, Final: of.final, By: ndjson.Known(s.By, "")}
	for _, g := range groups {
		p := part(g.group)
		a.Group, a.AtLeast = g.name.json(), p.atLeast
		if err := s.partJSON(of, a, p); err != nil {
			return err
		}
	}
	a.Group, a.AtLeast, a.Others = nil, false, true
	return s.partJSON(of, a, part(&s.others))
}

func (s *Stats) partJSON(of span, a about, p *part) error {
	for _, r := range p.rows() {
		from, to := r.names()
		line := changeLine{
			Head: ndjson.NewHead("stats", of.end+s.wall, of.end), about: a, Old: from, New: to, Count: r.count, Timed: r.times.Count(),
			Min: quantileOf(r.times, 0), P50: quantileOf(r.times, 0.5), P90: quantileOf(r.times, 0.9), P99: quantileOf(r.times, 0.99),
			P999: quantileOf(r.times, 0.999), Max: quantileOf(r.times, 1),
		}
		if err := s.lines.JSON(&line); err != nil {
			return err
		}
	}
	for _, w := range p.why() {
		line := reasonLine{Head: ndjson.NewHead("reasons", of.end+s.wall, of.end), about: a, Reason: w.String(), Count: w.count}
		if err := s.lines.JSON(&line); err != nil {
			return err
		}
	}
	return nil
}

func quantileOf(times *quantile.Sketch, q float64) *int64 {
	if times.Count() == 0 {
		return nil
	}
	ns := times.Quantile(q)
	return &ns
}
