package main

import (
	"errors"

	"sstrace/internal/session"
	"sstrace/internal/view/stats"

	"github.com/spf13/cobra"
)

// newStats returns the command that counts changes.
func newStats() *question {
	var o stats.Options
	return &question{
		Command: cobra.Command{
			Use:   "stats",
			Short: "Count state changes, and show how long each state lasted",
			Long: `stats counts the changes from each state to every other state, and shows the percentiles of the
time spent in the state that was left, how long connections waited for accept(), and why they
ended. It prints a table for the whole run at its end and, with --interval, one after each
interval.`,
			Example: `  sudo sstrace stats --interval 10s                       a table every 10 seconds, then one for the whole run
  sudo sstrace stats --by port -- curl -s localhost:8080  while a command runs, a table for each server port
  sstrace stats -r trace.ndjson --histogram               from a recording`,
		},
		formats: stats.Formats,
		flags: func(f *flags) {
			f.Var((*positiveTime)(&o.Interval), "interval", "also print a table every `time`, such as 10s")
			f.choice(&o.By, "by", stats.Groupings, "print a table for each `group`")
			f.BoolVar(&o.Histogram, "histogram", false, "draw a histogram of the times for each change")
		},
		start: func(out *session.Output, format string) (session.View, error) {
			if o.Histogram && format != "text" {
				return nil, usageError{errors.New("--histogram draws in text: omit -o " + format + ", or --histogram")}
			}
			return stats.New(out, format, o), nil
		},
	}
}
