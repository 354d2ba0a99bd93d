package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/view/leaks"

	"github.com/spf13/cobra"
)

// errFound: a look at what is there has found something, and told it.
var errFound = errors.New("sockets are stuck")

// limits are the values of --older.
type limits map[event.State]time.Duration

// String implements pflag.Value: as --older takes them.
func (l limits) String() string {
	var all []string
	for _, s := range leaks.States {
		if d, ok := l[s]; ok {
			all = append(all, s.String()+"="+strings.Replace(d.String(), "m0s", "m", 1))
		}
	}
	return strings.Join(all, ",")
}

// Type implements pflag.Value.
func (l limits) Type() string { return "limit" }

// Set implements pflag.Value.
func (l limits) Set(text string) error {
	for each := range strings.SplitSeq(text, ",") {
		name, limit, _ := strings.Cut(each, "=")
		state, err := filter.ParseState(name)
		if _, ok := leaks.Limits[state]; err != nil || !ok {
			return fmt.Errorf("%s: expected STATE=TIME, of the states that should pass: %s", each, limits(leaks.Limits))
		}
		var d positiveTime
		if err := d.Set(limit); err != nil {
			return fmt.Errorf("%s: expected STATE=TIME, as in CLOSE_WAIT=5m", each)
		}
		l[state] = time.Duration(d)
	}
	return nil
}

// findLeaks watches for sockets that somebody forgot to close.
func newLeaks() *cobra.Command {
	o := &options{formats: []string{"text", "ndjson"}, states: "rfc", older: true, answers: true}
	o.filter.Listing = true
	older := limits(maps.Clone(leaks.Limits))
	var once bool
	var found *leaks.View
	c := &cobra.Command{
		Use:   "leaks [flags] [-- COMMAND [ARG...]]",
		Short: "Watch for sockets that stay too long in a state, and for full accept queues; name every process that holds them",
		Long: `leaks watches for sockets that stay too long in a state that should pass: CLOSE_WAIT, because somebody here forgot to close what the peer has
closed; the others, because a peer or the network is gone. It tells each once when it is too old, with every process and file descriptor that
still holds it, inherited copies included, and once when that is over; and so of listeners whose accept queue is full. At the end it sums
them up for each process. Too old is by default: ` + older.String() + `.
With --once it looks at what is there now and exits with 3 if it finds something: a health check. How long a socket has been so
it then knows for SYN_RECV, and at least for SYN_SENT, CLOSE_WAIT, FIN_WAIT2 and CLOSING; the others, and sockets of MPTCP, it
counts at the end, as being in their state for an unknown time: they do not change the exit code.
Without --proto it looks at TCP and MPTCP. A subflow and its MPTCP socket that are stuck in the same state are one, shown as the MPTCP
socket or, where only the subflow is known to be too old, as the subflow.`,
		Example: `  sudo sstrace leaks
  sudo sstrace leaks --older CLOSE_WAIT=5m --stacks
  sudo sstrace leaks --once || echo "somebody forgot to close"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.checkProtos(); err != nil {
				return usageError{err}
			}
			if o.read == "" && !c.Flags().Changed("proto") { // a recording has what it has
				o.filter.Protos = []string{"tcp,mptcp"}
			}
			switch o.listing = once; {
			case once && len(args) > 0:
				return usageError{fmt.Errorf("--once looks at what is there: it cannot trace %q", args[0])}
			case once && o.duration != 0:
				return usageError{errors.New("--once looks at what is there now: --for goes with tracing")}
			case o.stacks && (once || o.read != ""):
				return usageError{errors.New("--stacks tells of calls while they are made: it goes with tracing")}
			}
			err := run(c, o, args, func(s *setting) (view, error) {
				wanted := func(e *event.Event) bool { return s.filter.Connection(e) && s.filter.Listed(e) }
				if o.format == "text" && s.sockets != nil { // live: nothing may come for long
					fmt.Fprintf(os.Stderr, "sstrace: watching; too old is %s\n", older)
				}
				found = leaks.New(s.out, o.format, older, wanted, leaks.Kernel{
					Sockets: s.sockets, Listeners: s.listeners, Stack: s.stack, Program: s.program, Process: s.process,
				})
				return found, nil
			})
			if err == nil && once && found.Found() {
				return errFound
			}
			return err
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.SetInterspersed(false)
	f.Var(older, "older", "`limit` of a state, as STATE=TIME: CLOSE_WAIT=5m")
	f.BoolVar(&once, "once", false, "look at what is there now, and exit with 3 if something is found")
	f.BoolVar(&o.stacks, "stacks", false, "tell the stack of the call that accepted or connected")
	o.registerConnections(f)
	o.registerListed(c, "tcp and mptcp")
	f.StringArrayVar(&o.filter.States, "state", nil, "sockets in this `state` alone: CLOSE_WAIT, or as in ss, close-wait; LISTEN: full accept queues")
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "sockets that this `process` holds")
	f.StringArrayVar(&o.filter.Comms, "comm", nil, "sockets that a process of this `name` holds; up to 15 bytes, as the kernel has it")
	f.StringVar(&o.filter.Where, "where", "", "sockets for which this `expression` over the keys of ls -o ndjson is true: 'recv_q > 0'")
	o.registerFormat(c)
	o.registerSource(f)
	complete(c, "state", stateNames())
	return c
}
