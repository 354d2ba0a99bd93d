package handshakes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/quantile"
	"sstrace/internal/rollup"
	"sstrace/internal/text"
)

// maxShown is the number of groups that get their own table.
const maxShown = 20

var titles = [legs]string{"SYN", "SYN-ACK", "ACK", "ACCEPT", "SYN + SYN-ACK", "SYN-ACK + ACK", "WAIT FOR DATA"}

// tables writes the percentiles of each group. The smallest groups share one table.
func (v *View) tables(r *report) error {
	all, err := sum(r.Groups, r.Rest)
	if err != nil {
		return err
	}
	var b strings.Builder
	if v.wrote {
		b.WriteByte('\n')
	}
	v.wrote, v.tabled = true, true
	b.WriteString(r.Heading(all.amount()))
	if v.By == "" {
		all.table(&b)
		return v.lines.Text(b.String())
	}
	shown := min(maxShown, len(r.Groups))
	for _, g := range r.Groups[:shown] {
		fmt.Fprintf(&b, "\n%s %s: %s\n", v.By, text.Group(g.Key), g.Counts.amount())
		g.Counts.table(&b)
	}
	rest, err := sum(r.Groups[shown:], r.Rest)
	if err != nil {
		return err
	}
	if rest.Total() > 0 {
		fmt.Fprintf(&b, "\nall others: %s\n", rest.amount())
		rest.table(&b)
	}
	if r.Rest.Total() > 0 {
		fmt.Fprintf(&b, "\n--- more than %d groups: later ones are only in the last table ---\n", rollup.Max)
	}
	return v.lines.Text(b.String())
}

// sum adds up the tallies of groups and the rest.
func sum(groups []rollup.Group[string, *tally], rest *tally) (*tally, error) {
	all := newTally()
	for _, g := range groups {
		if err := all.Merge(g.Counts); err != nil {
			return nil, err
		}
	}
	return all, all.Merge(rest)
}

// amount returns the number of handshakes, in total and by state.
func (t *tally) amount() string {
	total := text.Count(t.Total(), "handshake")
	var parts []string
	for _, s := range []string{accepted, established, failed, open, lost} {
		if t.states[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t.states[s], s))
		}
	}
	if len(parts) == 0 {
		return total
	}
	return total + " (" + strings.Join(parts, ", ") + ")"
}

// table writes the percentiles of each leg, and the reasons why handshakes failed.
func (t *tally) table(b *strings.Builder) {
	if slices.ContainsFunc(t.times[:], func(q *quantile.Sketch) bool { return q != nil }) {
		fmt.Fprintf(b, "%-13s %10s %8s %8s %8s %8s %8s %8s\n",
			"LEG", "COUNT", "MIN", "P50", "P90", "P99", "P99.9", "MAX")
	}
	for i, title := range titles {
		p := newPercentiles(t.times[i])
		if p == nil {
			continue
		}
		fmt.Fprintf(b, "%-13s %10d", title, p.Count)
		for _, ns := range []int64{p.Min, p.P50, p.P90, p.P99, p.P999, p.Max} {
			fmt.Fprintf(b, " %8s", text.Time(ns))
		}
		b.WriteByte('\n')
	}
	reasons := slices.SortedFunc(maps.Keys(t.reasons), func(x, y event.Reason) int {
		return cmp.Or(cmp.Compare(t.reasons[y], t.reasons[x]), cmp.Compare(x, y))
	})
	if len(reasons) > 0 {
		fmt.Fprintf(b, "%-13s %10s\n", "FAILED", "COUNT")
	}
	for _, r := range reasons {
		fmt.Fprintf(b, "%-13s %10d\n", reasonName(r), t.reasons[r])
	}
}
