package main

import (
	"sstrace/internal/session"

	"github.com/spf13/cobra"
)

// question is a command that answers a question about the lines: a view, and the flags and
// arguments that it takes.
type question struct {
	cobra.Command
	formats []string     // the default first
	flags   func(*flags) // adds the command's own; may be nil
	// whole means that a line filter selects every connection with at least one matching line.
	whole bool
	start func(out *session.Output, format string) (session.View, error)
}

// command returns q as a cobra.Command, with the flags that all questions share.
func (q *question) command() *cobra.Command {
	o := &options{formats: q.formats, states: "rfc", answers: true}
	c := &q.Command
	c.Args = cobra.ArbitraryArgs
	c.Use += " [flags] [-- COMMAND [ARG...]]"
	f := newFlags(c)
	f.SetInterspersed(false)
	if q.flags != nil {
		q.flags(f)
	}
	f.tag(groupOwn)
	o.registerFilters(f)
	o.registerOutput(f)
	o.registerSource(f)
	o.filter.Whole = q.whole
	c.RunE = func(c *cobra.Command, args []string) error {
		return run(c, o, args, func(s *setting) (session.View, error) { return q.start(s.out, o.format) })
	}
	return c
}
