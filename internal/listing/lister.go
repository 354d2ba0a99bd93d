//go:build linux

package listing

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
)

// Lister finds the sockets that exist. Its methods must not run at the same time.
type Lister struct {
	progs programs
	names *linux.Names
	clock *linux.Clock
	netns []uint32 // the wanted namespaces; empty: all

	refs   []socketRef // the sockets through which the last search reached network namespaces
	closed int         // namespaces that the last search could not enter

	listeners   []event.Event // the listeners found by the last search for them
	listenersAt time.Time     // when that was
	listenersIn time.Duration // how long it took
}

// New returns a Lister that uses the iterators of coll, whose spec Configure has prepared.
func New(coll *ebpf.Collection, f *filter.Filter, names *linux.Names, clock *linux.Clock) *Lister {
	return &Lister{progs: programsOf(coll), names: names, clock: clock, netns: f.NetNS}
}

// Now returns the time in ns since 1970 UTC and of CLOCK_MONOTONIC.
func (l *Lister) Now() (wall, mono int64) {
	mono = linux.Monotonic()
	return l.clock.Wall(mono), mono
}

// Sockets returns every socket that exists now, including half-open connections and those in
// TIME_WAIT.
func (l *Lister) Sockets() (all []event.Event, err error) {
	for e, err := range l.all() {
		if err != nil {
			return nil, err
		}
		s := *e
		s.Status = new(*e.Status)
		all = append(all, s)
	}
	return all, nil
}

// all yields the sockets in every network namespace that contains a process, has a name, or has a
// socket held by a process. While this goroutine finds the holders, two threads read the sockets
// and another goroutine turns them into events, which wait here until the holders are known.
func (l *Lister) all() iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		var stop atomic.Bool
		defer stop.Store(true)
		refs := make(chan socketRef, 1<<16)
		found := make(chan []listSockFound, 1<<16)
		var reading errgroup.Group
		reading.Go(func() error { return l.read(refs, found, &stop) })
		made, spare := l.events(found)
		drain := func() error {
			stop.Store(true)
			for events := range made {
				spare <- events[:atOnce]
			}
			return reading.Wait()
		}
		holders, err := l.findHolders(refs)
		var others []event.Event
		if err == nil {
			others, err = l.unlisted()
		}
		if err != nil {
			_ = drain()
			yield(nil, err)
			return
		}
		yielded := make(map[uint64]bool) // sockets that may be found in more than one way
		next := func(e *event.Event) bool {
			if e.Proto == event.MPTCP || e.New == event.Close {
				if yielded[e.Sk] {
					return true
				}
				yielded[e.Sk] = true
			}
			setHolders(e, holders[cmp.Or(e.Status.HeldAs, e.Sk)])
			return yield(e, nil)
		}
		for events := range made {
			for i := range events {
				if !next(&events[i]) {
					spare <- events[:atOnce]
					_ = drain()
					return
				}
			}
			spare <- events[:atOnce]
		}
		for i := range others {
			if !next(&others[i]) {
				return
			}
		}
		if err := reading.Wait(); err != nil {
			yield(nil, fmt.Errorf("list sockets: %w", err))
		}
	}
}

// read sends the sockets in all namespaces to found, and closes it. It never blocks on the
// consumer, so that a listing is a snapshot: found has room for 15 million sockets.
func (l *Lister) read(refs <-chan socketRef, found chan<- []listSockFound, stop *atomic.Bool) error {
	defer close(found)
	err := l.eachNetNS(2, refs, func() error {
		if stop.Load() {
			return nil
		}
		return iterate(l.progs.sockets, nil, func(some []listSockFound) (buf []listSockFound, more bool) {
			if len(some) < atOnce/4 {
				found <- slices.Clone(some)
				return some, !stop.Load()
			}
			found <- some
			return make([]listSockFound, atOnce), !stop.Load()
		})
	})
	for range refs { // so that the sender does not block after an error
	}
	return err
}

// events turns the sockets from found into events in a separate goroutine, and closes made at the
// end. The consumer sends each slice back to spare, at its full length.
func (l *Lister) events(found <-chan []listSockFound) (made <-chan []event.Event, spare chan<- []event.Event) {
	full, empty := make(chan []event.Event, 4), make(chan []event.Event, 4)
	for range cap(empty) {
		empty <- blankEvents(atOnce)
	}
	go func() {
		defer close(full)
		backlog0 := make(map[port]bool)
		for some := range found {
			events := (<-empty)[:len(some)]
			for i := range some {
				l.socket(&some[i], &events[i])
				events[i].Role = role(&some[i], backlog0)
			}
			full <- events
		}
	}()
	return full, empty
}

// unlisted returns the sockets that are in no table that the program sockets walks.
func (l *Lister) unlisted() (all []event.Event, err error) {
	if l.progs.unlisted == nil {
		return nil, nil
	}
	err = iterate(l.progs.unlisted, nil, func(found []listSockFound) ([]listSockFound, bool) {
		for i := range found {
			if len(l.netns) == 0 || slices.Contains(l.netns, found[i].Netns) {
				all = append(all, l.newEvent(&found[i], role(&found[i], nil)))
			}
		}
		return found, true
	})
	if err != nil {
		return nil, fmt.Errorf("list sockets by descriptor: %w", err)
	}
	return all, nil
}

// Listeners returns the listeners, with the lengths of their accept queues but without their
// holders. A search walks the tables of every namespace, so its result is reused for a hundred
// times as long as the search took.
func (l *Lister) Listeners() ([]event.Event, error) {
	begin := time.Now()
	if begin.Sub(l.listenersAt) < 100*l.listenersIn {
		return l.listeners, nil
	}
	refs := make(chan socketRef, len(l.refs))
	if len(l.netns) > 0 { // otherwise not: copying a process's descriptors each time would cost too much
		for _, ref := range l.refs {
			refs <- ref
		}
	}
	close(refs)
	l.listeners = nil
	err := l.eachNetNS(1, refs, func() error {
		return iterate(l.progs.sockets, nil, func(found []listSockFound) ([]listSockFound, bool) {
			for i := range found {
				if event.State(found[i].State) != event.Listen {
					return nil, false // listeners come first
				}
				l.listeners = append(l.listeners, l.newEvent(&found[i], event.Listener))
			}
			return found, true
		})
	})
	l.listenersAt, l.listenersIn = time.Now(), time.Since(begin)
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	return l.listeners, nil
}
