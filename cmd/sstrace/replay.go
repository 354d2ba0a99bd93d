package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"sstrace/internal/event"
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
	closeOutput, err := t.open(o)
	if err != nil {
		return quiet(err)
	}
	var r recording
	err = t.travel(r.lines(in), nil)
	if flushErr := t.printer.Flush(); flushErr != nil && (err == nil || errors.Is(err, errEnough)) {
		err = flushErr
	}
	enough := errors.Is(err, errEnough)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%s: %w: what came before it was printed", o.read, err)
	case err != nil && !enough:
		if o.write == "" {
			err = quietPipe(err)
		}
	case enough:
		dropped := t.filter.Filtered()
		err = t.finish(o, r.last.Wall, r.last.Mono, &event.Balance{Seen: t.printed + dropped + t.lost, RingFull: t.lost})
	case t.end == nil:
		err = fmt.Errorf("%s has no end line: whoever wrote it was killed, or is still writing; what is there was printed", o.read)
	default:
		err = t.finish(o, r.last.Wall, r.last.Mono, t.end)
	}
	if r.gaps > 0 {
		fmt.Fprintf(os.Stderr, "sstrace: %s: lines are missing: seq has gaps (%d)\n", o.read, r.gaps)
	}
	return errors.Join(quiet(err), closeOutput())
}

// recording remembers what the last line of a recording was, and how often seq did not go on by one.
type recording struct {
	last event.Event
	gaps int
}

func (r *recording) lines(in io.Reader) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		for e, err := range event.Read(in) {
			if err == nil {
				if e.Seq != r.last.Seq+1 {
					r.gaps++
				}
				r.last = e
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
