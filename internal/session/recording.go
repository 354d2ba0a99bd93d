package session

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"sstrace/internal/event"
)

// ErrSockets reports that a recording lists sockets although its changes were asked for.
var ErrSockets = errors.New("a listing of sockets has no changes")

// Recording is a Source that yields the lines of a recording.
type Recording struct {
	in   io.Reader
	file string
	want Want

	last    event.Event
	end     *event.Event
	done    bool  // all lines were read
	failed  bool  // a line could not be read
	gap     error // where the line numbers first skipped
	sockets bool  // a line lists a socket
	listed  uint64
}

// Want is what a view wants from a recording.
type Want struct {
	// Sockets turns the lines into the sockets that exist when they end; nil: the lines themselves.
	Sockets func(iter.Seq2[*event.Event, error]) iter.Seq2[*event.Event, error]
	// Existing means that the answer is about existing sockets, so it needs every line of a
	// connection.
	Existing bool
}

// NewRecording returns a Source of the lines of in, which was read from file; "-" is standard
// input.
func NewRecording(in io.Reader, file string, want Want) *Recording {
	return &Recording{in: in, file: file, want: want}
}

func (r *Recording) name() string {
	if r.file == "-" {
		return "standard input"
	}
	return r.file
}

// Events implements Source. A recording is never idle.
func (r *Recording) Events(func(int64) error) iter.Seq2[*event.Event, error] {
	lines := r.lines()
	if r.want.Sockets != nil {
		lines = r.want.Sockets(lines)
	}
	return func(yield func(*event.Event, error) bool) {
		for e, err := range lines {
			if err == nil && e.Type == event.End {
				continue
			}
			if err == nil && e.Type == event.Socket {
				r.listed++
			}
			if !yield(e, err) {
				return
			}
		}
		r.done = true
	}
}

// lines yields every line, and checks that together they are one recording.
func (r *Recording) lines() iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		for e, err := range event.Read(r.in) {
			if err == nil && r.end != nil {
				err = fmt.Errorf("line %d comes after the end: this file contains two recordings", r.last.Seq+1)
			}
			switch {
			case errors.Is(err, io.ErrUnexpectedEOF):
				err = fmt.Errorf("%s: %w: what came before it was printed", r.name(), err)
			case err != nil:
				err = fmt.Errorf("%s: %w", r.name(), err)
			default:
				r.note(e)
			}
			r.failed = r.failed || err != nil
			if !yield(e, err) {
				return
			}
		}
	}
}

func (r *Recording) note(e *event.Event) {
	if e.Seq != r.last.Seq+1 && r.gap == nil {
		r.gap = fmt.Errorf("%s is not one complete recording: line %d is followed by line %d; the lines in it were printed",
			r.name(), r.last.Seq, e.Seq)
	}
	r.last = *e
	r.sockets = r.sockets || e.Type == event.Socket
	if e.Type == event.End {
		r.end = &r.last
	}
}

// Stop implements Source. It has nothing to stop: a recording is read only on demand.
func (r *Recording) Stop() {}

// End implements Source. Its error reports how the recording is incomplete, or wraps ErrSockets.
func (r *Recording) End() (*event.Event, error) {
	end := &event.Event{Type: event.End, Wall: r.last.Wall, Mono: r.last.Mono}
	var cut, partial, sockets error
	switch {
	case r.end != nil:
		end.Balance = r.end.Balance
		if r.want.Sockets != nil {
			end.Balance = &event.Balance{Seen: r.listed}
		}
		if r.end.Balance.Partial && r.want.Existing {
			partial = fmt.Errorf("%s is missing lines of some connections (it was made with a line filter, or with -n), "+
				"so it is unreliable about existing sockets; record with connection filters only", r.name())
		}
	case r.done && !r.failed:
		what := "the lines in it were printed"
		if r.want.Sockets != nil {
			what = "which sockets exist is unknown"
		}
		cut = fmt.Errorf("%s has no end line: its writer was killed, or is still writing; %s", r.name(), what)
	}
	if r.sockets && !r.want.Existing {
		sockets = fmt.Errorf("%s: %w; sstrace ls -r %s prints it", r.name(), ErrSockets, r.file)
	}
	return end, errors.Join(cut, partial, sockets, r.gap)
}
