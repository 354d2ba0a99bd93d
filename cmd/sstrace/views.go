package main

import (
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// question is a command that answers one about the stream: a view of it, with what it takes from the command line.
type question struct {
	cobra.Command
	formats []string             // the default first
	flags   func(*pflag.FlagSet) // its own; may be nil
	// whole: a filter of lines wants each connection that has such a line, as a whole.
	whole bool
	start func(out io.Writer, format string, color bool) (view, error)
}

// command makes a cobra.Command of q, with the flags that all have.
func (q *question) command() *cobra.Command {
	o := &options{formats: q.formats, states: "rfc", answers: true}
	c := &q.Command
	c.Args = cobra.ArbitraryArgs
	c.Use += " [flags] [-- COMMAND [ARG...]]"
	f := c.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	if q.flags != nil {
		q.flags(f)
	}
	o.registerFilters(c)
	o.registerFormat(c)
	o.registerSource(f)
	o.filter.Whole = q.whole
	c.RunE = func(c *cobra.Command, args []string) error {
		return run(c, o, args, func(s *setting) (view, error) { return q.start(s.out, o.format, s.color) })
	}
	return c
}
