package pair

import (
	"net/netip"
	"slices"

	"sstrace/internal/event"
)

// stage numbers the states along the life of a connection (RFC 9293 section 3.3.2). After
// ESTABLISHED there are two branches: active for the end that closes first, passive for its peer.
var (
	stage = map[event.State]int{
		event.SynSent: 1, event.SynRecv: 2, event.Established: 3,
		event.FinWait1: 4, event.CloseWait: 4, event.FinWait2: 5, event.Closing: 5, event.LastAck: 5,
	}
	active  = []event.State{event.FinWait1, event.FinWait2, event.Closing}
	passive = []event.State{event.CloseWait, event.LastAck}
)

// continues reports whether e can be about the same connection as the previous line of its socket.
// If lines were lost, the socket may have started another connection since.
func (e *End) continues(next *event.Event) bool {
	if complete(e.Local) && complete(next.Local) && e.Local != next.Local ||
		complete(e.Remote) && complete(next.Remote) && e.Remote != next.Remote ||
		differ(e.IfIndex, next.IfIndex) || differ(e.ISN, next.ISN) {
		return false
	}
	return e.state == next.Old || stage[e.state] < stage[next.Old] && !otherBranch(e.state, next.Old)
}

// otherBranch reports whether one of two states is on the active and the other on the passive
// branch.
func otherBranch(a, b event.State) bool {
	return slices.Contains(active, a) && slices.Contains(passive, b) ||
		slices.Contains(passive, a) && slices.Contains(active, b)
}

// differ reports whether both numbers are known (not 0) and different.
func differ(a, b uint32) bool { return a != 0 && b != 0 && a != b }

// complete reports whether both the address and the port are known.
func complete(a netip.AddrPort) bool { return a.Addr().IsValid() && a.Port() != 0 }

// enter applies change to e. losses is Table.losses.
func (e *End) enter(change *event.Event, losses uint64) {
	e.Last = moment{change.Mono, change.Wall}
	if n := len(e.Path); n > 0 {
		last := &e.Path[n-1]
		switch {
		case change.Old == change.New: // in the kernel vocabulary: the next line has only part of the time
			e.selfChange = true
			return
		case last.State != change.Old: // the lines in between were lost
			e.Path = append(e.Path, Step{State: change.Old, Dur: event.Unknown})
		case !e.selfChange:
			last.Dur = change.Dur
		case last.Seen() && last.losses == losses:
			last.Dur = change.Mono - last.Mono
		}
		e.selfChange = false
	}
	e.state = change.New
	if change.New != event.Close {
		e.Path = append(e.Path, Step{change.New, change.Mono, change.Wall, event.Unknown, losses})
	}
	e.addHandshake(change, losses)
	if change.Totals.Known {
		e.Totals = change.Totals
	}
	if change.OwnerVia == event.ViaConnect {
		e.Connected = Process{change.OwnerPID, change.OwnerComm, change.OwnerVia}
	}
}

// addHandshake copies what only a change out of SYN_SENT or SYN_RECV contains.
func (e *End) addHandshake(change *event.Event, losses uint64) {
	if change.Old != event.SynSent && change.Old != event.SynRecv {
		return
	}
	switch {
	case change.SynRetrans == event.Unknown:
	case e.SynRetrans == event.Unknown:
		e.SynRetrans = change.SynRetrans
	default: // both states, in a simultaneous open
		e.SynRetrans += change.SynRetrans
	}
	if change.Old == event.SynRecv && change.Deferred > 0 {
		e.Deferred = change.Deferred
		mono, wall := change.Mono-change.Deferred, change.Wall-change.Deferred
		e.acked = &Step{event.SynRecv, mono, wall, event.Unknown, losses}
	}
}
