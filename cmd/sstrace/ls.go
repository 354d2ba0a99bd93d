package main

import (
	"errors"
	"fmt"
	"os"

	"sstrace/internal/view/ls"
	"sstrace/internal/view/watch"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// newLs returns the command that lists the sockets that exist.
func newLs() *cobra.Command {
	o := &options{formats: ls.Formats}
	watching := false
	o.filter.Listing = true
	c := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the sockets that exist, from LISTEN to TIME_WAIT, with every process that holds them",
		Long: `ls lists every TCP socket of the host, of all network namespaces, half-open connections and those in TIME_WAIT included: its state and
queues (a listener's: connections that wait for accept(), and how many may), both ends, how long it has been so (at least, ≥), how long
until its timer ends it, and every process that holds it with its file descriptors. Of a recording (-r) it lists what exists at its end.

With --watch the listing stays on the screen and is live: every change is there as it happens, and marked. It can be sorted, filtered
and scrolled; ? shows the keys.`,
		Example: `  sudo sstrace ls
  sudo sstrace ls --state close-wait -o wide
  sudo sstrace ls -p 6379 --where 'recv_q > 0'
  sudo sstrace ls --watch --netns pid:1`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("ls takes no argument, not %q", args[0])}
			}
			if err := o.checkProtos(); err != nil {
				return usageError{err}
			}
			if o.bound && (watching || o.read != "") {
				return usageError{errors.New("--bound looks at what is there now: it goes neither with --watch nor with -r")}
			}
			if !watching {
				if c.Flags().Changed("buffer") {
					return usageError{errors.New("--buffer goes with --watch: a listing has no ring buffer")}
				}
				o.listing = true
				return run(c, o, args, func(s *setting) (view, error) { return ls.New(s.out, o.format), nil })
			}
			if err := o.checkWatch(); err != nil {
				return usageError{err}
			}
			o.older, o.states = true, "rfc"
			var screen *watch.View
			defer func() { // whatever happens, the terminal is given back
				if screen != nil {
					screen.Close()
				}
			}()
			return run(c, o, args, func(s *setting) (view, error) {
				host, _ := os.Hostname() // it is for people, and they may know
				screen = watch.New(watch.Options{
					Out: s.out, Host: host, Wide: o.format == "wide", Color: s.color,
					Wanted: s.filter.Connection, Listed: s.filter.Listed, Sockets: s.sockets, Stop: s.stop,
				})
				return screen, nil
			})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&watching, "watch", false, "keep the listing on the screen, live; ? shows the keys")
	o.registerConnections(f)
	o.registerListed(c, "tcp")
	f.BoolVar(&o.bound, "bound", false, "list sockets that are bound and neither listen nor are connected, too: bind() fails with EADDRINUSE because of them")
	f.StringArrayVar(&o.filter.States, "state", nil, "sockets in this `state`: CLOSE_WAIT, or as in ss, close-wait")
	f.Var((*positiveTime)(&o.filter.MinDur), "min-dur", "sockets that are known to have been in their state for this `time`: 1m")
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "sockets that this `process` holds")
	f.StringArrayVar(&o.filter.Comms, "comm", nil, "sockets that a process of this `name` holds; up to 15 bytes, as the kernel has it")
	f.StringVar(&o.filter.Where, "where", "", "sockets for which this `expression` over the NDJSON keys is true: 'recv_q > 0'")
	o.registerFormat(c)
	f.StringVarP(&o.read, "read", "r", "", "read a recording made with -o ndjson from this `file`, - for stdin")
	o.registerBuffer(f)
	complete(c, "state", stateNames())
	return c
}

// checkWatch finds what does not go with --watch.
func (o *options) checkWatch() error {
	switch {
	case o.format == "ndjson":
		return errors.New("--watch is for a person: -o ndjson does not go with it; sstrace -o ndjson tells a program each change")
	case o.write != "":
		return errors.New("--watch shows the sockets on a terminal: -w does not go with it")
	case o.read != "":
		return errors.New("--watch shows what is now: -r does not go with it")
	case !term.IsTerminal(int(os.Stdout.Fd())):
		return errors.New("--watch needs a terminal, and stdout is none; without --watch ls prints the listing once")
	}
	return nil
}
