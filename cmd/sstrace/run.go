package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/session"
	"sstrace/internal/view/ls"

	"github.com/spf13/cobra"
)

// start returns a view.
type start func(s *setting) (session.View, error)

// setting holds what a view is made from.
type setting struct {
	out    *session.Output
	filter *filter.Filter
	kernel
}

// kernel holds the functions that a view may call while a live source is idle. The source waits for
// the answer, so views should call them rarely. A function that the source does not offer is nil.
type kernel struct {
	sockets   func() ([]event.Event, error) // every socket that exists, with its holders
	listeners func() ([]event.Event, error) // the listeners only, without their holders
	stack     func(pid, id uint32) []string // the functions on a process's Event.Stack; their addresses if pid is 0
	program   func(pid uint32) string       // identifies the program that a process executes
	process   func(pid uint32) (exe, cgroup string)
	stop      func() // ends the trace; may be called from any goroutine
}

// job is one run of a command that has a source and a view.
type job struct {
	*options
	filter *filter.Filter
	start  start
}

// run runs a command that has a source and a view. The source is a recording (-r), the sockets that
// exist, or the kernel, which may be traced while a command, args, runs.
func run(c *cobra.Command, o *options, args []string, start start) error {
	if dash := c.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
		if c.HasParent() {
			return usageError{fmt.Errorf("%s takes no argument %q; to trace while a program runs: %s [flags] -- %s",
				c.Name(), args[0], c.CommandPath(), args[0])}
		}
		return usageError{fmt.Errorf("unknown command %q; to trace while a program runs: sstrace [flags] -- %s",
			args[0], args[0])}
	}
	if err := checkGiven(c.Flags()); err != nil {
		return usageError{err}
	}
	// A write to a closed pipe should fail, not kill us. SIGPIPE is caught rather than ignored
	// because a command would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	o.statesGiven = c.Flags().Changed("states")
	if err := o.check(args); err != nil {
		return usageError{err}
	}
	if o.write == "-" {
		o.write = ""
	}
	f, err := filter.New(&o.filter)
	if err != nil {
		return usageError{err}
	}
	j := &job{o, f, start}
	switch {
	case o.read != "":
		return j.replay()
	case o.listing:
		return j.list()
	}
	return j.trace(args)
}

// view opens the output and makes the view that writes to it.
func (j *job) view(k kernel) (*session.Output, session.View, error) {
	out, err := session.OpenOutput(j.write, j.read)
	if err != nil {
		return nil, nil, err
	}
	v, err := j.start(&setting{out, j.filter, k})
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return out, v, nil
}

// drive runs v on src until src ends, and reports the balance on standard error.
func (j *job) drive(src session.Source, out *session.Output, v session.View) error {
	b, err := session.Run(src, out, v,
		session.Options{Filter: j.filter, Count: uint64(j.count), Listing: j.listing, Older: j.older})
	if b == nil {
		return err
	}
	if trouble := j.filter.Trouble(); trouble != nil {
		fmt.Fprintf(os.Stderr, "sstrace: %v\n", trouble)
	}
	if !j.listing && (j.format != "ndjson" || j.write != "") || b.RingFull > 0 || b.Missed > 0 {
		reportBalance(os.Stderr, b, j.answers)
	}
	if j.read == "" && !b.Balanced() {
		err = errors.Join(err, fmt.Errorf("these numbers do not add up, please report it: %+v", *b))
	}
	return err
}

// replay uses a recording as the source.
func (j *job) replay() error {
	in := os.Stdin
	if j.read != "-" {
		var err error
		if in, err = os.Open(j.read); err != nil {
			return err
		}
		defer in.Close()
	}
	out, v, err := j.view(kernel{})
	if err != nil {
		return err
	}
	want := session.Want{Existing: j.listing || j.older}
	if j.listing {
		want.Sockets = ls.Implied
	}
	err = j.drive(session.NewRecording(in, j.read, want), out, v)
	if errors.Is(err, session.ErrSockets) {
		return usageError{err}
	}
	return err
}

// reportBalance writes what became of the records: they were printed or, if answers is set,
// reported in an answer.
func reportBalance(w io.Writer, b *event.Balance, answers bool) {
	printed := "printed"
	if answers {
		printed = "reported"
	}
	changes := "changes"
	switch {
	case b.Merged > 0: // in the rfc vocabulary not every record is a change
		changes = "records"
	case b.Seen == 1:
		changes = "change"
	}
	fmt.Fprintf(w, "sstrace: %d %s seen: %d %s, %d filtered, %d lost", b.Seen, changes, b.Printed, printed,
		b.Filtered, b.RingFull)
	if b.Merged > 0 {
		fmt.Fprintf(w, ", %d merged", b.Merged)
	}
	if b.Unread > 0 {
		fmt.Fprintf(w, ", %d unread", b.Unread)
	}
	if b.Missed > 0 {
		fmt.Fprintf(w, "; %d more were skipped by the kernel", b.Missed)
	}
	fmt.Fprintln(w)
	if b.RingFull > 0 {
		fmt.Fprintln(w, "sstrace: the ring buffer was full: "+
			"narrow the trace with a filter (-p, --netns), or enlarge it with --buffer 64M")
	}
}
