// Package sockets lists the sockets that exist: now, or at the end of a recording.
package sockets

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"sstrace/internal/event"
)

// Implied makes a listing of a recording: the sockets that exist at its end, as its lines imply. One that is a listing already passes as it is. Behind
// a loss only those sockets are told that have made a change since, for the others may be gone.
func Implied(source iter.Seq2[event.Event, error]) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		known := make(map[uint64]event.Event) // by id
		for e, err := range source {
			switch {
			case err != nil:
			case e.Type == event.Lost:
				clear(known)
			case e.Type == event.Accept:
				if s, ok := known[e.ID]; ok {
					s.OwnerPID, s.OwnerComm, s.OwnerVia, s.UID = e.OwnerPID, e.OwnerComm, e.OwnerVia, e.UID
					known[e.ID] = s
				}
				continue
			case e.Type == event.Change && e.New == event.Close:
				delete(known, e.ID)
				continue
			case e.Type == event.Change:
				known[e.ID] = e
				continue
			case e.Type == event.End:
				for _, id := range slices.Sorted(maps.Keys(known)) {
					if !yield(implied(known[id], &e), nil) {
						return
					}
				}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// implied makes a Socket of its last change.
func implied(last event.Event, end *event.Event) event.Event {
	s := last
	s.Type, s.Wall, s.Mono, s.Dur = event.Socket, end.Wall, end.Mono, end.Mono-last.Mono
	s.SynRetrans = event.Unknown
	s.Status = &event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown, Left: event.Unknown}
	return s
}

// rank orders states along a connection's life.
var rank = [256]int{
	event.Listen: 1, event.SynSent: 2, event.SynRecv: 3, event.Established: 4, event.FinWait1: 5, event.FinWait2: 6, event.Closing: 7, event.TimeWait: 8,
	event.CloseWait: 9, event.LastAck: 10, event.Close: 11,
}

// place is where a socket stands in a listing: by its state, and then by its ends.
type place struct {
	state         event.State
	netns         uint32
	local, remote netip.AddrPort
}

func placeOf(e *event.Event) place { return place{e.New, e.NetNS, e.Local, e.Remote} }

func (p *place) compare(o *place) int {
	if c := rank[p.state] - rank[o.state]; c != 0 {
		return c
	}
	if c := p.local.Compare(o.local); c != 0 {
		return c
	}
	if c := p.remote.Compare(o.remote); c != 0 {
		return c
	}
	return cmp.Compare(p.netns, o.netns)
}

// Compare orders sockets as a listing does.
func Compare(a, b *event.Event) int {
	p, o := placeOf(a), placeOf(b)
	return p.compare(&o)
}
