package main

import (
	"errors"
	"fmt"
	"os"

	"sstrace/internal/session"
	"sstrace/internal/view/ls"
	"sstrace/internal/view/watch"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// newLs returns the command that lists existing sockets.
func newLs() *cobra.Command {
	o := &options{formats: ls.Formats}
	watching := false
	o.filter.Listing = true
	c := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List existing sockets, from LISTEN to TIME_WAIT, with every process that holds them",
		Long: `ls lists every TCP socket on the host, in all network namespaces, including half-open connections
and those in TIME_WAIT. It shows the state, the queues (for a listener: how many connections are
waiting for accept(), and how many can), both ends, how long the socket has been in its state (≥
means at least), how long until a timer ends it, and every process that holds it, with its file
descriptors. With -r it lists the sockets that exist at the end of a recording.

With --watch the listing stays on the screen and is updated at every change, which is marked. It
can be sorted, filtered and scrolled; ? shows the keys.`,
		Example: `  sudo sstrace ls
  sudo sstrace ls --state close-wait -o wide
  sudo sstrace ls -p 6379 --where 'recv_q > 0'
  sudo sstrace ls --watch --netns pid:1`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("ls takes no argument %q", args[0])}
			}
			if err := o.checkProtos(); err != nil {
				return usageError{err}
			}
			if o.bound && (watching || o.read != "") {
				return usageError{errors.New("--bound lists what exists now: omit --watch and -r")}
			}
			if !watching {
				if c.Flags().Changed("buffer") {
					return usageError{errors.New("a listing needs no ring buffer: omit --buffer, or add --watch")}
				}
				o.listing = true
				return run(c, o, args, func(s *setting) (session.View, error) { return ls.New(s.out, o.format), nil })
			}
			if err := o.checkWatch(); err != nil {
				return usageError{err}
			}
			o.older, o.states = true, "rfc"
			var screen *watch.View
			defer func() { // whatever happens, restore the terminal
				if screen != nil {
					screen.Close()
				}
			}()
			return run(c, o, args, func(s *setting) (session.View, error) {
				host, _ := os.Hostname() // only a title
				screen = watch.New(watch.Options{
					Out: s.out, Host: host, Wide: o.format == "wide", Color: s.out.Color(),
					Wanted: s.filter.Connection, Listed: s.filter.Listed, Sockets: s.sockets, Stop: s.stop,
				})
				return screen, nil
			})
		},
	}
	f := newFlags(c)
	f.BoolVar(&watching, "watch", false, "keep the listing on the screen, live; ? shows the keys")
	f.BoolVar(&o.bound, "bound", false,
		"also list sockets that are bound but neither listening nor connected; they make bind() fail with EADDRINUSE")
	f.tag(groupOwn)
	o.registerConnections(f, "`protocols` to show: tcp,mptcp; tcp if omitted", "tcp", "mptcp")
	f.StringArrayVar(&o.filter.States, "state", nil, "sockets in this `state`: CLOSE_WAIT, or close-wait as in ss")
	f.Var((*positiveTime)(&o.filter.MinDur), "min-dur", "sockets known to have been in their state for this `time`: 1m")
	o.registerSockets(f, "the NDJSON keys")
	o.registerOutput(f)
	o.registerRead(f)
	o.registerBuffer(f)
	return c
}

// checkWatch rejects flags that make no sense with --watch.
func (o *options) checkWatch() error {
	switch {
	case o.format == "ndjson":
		return errors.New("--watch shows a screen: omit -o ndjson; for a program, sstrace -o ndjson prints each change")
	case o.write != "":
		return errors.New("--watch shows a screen: omit -w")
	case o.read != "":
		return errors.New("--watch shows the present: omit -r")
	case !term.IsTerminal(int(os.Stdout.Fd())):
		return errors.New("--watch needs a terminal, but stdout is not one; omit --watch to print the listing once")
	}
	return nil
}
