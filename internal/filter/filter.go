// Package filter selects lines. It has two kinds of filter. A connection filter (ports, addresses,
// network namespace, user, cgroup, protocol) also runs in the kernel, which drops what surely does
// not match before it costs anything; this package decides exactly, for live changes and recordings
// alike. A line filter (states, duration, owner, expression) runs only here.
package filter

import (
	"net/netip"
	"slices"
	"strings"

	"sstrace/internal/event"

	"github.com/expr-lang/expr/vm"
)

// Filter selects lines. The values of one list are ORed, and different lists are ANDed; an empty
// list matches everything.
type Filter struct {
	Ports       *PortSet // at either end
	LocalPorts  *PortSet
	RemotePorts *PortSet
	Hosts       []netip.Prefix // at either end
	Family      event.Family   // IPv4, which includes Mapped, or IPv6; zero for both
	Protos      []event.Proto
	NetNS       []uint32 // inodes
	UIDs        []uint32
	Cgroups     []string // paths below the root of the cgroup v2 tree, each with its descendants

	// CgroupsDecided reports that the kernel has applied Cgroups, by ID, since a cgroup may be gone
	// before its path can be looked up. The kernel does not decide on Sockets, or on a timewait
	// sock of an unknown connection, which has no user.
	CgroupsDecided bool

	// Whole passes on the lines that the line filters reject, marked as Unwanted, for a caller that
	// needs every line of a connection with at least one matching line.
	Whole bool

	// Listing applies the line filters to Sockets only. Other lines pass if their connection
	// matches.
	Listing bool

	states []event.State
	edges  []edge
	minDur int64 // ns
	pids   []uint32
	comms  []string
	where  *vm.Program

	failed   uint64                 // lines for which where failed
	failure  error                  // the first error
	held     map[uint64]event.Event // by address of the struct sock: see Pass
	filtered uint64                 // lines dropped, excluding those held
}

// PortSet is a set of TCP ports.
type PortSet [65536 / 64]uint64

// Has reports whether port is in the set. A nil set is empty.
func (s *PortSet) Has(port uint16) bool {
	return s != nil && s[port/64]&(1<<(port%64)) != 0
}

type edge struct{ old, new event.State }

// verdict is ordered so that AND is min and OR is max.
type verdict int

const (
	no        verdict = iota
	undecided         // not enough is known about the connection yet
	yes
)

// Filtered returns how many lines were dropped, including those that Pass holds back.
func (f *Filter) Filtered() uint64 { return f.filtered + uint64(len(f.held)) }

// Pass calls emit with each line that is now known to match: none, e, or an earlier one and e. A
// filter by port selects connections, but a client that is not bound has no port at CLOSE→SYN_SENT,
// and up to Linux 6.12 a server has no remote end at LISTEN→SYN_RECV. Pass holds such a change back
// until the next change of the same socket decides. A change that is still held when the run ends
// did not match.
func (f *Filter) Pass(e *event.Event, emit func(*event.Event) error) error {
	verdict := f.connection(e)
	if len(f.held) > 0 {
		if first, ok := f.held[e.Sk]; ok {
			delete(f.held, e.Sk)
			// If e does not decide either, the socket was closed before it had a port. If e belongs
			// to another socket, the change that would have decided was lost.
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

// Lines reports whether there are line filters, which may drop some lines of a connection.
func (f *Filter) Lines() bool {
	return len(f.states)+len(f.edges)+len(f.pids)+len(f.comms) > 0 || f.minDur > 0 || f.where != nil
}

// Connection reports whether e matches the connection filters.
func (f *Filter) Connection(e *event.Event) bool { return f.connection(e) == yes }

// settle emits or drops e. match reports whether its connection matches.
func (f *Filter) settle(e *event.Event, match bool, emit func(*event.Event) error) error {
	if !match {
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

// connection applies the connection filters, which look at what all lines of a connection share.
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

// inCgroups reports whether e belongs to one of Cgroups, or to a descendant.
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

// end decides on the port of one end.
func end(ports *PortSet, port uint16, first bool) verdict {
	switch {
	case ports == nil || ports.Has(port):
		return yes
	case port == 0 && first:
		return undecided
	}
	return no
}

// line applies the line filters, which look at what differs between the lines of a connection.
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

// Listed reports whether e, a Socket, matches the line filters: by its state, its age, and any of
// its holders or, if these are unknown, its owner.
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
