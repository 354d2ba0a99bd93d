package track

import (
	"sstrace/internal/event"
	"sstrace/internal/record"
)

// Kernel is the Tracker of the kernel's vocabulary: each change of a full socket is a line, as
// sock:inet_sock_set_state reports it. No line ever waits, and no record is merged. The zero value
// is ready to use.
type Kernel struct {
	table
}

// Take implements Tracker. It takes changes, lost changes and existing sockets; the latter are
// remembered, but are not lines.
func (k *Kernel) Take(r *record.Record, emit func(*event.Event) error) error {
	if r.Kind == record.Lost {
		return emit(&r.Event)
	}
	k.init()
	s := k.socks[r.Sk]
	if s != nil && s.repeats(r) {
		k.duplicates++
		return nil
	}
	if s != nil && !s.same(r) {
		k.forget(s)
		s = nil
	}
	if s == nil {
		s = k.add(r)
	}
	if r.Cookie != 0 {
		s.cookie = r.Cookie
	}
	if r.Kind == record.Existing {
		k.remember(s, r)
		return nil
	}
	r.ID, r.Dur = s.id, s.duration(r)
	s.move(r)
	k.attribute(s, r)
	s.describe(r)
	if r.New == event.Close {
		k.close(s)
	}
	return emit(&r.Event)
}

// Settle implements Tracker.
func (k *Kernel) Settle(int64, func(*event.Event) error) error { return nil }

// Waiting implements Tracker.
func (k *Kernel) Waiting() uint64 { return 0 }

// Merged implements Tracker.
func (k *Kernel) Merged() uint64 { return 0 }
