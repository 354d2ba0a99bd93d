package main

import (
	"sstrace/internal/session"
	"sstrace/internal/view/handshakes"

	"github.com/spf13/cobra"
)

// newHandshakes returns the command that times the setup of connections.
func newHandshakes() *question {
	var o handshakes.Options
	return &question{
		Command: cobra.Command{
			Use:   "handshakes",
			Short: "Show handshake latency, leg by leg",
			Long: `handshakes prints a line for each handshake when it is over: how long the SYN, the SYN-ACK and the
ACK were in transit, and how long the connection then waited for accept(). If both ends are on
this host, in any of its network namespaces, the line shows both. If one end is elsewhere,
individual legs cannot be timed: ├── ──┤ spans two of them. Percentiles follow at the end and,
with --interval, after each interval.`,
			Example: `  sudo sstrace handshakes                                   each handshake, percentiles at the end
  sudo sstrace handshakes --summary --interval 10s --by port
  sudo sstrace handshakes -- curl -s localhost:8080         for one command
  sstrace handshakes -r trace.ndjson                        from a recording`,
		},
		formats: handshakes.Formats,
		whole:   true,
		flags: func(f *flags) {
			f.BoolVar(&o.Summary, "summary", false, "print percentiles only, not each handshake")
			f.Var((*positiveTime)(&o.Interval), "interval", "also print percentiles every `time`, such as 10s")
			f.choice(&o.By, "by", handshakes.Groupings, "print percentiles for each `group`")
		},
		start: func(out *session.Output, format string) (session.View, error) {
			return handshakes.New(out, format, out.Color(), o), nil
		},
	}
}
