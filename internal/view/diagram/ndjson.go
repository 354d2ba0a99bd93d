package diagram

import "sstrace/internal/ndjson"

// line is the NDJSON line about one kind of change. docs/ndjson.md describes the keys.
type line struct {
	ndjson.Head
	Old      string  `json:"old"`
	New      string  `json:"new"`
	Role     *string `json:"role"`
	Reason   *string `json:"reason"`
	InFigure bool    `json:"in_figure"`
	Count    uint64  `json:"count"`
	Timed    uint64  `json:"timed"`
	Min      *int64  `json:"min_ns"`
	Median   *int64  `json:"median_ns"`
	Max      *int64  `json:"max_ns"`
}

func (v *View) ndjson() error {
	for _, k := range v.kinds() {
		t := v.counts[k]
		l := line{
			Head: ndjson.NewHead("edge", v.last.wall, v.last.mono), Old: k.Old.String(), New: k.New.String(),
			Role: ndjson.Known(k.role.String(), ""), Reason: ndjson.Known(k.reason.String(), ""),
			InFigure: k.inFigure, Count: t.Count, Timed: t.Times.Count(),
		}
		if l.Timed > 0 {
			l.Min, l.Median, l.Max = new(t.Times.Min()), new(t.Times.Quantile(0.5)), new(t.Times.Max())
		}
		if err := v.lines.JSON(&l); err != nil {
			return err
		}
	}
	return nil
}
