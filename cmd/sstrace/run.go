package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"syscall"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/print"

	"golang.org/x/term"
)

// trip is the way of the Events through the rooms: from a source, through the tracker if it is the kernel, the filter and the printer.
type trip struct {
	filter  *filter.Filter
	printer *print.Printer
	count   uint64 // stop after so many changes; 0: never
	printed uint64
	lost    uint64
	end     *event.Balance // of a recording
}

func run(o *options, command []string) error {
	if err := o.check(command); err != nil {
		return usageError{err}
	}
	f, err := filter.New(&o.filter)
	if err != nil {
		return usageError{err}
	}
	t := &trip{filter: f, count: o.count}
	if o.read != "" {
		return t.replay(o)
	}
	return t.live(o, command)
}

// open opens the output, once it is sure that there will be any.
func (t *trip) open(o *options) (closeOutput func() error, err error) {
	out := os.Stdout
	if o.write != "" {
		if out, err = os.OpenFile(o.write, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return nil, err
		}
	}
	color := os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(out.Fd()))
	t.printer, err = print.New(out, o.format, o.clock, color)
	if o.write == "" {
		return func() error { return nil }, quietPipe(err)
	}
	return out.Close, err
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

// travel takes each Event of source to its line, until the source ends, or an error. track comes before the filter; nil for a
// recording, whose lines know already.
func (t *trip) travel(source iter.Seq2[event.Event, error], track func(*event.Event)) error {
	emit := func(e *event.Event) error {
		if err := t.printer.Print(e); err != nil {
			return err
		}
		if t.printed++; t.printed == t.count {
			return errEnough
		}
		return nil
	}
	var e event.Event // one for all: its address goes on, and one for each turn would be one allocation for each
	for next, err := range source {
		if err != nil {
			return err
		}
		e = next
		switch e.Type {
		case event.Change:
			if track != nil {
				track(&e)
			}
			err = t.filter.Pass(&e, emit)
		case event.Lost:
			t.lost += e.RingFull
			err = t.printer.Print(&e)
		case event.Socket:
			track(&e)
		case event.End:
			t.end = e.Balance
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish prints the balance as the last line, and for people on stderr.
func (t *trip) finish(o *options, wall, mono int64, b *event.Balance) error {
	b.Printed = t.printed
	b.Filtered += t.filter.Filtered()
	if err := t.printer.Print(&event.Event{Type: event.End, Wall: wall, Mono: mono, Balance: b}); err != nil {
		return err
	}
	if err := t.printer.Flush(); err != nil {
		return err
	}
	if o.format != "ndjson" || b.RingFull > 0 || b.Missed > 0 || !b.Balanced() {
		tellBalance(os.Stderr, b)
	}
	return nil
}

func tellBalance(w io.Writer, b *event.Balance) {
	fmt.Fprintf(w, "sstrace: %d changes seen: %d printed, %d filtered, %d lost", b.Seen, b.Printed, b.Filtered, b.RingFull)
	if b.Unread > 0 {
		fmt.Fprintf(w, ", %d unread", b.Unread)
	}
	if b.Missed > 0 {
		fmt.Fprintf(w, "; %d more were skipped by the kernel", b.Missed)
	}
	if !b.Balanced() {
		fmt.Fprint(w, "; this does not add up: please report it")
	}
	fmt.Fprintln(w)
	if b.RingFull > 0 {
		fmt.Fprintln(w, "sstrace: lost changes found the ring buffer full: narrow it down with a filter (-p, --netns), or give --buffer 64M")
	}
}
