package handshakes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/quantile"
	"sstrace/internal/text"
)

// maxShown is the number of groups with a table of their own.
const maxShown = 20

var titles = [legs]string{"SYN", "SYN-ACK", "ACK", "ACCEPT", "SYN + SYN-ACK", "SYN-ACK + ACK", "WAIT FOR DATA"}

// tables writes the percentiles of each group in a span, the smallest groups together.
func (v *View) tables(of span, part func(*group) *tally) error {
	groups := v.sorted(part)
	all, err := sum(append(groups[:len(groups):len(groups)], v.others), part)
	if err != nil {
		return err
	}
	var b strings.Builder
	if v.wrote {
		b.WriteByte('\n')
	}
	v.wrote, v.tabled = true, true
	length := time.Duration(of.end - of.begin).Round(time.Millisecond)
	fmt.Fprintf(&b, "%s  %s in %v", text.TimeOfDay(of.end+v.wall, v.Interval), all.amount(), length)
	if of.final {
		b.WriteString(", the whole run")
	}
	b.WriteByte('\n')
	if of.lost > 0 {
		b.WriteString(text.LostInPeriod(of.lost))
	}
	if v.By == "" {
		all.table(&b)
		return v.lines.Text(b.String())
	}
	shown := min(maxShown, len(groups))
	for _, g := range groups[:shown] {
		t := part(g)
		fmt.Fprintf(&b, "\n%s %s: %s\n", v.By, text.Group(g.name), t.amount())
		t.table(&b)
	}
	rest, err := sum(append(groups[shown:], v.others), part)
	if err != nil {
		return err
	}
	if rest.handshakes() > 0 {
		fmt.Fprintf(&b, "\nall others: %s\n", rest.amount())
		rest.table(&b)
	}
	if part(v.others).handshakes() > 0 {
		fmt.Fprintf(&b, "\n--- more than %d groups: later ones are only in the last table ---\n", maxGroups)
	}
	return v.lines.Text(b.String())
}

// sum adds up the tallies of groups.
func sum(groups []*group, part func(*group) *tally) (*tally, error) {
	all := newTally()
	for _, g := range groups {
		if err := all.add(part(g)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// amount returns the number of handshakes, in all and by state.
func (t *tally) amount() string {
	total := text.Count(t.handshakes(), "handshake")
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

// table writes the percentiles of each leg, and why handshakes failed.
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
