package leaks

import (
	"cmp"
	"maps"
	"slices"

	"sstrace/internal/event"
)

// sweepInterval is how often the ages are compared with the limits, and the accept queues are
// checked, in ns.
const sweepInterval = 1e9

// sweep reports the sockets that have become too old, and the accept queues that are full.
func (v *View) sweep(now int64) error {
	v.swept = now
	old := oldestFirst(v.watched, func(s *socket) bool {
		return !s.decided && now-s.since >= v.limits[s.New].Nanoseconds()
	})
	full, err := v.sweepQueues()
	if err != nil {
		return err
	}
	if v.kernel.Sockets == nil && v.lost {
		v.distrust()
	}
	if len(old)+len(full) == 0 && !v.lost && len(v.openers) < v.manyOpen {
		return nil
	}
	exists, err := v.look()
	if err != nil {
		return err
	}
	if v.lost && exists != nil {
		if err := v.recheck(exists, now); err != nil {
			return err
		}
	}
	v.lost = false
	all := slices.Concat(old, full)
	slices.SortStableFunc(all, mptcpFirst)
	reported := byConnection(v.stuckNow())
	for _, s := range all {
		if s.unsure || exists != nil && !v.confirm(s, exists) {
			continue
		}
		if err := v.decide(s, now, reported); err != nil {
			return err
		}
	}
	return nil
}

// confirm updates s from the sockets that exist, and reports whether s is still stuck. A socket
// that a search does not find may have left its state by a change that is still in the ring. Or no
// line ever shows the change, because the socket was known by another tuple. So s is given up the
// second time that a search does not find it.
func (v *View) confirm(s *socket, exists map[event.Identity]event.Event) bool {
	at := s.Identity()
	found, ok := exists[at]
	if ok && s.is(&found) {
		s.Status = found.Status
		return true
	}
	if s.missed++; s.missed > 1 {
		delete(v.watched, at)
		delete(v.full, at)
	}
	return false
}

// decide decides whether the stuck socket s is wanted. If it is, decide reports it, unless s is
// merged into another socket.
func (v *View) decide(s *socket, now int64, reported connections) error {
	at := now
	if v.kernel.Sockets == nil && s.New != event.Listen && s.exact { // in a recording, the next line may be much later
		at = s.since + v.limits[s.New].Nanoseconds()
	}
	s.decided = true
	s.Wall += at - s.Mono
	s.Mono = at
	s.setAge(at)
	if !v.wanted(&s.Event) {
		return nil
	}
	if other := reported.find(&s.Event); other != nil {
		other.merged = append(other.merged, s)
		return nil
	}
	reported.add(s)
	s.reported, v.found = true, true
	return v.out.stuck(s, v.openers[s.ID])
}

// is reports whether found is the same socket as s in the same state, as far as that can be
// determined.
func (s *socket) is(found *event.Event) bool {
	switch {
	case found.New != s.New || s.New == event.Listen && !isFull(found):
		return false
	case s.Cookie != 0 && found.Cookie != 0:
		return s.Cookie == found.Cookie
	}
	return true
}

// setAge sets the age of s as in a Socket.
func (s *socket) setAge(now int64) {
	s.Type = event.Socket
	if s.Status == nil {
		s.Status = &event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, Left: event.Unknown}
	}
	s.Dur, s.Status.AtLeast = event.Unknown, event.Unknown
	switch age := now - s.since; {
	case s.unsure:
	case s.exact:
		s.Dur = age
	case age > 0:
		s.Status.AtLeast = age
	}
}

// distrust handles a loss in a recording. After the loss, it is unknown which sockets are still
// stuck. Sockets that were already reported are kept, so that they are not reported again. The next
// change of each one shows what became of it.
func (v *View) distrust() {
	for at, s := range v.watched {
		if s.unsure = true; !s.reported {
			delete(v.watched, at)
		}
	}
}

// recheck handles a loss in a live trace. It gives up the sockets that have left their state. The
// others may have left their state and come back, so their age is known only from now on.
func (v *View) recheck(exists map[event.Identity]event.Event, now int64) error {
	for _, s := range oldestFirst(v.watched, func(*socket) bool { return true }) {
		found, ok := exists[s.Identity()]
		if ok && s.is(&found) {
			s.since, s.exact = found.Mono-max(found.Status.AtLeast, 0), false
			continue
		}
		delete(v.watched, s.Identity())
		s.release()
		if s.reported {
			if err := v.out.over(s, &event.Event{Mono: now, Wall: s.Wall + now - s.Mono}); err != nil {
				return err
			}
		}
	}
	return nil
}

// look returns the sockets that exist, or nil if the source is not live.
func (v *View) look() (map[event.Identity]event.Event, error) {
	if v.kernel.Sockets == nil {
		return nil, nil
	}
	all, err := v.kernel.Sockets()
	if err != nil {
		return nil, err
	}
	exists := make(map[event.Identity]event.Event, len(all))
	open := make(map[uint64]bool, len(all))
	for i := range all {
		if all[i].New == event.SynSent {
			v.learnPort(&all[i])
		}
		exists[all[i].Identity()] = all[i]
		open[all[i].Sk] = true
	}
	maps.DeleteFunc(v.openers, func(_ uint64, o opener) bool { return !open[o.sk] })
	v.manyOpen = max(2*len(v.openers), minOpen)
	return exists, nil
}

// sweepQueues returns the listeners whose accept queue has become full. It also reports those whose
// queue has room again.
func (v *View) sweepQueues() (full []*socket, err error) {
	if v.kernel.Listeners == nil {
		return oldestFirst(v.full, func(s *socket) bool { return !s.decided }), nil
	}
	all, err := v.kernel.Listeners()
	if err != nil {
		return nil, err
	}
	stillFull := make(map[event.Identity]bool)
	for i := range all {
		e := &all[i]
		if !isFull(e) {
			continue
		}
		at := e.Identity()
		stillFull[at] = true
		s := v.full[at]
		if s == nil {
			s = &socket{Event: *e, since: e.Mono}
			v.full[at] = s
		}
		if !s.decided {
			full = append(full, s)
		}
	}
	slices.SortFunc(full, compareAges)
	for _, s := range oldestFirst(v.full, func(s *socket) bool { return !stillFull[s.Identity()] }) {
		delete(v.full, s.Identity())
		s.release()
		if s.reported {
			if err := v.out.over(s, &event.Event{Mono: v.swept, Wall: s.Wall + v.swept - s.Mono,
				New: event.Listen}); err != nil {
				return nil, err
			}
		}
	}
	return full, nil
}

// stuckNow returns the sockets that were reported and are still stuck. The oldest comes first.
func (v *View) stuckNow() []*socket {
	stuck := oldestFirst(v.watched, func(s *socket) bool { return s.reported && !s.unsure })
	full := oldestFirst(v.full, func(s *socket) bool { return s.reported })
	all := slices.Concat(stuck, full)
	slices.SortFunc(all, compareAges)
	return all
}

// agesUnknownNow returns the wanted sockets in agesUnknown, one for each connection. It leaves out
// the connections that were reported.
func (v *View) agesUnknownNow() (all []*socket) {
	seen := byConnection(v.stuckNow())
	slices.SortStableFunc(v.agesUnknown, mptcpFirst)
	for _, s := range v.agesUnknown {
		if v.wanted(&s.Event) && seen.find(&s.Event) == nil {
			seen.add(s)
			all = append(all, s)
		}
	}
	return all
}

func oldestFirst(sockets map[event.Identity]*socket, which func(*socket) bool) []*socket {
	var all []*socket
	for _, s := range sockets {
		if which(s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, compareAges)
	return all
}

// compareAges orders the oldest sockets first. It always puts sockets of the same age in the same
// order.
func compareAges(a, b *socket) int {
	return cmp.Or(
		cmp.Compare(a.since, b.since), cmp.Compare(a.NetNS, b.NetNS), a.Local.Compare(b.Local),
		a.Remote.Compare(b.Remote), cmp.Compare(a.Sk, b.Sk),
	)
}
