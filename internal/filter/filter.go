// Package filter decides which lines are wanted. What speaks of the connection (ports, addresses, network namespace, user,
// cgroup, protocol) the kernel side sieves first, so that the rest never costs anything; here the same is decided exactly,
// for live changes and recordings alike. What speaks of the line (states, duration, owner, expressions) is decided here alone.
package filter

import (
	"net/netip"
	"slices"
	"strings"

	"sstrace/internal/event"

	"github.com/expr-lang/expr/vm"
)

// Filter holds what is wanted; an empty list wants everything. Within a list one match is enough, all lists must match.
type Filter struct {
	Ports       *PortSet // either end
	LocalPorts  *PortSet
	RemotePorts *PortSet
	Hosts       []netip.Prefix // either end
	Family      event.Family   // IPv4 (mapped included) or IPv6; zero wants both
	Protos      []event.Proto
	NetNS       []uint32 // inodes
	UIDs        []uint32
	Cgroups     []string // paths from the root of the cgroup v2 tree, with all below

	// CgroupsDecided: the kernel side has decided about Cgroups, by id, for a cgroup may be gone before its name is looked up. What has
	// no user, a timewait sock of a connection that is not known, it cannot have decided about; nor does it decide about Sockets.
	CgroupsDecided bool

	// Whole: a line that the filters of lines do not want passes, too, as Unwanted: whoever takes it wants each connection with one wanted
	// line as a whole.
	Whole bool

	// Listing: the filters of lines are about sockets that exist. A change passes if its connection is wanted.
	Listing bool

	states []event.State
	edges  []edge
	minDur int64 // ns
	pids   []uint32
	comms  []string
	where  *vm.Program

	failed   uint64 // lines that where failed on
	failure  error  // the first of them
	held     map[uint64]event.Event
	filtered uint64
}

// PortSet is a set of TCP ports.
type PortSet [65536 / 64]uint64

// Has reports whether port is in the set; a nil set has none.
func (s *PortSet) Has(port uint16) bool {
	return s != nil && s[port/64]&(1<<(port%64)) != 0
}

type edge struct{ old, new event.State }

// verdict is ordered: of several that must all match, the lowest decides; of several where one is enough, the highest.
type verdict int

const (
	no        verdict = iota
	undecided         // by what is known of the connection so far
	yes
)

// Filtered is how many changes were dropped. Those still held count when the run is over: see Pass.
func (f *Filter) Filtered() uint64 { return f.filtered + uint64(len(f.held)) }

// Pass calls emit with each change that is now known to be wanted: none, e, or an earlier one and e. A filter by port is
// a filter of the connection; but a client that is not bound has no port at CLOSE->SYN_SENT, and up to Linux 6.12 a server
// has no remote end at LISTEN->SYN_RECV. Such a change is held until the next one of its socket tells; what is held when the
// run ends never matched.
func (f *Filter) Pass(e *event.Event, emit func(*event.Event) error) error {
	verdict := f.connection(e)
	if len(f.held) > 0 {
		if first, ok := f.held[e.Sk]; ok {
			delete(f.held, e.Sk)
			// If even this one does not know, the socket was closed without ever having had a port. If it is another socket's, what
			// would have told was lost.
			if err := f.settle(&first, verdict == yes && first.ID == e.ID, emit); err != nil {
				return err
			}
		}
	}
	if verdict == undecided {
		if f.held == nil {
			f.held = make(map[uint64]event.Event)
		}
		f.held[e.Sk] = *e
		return nil
	}
	return f.settle(e, verdict == yes, emit)
}

// Lines reports whether there are filters of lines, which may leave out some of a connection's.
func (f *Filter) Lines() bool {
	return len(f.states)+len(f.edges)+len(f.pids)+len(f.comms) > 0 || f.minDur > 0 || f.where != nil
}

// Connection reports whether the filters of connections want e.
func (f *Filter) Connection(e *event.Event) bool { return f.connection(e) == yes }

// settle emits e, whose connection is wanted or not, if its line is wanted, too.
func (f *Filter) settle(e *event.Event, wanted bool, emit func(*event.Event) error) error {
	if !wanted {
		f.filtered++
		return nil
	}
	if (e.Type == event.Socket || !f.Listing) && !f.line(e) {
		if !f.Whole {
			f.filtered++
			return nil
		}
		e.Unwanted = true
	}
	return emit(e)
}

// connection decides by what is the same in all of a connection's changes.
func (f *Filter) connection(e *event.Event) verdict {
	if len(f.Protos) > 0 && !slices.Contains(f.Protos, e.Proto) ||
		len(f.NetNS) > 0 && !slices.Contains(f.NetNS, e.NetNS) ||
		len(f.UIDs) > 0 && !slices.Contains(f.UIDs, e.UID) ||
		len(f.Cgroups) > 0 && !f.inCgroups(e) {
		return no
	}
	first := e.Type != event.Socket && (e.New == event.SynSent || e.Old == event.Listen && e.New == event.SynRecv)
	return min(f.family(e, first), f.hosts(e, first), f.ports(e, first))
}

func (f *Filter) inCgroups(e *event.Event) bool {
	if f.CgroupsDecided && e.Type != event.Socket {
		return e.UID != event.NoUID
	}
	path := e.Cgroup
	return slices.ContainsFunc(f.Cgroups, func(root string) bool {
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
		return ok && path != "" && (rest == "" || rest[0] == '/')
	})
}

func (f *Filter) family(e *event.Event, first bool) verdict {
	switch {
	case f.Family == 0:
		return yes
	case first && e.Family == event.IPv6 && !e.Remote.Addr().IsValid():
		return undecided // a child of a listener on [::] is IPv6 or mapped
	case f.Family == e.Family || f.Family == event.IPv4 && e.Family == event.Mapped:
		return yes
	}
	return no
}

func (f *Filter) hosts(e *event.Event, first bool) verdict {
	if len(f.Hosts) == 0 {
		return yes
	}
	for _, p := range f.Hosts {
		if p.Contains(e.Local.Addr()) || p.Contains(e.Remote.Addr()) {
			return yes
		}
	}
	if first && (!e.Local.Addr().IsValid() || !e.Remote.Addr().IsValid()) {
		return undecided
	}
	return no
}

func (f *Filter) ports(e *event.Event, first bool) verdict {
	local := end(f.LocalPorts, e.Local.Port(), first)
	remote := end(f.RemotePorts, e.Remote.Port(), first)
	either := max(end(f.Ports, e.Local.Port(), first), end(f.Ports, e.Remote.Port(), first))
	return min(local, remote, either)
}

// end decides about the port of one end.
func end(wanted *PortSet, port uint16, first bool) verdict {
	switch {
	case wanted == nil || wanted.Has(port):
		return yes
	case port == 0 && first:
		return undecided
	}
	return no
}

// line decides by what may differ from one of a connection's changes to the next.
func (f *Filter) line(e *event.Event) bool {
	switch {
	case e.Type == event.Socket:
		return f.Listed(e)
	case e.Type != event.Change && (len(f.states) > 0 || len(f.edges) > 0),
		len(f.states) > 0 && !slices.Contains(f.states, e.Old) && !slices.Contains(f.states, e.New),
		len(f.edges) > 0 && !slices.Contains(f.edges, edge{e.Old, e.New}),
		f.minDur > 0 && e.Dur < f.minDur,
		len(f.pids) > 0 && (e.OwnerPID == 0 || !slices.Contains(f.pids, e.OwnerPID)),
		len(f.comms) > 0 && (e.OwnerPID == 0 || !slices.Contains(f.comms, e.OwnerComm)):
		return false
	}
	return f.where == nil || f.matches(e)
}

// Listed reports whether the filters of lines want a socket that exists: it is in a state, for some time, and any of its holders will do; where these are
// not known, its owner.
func (f *Filter) Listed(e *event.Event) bool {
	held := func(by func(event.Holder) bool) bool {
		if e.Status.Holders == nil && e.OwnerPID != 0 {
			return by(event.Holder{PID: e.OwnerPID, Comm: e.OwnerComm})
		}
		return slices.ContainsFunc(e.Status.Holders, by)
	}
	switch {
	case len(f.states) > 0 && !slices.Contains(f.states, e.New),
		f.minDur > 0 && max(e.Dur, e.Status.AtLeast) < f.minDur,
		len(f.pids) > 0 && !held(func(h event.Holder) bool { return slices.Contains(f.pids, h.PID) }),
		len(f.comms) > 0 && !held(func(h event.Holder) bool { return slices.Contains(f.comms, h.Comm) }):
		return false
	}
	return f.where == nil || f.matches(e)
}
