//go:build linux

package probe

import (
	"errors"
	"fmt"
	"iter"
	"os"

	"sstrace/internal/event"
	"sstrace/internal/linux"
	"sstrace/internal/record"

	"github.com/cilium/ebpf/ringbuf"
)

// Records first yields the sockets that are older than the trace. Then, until Stop, it yields each
// record in the ring, with a Lost wherever changes are missing, and finally the rest of the ring. A
// record is valid until the next one. Whenever the ring is empty, Records calls idle before it
// sleeps, with a time at which the ring was still empty. It calls idle again soon if idle asks for
// that. Records can be used only once.
func (p *Probe) Records(idle func(mono int64) (soon bool, err error)) iter.Seq2[*record.Record, error] {
	return func(yield func(*record.Record, error) bool) {
		defer p.settle()
		for i := range p.before {
			e := &p.before[i]
			if !yield(&record.Record{Event: *e, Kind: record.Existing, Mini: e.Status.Mini}, nil) {
				return
			}
		}
		p.before = nil
		p.drain(idle, yield)
	}
}

// drain yields the records in the ring, and the losses between them.
func (p *Probe) drain(idle func(int64) (bool, error), yield func(*record.Record, error) bool) {
	var rec ringbuf.Record
	r := new(record.Record)
	found, flushed := 0, false // found is how many bytes were in the ring when the batch started
	p.reader.SetDeadline(longAgo)
	for {
		err := p.reader.ReadInto(&rec)
		switch {
		case err == nil:
			if found == 0 {
				found = rec.Remaining + len(rec.RawSample)
				p.reader.SetDeadline(longAgo) // return at once at the end of the batch
			}
			if err := p.translate(rec.RawSample, r); err != nil {
				yield(nil, err)
				return
			}
			if !p.reportLosses(r.Losses, r.Mono, yield) {
				return
			}
			p.read++
			if !yield(r, nil) {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			// These two are read before the ring is found to be empty: by the time they are
			// reported, it may have filled up, and changes behind its records may be lost.
			losses, mono := p.losses(), linux.Monotonic()
			p.fence.Add(1)
			if p.reader.AvailableBytes() > 0 {
				p.reader.SetDeadline(longAgo)
				continue
			}
			if !p.reportLosses(losses, mono, yield) {
				return
			}
			soon, err := idle(mono)
			if err != nil {
				yield(nil, err)
				return
			}
			p.pace.rest(found, soon)
			found = 0
		case errors.Is(err, ringbuf.ErrFlushed):
			if p.settle(); !flushed && p.read != p.cpus().Emitted {
				flushed = true // all records are in the ring by now
				_ = p.reader.Flush()
				continue
			}
			p.reportLosses(p.losses(), linux.Monotonic(), yield)
			return
		default:
			yield(nil, fmt.Errorf("read the ring buffer: %w", err))
			return
		}
	}
}

// translate fills r from a record in the ring.
func (p *Probe) translate(sample []byte, r *record.Record) error {
	raw, err := decode(sample)
	if err != nil {
		return err
	}
	*r = p.names.record(raw)
	if r.New == event.Close {
		r.Totals = p.names.totals(sample)
	}
	r.Wall = p.clock.Wall(r.Mono)
	return nil
}

// askToBeWoken makes the next change wake the reader.
func (p *Probe) askToBeWoken() {
	_ = p.vars.ReaderWaiting.Set(uint32(1)) // mapped memory: cannot fail
	p.fence.Add(1)                          // a full barrier: reads of the ring must not be ordered before it
}

// reportLosses yields a Lost if more changes have been lost than reported.
func (p *Probe) reportLosses(losses uint64, mono int64, yield func(*record.Record, error) bool) bool {
	if losses <= p.reported {
		return true
	}
	e := event.Event{Type: event.Lost, Mono: mono, Wall: p.clock.Wall(mono), RingFull: losses - p.reported}
	p.reported = losses
	return yield(&record.Record{Event: e, Kind: record.Lost}, nil)
}

func (p *Probe) losses() uint64 {
	var n uint64
	_ = p.vars.Losses.Get(&n) // mapped memory: cannot fail
	return n
}
