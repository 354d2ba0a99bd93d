package ls

import (
	"iter"
	"maps"
	"slices"

	"sstrace/internal/event"
)

// Implied returns the sockets that exist at the end of a recording, as a listing. If the recording
// is itself a listing, it is returned unchanged. After a loss, only the sockets that have changed
// since then are returned, because the others may be gone.
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

// implied returns a Socket, as implied by the last change of a socket.
func implied(last event.Event, end *event.Event) event.Event {
	s := last
	s.Type, s.Wall, s.Mono, s.Dur = event.Socket, end.Wall, end.Mono, end.Mono-last.Mono
	s.SynRetrans = event.Unknown
	s.Status = &event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown,
		Left: event.Unknown}
	return s
}
