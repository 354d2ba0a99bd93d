package track

import (
	"iter"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// patience is how long a record waits for another one, in ns. The two records come from the same
// system call or softirq.
const patience = 5e6

// backlog is a queue. It starts with a record that lacks something, and contains all later records
// that are, or may become, lines. Lines therefore keep the order of their records, whatever the
// records wait for. The zero value is an empty backlog.
type backlog struct {
	queue  []*pending // from head on
	head   int
	unused []*pending // for the next records
}

// pending is a record in a backlog.
type pending struct {
	rec    record.Record
	sock   *sock
	awaits awaited
	line   bool // it is a line; valid once it no longer awaits anything
}

// awaited is something that a record lacks.
type awaited uint8

const (
	awaitsNothing awaited = iota
	awaitsPort            // a connect(): its port and its sequence number
	awaitsRemote          // a child: its remote end
	awaitsClose           // the start of a timewait sock: the close of the full socket that it replaces
	awaitsTimer           // a cancelled or expired timer: what its CPU does next
	awaitsReuse           // the early end of a timewait sock: a connection that reuses its tuple
	awaitsReason          // a close: the RST that answers a segment, or the error that connect() returns
)

// resolve ends the wait of p. line says whether p is a line.
func (p *pending) resolve(line bool) { p.awaits, p.line = awaitsNothing, line }

func (b *backlog) empty() bool { return b.head == len(b.queue) }

// add appends a copy of r. The result is valid until it is resolved; settle ensures that this
// happens.
func (b *backlog) add(r *record.Record, a awaited) *pending {
	var p *pending
	if n := len(b.unused); n > 0 {
		p, b.unused = b.unused[n-1], b.unused[:n-1]
	} else {
		p = new(pending)
	}
	*p = pending{rec: *r, awaits: a}
	b.queue = append(b.queue, p)
	return p
}

// settle emits the lines at the front, up to the first record that is still waiting. If a record
// has waited too long at mono, settle calls giveUp until the record is resolved, because a call may
// make it await something else. If emit fails, that line is gone and the others stay.
func (b *backlog) settle(mono int64, giveUp func(*pending), emit func(*event.Event) error) (err error) {
	for err == nil && !b.empty() {
		p := b.queue[b.head]
		for p.awaits != awaitsNothing && mono-p.rec.Mono >= patience {
			giveUp(p)
		}
		if p.awaits != awaitsNothing {
			break
		}
		b.queue[b.head] = nil
		b.head++
		if p.line {
			err = emit(&p.rec.Event)
		}
		p.sock = nil
		b.unused = append(b.unused, p)
	}
	switch {
	case b.empty():
		b.queue, b.head = b.queue[:0], 0
	case b.head > 64 && 2*b.head >= len(b.queue):
		b.queue = b.queue[:copy(b.queue, b.queue[b.head:])]
		b.head = 0
	}
	return err
}

// all returns the records, oldest first.
func (b *backlog) all() iter.Seq[*pending] {
	return func(yield func(*pending) bool) {
		for _, p := range b.queue[b.head:] {
			if !yield(p) {
				return
			}
		}
	}
}

// waiting returns the number of records that are lines, or may become one. A record.Lost is not
// counted, since it stands for records that were never received.
func (b *backlog) waiting() (n uint64) {
	for p := range b.all() {
		if (p.line || p.awaits != awaitsNothing) && p.rec.Kind != record.Lost {
			n++
		}
	}
	return n
}
