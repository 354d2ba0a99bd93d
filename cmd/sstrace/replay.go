package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"sstrace/internal/event"
	"sstrace/internal/view/ls"
)

// replay prints a recording.
func (t *trip) replay(o *options) error {
	in := os.Stdin
	if o.read != "-" {
		var err error
		if in, err = os.Open(o.read); err != nil {
			return err
		}
		defer in.Close()
	}
	closeOutput, err := t.open(o, live{})
	if err != nil {
		return quiet(err)
	}
	r := recording{name: o.read}
	if r.name == "-" {
		r.name = "standard input"
	}
	source := r.lines(in)
	if o.listing {
		source = ls.Implied(source)
	}
	err = t.travel(source)
	enough := errors.Is(err, errEnough)
	if !enough && (err != nil || t.end == nil) { // else finish does it, behind the end
		if flushErr := t.view.Flush(0); err == nil {
			err = flushErr
		}
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: what came before it was printed", err)
	case err != nil && !enough:
		if o.write == "" {
			err = quietPipe(err)
		}
	case enough:
		dropped := t.filter.Filtered()
		err = t.finish(o, r.last.Wall, r.last.Mono, &event.Balance{Seen: t.printed + t.unread + dropped + t.lost, RingFull: t.lost})
	case t.end == nil:
		err = fmt.Errorf("%s has no end line: whoever wrote it was killed, or is still writing; what is there was printed", r.name)
	case o.listing:
		err = t.finish(o, r.last.Wall, r.last.Mono, &event.Balance{Seen: t.printed + t.filter.Filtered()})
	default:
		err = t.finish(o, r.last.Wall, r.last.Mono, t.end)
	}
	if t.end != nil && t.end.Partial && (o.listing || o.older) {
		err = errors.Join(err, fmt.Errorf("%s lacks lines of the connections that it tells of (a filter of lines, or -n): what it says of sockets that exist is not to be relied on; "+
			"record with filters of connections alone", r.name))
	}
	if r.listing && !o.listing && !o.older {
		err = errors.Join(err, usageError{fmt.Errorf("%s lists sockets and tells no changes: sstrace ls -r %s prints it", r.name, o.read)})
	}
	return errors.Join(quiet(err), r.gap, closeOutput())
}

// recording remembers what the last line of a recording was, and where first seq did not go on by one.
type recording struct {
	name string
	last event.Event
	gap  error

	listing bool // it has lines about sockets, not changes
}

func (r *recording) lines(in io.Reader) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		for e, err := range event.Read(in) {
			if err == nil && r.last.Type == event.End {
				err = fmt.Errorf("line %d comes after the end: these are two recordings", r.last.Seq+1)
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
			} else {
				if e.Seq != r.last.Seq+1 && r.gap == nil {
					r.gap = fmt.Errorf("%s is not one whole recording: after line %d comes line %d; what is there was printed", r.name, r.last.Seq, e.Seq)
				}
				r.last = *e
				r.listing = r.listing || e.Type == event.Socket
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// quiet forgets that the reader of stdout has gone.
func quiet(err error) error {
	if errors.Is(err, errPipe) {
		return nil
	}
	return err
}
