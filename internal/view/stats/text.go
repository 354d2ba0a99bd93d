package stats

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/text"
)

// shown is how many groups a person gets to see.
const shown = 20

// plurals of the groupings.
var plurals = map[string]string{"port": "ports", "remote": "remote addresses", "process": "names of processes", "container": "containers and units"}

func (s *Stats) greet() error {
	s.greeted, s.wrote = true, true
	if s.Interval > 0 {
		return s.lines.Text(fmt.Sprintf("Counting: a table comes each %v, that of the whole run at the end\n", s.Interval))
	}
	return s.lines.Text("Counting: the table comes at the end (--interval 10s: and each 10 seconds)\n")
}

func (s *Stats) tellText(of span, groups []sized, p func(*group) *part) error {
	var sum part
	for _, g := range groups {
		sum.count(p(g.group))
	}
	sum.count(p(&s.others))

	var b strings.Builder
	if s.wrote {
		b.WriteByte('\n')
	}
	s.wrote = true
	fmt.Fprintf(&b, "%s  %s in %v", s.clock(of.end), sum.amount(), length(of.end-of.begin))
	if of.final {
		b.WriteString(", the whole run")
	}
	b.WriteByte('\n')
	if of.lost > 0 {
		fmt.Fprintf(&b, "--- %d changes lost in this time, the ring buffer was full: a filter or a larger --buffer helps ---\n", of.lost)
	}
	if s.By == "" {
		for _, g := range groups {
			s.table(&b, p(g.group))
		}
	} else if err := s.groupTables(&b, groups, p); err != nil {
		return err
	}
	if of.final && sum.lines() > 0 {
		b.WriteString("\nTIMED: of COUNT, those where the beginning of OLD was seen. MIN and MAX are exact, P50 to P99.9 within ±1 %.\n")
	}
	return s.lines.Text(b.String())
}

// groupTables writes the table of each of the largest groups, and one of all others.
func (s *Stats) groupTables(b *strings.Builder, groups []sized, of func(*group) *part) error {
	for _, g := range groups[:min(shown, len(groups))] {
		p := of(g.group)
		fmt.Fprintf(b, "\n%s %s: %s", s.By, g.name, p.amount())
		if p.atLeast {
			b.WriteString(" or more")
		}
		b.WriteByte('\n')
		s.table(b, p)
	}
	groups = groups[min(shown, len(groups)):]
	var others part
	if err := others.add(of(&s.others)); err != nil {
		return err
	}
	tooMany := others.lines() > 0
	for _, g := range groups {
		if err := others.add(of(g.group)); err != nil {
			return err
		}
	}
	switch {
	case others.lines() == 0:
		return nil
	case tooMany:
		fmt.Fprintf(b, "\nall other %s: %s\n", plurals[s.By], others.amount())
	case len(groups) == 1:
		fmt.Fprintf(b, "\none other %s: %s\n", s.By, others.amount())
	default:
		fmt.Fprintf(b, "\n%d other %s: %s\n", len(groups), plurals[s.By], others.amount())
	}
	s.table(b, &others)
	if tooMany {
		fmt.Fprintf(b, "\n--- more than %d %s: where it says \"or more\", some earlier ones may be in the last table ---\n", most, plurals[s.By])
	}
	return nil
}

// table writes that of one group.
func (s *Stats) table(b *strings.Builder, p *part) {
	rows := p.rows()
	fmt.Fprintf(b, "OLD         → NEW              COUNT      TIMED      MIN      P50      P90      P99    P99.9      MAX\n")
	for _, r := range rows {
		from, to := r.names()
		fmt.Fprintf(b, "%-11s → %-11s %10d %10d", from, to, r.count, r.times.Count())
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			cell := "-"
			if ns := quantileOf(r.times, q); ns != nil {
				cell = text.Time(*ns)
			}
			fmt.Fprintf(b, " %8s", cell)
		}
		b.WriteByte('\n')
	}
	if why := p.why(); len(why) > 0 {
		fmt.Fprintf(b, "\n%-25s %10s %10s\n", "REASON", "COUNT", "SHARE")
		all := uint64(0)
		for _, w := range why {
			all += w.count
		}
		for _, w := range why {
			fmt.Fprintf(b, "%-25s %10d %10s\n", w.Reason, w.count, share(w.count, all))
		}
	}
	if s.Histogram {
		for _, r := range rows {
			if r.times.Count() > 0 {
				histogram(b, r)
			}
		}
	}
}

// histogram writes that of one change as the tools of bcc do (funclatency, biolatency), but for labels with units.
func histogram(b *strings.Builder, r row) {
	const width = 40
	from, to := r.names()
	octaves := r.times.Octaves()
	first := slices.IndexFunc(octaves, func(count uint64) bool { return count > 0 })
	fullest := slices.Max(octaves)
	fmt.Fprintf(b, "\n%s → %s\n  %20s : %-10s distribution\n", from, to, "time", "count")
	for i := first; i < len(octaves); i++ {
		low, high := int64(0), int64(math.MaxInt64) // the first is of 0 ns alone, the last ends at 2^63
		if i > 0 {
			low = 1 << (i - 1)
		}
		if i < 63 {
			high = 1 << i
		}
		stars := int(float64(octaves[i]) / float64(fullest) * width)
		fmt.Fprintf(b, "  %8s -> %-8s : %-10d |%-40s|\n", text.Time(low), text.Time(high), octaves[i], strings.Repeat("*", stars))
	}
}

func (n name) String() string {
	cell := n.json()
	if cell == nil {
		return "-"
	}
	if n.text != "" && containerID(n.text) {
		return n.text[:12] // as docker ps has it
	}
	return text.Visible(*cell)
}

func containerID(text string) bool {
	return len(text) == 64 && strings.Trim(text, "0123456789abcdef") == ""
}

// clock gives the time of day; of a fraction of a second only where there may be several tables in one.
func (s *Stats) clock(mono int64) string {
	layout := "15:04:05"
	if s.Interval%time.Second != 0 {
		layout = "15:04:05.000"
	}
	return time.Unix(0, mono+s.wall).Format(layout)
}

// count adds how many lines o has, and nothing else of it.
func (p *part) count(o *part) {
	p.changes += o.changes
	p.accepted += o.accepted
	p.failed += o.failed
}

func (p *part) amount() string {
	text := strconv.FormatUint(p.changes, 10) + " changes"
	switch p.changes {
	case 0:
		text = "no changes"
	case 1:
		text = "1 change"
	}
	if p.accepted > 0 {
		text += fmt.Sprintf(", %d accepted", p.accepted)
	}
	if p.failed > 0 {
		text += fmt.Sprintf(", %d failed to connect", p.failed)
	}
	return text
}

// length is how long a span is, to the millisecond if it has any.
func length(ns int64) time.Duration {
	if d := time.Duration(ns).Round(time.Millisecond); d > 0 {
		return d
	}
	return time.Duration(ns)
}

func share(count, all uint64) string {
	percent := 100 * float64(count) / float64(all)
	if percent < 0.1 {
		return "<0.1%"
	}
	return strconv.FormatFloat(percent, 'f', 1, 64) + "%"
}
