package stats

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/quantile"
	"sstrace/internal/rollup"
	"sstrace/internal/text"
)

// shown is the number of groups that are shown to a person.
const shown = 20

// plurals holds the plural of each grouping.
var plurals = map[string]string{"port": "ports", "remote": "remote addresses", "process": "process names",
	"container": "containers and units"}

// greet says when the first table is due.
func (v *View) greet() error {
	v.greeted, v.wrote = true, true
	if v.Interval > 0 {
		return v.lines.Text(fmt.Sprintf("Counting: one table every %v, and one of the whole run at the end\n",
			v.Interval))
	}
	return v.lines.Text("Counting: the table comes at the end; --interval 10s prints one every 10 seconds, too\n")
}

func (v *View) reportText(r *report) error {
	sum := r.Rest.amount
	for _, g := range r.Groups {
		sum.addAll(&g.Counts.amount)
	}
	var b strings.Builder
	if v.wrote {
		b.WriteByte('\n')
	}
	v.wrote = true
	b.WriteString(r.Heading(sum.String()))
	if v.By == "" {
		for _, g := range r.Groups {
			v.table(&b, g.Counts)
		}
	} else if err := v.groupTables(&b, r); err != nil {
		return err
	}
	if r.Final && sum.Total() > 0 {
		b.WriteString("\nTIMED counts the changes for which the beginning of OLD was seen. MIN and MAX are exact, P50 to P99.9 within ±1 %.\n")
	}
	return v.lines.Text(b.String())
}

// groupTables writes a table for each of the largest groups, and one table for all others together.
func (v *View) groupTables(b *strings.Builder, r *report) error {
	large, small := r.Groups[:min(shown, len(r.Groups))], r.Groups[min(shown, len(r.Groups)):]
	for _, g := range large {
		fmt.Fprintf(b, "\n%s %s: %s", v.By, g.Key, &g.Counts.amount)
		if g.AtLeast {
			b.WriteString(" or more")
		}
		b.WriteByte('\n')
		v.table(b, g.Counts)
	}
	others := newCounts()
	if err := others.Merge(r.Rest); err != nil {
		return err
	}
	for _, g := range small {
		if err := others.Merge(g.Counts); err != nil {
			return err
		}
	}
	evicted := r.Rest.Total() > 0
	switch {
	case others.Total() == 0:
		return nil
	case evicted:
		fmt.Fprintf(b, "\nall other %s: %s\n", plurals[v.By], &others.amount)
	case len(small) == 1:
		fmt.Fprintf(b, "\none other %s: %s\n", v.By, &others.amount)
	default:
		fmt.Fprintf(b, "\n%d other %s: %s\n", len(small), plurals[v.By], &others.amount)
	}
	v.table(b, others)
	if evicted {
		fmt.Fprintf(b, "\n--- more than %d %s: \"or more\" means that earlier changes may be counted in the last table ---\n", rollup.Max, plurals[v.By])
	}
	return nil
}

// table writes the edges and the reasons. If histograms are wanted, it writes those, too.
func (v *View) table(b *strings.Builder, c *counts) {
	rows := c.rows()
	b.WriteString("OLD         → NEW              COUNT      TIMED      MIN      P50      P90      P99    P99.9      MAX\n")
	for _, e := range rows {
		from, to := titles(e)
		t := c.edges[e]
		fmt.Fprintf(b, "%-11s → %-11s %10d %10d", from, to, t.Count, t.Times.Count())
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			cell := "-"
			if ns := quantileOf(t.Times, q); ns != nil {
				cell = text.Time(*ns)
			}
			fmt.Fprintf(b, " %8s", cell)
		}
		b.WriteByte('\n')
	}
	if len(c.reasons) > 0 {
		fmt.Fprintf(b, "\n%-25s %10s %10s\n", "REASON", "COUNT", "SHARE")
		all := uint64(0)
		for _, n := range c.reasons {
			all += n
		}
		for _, reason := range c.byFrequency() {
			n := c.reasons[reason]
			fmt.Fprintf(b, "%-25s %10d %10s\n", reason, n, share(n, all))
		}
	}
	if v.Histogram {
		for _, e := range rows {
			if times := c.edges[e].Times; times.Count() > 0 {
				histogram(b, e, times)
			}
		}
	}
}

// histogram writes the times of an edge in the style of the bcc tools funclatency and biolatency.
// Unlike theirs, its labels have units.
func histogram(b *strings.Builder, e event.Edge, times *quantile.Sketch) {
	const width = 40
	from, to := titles(e)
	octaves := times.Octaves()
	first := slices.IndexFunc(octaves, func(count uint64) bool { return count > 0 })
	fullest := slices.Max(octaves)
	fmt.Fprintf(b, "\n%s → %s\n  %20s : %-10s distribution\n", from, to, "time", "count")
	for i := first; i < len(octaves); i++ {
		low, high := int64(0), int64(math.MaxInt64) // the first octave is just 0 ns, and the last one ends at 2^63
		if i > 0 {
			low = 1 << (i - 1)
		}
		if i < 63 {
			high = 1 << i
		}
		stars := int(float64(octaves[i]) / float64(fullest) * width)
		fmt.Fprintf(b, "  %8s -> %-8s : %-10d |%-40s|\n", text.Time(low), text.Time(high), octaves[i],
			strings.Repeat("*", stars))
	}
}

// String returns the amount in words.
func (a *amount) String() string {
	text := strconv.FormatUint(a.changes, 10) + " changes"
	switch a.changes {
	case 0:
		text = "no changes"
	case 1:
		text = "1 change"
	}
	if a.accepted > 0 {
		text += fmt.Sprintf(", %d accepted", a.accepted)
	}
	if a.failed > 0 {
		text += fmt.Sprintf(", %d failed to connect", a.failed)
	}
	return text
}

// share returns count as a percentage of all.
func share(count, all uint64) string {
	percent := 100 * float64(count) / float64(all)
	if percent < 0.1 {
		return "<0.1%"
	}
	return strconv.FormatFloat(percent, 'f', 1, 64) + "%"
}
