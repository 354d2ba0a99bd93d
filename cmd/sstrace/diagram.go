package main

import (
	"errors"

	"sstrace/internal/session"
	"sstrace/internal/view/diagram"

	"github.com/spf13/cobra"
)

// newDiagram returns the command that draws the state diagram.
func newDiagram() *question {
	return &question{
		Command: cobra.Command{
			Use:   "diagram",
			Short: "Draw the state diagram of RFC 9293 with the paths that connections took",
			Long: `diagram draws the TCP state diagram (RFC 9293, figure 5). Each edge shows how often clients and
servers took it, and the median time spent in the state that was left; each state shows how many
connections ended there in a way that is not in the figure, and why. It draws once: at the end of
a recording or, live, after Ctrl-C, --for, or the end of COMMAND. -o svg is for a browser, text
for a terminal, and dot for Graphviz; ndjson has a line for each kind of change.`,
			Example: `  sudo sstrace diagram --for 10s -w diagram.svg
  sudo sstrace diagram -o text -p 6379 -- redis-cli -p 6379 ping
  sstrace diagram -o text -r trace.ndjson`,
		},
		formats: diagram.Formats,
		start: func(out *session.Output, format string) (session.View, error) {
			if format == "svg" && out.Terminal() {
				return nil, usageError{errors.New("a terminal does not show SVG: use -w diagram.svg, or -o text")}
			}
			return diagram.New(out, format, out.Color()), nil
		},
	}
}
