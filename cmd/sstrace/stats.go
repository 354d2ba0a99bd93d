package main

import (
	"errors"
	"io"
	"slices"
	"strings"

	"sstrace/internal/view/stats"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newStats returns the command that counts.
func newStats() *question {
	var o stats.Options
	q := &question{
		Command: cobra.Command{
			Use:   "stats",
			Short: "Count the changes from each state to each other, and tell how long the states lasted",
			Long: `stats counts the changes from each state to each other and tells the percentiles of the time in the state on the left; how long connections
waited for accept(); and why they ended. It tells of the whole run at its end, and with --interval of each interval when that is over.`,
			Example: `  sudo sstrace stats --interval 10s                       a table each 10 seconds, at the end that of the whole run
  sudo sstrace stats --by port -- curl -s localhost:8080  while a command runs, one table for each port of a server
  sstrace stats -r trace.ndjson --histogram               of a recording`,
		},
		formats: stats.Formats,
		start: func(out io.Writer, format string, _ bool) (view, error) {
			if o.Histogram && format != "text" {
				return nil, usageError{errors.New("--histogram draws in text: leave out -o " + format + ", or --histogram")}
			}
			return stats.New(out, format, o), nil
		},
	}
	q.flags = func(f *pflag.FlagSet) {
		f.Var((*positiveTime)(&o.Interval), "interval", "tell of each `time`, too: 10s")
		f.Var((*grouping)(&o.By), "by", "one table for each `group`: "+strings.Join(stats.Groupings, ", "))
		f.BoolVar(&o.Histogram, "histogram", false, "draw a histogram of the times of each change")
		complete(&q.Command, "by", stats.Groupings)
	}
	return q
}

// grouping is a choice on the command line.
type grouping string

func (g *grouping) String() string { return "" } // none is given
func (g *grouping) Type() string   { return "group" }

// Set implements pflag.Value.
func (g *grouping) Set(text string) error {
	if !slices.Contains(stats.Groupings, text) {
		return errors.New("the groups are " + strings.Join(stats.Groupings, ", "))
	}
	*g = grouping(text)
	return nil
}
