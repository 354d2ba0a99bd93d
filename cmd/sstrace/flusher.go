package main

import (
	"fmt"
	"iter"

	"sstrace/internal/event"
	"sstrace/internal/probe"
)

type flusher interface {
	Take(e *event.Event) error
	Flush(now int64) error
}

// flushing adapts
type flushing struct{ flusher }

func (f flushing) Begin() error          { return nil }
func (f flushing) Idle(mono int64) error { return f.Flush(mono) }
func (f flushing) End(end *event.Event) error {
	if end.Balance == nil {
		return f.Flush(0)
	}
	if err := f.Take(end); err != nil {
		return err
	}
	return f.Flush(end.Mono)
}

type listedSrc struct{ *probe.Listing }

func (l listedSrc) Events(func(int64) error) iter.Seq2[*event.Event, error] {
	return l.All(func() error { return nil })
}
func (l listedSrc) Stop() {}
func (l listedSrc) End() (*event.Event, error) {
	wall, mono := l.Now()
	end := &event.Event{Type: event.End, Wall: wall, Mono: mono, Balance: &event.Balance{Seen: l.Seen()}}
	if n := l.Closed(); n > 0 {
		return end, fmt.Errorf("sockets are missing: %d network namespaces may not be entered (`sstrace check` says what to do)", n)
	}
	return end, nil
}
