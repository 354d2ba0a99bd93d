// Package track turns the records of the kernel side into lines. It gives each socket its identity,
// role and owner, and computes how long it was in the state that it leaves. It does no I/O, so it
// is the same on every system.
package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// Tracker turns the records of one run into lines, in one vocabulary. It is not safe for concurrent
// use.
//
// Take and Settle emit lines in the order of their records. An event is valid until emit returns.
// An error of emit ends the call and is returned; that line counts as emitted, and the lines behind
// it are emitted by the next call.
type Tracker interface {
	// Take takes the next record and emits the lines that are ready then. It must get every record
	// of the run, in the order of the source and before any filter, and may change the record.
	Take(r *record.Record, emit func(*event.Event) error) error

	// Settle emits the lines that are ready at mono (CLOCK_MONOTONIC, ns), even if no record comes:
	// a record waits for others only for a limited time. With math.MaxInt64, none waits any longer.
	Settle(mono int64, emit func(*event.Event) error) error

	// Waiting returns the number of records whose lines were not emitted yet, or that may still
	// become lines.
	Waiting() uint64

	// Duplicates returns the number of records that reported a change for the second time.
	Duplicates() uint64

	// Merged returns the number of records that were merged into another's line or added nothing.
	Merged() uint64
}
