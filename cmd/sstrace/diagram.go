package main

import (
	"errors"
	"io"
	"os"

	"sstrace/internal/view/diagram"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// diagramQuestion: which ways through the state diagram were travelled, and how long did each step take?
func newDiagram() *question {
	return &question{
		Command: cobra.Command{
			Use:   "diagram",
			Short: "Draw the state diagram of RFC 9293 with what was travelled of it",
			Long: `diagram draws the state diagram of TCP (RFC 9293, figure 5): on each edge how often it was travelled, by clients and by servers, and the
median time in the state that was left; at each state how many connections ended there in a way that the figure does not draw, and why. It is
drawn once, at the end: of a recording, or live after Ctrl-C, --for, or the end of COMMAND. -o svg is for a browser, text for the terminal, dot
for Graphviz, ndjson one line for each kind of change.`,
			Example: `  sudo sstrace diagram --for 10s -w diagram.svg
  sudo sstrace diagram -o text -p 6379 -- redis-cli -p 6379 ping
  sstrace diagram -o text -r trace.ndjson`,
		},
		formats: diagram.Formats,
		start: func(out io.Writer, format string, color bool) (view, error) {
			if f, ok := out.(*os.File); ok && format == "svg" && term.IsTerminal(int(f.Fd())) {
				return nil, usageError{errors.New("a terminal does not show SVG: -w diagram.svg, or -o text")}
			}
			return diagram.New(out, format, color), nil
		},
	}
}
