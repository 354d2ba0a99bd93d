// Command sstrace shows every TCP state change of the host while it happens.
package main

import (
	"errors"
	"fmt"
	"os"

	"sstrace/internal/explain"
	"sstrace/internal/view/lines"

	"github.com/spf13/cobra"
)

// Exit codes; that of a traced COMMAND comes before them.
const (
	exitFailure = 1
	exitUsage   = 2
	exitFound   = 3
)

// usageError is a mistake on the command line.
type usageError struct{ error }

// startError: the COMMAND could not be started; code is what a shell says then.
type startError struct {
	error
	code int
}

// commandEnded: the COMMAND ended with a code other than 0. The error is the trace's own, or nil.
type commandEnded struct {
	error
	code int
}

// unmetError: so many needs of tracing are not met, and check has told them.
type unmetError int

func (u unmetError) Error() string { return fmt.Sprintf("%d needs are not met", int(u)) }

func main() {
	c, err := newCommand().ExecuteC()
	os.Exit(exitCode(err, c.CommandPath()))
}

// exitCode tells err of a command, once, and what it means to the shell.
func exitCode(err error, command string) int {
	var (
		unmet unmetError
		ended commandEnded
		start startError
		usage usageError
	)
	code := exitFailure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &unmet):
		return exitFailure
	case errors.Is(err, errFound):
		return exitFound
	case errors.As(err, &ended):
		if code, err = ended.code, ended.error; err == nil {
			return code
		}
	case errors.As(err, &start):
		code = start.code
	case errors.As(err, &usage):
		err = fmt.Errorf("%w\nTry %s --help", err, command)
		code = exitUsage
	}
	fmt.Fprintf(os.Stderr, "sstrace: %v\n", err)
	return code
}

func newCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "sstrace [flags] [-- COMMAND [ARG...]]",
		Short: "Show every TCP state change of this host, with its connection, duration and owner, while it happens",
		Long: `sstrace shows every TCP state change of this host while it happens: when, to the nanosecond, how long the socket was in
the state that it left, both ends, and the process that did it. It runs as root until Ctrl-C, -n, --for, or until
COMMAND ends. sstrace(8) tells what each column means; -r reads a recording, without root and on any system.`,
		Example: `  sstrace                                   every change, until Ctrl-C
  sstrace -p 6379,6389                      connections with one of these ports at either end
  sstrace --edge SYN_SENT:CLOSE             connects that failed
  sstrace --where 'dur_ns > 1e6 && rport == 443'
  sstrace -o ndjson -w trace.ndjson         record; sstrace -r trace.ndjson prints it again
  sstrace -- redis-cli -p 6379 ping         while a command runs
  sstrace stats --interval 10s              how many of each change, and how long did the states last?
  sstrace explain CLOSE_WAIT                what does it mean?
  sstrace check                             can this machine run it?`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return run(c, &o, args, func(s *setting) (view, error) { return lines.New(s.out, o.format, o.clock, s.color) })
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	c.CompletionOptions.HiddenDefaultCmd = false
	c.Flags().SetInterspersed(false) // what follows a command's name is the command's
	o.register(c)
	c.AddCommand(newHandshakes().command(), newConns().command(), newStats().command(), newDiagram().command(), newLs(), newLeaks())
	c.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Look whether this machine can trace, and say what to do if not",
		Long: `check looks at each thing that tracing needs of this machine, and tries to attach. It prints a line for each, with what to do
where something is missing, and exits with 0 if sstrace can run here and with 1 if not. A line begins with yes, NO, less (sstrace can
run without it) or ? (unknown, because a container or a namespace hides it).`,
		Example: "  sudo sstrace check",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("check takes no argument, not %q", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return check(os.Stdout) },
	})
	c.AddCommand(&cobra.Command{
		Use:   "explain [STATE | OLD:NEW | REASON | ERRNO]",
		Short: "Say what a state, a change, a reason or an errno means",
		Long: `explain says what a TCP state means: on which side it occurs, what ends it, how long is normal, what it means to see many, and
which sysctl matters. It knows the states, the changes from one to another, the reasons, and the errnos that a TCP socket has or connect() returns,
by name or number; without an argument it explains all states.`,
		Example: `  sstrace explain CLOSE_WAIT
  sstrace explain SYN_SENT:CLOSE
  sstrace explain port_unreachable
  sstrace explain ECONNREFUSED
  sstrace explain 111`,
		ValidArgs: explain.Topics(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("explain takes one argument, not %q", args[1])}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			what := ""
			if len(args) > 0 {
				what = args[0]
			}
			text, err := explain.Explain(what)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Print(text)
			return err
		},
	})
	return c
}
