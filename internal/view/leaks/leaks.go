// Package leaks tells of sockets that stay too long in a state that should pass: somebody forgot to close them, or a peer is gone. And of listeners whose
// accept queue is full.
package leaks

import (
	"cmp"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sstrace/internal/event"
)

// Limits are the states that should pass, and how long each may last. A time that is normal in the state's own way (a round trip, a program that reads to the end)
// is far below; the kernel's own limits, where there are any, are above: see `sstrace explain`.
var Limits = map[event.State]time.Duration{
	event.CloseWait: time.Minute,
	event.FinWait1:  time.Minute,
	event.FinWait2:  5 * time.Minute, // after shutdown() the peer may still have much to send
	event.LastAck:   time.Minute,
	event.Closing:   time.Minute,
	event.SynSent:   30 * time.Second,
	event.SynRecv:   30 * time.Second,
}

// States lists the keys of Limits along a connection's life.
var States = []event.State{event.SynSent, event.SynRecv, event.FinWait1, event.FinWait2, event.Closing, event.CloseWait, event.LastAck}

// sweepEach is how often ages are held against the limits, and accept queues are looked at; ns.
const sweepEach = 1e9

// Kernel is what may be asked while the source is live; all are nil otherwise. Stack names the functions of an Event.Stack of a process.
type Kernel struct {
	Sockets   func() ([]event.Event, error)
	Listeners func() ([]event.Event, error)
	Stack     func(pid, id uint32) []string
	Program   func(pid uint32) string // tells one execution of a program from another
	Process   func(pid uint32) (exe, cgroup string)
}

// View watches sockets.
type View struct {
	kernel Kernel
	wanted func(*event.Event) bool // of a Socket
	limits map[event.State]time.Duration
	tell   teller
	found  bool

	opened  map[uint64]opener // who connected or accepted, of those that are open
	most    int               // of opened: with more, those that are not open any more are looked for
	stuck   map[ends]*sock    // in a state of limits
	full    map[ends]*sock    // listeners with a full accept queue
	ageless []*sock           // of a single look, in a state of limits for an unknown time
	swept   int64             // Mono
	lost    bool              // changes, since then
}

// opener is the thread that connected or accepted.
type opener struct {
	sk       uint64
	via      event.Via
	pid, tid uint32
	comm     string
	stack    uint32 // an Event.Stack
	program  string // that pid ran, if there is a stack
}

// sock is one that is in a state that should pass.
type sock struct {
	event.Event       // the last that is known of it; State is New
	since       int64 // Mono of its beginning, or of a moment when it was in it already
	exact       bool  // the former
	decided     bool  // whether it is told
	told        bool
	merged      []*sock // subflows, or their MPTCP socket, that are not reported because this one is
	unsure      bool    // changes were lost since, and nobody could be asked
	missed      int     // looks that did not find it so
}

// ends finds a socket whatever the kernel has it as: sock, request or timewait sock. Listeners may share theirs (SO_REUSEPORT), and a client's port may come
// to be known only after its SYN_SENT: these are found by the address of the sock, too.
type ends struct {
	local, remote netip.AddrPort
	netns, device uint32
	proto         event.Proto // a subflow and its MPTCP socket have the same ends
	sk            uint64
}

func endsOf(e *event.Event) ends {
	at := ends{local: e.Local, remote: e.Remote, netns: e.NetNS, device: e.IfIndex, proto: e.Proto}
	switch {
	case e.New == event.Listen:
		at.sk = e.Sk
	case e.Local.Port() == 0:
		at.local, at.sk = netip.AddrPort{}, e.Sk
	}
	return at
}

// learnPort: e is a client's in SYN_SENT, or that was in it, whose port was perhaps not known.
func (v *View) learnPort(e *event.Event) {
	unknown := ends{remote: e.Remote, netns: e.NetNS, device: e.IfIndex, proto: e.Proto, sk: e.Sk}
	if s := v.stuck[unknown]; s != nil && e.Local.Port() != 0 {
		delete(v.stuck, unknown)
		s.Local = e.Local
		v.stuck[endsOf(&s.Event)] = s
	}
}

// New makes a View that writes text or ndjson. wanted decides about what is stuck.
func New(out io.Writer, format string, limits map[event.State]time.Duration, wanted func(*event.Event) bool, kernel Kernel) *View {
	return &View{
		kernel: kernel, wanted: wanted, limits: limits, tell: newTeller(out, format, kernel),
		opened: make(map[uint64]opener), most: 4096, stuck: make(map[ends]*sock), full: make(map[ends]*sock),
	}
}

// Found reports whether anything was told.
func (v *View) Found() bool { return v.found }

// Take takes a Socket that exists already, and each line.
func (v *View) Take(e *event.Event) error {
	if err := v.sweepRecording(e); err != nil {
		return err
	}
	switch e.Type {
	case event.Socket:
		return v.exists(e)
	case event.Accept:
		v.opened[e.ID] = v.opener(e, event.ViaAccept)
	case event.Change:
		return v.change(e)
	case event.Lost:
		v.lost = true
		return v.tell.event(e)
	case event.End:
		if err := v.sweep(e.Mono); err != nil {
			return err
		}
		if err := v.tell.sums(v.stuckNow(), v.agelessNow(), e); err != nil {
			return err
		}
		return v.tell.event(e)
	}
	return nil
}

// Flush looks at the time, if the source is live.
func (v *View) Flush(now int64) error {
	if v.kernel.Sockets != nil && now-v.swept >= sweepEach {
		if err := v.sweep(now); err != nil {
			return err
		}
	}
	return v.tell.lines.Flush()
}

// sweepRecording looks at the time of a recording, which goes on with its lines alone.
func (v *View) sweepRecording(e *event.Event) error {
	if v.kernel.Sockets != nil || e.Type == event.Socket || e.Mono-v.swept < sweepEach {
		return nil
	}
	return v.sweep(e.Mono)
}

// exists takes a socket that is older than the trace, or of a listing.
func (v *View) exists(e *event.Event) error {
	if isFull(e) && v.wanted(e) {
		v.full[endsOf(e)] = &sock{Event: kept(e), since: e.Mono}
	}
	if _, ok := v.limits[e.New]; !ok {
		return nil
	}
	s := &sock{Event: kept(e), since: e.Mono}
	if v.kernel.Sockets == nil && e.Dur == event.Unknown && e.Status.AtLeast == event.Unknown {
		if e.Status.Left == event.Unknown { // else a timer is about to end it
			v.ageless = append(v.ageless, s)
		}
		return nil
	}
	switch {
	case e.Dur != event.Unknown:
		s.since, s.exact = e.Mono-e.Dur, true
	case e.Status.AtLeast != event.Unknown:
		s.since = e.Mono - e.Status.AtLeast
	}
	v.stuck[endsOf(e)] = s
	return nil
}

// kept is a copy of a Socket, which its source uses again.
func kept(e *event.Event) event.Event {
	s := *e
	s.Status = new(*e.Status)
	return s
}

// isFull reports whether no more connections go into a listener's queue (sk_acceptq_is_full in include/net/sock.h: one more than it says may wait).
func isFull(e *event.Event) bool {
	return e.New == event.Listen && e.Status.RecvQueue > e.Status.SendQueue
}

func (v *View) change(e *event.Event) error {
	if e.Old == event.SynSent {
		v.learnPort(e)
	}
	at := endsOf(e)
	if s := v.stuck[at]; s != nil {
		delete(v.stuck, at)
		if s.told && s.New == e.Old {
			if err := v.tell.over(s, e); err != nil {
				return err
			}
		}
		s.release()
	}
	switch e.New {
	case event.Close, event.TimeWait:
		delete(v.opened, e.ID)
	case event.SynSent:
		v.opened[e.ID] = v.opener(e, event.ViaConnect)
	}
	if _, ok := v.limits[e.New]; ok {
		v.stuck[at] = &sock{Event: *e, since: e.Mono, exact: true}
	}
	return nil
}

// opener is the task of e, if it is the one that does it.
func (v *View) opener(e *event.Event, via event.Via) opener {
	if e.OwnerPID == 0 || e.OwnerPID != e.TaskPID {
		return opener{}
	}
	program := ""
	if e.Stack != 0 && v.kernel.Program != nil {
		program = v.kernel.Program(e.OwnerPID)
	}
	return opener{program: program, sk: e.Sk, via: via, pid: e.OwnerPID, tid: e.TaskTID, comm: e.TaskComm, stack: e.Stack}
}

// sweep tells of what has become too old, and of full accept queues.
func (v *View) sweep(now int64) error {
	v.swept = now
	old := oldestFirst(v.stuck, func(s *sock) bool { return !s.decided && now-s.since >= v.limits[s.New].Nanoseconds() })
	full, err := v.sweepQueues()
	if err != nil {
		return err
	}
	if v.kernel.Sockets == nil && v.lost {
		v.doubt()
	}
	if len(old)+len(full) == 0 && !v.lost && len(v.opened) < v.most {
		return nil
	}
	exists, err := v.look()
	if err != nil {
		return err
	}
	if v.lost && exists != nil {
		if err := v.forget(exists, now); err != nil {
			return err
		}
	}
	v.lost = false
	all := slices.Concat(old, full)
	slices.SortStableFunc(all, mptcpFirst)
	told := byConnection(v.stuckNow())
	for _, s := range all {
		if s.unsure {
			continue
		}
		if exists != nil {
			found, ok := exists[endsOf(&s.Event)]
			if !ok || !s.is(&found) {
				// The change by which it has left is still in the ring; or there is none that tells, as where it was known by other ends.
				if s.missed++; s.missed > 1 {
					delete(v.stuck, endsOf(&s.Event))
					delete(v.full, endsOf(&s.Event))
				}
				continue
			}
			s.Status = found.Status
		}
		at := now
		if v.kernel.Sockets == nil && s.New != event.Listen && s.exact { // a recording tells the time by its next line only
			at = s.since + v.limits[s.New].Nanoseconds()
		}
		s.decided = true
		s.Wall += at - s.Mono
		s.Mono = at
		status(s, at)
		if !v.wanted(&s.Event) {
			continue
		}
		if other := told.find(&s.Event); other != nil {
			other.merged = append(other.merged, s)
			continue
		}
		told.add(s)
		s.told, v.found = true, true
		if err := v.tell.stuck(s, v.opened[s.ID]); err != nil {
			return err
		}
	}
	return nil
}

// is reports whether found is s, as it is known: in its state, and the same socket as far as that can be told.
func (s *sock) is(found *event.Event) bool {
	switch {
	case found.New != s.New || s.New == event.Listen && !isFull(found):
		return false
	case s.Cookie != 0 && found.Cookie != 0:
		return s.Cookie == found.Cookie
	}
	return true
}

// doubt: of what is stuck nobody knows any more whether it is. What was told stays, lest it is told again; its next change tells.
func (v *View) doubt() {
	for at, s := range v.stuck {
		if s.unsure = true; !s.told {
			delete(v.stuck, at)
		}
	}
}

// forget gives up, after a loss, those that are not in their state any more. How long the others have been is known only from now on: they may have left and come back.
func (v *View) forget(exists map[ends]event.Event, now int64) error {
	for _, s := range oldestFirst(v.stuck, func(*sock) bool { return true }) {
		found, ok := exists[endsOf(&s.Event)]
		if ok && s.is(&found) {
			s.since, s.exact = found.Mono-max(found.Status.AtLeast, 0), false
			continue
		}
		delete(v.stuck, endsOf(&s.Event))
		s.release()
		if s.told {
			if err := v.tell.over(s, &event.Event{Mono: now, Wall: s.Wall + now - s.Mono}); err != nil {
				return err
			}
		}
	}
	return nil
}

// status puts the age into s, as a Socket has it.
func status(s *sock, now int64) {
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

// look finds what exists, by its ends; nil if it cannot be asked.
func (v *View) look() (map[ends]event.Event, error) {
	if v.kernel.Sockets == nil {
		return nil, nil
	}
	all, err := v.kernel.Sockets()
	if err != nil {
		return nil, err
	}
	exists := make(map[ends]event.Event, len(all))
	open := make(map[uint64]bool, len(all))
	for i := range all {
		if all[i].New == event.SynSent {
			v.learnPort(&all[i])
		}
		exists[endsOf(&all[i])] = all[i]
		open[all[i].Sk] = true
	}
	maps.DeleteFunc(v.opened, func(_ uint64, o opener) bool { return !open[o.sk] })
	v.most = max(2*len(v.opened), 4096)
	return exists, nil
}

// sweepQueues gives the listeners whose accept queue has become full, and tells of those where that is over.
func (v *View) sweepQueues() (full []*sock, err error) {
	if v.kernel.Listeners == nil {
		return oldestFirst(v.full, func(s *sock) bool { return !s.decided }), nil
	}
	all, err := v.kernel.Listeners()
	if err != nil {
		return nil, err
	}
	now := make(map[ends]bool)
	for i := range all {
		e := &all[i]
		if !isFull(e) {
			continue
		}
		at := endsOf(e)
		now[at] = true
		s := v.full[at]
		if s == nil {
			s = &sock{Event: *e, since: e.Mono}
			v.full[at] = s
		}
		if !s.decided {
			full = append(full, s)
		}
	}
	slices.SortFunc(full, older)
	for _, s := range oldestFirst(v.full, func(s *sock) bool { return !now[endsOf(&s.Event)] }) {
		delete(v.full, endsOf(&s.Event))
		s.release()
		if s.told {
			if err := v.tell.over(s, &event.Event{Mono: v.swept, Wall: s.Wall + v.swept - s.Mono, New: event.Listen}); err != nil {
				return nil, err
			}
		}
	}
	return full, nil
}

// stuckNow gives those that were told and are not over, the oldest first.
func (v *View) stuckNow() []*sock {
	stuck := oldestFirst(v.stuck, func(s *sock) bool { return s.told && !s.unsure })
	full := oldestFirst(v.full, func(s *sock) bool { return s.told })
	all := slices.Concat(stuck, full)
	slices.SortFunc(all, older)
	return all
}

// agelessNow returns those of v.ageless that are wanted, one for each connection, and none of a connection
// that was reported.
func (v *View) agelessNow() (all []*sock) {
	seen := byConnection(v.stuckNow())
	slices.SortStableFunc(v.ageless, mptcpFirst)
	for _, s := range v.ageless {
		if v.wanted(&s.Event) && seen.find(&s.Event) == nil {
			seen.add(s)
			all = append(all, s)
		}
	}
	return all
}

func oldestFirst(socks map[ends]*sock, which func(*sock) bool) []*sock {
	var all []*sock
	for _, s := range socks {
		if which(s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, older)
	return all
}

// older orders them by age; those of one age always alike.
func older(a, b *sock) int {
	return cmp.Or(
		cmp.Compare(a.since, b.since), cmp.Compare(a.NetNS, b.NetNS), a.Local.Compare(b.Local), a.Remote.Compare(b.Remote), cmp.Compare(a.Sk, b.Sk),
	)
}
