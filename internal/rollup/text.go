package rollup

import (
	"fmt"
	"time"
)

// Idle reports whether nothing was counted and nothing lost.
func (r *Report[K, T]) Idle() bool {
	return len(r.Groups) == 0 && r.Rest.Total() == 0 && r.Lost == 0
}

// Heading returns the line that begins a report for a person: its time of day, how much was counted,
// and in how long. A second line reports changes that were lost.
func (r *Report[K, T]) Heading(amount string) string {
	layout := "15:04:05"
	if r.interval%time.Second != 0 { // several reports may be of the same second
		layout = "15:04:05.000"
	}
	line := fmt.Sprintf("%s  %s in %v", time.Unix(0, r.Wall).Format(layout), amount, rounded(r.End-r.Begin))
	if r.Final {
		line += ", the whole run"
	}
	line += "\n"
	if r.Lost > 0 {
		line += fmt.Sprintf("--- %d changes lost in this time, the ring buffer was full: a filter or a larger --buffer helps ---\n", r.Lost)
	}
	return line
}

// rounded returns ns to the millisecond, or exactly if that is 0.
func rounded(ns int64) time.Duration {
	if d := time.Duration(ns).Round(time.Millisecond); d > 0 {
		return d
	}
	return time.Duration(ns)
}
