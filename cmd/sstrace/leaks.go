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
	"sstrace/internal/session"
	"sstrace/internal/view/leaks"

	"github.com/spf13/cobra"
)

// errFound reports that leaks --once found stuck sockets; they have been printed.
var errFound = errors.New("sockets are stuck")

// limits is the value of --older.
type limits map[event.State]time.Duration

// String implements pflag.Value. It returns what Set parses.
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
			return fmt.Errorf("%s: expected STATE=TIME with one of these states: %s", each, limits(leaks.Limits))
		}
		var d positiveTime
		if err := d.Set(limit); err != nil {
			return fmt.Errorf("%s: expected STATE=TIME, as in CLOSE_WAIT=5m", each)
		}
		l[state] = time.Duration(d)
	}
	return nil
}

// newLeaks returns the command that watches for sockets that no process closes.
func newLeaks() *cobra.Command {
	o := &options{formats: []string{"text", "ndjson"}, states: "rfc", older: true, answers: true}
	o.filter.Listing = true
	older := limits(maps.Clone(leaks.Limits))
	var once bool
	var found *leaks.View
	c := &cobra.Command{
		Use:   "leaks [flags] [-- COMMAND [ARG...]]",
		Short: "Find sockets that no process closes, and full accept queues, with the processes that hold them",
		Long: `leaks watches for sockets that stay too long in a state that should be brief: CLOSE_WAIT, because
a program here forgot to close a connection that the peer has closed; the other states, because a
peer or the network is gone. It reports each socket twice: when it exceeds the limit, with every
process and file descriptor that still holds it, inherited copies included, and when it leaves the
state. It does the same for listeners whose accept queue is full. At the end it prints the totals
for each process. The default limits are
` + older.String() + `.

With --once it checks the existing sockets once and exits with 3 if any are stuck, as a health
check does. In this mode it can tell how long a socket has been in SYN_RECV, and has a lower bound
for SYN_SENT, CLOSE_WAIT, FIN_WAIT2 and CLOSING. Sockets in other states, and MPTCP sockets, are
counted at the end as having been there for an unknown time; they do not change the exit code.

A subflow and its MPTCP socket that are stuck in the same state are reported once: as the MPTCP
socket or, if only the subflow is known to be too old, as the subflow.`,
		Example: `  sudo sstrace leaks
  sudo sstrace leaks --older CLOSE_WAIT=5m --stacks
  sudo sstrace leaks --once || echo "sockets are stuck"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.checkProtos(); err != nil {
				return usageError{err}
			}
			if o.read == "" && !c.Flags().Changed("proto") { // a recording has what was recorded
				o.filter.Protos = []string{"tcp,mptcp"}
			}
			switch o.listing = once; {
			case once && len(args) > 0:
				return usageError{fmt.Errorf("--once does not trace: omit %q", args[0])}
			case once && o.duration != 0:
				return usageError{errors.New("--once does not trace: omit --for")}
			case o.stacks && (once || o.read != ""):
				return usageError{errors.New("--stacks records calls as they are made: use it when tracing")}
			}
			err := run(c, o, args, func(s *setting) (session.View, error) {
				wanted := func(e *event.Event) bool { return s.filter.Connection(e) && s.filter.Listed(e) }
				if o.format == "text" && s.sockets != nil { // live: nothing may be printed for a long time
					fmt.Fprintf(os.Stderr, "sstrace: watching; the limits are %s\n", older)
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
	f := newFlags(c)
	f.SetInterspersed(false)
	f.Var(older, "older", "`limit` for a state, as STATE=TIME: CLOSE_WAIT=5m")
	f.BoolVar(&once, "once", false, "check the existing sockets once, and exit with 3 if any are stuck")
	f.BoolVar(&o.stacks, "stacks", false, "show the stack of the connect() or accept() that opened a stuck socket")
	f.tag(groupOwn)
	o.registerConnections(f, "`protocols` to watch: tcp,mptcp; both if omitted", "tcp", "mptcp")
	f.StringArrayVar(&o.filter.States, "state", nil,
		"sockets in this `state` only: CLOSE_WAIT, or close-wait as in ss; LISTEN means full accept queues")
	o.registerSockets(f, "the keys of ls -o ndjson")
	o.registerOutput(f)
	o.registerSource(f)
	return c
}
