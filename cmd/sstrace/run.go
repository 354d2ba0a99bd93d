package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"syscall"

	"sstrace/internal/event"
	"sstrace/internal/filter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// view is what becomes of the lines: they are printed, or something is told about them.
type view interface {
	// Take takes each line that is wanted, in order; each Lost; and the End.
	Take(e *event.Event) error
	// Flush writes what there is to say. It is called whenever the source has nothing more at the moment now (CLOCK_MONOTONIC, ns; 0 if the
	// source is a recording), and at the end; of a recording without an End, too.
	Flush(now int64) error
}

// start makes a view.
type start func(s *setting) (view, error)

// setting is what a view has around it.
type setting struct {
	out    io.Writer
	color  bool
	filter *filter.Filter
	live
}

// live is what a view may ask of a live source, at a moment when it is flushed. The source waits meanwhile, so it should be seldom. All are nil if the source
// is no trace.
type live struct {
	sockets   func() ([]event.Event, error) // every socket that exists, with its holders
	listeners func() ([]event.Event, error) // the listeners alone, without
	stack     func(pid, id uint32) []string // the functions of an Event.Stack of a process; of pid 0 their addresses
	program   func(pid uint32) string       // tells one execution of a program from another
	process   func(pid uint32) (exe, cgroup string)
	stop      func() // ends the trace; from any goroutine
}

// trip is the way of the Events through the rooms: from a source, through the tracker if it is the kernel, the filter and the view.
type trip struct {
	filter  *filter.Filter
	start   start
	older   bool // the view wants the sockets that are older than the trace, first of all
	listing bool // the source is a listing, of which each line is a Socket
	view    view
	count   uint64 // stop after so many changes; 0: never
	printed uint64
	unread  uint64 // lines that were ready when enough was printed
	lost    uint64
	end     *event.Balance // of a recording
}

// run is what each command that takes the stream does.
func run(c *cobra.Command, o *options, command []string, start start) error {
	if dash := c.ArgsLenAtDash(); len(command) > 0 && dash != 0 {
		if c.HasParent() {
			return usageError{fmt.Errorf("%s takes no argument %q; to trace while a program runs: %s [flags] -- %s", c.Name(), command[0], c.CommandPath(), command[0])}
		}
		return usageError{fmt.Errorf("unknown command %q; to trace while a program runs: sstrace [flags] -- %s", command[0], command[0])}
	}
	if err := checkGiven(c.Flags()); err != nil {
		return usageError{err}
	}
	// SIGPIPE is taken, not ignored, for a command would inherit that. A closed stdout is an error of write, then.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	o.statesGiven = c.Flags().Changed("states")
	if err := o.check(command); err != nil {
		return usageError{err}
	}
	if o.write == "-" {
		o.write = ""
	}
	f, err := filter.New(&o.filter)
	if err != nil {
		return usageError{err}
	}
	t := &trip{filter: f, start: start, older: o.older, listing: o.listing, count: uint64(o.count)}
	switch {
	case o.read != "":
		return t.replay(o)
	case o.listing:
		return t.list(o)
	}
	return t.trace(o, command)
}

// open opens the output, once it is sure that there will be any.
func (t *trip) open(o *options, live live) (closeOutput func() error, err error) {
	out := os.Stdout
	if o.write != "" {
		if isSame(o.write, o.read) {
			return nil, fmt.Errorf("-w %s is the recording that -r reads: write to another file", o.write)
		}
		if out, err = os.OpenFile(o.write, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return nil, err
		}
	}
	color := os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(out.Fd()))
	t.view, err = t.start(&setting{out, color, t.filter, live})
	if o.write == "" {
		return func() error { return nil }, quietPipe(err)
	}
	return out.Close, err
}

// isSame reports whether both are the same existing file, by whatever name.
func isSame(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// errPipe: who read our stdout has gone. That is how `| head` ends.
var errPipe = errors.New("stdout was closed")

func quietPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return errPipe
	}
	return err
}

var errEnough = errors.New("printed as many changes as -n asks for")

// pass takes a line through the filter to the view; that changes were lost is no filter's business.
func (t *trip) pass(e *event.Event) error {
	switch {
	case e.Type == event.Lost:
		t.lost += e.RingFull
		return t.view.Take(e)
	case e.Type == event.Socket && !t.listing: // no change, and in no balance
		if !t.older || !t.filter.Connection(e) {
			return nil
		}
		return t.view.Take(e)
	}
	return t.filter.Pass(e, func(e *event.Event) error {
		if t.enough() { // one record may make two lines
			t.unread++
			return nil
		}
		t.printed++
		return t.view.Take(e)
	})
}

// travel passes on each line of source until the source ends, or an error.
func (t *trip) travel(source iter.Seq2[*event.Event, error]) error {
	for e, err := range source {
		if err != nil {
			return err
		}
		switch {
		case e.Type == event.End:
			t.end = e.Balance
		case e.Type != event.ConnectFailed || !t.listing: // no socket of a failed connect() exists
			err = t.pass(e)
		}
		if err != nil {
			return err
		}
		if t.enough() {
			return errEnough
		}
	}
	return nil
}

func (t *trip) enough() bool { return t.count > 0 && t.printed == t.count }

// finish prints the balance as the last line, and for people on stderr.
func (t *trip) finish(o *options, wall, mono int64, b *event.Balance) error {
	b.Printed = t.printed
	b.Unread += t.unread
	b.Filtered += t.filter.Filtered()
	b.Partial = b.Partial || b.Unread > 0 || t.filter.Lines() && !t.filter.Whole && !t.filter.Listing
	if err := t.view.Take(&event.Event{Type: event.End, Wall: wall, Mono: mono, Balance: b}); err != nil {
		return err
	}
	if err := t.view.Flush(mono); err != nil {
		return err
	}
	if err := t.filter.Trouble(); err != nil {
		fmt.Fprintf(os.Stderr, "sstrace: %v\n", err)
	}
	if !o.listing && (o.format != "ndjson" || o.write != "") || b.RingFull > 0 || b.Missed > 0 {
		tellBalance(os.Stderr, b, o.answers)
	}
	if o.read == "" && !b.Balanced() {
		return fmt.Errorf("these numbers do not add up, please report it: %+v", *b)
	}
	return nil
}

// tellBalance says what became of the records: they were printed, or went into an answer.
func tellBalance(w io.Writer, b *event.Balance, answers bool) {
	printed := "printed"
	if answers {
		printed = "told of"
	}
	changes := "changes"
	switch {
	case b.Merged > 0: // in the rfc vocabulary not every record is one
		changes = "records"
	case b.Seen == 1:
		changes = "change"
	}
	fmt.Fprintf(w, "sstrace: %d %s seen: %d %s, %d filtered, %d lost", b.Seen, changes, b.Printed, printed, b.Filtered, b.RingFull)
	if b.Merged > 0 {
		fmt.Fprintf(w, ", %d told in another's line", b.Merged)
	}
	if b.Unread > 0 {
		fmt.Fprintf(w, ", %d unread", b.Unread)
	}
	if b.Missed > 0 {
		fmt.Fprintf(w, "; %d more were skipped by the kernel", b.Missed)
	}
	fmt.Fprintln(w)
	if b.RingFull > 0 {
		fmt.Fprintln(w, "sstrace: lost changes found the ring buffer full: narrow it down with a filter (-p, --netns), or give --buffer 64M")
	}
}
