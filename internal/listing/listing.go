//go:build linux

// Package listing finds the sockets that exist, and the processes that hold them, with BPF
// iterators.
package listing

import (
	"errors"
	"fmt"
	"iter"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"
	"sstrace/internal/needs"

	"github.com/cilium/ebpf/rlimit"
)

// Listing is a session.Source of the sockets that exist. It has its own programs.
type Listing struct {
	Lister
	seen uint64
}

// Open loads the programs that find the sockets with the protocols and network namespaces in f. If
// bound is set, they also find sockets that are only bound to a port. Nothing is attached. Errors
// say what to do, except one that wraps linux.ErrNoCgroup, which is about f.
func Open(f *filter.Filter, bound bool) (*Listing, error) {
	_ = rlimit.RemoveMemlock() // matters before Linux 5.11; if it fails, loading may
	l := &Listing{Lister: Lister{clock: new(linux.Clock), netns: f.NetNS}}
	err := l.open(f, bound)
	if err == nil {
		return l, nil
	}
	l.Close()
	if !errors.Is(err, linux.ErrNoCgroup) {
		err = needs.Explain(err)
	}
	return nil, err
}

func (l *Listing) open(f *filter.Filter, bound bool) error {
	names := make(chan *linux.Names, 1)
	go func() { names <- linux.NewNames() }()
	var err error
	l.progs, err = loadPrograms(f, bound)
	l.names = <-names
	if err != nil {
		return err
	}
	for _, path := range f.Cgroups {
		if _, err := l.names.CgroupID(path); err != nil {
			return err
		}
	}
	return nil
}

// Close frees what Open loaded.
func (l *Listing) Close() {
	l.progs.close()
	if l.names != nil {
		l.names.Close()
	}
}

// Events yields every socket that exists now, including half-open connections and those in
// TIME_WAIT. It never calls idle. See session.Source.
func (l *Listing) Events(func(mono int64) error) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		for e, err := range l.all() {
			if err != nil {
				err = needs.Explain(err)
			} else {
				l.seen++
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Stop does nothing, because a listing ends by itself.
func (l *Listing) Stop() {}

// End returns the last line. The error reports sockets that are missing.
func (l *Listing) End() (*event.Event, error) {
	wall, mono := l.Now()
	end := &event.Event{Type: event.End, Wall: wall, Mono: mono, Balance: &event.Balance{Seen: l.seen}}
	if l.closed > 0 {
		return end, fmt.Errorf("sockets are missing: %d network namespaces may not be entered "+
			"(`sstrace check` says what to do)", l.closed)
	}
	return end, nil
}
