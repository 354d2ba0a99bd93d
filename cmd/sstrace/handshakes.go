package main

import (
	"errors"
	"io"
	"slices"
	"strings"

	"sstrace/internal/view/handshakes"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newHandshakes returns the command that times how connections are set up.
func newHandshakes() *question {
	var o handshakes.Options
	q := &question{
		Command: cobra.Command{
			Use:   "handshakes",
			Short: "Tell how long it took to set up each connection, and where that time went",
			Long: `handshakes prints a line for each handshake when it is over: how long the SYN was on its way, the SYN-ACK, and the ACK, and how long the connection
waited for accept(). Where both ends are on this host, in whatever network namespaces, both are on the line. Of an end elsewhere the legs are not
known one by one: ├── ──┤ is two of them together. At the end come percentiles; with --interval those of each interval, too.`,
			Example: `  sudo sstrace handshakes                                   each handshake, percentiles at the end
  sudo sstrace handshakes --summary --interval 10s --by port
  sudo sstrace handshakes -- curl -s localhost:8080         of one command
  sstrace handshakes -r trace.ndjson                        of a recording`,
		},
		formats: handshakes.Formats,
		whole:   true,
		start: func(out io.Writer, format string, color bool) (view, error) {
			return handshakes.New(out, format, color, o), nil
		},
	}
	q.flags = func(f *pflag.FlagSet) {
		f.BoolVar(&o.Summary, "summary", false, "percentiles only, no line for each handshake")
		f.Var((*positiveTime)(&o.Interval), "interval", "percentiles of each `time`, too: 10s")
		f.Var((*handshakeGroup)(&o.By), "by", "percentiles for each `group`: "+strings.Join(handshakes.Groupings, ", "))
		complete(&q.Command, "by", handshakes.Groupings)
	}
	return q
}

// handshakeGroup is a choice on the command line.
type handshakeGroup string

func (g *handshakeGroup) String() string { return "" } // none is given
func (g *handshakeGroup) Type() string   { return "group" }

// Set implements pflag.Value.
func (g *handshakeGroup) Set(text string) error {
	if !slices.Contains(handshakes.Groupings, text) {
		return errors.New("the groups are " + strings.Join(handshakes.Groupings, ", "))
	}
	*g = handshakeGroup(text)
	return nil
}
