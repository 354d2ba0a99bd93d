// Command sstrace shows every TCP state change on the host as it happens.
package main

import (
	"errors"
	"fmt"
	"os"

	"sstrace/internal/explain"
	"sstrace/internal/session"
	"sstrace/internal/view/lines"

	"github.com/spf13/cobra"
)

// Exit codes. If a traced COMMAND fails, its exit code takes precedence.
const (
	exitFailure = 1
	exitUsage   = 2
	exitFound   = 3
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// startError reports that COMMAND could not be started. code is the exit code that a shell returns
// in that case.
type startError struct {
	error
	code int
}

// commandEnded reports that COMMAND failed with code. The error is the trace's, or nil.
type commandEnded struct {
	error
	code int
}

// unmetError is the number of unmet requirements; check has already printed them.
type unmetError int

func (u unmetError) Error() string { return fmt.Sprintf("%d requirements are not met", int(u)) }

func main() {
	c, err := newCommand().ExecuteC()
	os.Exit(exitCode(err, c.CommandPath()))
}

// exitCode prints the error of a command, unless it has already been printed, and returns the exit
// code.
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
		Short: "Show every TCP state change on this host as it happens",
		Long: `sstrace shows every TCP state change on this host as it happens: when, to the nanosecond; how long
the socket was in the state that it left; both ends of the connection; and the process that owns
the socket. It runs as root until Ctrl-C, -n, --for, or the end of COMMAND. With -r it reads a
recording, which needs no root and works on any system. sstrace(8) explains each column.`,
		Example: `  sudo sstrace                              every change, until Ctrl-C
  sudo sstrace -p 6379,6389                 connections with one of these ports at either end
  sudo sstrace --edge SYN_SENT:CLOSE        connects that failed
  sudo sstrace --where 'dur_ns > 1e6 && rport == 443'
  sudo sstrace -- curl -s localhost:8080    while a command runs
  sudo sstrace -o ndjson -w trace.ndjson    record
  sstrace -r trace.ndjson -p 443            print a recording`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return run(c, &o, args, func(s *setting) (session.View, error) {
				return lines.New(s.out, o.format, o.clock, s.out.Color()), nil
			})
		},
	}
	cobra.AddTemplateFunc("groupedUsages", groupedUsages)
	c.SetUsageTemplate(usageTemplate)
	c.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	c.CompletionOptions.HiddenDefaultCmd = false
	c.Flags().SetInterspersed(false) // the flags after a command's name are the command's
	o.register(c)
	c.AddCommand(newHandshakes().command(), newConns().command(), newStats().command(), newDiagram().command(),
		newLs(), newLeaks(), newCheck(), newExplain())
	return c
}

// newCheck returns the command that checks the requirements for tracing.
func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check whether this machine can trace, and say what to do if not",
		Long: `check tests each requirement for tracing and tries to attach. It prints a line for each, with what
to do if something is missing, and exits with 0 if sstrace can run here, and with 1 otherwise. A
line starts with yes, NO, less (sstrace can run without it) or ? (unknown, because a container or
a namespace hides it).`,
		Example: "  sudo sstrace check",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("check takes no argument %q", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return check(os.Stdout) },
	}
}

// newExplain returns the command that explains states, changes, reasons and errnos.
func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [STATE | OLD:NEW | REASON | ERRNO]",
		Short: "Explain a state, a change, a reason or an errno",
		Long: `explain describes a TCP state: which side it occurs on, what ends it, how long it normally lasts,
what a large number of such sockets means, and which sysctl matters. It also covers the changes
from one state to another, the reasons, and, by name or number, the errnos that a TCP socket can
have or that connect() returns. Without an argument it explains all states.`,
		Example: `  sstrace explain CLOSE_WAIT
  sstrace explain SYN_SENT:CLOSE
  sstrace explain port_unreachable
  sstrace explain ECONNREFUSED
  sstrace explain 111`,
		ValidArgs: explain.Topics(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("explain takes one argument: omit %q", args[1])}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			topic := ""
			if len(args) > 0 {
				topic = args[0]
			}
			text, err := explain.Explain(topic)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Print(text)
			return err
		},
	}
}

// usageTemplate is cobra's own, with the flags in groups.
const usageTemplate = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

{{groupedUsages .}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} [command] --help" explains a command.{{end}}
`
