package main

import (
	"errors"
	"io"

	"sstrace/internal/view/conns"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newConns returns the command that reports each connection when it is over.
func newConns() *question {
	var timeline bool
	q := &question{
		Command: cobra.Command{
			Use:   "conns",
			Short: "Tell of each connection when it is over: life, states, bytes, and who closed first",
			Long: `conns prints a line for each end of a connection when its full socket is gone, that is at the change to CLOSE or TIME_WAIT, and at the end of the
run for those that are open. Both ends of a connection within this host are two lines. With --timeline it draws each connection instead, when both
ends are over: every change of state at either end, the time between them, and the segments that caused them.`,
			Example: `  sudo sstrace conns                                        each connection, as it ends
  sudo sstrace conns --timeline -p 6379                     both ends of each, drawn
  sudo sstrace conns -- curl -s localhost:8080              of one command
  sstrace conns -r trace.ndjson                             of a recording`,
		},
		formats: conns.Formats,
		whole:   true,
		flags: func(f *pflag.FlagSet) {
			f.BoolVar(&timeline, "timeline", false, "draw each connection, both ends side by side")
		},
		start: func(out io.Writer, format string, color bool) (view, error) {
			if timeline && format != "text" {
				return nil, usageError{errors.New("--timeline draws in text: leave out -o " + format + ", or --timeline")}
			}
			return conns.New(out, format, color, timeline), nil
		},
	}
	return q
}
