// Package leaks watches for two problems. One is a socket that stays too long in a state that
// should be brief, because a program forgot to close it or its peer is gone. The other is a
// listener whose accept queue is full.
package leaks

import (
	"io"
	"net/netip"
	"slices"
	"time"

	"sstrace/internal/event"
)

// Limits are the states that should be brief, and the longest time that each may last. A limit is
// far longer than a state normally lasts, which may be a round trip, or the time that a program
// takes to read to the end. It is also shorter than the kernel's own limit, if there is one: see
// `sstrace explain`.
var Limits = map[event.State]time.Duration{
	event.CloseWait: time.Minute,
	event.FinWait1:  time.Minute,
	event.FinWait2:  5 * time.Minute, // after shutdown(), the peer may still have a lot to send
	event.LastAck:   time.Minute,
	event.Closing:   time.Minute,
	event.SynSent:   30 * time.Second,
	event.SynRecv:   30 * time.Second,
}

// States has the keys of Limits, in the order of a connection's life.
var States = slices.DeleteFunc(event.Lifecycle(), func(s event.State) bool { return Limits[s] == 0 })

// Kernel contains queries that are possible only while the source is live. Otherwise all fields are
// nil.
type Kernel struct {
	Sockets   func() ([]event.Event, error)                // returns all sockets that exist
	Listeners func() ([]event.Event, error)                // returns all listeners
	Stack     func(pid, id uint32) []string                // returns the functions of an Event.Stack in a process
	Program   func(pid uint32) string                      // identifies the program that a process runs now
	Process   func(pid uint32) (executable, cgroup string) // returns details about a process
}

// View watches sockets. It is not safe for concurrent use.
type View struct {
	kernel Kernel
	wanted func(*event.Event) bool // for a Socket
	limits map[event.State]time.Duration
	out    writer
	found  bool

	openers     map[uint64]opener          // for connections, by id, until they are closed
	manyOpen    int                        // if there are more openers, those of closed connections are removed
	watched     map[event.Identity]*socket // the sockets in one of the states of limits
	full        map[event.Identity]*socket // the listeners whose accept queue is full
	agesUnknown []*socket                  // in a listing: in a state of limits for an unknown time
	swept       int64                      // Mono at the last sweep
	lost        bool                       // changes were lost since the last sweep
}

// minOpen is the smallest value that View.manyOpen can have.
const minOpen = 4096

// opener is the thread that called connect() or accept().
type opener struct {
	sk       uint64
	via      event.Via
	pid, tid uint32
	comm     string
	stack    uint32 // an Event.Stack
	program  string // Kernel.Program of pid at that time, if stack is set
}

// socket is a socket that is in a state that should pass, or a listener whose accept queue is full.
type socket struct {
	event.Event       // the latest Event; its New is the state
	since       int64 // Mono at the start of the state if exact is set
	exact       bool  // otherwise since is a later moment
	decided     bool  // it is decided whether to report the socket
	reported    bool
	merged      []*socket // its subflows, or their MPTCP socket: they are not reported, because this socket is
	unsure      bool      // changes were lost since then, and the kernel could not be queried
	missed      int       // how many searches have not found the socket in this state
}

// New returns a View that writes text or ndjson. wanted decides whether a stuck socket is reported.
func New(out io.Writer, format string, limits map[event.State]time.Duration, wanted func(*event.Event) bool,
	kernel Kernel) *View {
	return &View{
		kernel: kernel, wanted: wanted, limits: limits, out: newWriter(out, format, kernel),
		openers: make(map[uint64]opener), manyOpen: minOpen,
		watched: make(map[event.Identity]*socket), full: make(map[event.Identity]*socket),
	}
}

// Found reports whether anything was reported.
func (v *View) Found() bool { return v.found }

// Begin does nothing: the command has already reported what is watched.
func (v *View) Begin() error { return nil }

// Take adds one line, or one Socket that existed before the trace.
func (v *View) Take(e *event.Event) error {
	if err := v.sweepRecording(e); err != nil {
		return err
	}
	switch e.Type {
	case event.Socket:
		v.exists(e)
	case event.Accept:
		v.openers[e.ID] = v.opener(e, event.ViaAccept)
	case event.Change:
		return v.change(e)
	case event.Lost:
		v.lost = true
		return v.out.event(e)
	}
	return nil
}

// Idle sweeps if a sweep is due.
func (v *View) Idle(mono int64) error {
	if v.kernel.Sockets != nil && mono-v.swept >= sweepInterval {
		if err := v.sweep(mono); err != nil {
			return err
		}
	}
	return v.out.lines.Flush()
}

// End sweeps once more, and then writes the sums. If a recording was cut off, there are no sums,
// because it is unknown which of its sockets are still stuck.
func (v *View) End(end *event.Event) error {
	if end.Balance == nil {
		return v.out.lines.Flush()
	}
	if err := v.sweep(end.Mono); err != nil {
		return err
	}
	if err := v.out.sums(v.stuckNow(), v.agesUnknownNow(), end); err != nil {
		return err
	}
	return v.out.end(end)
}

// sweepRecording sweeps if e is from a recording and a sweep is due. In a recording, only the lines
// show the time.
func (v *View) sweepRecording(e *event.Event) error {
	if v.kernel.Sockets != nil || e.Type == event.Socket || e.Mono-v.swept < sweepInterval {
		return nil
	}
	return v.sweep(e.Mono)
}

// exists adds a socket that is older than the trace, or that comes from a listing.
func (v *View) exists(e *event.Event) {
	if isFull(e) && v.wanted(e) {
		v.full[e.Identity()] = &socket{Event: clone(e), since: e.Mono}
	}
	if _, ok := v.limits[e.New]; !ok {
		return
	}
	s := &socket{Event: clone(e), since: e.Mono}
	if v.kernel.Sockets == nil && e.Dur == event.Unknown && e.Status.AtLeast == event.Unknown {
		if e.Status.Left == event.Unknown { // otherwise a timer is about to end the socket
			v.agesUnknown = append(v.agesUnknown, s)
		}
		return
	}
	switch {
	case e.Dur != event.Unknown:
		s.since, s.exact = e.Mono-e.Dur, true
	case e.Status.AtLeast != event.Unknown:
		s.since = e.Mono - e.Status.AtLeast
	}
	v.watched[e.Identity()] = s
}

// clone returns a copy of a Socket, because the source reuses its memory.
func clone(e *event.Event) event.Event {
	s := *e
	s.Status = new(*e.Status)
	return s
}

// isFull reports whether a listener's accept queue accepts no more connections. This is the case
// when more connections are waiting than the backlog allows (sk_acceptq_is_full in
// include/net/sock.h).
func isFull(e *event.Event) bool {
	return e.New == event.Listen && e.Status.RecvQueue > e.Status.SendQueue
}

func (v *View) change(e *event.Event) error {
	if e.Old == event.SynSent {
		v.learnPort(e)
	}
	at := e.Identity()
	if s := v.watched[at]; s != nil {
		delete(v.watched, at)
		if s.reported && s.New == e.Old {
			if err := v.out.over(s, e); err != nil {
				return err
			}
		}
		s.release()
	}
	switch e.New {
	case event.Close, event.TimeWait:
		delete(v.openers, e.ID)
	case event.SynSent:
		v.openers[e.ID] = v.opener(e, event.ViaConnect)
	}
	if _, ok := v.limits[e.New]; ok {
		v.watched[at] = &socket{Event: *e, since: e.Mono, exact: true}
	}
	return nil
}

// learnPort updates a client that is or was in SYN_SENT, because its port may have been unknown
// until now.
func (v *View) learnPort(e *event.Event) {
	before := *e
	before.Local = netip.AddrPort{}
	at := before.Identity()
	if s := v.watched[at]; s != nil && e.Local.Port() != 0 {
		delete(v.watched, at)
		s.Local = e.Local
		v.watched[s.Identity()] = s
	}
}

// opener returns the task of e if that task belongs to the owner. Otherwise it returns the zero
// opener.
func (v *View) opener(e *event.Event, via event.Via) opener {
	if e.OwnerPID == 0 || e.OwnerPID != e.TaskPID {
		return opener{}
	}
	program := ""
	if e.Stack != 0 && v.kernel.Program != nil {
		program = v.kernel.Program(e.OwnerPID)
	}
	return opener{program: program, sk: e.Sk, via: via, pid: e.OwnerPID, tid: e.TaskTID, comm: e.TaskComm,
		stack: e.Stack}
}
