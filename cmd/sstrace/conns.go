package main

import (
	"errors"

	"sstrace/internal/session"
	"sstrace/internal/view/conns"

	"github.com/spf13/cobra"
)

// newConns returns the command that sums up each connection when it is over.
func newConns() *question {
	var timeline bool
	return &question{
		Command: cobra.Command{
			Use:   "conns",
			Short: "Sum up each connection when it is over: lifetime, bytes, and who closed first",
			Long: `conns prints a line for each end of a connection when its full socket is gone, that is, when it
changes to CLOSE or TIME_WAIT, and a line for each end that is still open when the run ends. If
both ends of a connection are on this host, that makes two lines. With --timeline it draws each
connection once both ends are over: every state change at either end, the time between them, and
the segments that caused them.`,
			Example: `  sudo sstrace conns                                        each connection, as it ends
  sudo sstrace conns --timeline -p 6379                     both ends of each, drawn
  sudo sstrace conns -- curl -s localhost:8080              for one command
  sstrace conns -r trace.ndjson                             from a recording`,
		},
		formats: conns.Formats,
		whole:   true,
		flags: func(f *flags) {
			f.BoolVar(&timeline, "timeline", false, "draw each connection, with both ends side by side")
		},
		start: func(out *session.Output, format string) (session.View, error) {
			if timeline && format != "text" {
				return nil, usageError{errors.New("--timeline draws in text: omit -o " + format + ", or --timeline")}
			}
			return conns.New(out, format, out.Color(), timeline), nil
		},
	}
}
