package session

import (
	"errors"
	"iter"
	"math"

	"sstrace/internal/event"
	"sstrace/internal/record"
	"sstrace/internal/track"
)

// Kernel yields records. It is a probe.Probe, or a substitute in tests.
type Kernel interface {
	// Records yields records in order until Stop, and calls idle whenever it has none; see
	// probe.Probe.
	Records(idle func(mono int64) (soon bool, err error)) iter.Seq2[*record.Record, error]
	Stop()
	// Balance accounts for all records but the duplicates.
	Balance(duplicates uint64) (*event.Balance, error)
	// Now returns the time, in ns since 1970 UTC and in ns of CLOCK_MONOTONIC.
	Now() (wall, mono int64)
}

// Trace is the Source of the lines that a tracker makes from the kernel's records.
type Trace struct {
	Kernel
	tracker track.Tracker
}

// NewTrace returns a Source of the records of k in the vocabulary of t.
func NewTrace(k Kernel, t track.Tracker) *Trace { return &Trace{k, t} }

var errStopped = errors.New("no more lines are wanted")

// Events implements Source.
func (t *Trace) Events(idle func(mono int64) error) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		emit := func(e *event.Event) error {
			if !yield(e, nil) {
				return errStopped
			}
			return nil
		}
		settle := func(mono int64) (soon bool, err error) {
			if err := t.tracker.Settle(mono, emit); err != nil {
				return false, err
			}
			return t.tracker.Waiting() > 0, idle(mono)
		}
		for r, err := range t.Records(settle) {
			if err == nil {
				err = t.tracker.Take(r, emit)
			}
			if err != nil {
				if !errors.Is(err, errStopped) {
					yield(nil, err)
				}
				return
			}
		}
		_ = t.tracker.Settle(math.MaxInt64, emit) // no record follows that could complete another
	}
}

// End implements Source.
func (t *Trace) End() (*event.Event, error) {
	wall, mono := t.Now()
	end := &event.Event{Type: event.End, Wall: wall, Mono: mono}
	b, err := t.Balance(t.tracker.Duplicates())
	if err != nil {
		return end, err
	}
	b.Merged = t.tracker.Merged()
	b.Unread += t.tracker.Waiting()
	end.Balance = b
	return end, nil
}
