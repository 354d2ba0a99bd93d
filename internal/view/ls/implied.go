// Package ls lists the sockets that exist: now, or at the end of a recording.
package ls

import (
	"cmp"
	"encoding/binary"
	"iter"
	"maps"
	"slices"

	"sstrace/internal/event"
)

// Implied makes a listing of a recording: the sockets that exist at its end, as its lines imply. One that is a listing already passes as it is. Behind
// a loss only those sockets are told that have made a change since, for the others may be gone.
func Implied(source iter.Seq2[*event.Event, error]) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
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
				known[e.ID] = *e
				continue
			case e.Type == event.End:
				for _, id := range slices.Sorted(maps.Keys(known)) {
					s := implied(known[id], e)
					if !yield(&s, nil) {
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

// place is where a socket stands in a listing: by its state, its ends, network namespace, device and protocol, of which each is a number.
type place [8]uint64

func placeOf(e *event.Event) place {
	local, remote := e.Local.Addr().As16(), e.Remote.Addr().As16()
	word := binary.BigEndian.Uint64
	return place{
		uint64(rank[e.New])<<8 | uint64(e.Local.Addr().BitLen()), word(local[:]), word(local[8:]),
		uint64(e.Local.Port())<<8 | uint64(e.Remote.Addr().BitLen()), word(remote[:]), word(remote[8:]),
		uint64(e.Remote.Port())<<32 | uint64(e.NetNS), uint64(e.IfIndex)<<8 | uint64(e.Proto),
	}
}

func (p *place) compare(o *place) int {
	for i, word := range p {
		if word != o[i] {
			return cmp.Compare(word, o[i])
		}
	}
	return 0
}

// Compare orders sockets as a listing does.
func Compare(a, b *event.Event) int {
	p, o := placeOf(a), placeOf(b)
	return p.compare(&o)
}
