package rollup

import (
	"fmt"
	"time"

	"sstrace/internal/text"
)

// Idle reports whether nothing was counted and nothing was lost.
func (r *Report[K, T]) Idle() bool {
	return len(r.Groups) == 0 && r.Rest.Total() == 0 && r.Lost == 0
}

// Heading returns the line that starts a report for a person. The line contains the time of day,
// how much was counted, and over how long. A second line reports lost changes.
func (r *Report[K, T]) Heading(amount string) string {
	line := fmt.Sprintf("%s  %s in %v", text.TimeOfDay(r.Wall, r.interval), amount, rounded(r.End-r.Begin))
	if r.Final {
		line += ", the whole run"
	}
	line += "\n"
	if r.Lost > 0 {
		line += text.LostInPeriod(r.Lost)
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
