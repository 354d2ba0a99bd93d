package main

import (
	"fmt"

	"sstrace/internal/sockets"

	"github.com/spf13/cobra"
)

// ls lists the sockets that exist.
func ls() *cobra.Command {
	o := &options{formats: sockets.Formats, listing: true}
	o.filter.Listing = true
	c := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the sockets that exist, from LISTEN to TIME_WAIT, with every process that holds them",
		Long: `ls lists every TCP socket of the host, of all network namespaces, half-open connections and those in TIME_WAIT included: its state and
queues (a listener's: connections that wait for accept(), and how many may), both ends, how long it has been so (at least, ≥), how long
until its timer ends it, and every process that holds it with its file descriptors. Of a recording (-r) it lists what exists at its end.`,
		Example: `  sudo sstrace ls
  sudo sstrace ls --state close-wait -o wide
  sudo sstrace ls -p 6379 --where 'recv_q > 0'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("ls takes no argument, not %q", args[0])}
			}
			return run(c, o, args, func(s *setting) (view, error) { return sockets.New(s.out, o.format), nil })
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.registerConnections(f)
	f.StringArrayVar(&o.filter.States, "state", nil, "sockets in this `state`: CLOSE_WAIT, or as in ss, close-wait")
	f.Var((*positiveTime)(&o.filter.MinDur), "min-dur", "sockets that are known to have been in their state for this `time`: 1m")
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "sockets that this `process` holds")
	f.StringArrayVar(&o.filter.Comms, "comm", nil, "sockets that a process of this `name` holds; up to 15 bytes, as the kernel has it")
	f.StringVar(&o.filter.Where, "where", "", "sockets for which this `expression` over the NDJSON keys is true: 'recv_q > 0'")
	o.registerFormat(c)
	f.StringVarP(&o.read, "read", "r", "", "read a recording made with -o ndjson from this `file`, - for stdin")
	complete(c, "state", stateNames())
	return c
}
