// Package track turns the kernel side's records into lines. It gives each socket its identity, role
// and owner, and computes how long it was in the state it leaves. It does no I/O, so it is the same
// on every system.
package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// Tracker turns the records of one run into lines in one vocabulary. It is not safe for concurrent
// use.
//
// Take and Settle emit lines in the order of their records. An event is valid until emit returns.
// If emit fails, the call ends and returns its error; that line counts as emitted, and the next
// call emits the lines after it.
type Tracker interface {
	// Take takes the next record and emits the lines that are ready after it. It must get every
	// record of the run, in the source's order and before any filter. It may change the record.
	Take(r *record.Record, emit func(*event.Event) error) error

	// Settle emits the lines that are ready at mono (CLOCK_MONOTONIC, ns), even if no record
	// arrives, since a record waits for others only for a limited time. If mono is math.MaxInt64,
	// no record waits any longer.
	Settle(mono int64, emit func(*event.Event) error) error

	// Waiting returns the number of records whose lines have not been emitted yet, or that may
	// still become lines.
	Waiting() uint64

	// Duplicates returns the number of records that reported a change a second time.
	Duplicates() uint64

	// Merged returns the number of records that were merged into the line of another record or
	// added nothing.
	Merged() uint64
}
