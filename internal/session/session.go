// Package session runs a view over a source: the kernel, a listing of the sockets that exist, or a
// recording. Nothing in it depends on which one it is.
package session

import (
	"errors"
	"iter"

	"sstrace/internal/event"
	"sstrace/internal/filter"
)

// Source yields the lines of a run.
type Source interface {
	// Events yields lines in order until the source ends or is stopped. An event is valid until the
	// next one. Whenever a live source has nothing more for now it calls idle, with the
	// CLOCK_MONOTONIC time, in ns, at which this was so; an error from idle ends the events with
	// it. Events can be used once.
	Events(idle func(mono int64) error) iter.Seq2[*event.Event, error]
	// Stop makes Events end once it has yielded what had happened before. It may be called from any
	// goroutine, and more than once.
	Stop()
	// End returns the last line, of type event.End, after Events has ended. Its Balance accounts
	// for what the source did with its records; it is nil if the source cannot know. The error, if
	// any, is about what the source could not yield; the line is valid nevertheless.
	End() (*event.Event, error)
}

// View turns lines into what the user asked for.
type View interface {
	// Begin is called once, before everything else, as soon as the source has proved to work.
	Begin() error
	// Take takes a line that passed the filter, or a Lost. The event is valid during the call.
	Take(e *event.Event) error
	// Idle is called whenever a live source has nothing more, at mono (CLOCK_MONOTONIC, ns). The
	// view writes what it has buffered.
	Idle(mono int64) error
	// End is called last, with the line that ends the run; its Balance is nil if the run cannot be
	// accounted for, because a recording has no end. The view writes whatever is left.
	End(end *event.Event) error
}

// Options selects what a run takes from its source.
type Options struct {
	Filter *filter.Filter
	// Count ends the run after this many lines; 0 means never.
	Count uint64
	// Listing means that the source lists sockets, and each line is an event.Socket.
	Listing bool
	// Older means that the view also wants the sockets that are older than the trace, before any
	// other line.
	Older bool
}

// ErrReaderGone reports that the reader of standard output has exited, as head(1) does.
var ErrReaderGone = errors.New("the reader of standard output has exited")

var errEnough = errors.New("enough lines")

// Run passes the lines of src through the filter to v, which writes to out, until src ends or there
// are enough lines. It returns the balance of the run, or nil if there is none. A reader that exits
// ends the run without an error and without a balance.
func Run(src Source, out *Output, v View, o Options) (*event.Balance, error) {
	r := run{Options: o, out: out, view: v}
	balance, err := r.run(src)
	if errors.Is(err, ErrReaderGone) {
		err = nil
	}
	return balance, errors.Join(err, out.Close())
}

type run struct {
	Options
	out  *Output
	view View

	begun   bool
	printed uint64
	unread  uint64 // lines that passed the filter after the run had enough
	lost    uint64
}

func (r *run) run(src Source) (*event.Balance, error) {
	sourceErr, err := r.take(src)
	src.Stop()
	enough := errors.Is(err, errEnough)
	switch {
	case err != nil && !enough:
		return nil, err
	case !r.begun: // there was not one line
		if err := r.begin(); err != nil {
			return nil, errors.Join(sourceErr, err)
		}
	}
	end, endErr := src.End()
	if sourceErr != nil {
		end.Balance = nil
		return nil, errors.Join(sourceErr, endErr, r.view.End(end))
	}
	r.account(end, enough)
	if b := end.Balance; enough && b.RingFull > r.lost {
		lost := event.Event{Type: event.Lost, Wall: end.Wall, Mono: end.Mono, RingFull: b.RingFull - r.lost}
		if err := r.view.Take(&lost); err != nil {
			return nil, errors.Join(err, endErr)
		}
	}
	return end.Balance, errors.Join(r.view.End(end), endErr)
}

// account completes the balance of end with what became of the lines. If the source has no balance
// of its own, the lines that it yielded are all that can be accounted for.
func (r *run) account(end *event.Event, enough bool) {
	if end.Balance == nil && enough {
		end.Balance = &event.Balance{Seen: r.printed + r.unread + r.Filter.Filtered() + r.lost, RingFull: r.lost}
	}
	b := end.Balance
	if b == nil {
		return
	}
	b.Printed = r.printed
	b.Unread += r.unread
	b.Filtered += r.Filter.Filtered()
	b.Partial = b.Partial || b.Unread > 0 || r.Filter.Lines() && !r.Filter.Whole && !r.Filter.Listing
}

// take passes on each line of src. It returns the source's error and the view's separately: after
// an error of the source, the view can still be ended.
func (r *run) take(src Source) (sourceErr, err error) {
	for e, sourceErr := range src.Events(r.idle) {
		switch {
		case errors.Is(sourceErr, errView):
			return nil, sourceErr
		case sourceErr != nil:
			return sourceErr, nil
		}
		if err := r.begin(); err != nil {
			return nil, err
		}
		if err := r.pass(e); err != nil {
			return nil, err
		}
		if r.enough() {
			return nil, errEnough
		}
	}
	return nil, nil
}

// errView marks an error of the view that comes back through the source, which had called idle.
var errView = errors.New("view")

func (r *run) idle(mono int64) error {
	err := r.begin()
	if err == nil {
		err = r.out.checkReader() // nothing may be written for a long time
	}
	if err == nil {
		err = r.view.Idle(mono)
	}
	if err != nil {
		return viewError{err}
	}
	return nil
}

// viewError is an error of the view.
type viewError struct{ error }

func (v viewError) Unwrap() error        { return v.error }
func (v viewError) Is(target error) bool { return target == errView }

func (r *run) begin() error {
	if r.begun {
		return nil
	}
	r.begun = true
	if err := r.out.begin(); err != nil {
		return err
	}
	return r.view.Begin()
}

// pass passes a line through the filter to the view. Lost is not filtered: any connection may be
// the one that lost changes.
func (r *run) pass(e *event.Event) error {
	switch {
	case e.Type == event.Lost:
		r.lost += e.RingFull
		return r.view.Take(e)
	case e.Type == event.Socket && !r.Listing: // not a change, and in no balance
		if !r.Older || !r.Filter.Connection(e) {
			return nil
		}
		return r.view.Take(e)
	case e.Type == event.ConnectFailed && r.Listing: // it left no socket
		return nil
	}
	return r.Filter.Pass(e, func(e *event.Event) error {
		if r.enough() { // the filter may release several lines at once
			r.unread++
			return nil
		}
		r.printed++
		return r.view.Take(e)
	})
}

func (r *run) enough() bool { return r.Count > 0 && r.printed == r.Count }
