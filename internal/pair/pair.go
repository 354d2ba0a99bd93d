// Package pair assembles the lines of a stream into connections with their two ends. It does not
// depend on views, and keeps only open connections.
package pair

import (
	"cmp"
	"net/netip"
	"slices"

	"sstrace/internal/event"
)

// Late is how long after a client is ESTABLISHED its server's end may still appear, in ns. With SYN
// cookies, or if request socks are not traced, that end is created when the ACK arrives.
const Late = 100e6

// Table holds the open ends. Its zero value is ready to use. It is not safe for concurrent use.
//
// An end is found by its ID, and its peer by the addresses:
//
//   - A server's end belongs to the client whose addresses mirror its own. A network namespace has
//     only one such socket at a time, unless the sockets are bound to devices. In other namespaces
//     it must be the only one overall, and not on a loopback address, which is a different host in
//     each namespace.
//   - If there is none, the network may have changed the destination of the SYN (DNAT, as for the
//     published ports of containers). The end then belongs to the client with its remote address
//     and port that waits for an answer, if there is exactly one.
//   - An end that matches more than one peer is not paired at all.
//
// If the client's initial sequence number is known at both ends, that number decides: different
// numbers are never paired, and an equal one selects among several candidates. If it is unknown,
// ends in two namespaces or with DNAT between them are Perhaps one connection.
type Table struct {
	ends       map[uint64]*End // by ID
	socks      map[uint64]*End // by the address of the struct sock: the latest end there
	byTuple    map[tuple]*End
	connecting map[local][]*End // clients in SYN_SENT without a server's end, or paired only through DNAT
	portless   int              // clients in SYN_SENT whose local port is unknown
	losses     uint64
	count      uint64
	touched    []*End
}

// tuple identifies a connection within a network namespace and device, as seen from one end.
type tuple struct {
	proto         event.Proto
	local, remote netip.AddrPort
}

func (e *End) tuple() tuple { return tuple{e.Proto, e.Local, e.Remote} }

// local is the local address of a tuple.
type local struct {
	proto event.Proto
	addr  netip.AddrPort
}

func (e *End) local() local { return local{e.Proto, e.Local} }

// Take takes a line and returns the ends that it changes. The end that the line is about comes
// last, after any ends that are now known to be Gone or not paired. Take returns no ends for a line
// that belongs to no connection. The slice is valid until the next call.
func (t *Table) Take(e *event.Event) []*End {
	t.touched = t.touched[:0]
	switch e.Type {
	case event.Lost:
		t.losses++
	case event.Accept:
		// If the end is unknown, either it was over before it was accepted, or it is older than the
		// trace and its next change creates it.
		if end := t.ends[e.ID]; end != nil {
			end.AcceptedAt, end.Queued = e.Mono, max(e.Dur, event.Unknown)
			end.Accepted = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
			t.update(end, e)
			t.match(end, false) // the remote address of an MPTCP socket is known from here on
			t.touched = append(t.touched, end)
		}
	case event.Change:
		t.change(e)
	case event.ConnectFailed:
		t.connectFailed(e)
	}
	return t.touched
}

// Open returns the open ends, in the order in which they appeared.
func (t *Table) Open() []*End {
	open := make([]*End, 0, len(t.ends))
	for _, end := range t.ends {
		open = append(open, end)
	}
	slices.SortFunc(open, func(a, b *End) int { return cmp.Compare(a.number, b.number) })
	return open
}

// connectFailed adds an end that is over at once. It is not in the Table: an earlier connection of
// the same socket may still be there.
func (t *Table) connectFailed(e *event.Event) {
	t.count++
	end := &End{
		ID: e.ID, Cookie: e.Cookie, NetNS: e.NetNS, Family: e.Family, Proto: e.Proto,
		Local: e.Local, Remote: e.Remote, IfIndex: e.IfIndex, IfName: e.IfName,
		Role: e.Role, Cgroup: e.Cgroup, Queued: event.Unknown, SynRetrans: event.Unknown,
		Reason: e.Reason, Err: e.Err, ConnectFailed: true, Over: true, Wanted: !e.Unwanted,
		Last: moment{e.Mono, e.Wall}, state: event.Close, number: t.count,
		losses: t.losses, endLosses: t.losses, runLosses: &t.losses,
	}
	if e.OwnerPID != 0 {
		end.Owner = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
		end.Connected = end.Owner
	}
	t.touched = append(t.touched, end)
}

func (t *Table) change(e *event.Event) {
	if e.Role == event.Listener || e.New == event.Listen ||
		e.Old == event.TimeWait || e.Old == event.Listen && e.New == event.Close {
		return // about a listener, or an end that was over when it entered TIME_WAIT
	}
	begins := e.Old == event.Listen || e.Old == event.Close
	end := t.ends[e.ID]
	if end != nil && (begins || !end.continues(e)) {
		t.drop(end)
		end = nil
	}
	if end == nil {
		end = t.add(e, begins)
	}
	isn := end.ISN
	end.enter(e, t.losses)
	t.update(end, e)
	t.match(end, end.ISN != isn)
	switch {
	case e.New == event.Close, e.New == event.TimeWait:
		end.Reason, end.Err, end.Closer = e.Reason, e.Err, e.Closer
		t.finish(end)
	case e.New != event.SynSent:
		t.leaveSynSent(end)
	}
	t.touched = append(t.touched, end)
}

// add makes an end from its first line.
func (t *Table) add(e *event.Event, begins bool) *End {
	if t.ends == nil {
		t.ends, t.socks = make(map[uint64]*End), make(map[uint64]*End)
		t.byTuple, t.connecting = make(map[tuple]*End), make(map[local][]*End)
	}
	t.count++
	end := &End{
		ID: e.ID, Proto: e.Proto, NetNS: e.NetNS, Older: !begins, Path: make([]Step, 0, 6),
		Queued: event.Unknown, SynRetrans: event.Unknown, state: e.Old, origin: e.Origin,
		number: t.count, losses: t.losses, runLosses: &t.losses,
	}
	if !begins {
		end.Path = append(end.Path, Step{State: e.Old, Dur: event.Unknown})
	}
	t.ends[e.ID] = end
	return end
}

// update copies what any line about an end may contribute.
func (t *Table) update(end *End, e *event.Event) {
	if e.Role != 0 {
		end.Role = e.Role
	}
	if e.OwnerPID != 0 {
		end.Owner = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
	}
	if e.Cookie != 0 {
		end.Cookie = e.Cookie
	}
	if e.Cgroup != "" {
		end.Cgroup = e.Cgroup
	}
	if e.IfIndex != 0 {
		end.IfIndex = e.IfIndex
	}
	if e.IfName != "" {
		end.IfName = e.IfName
	}
	if end.ISN == 0 {
		end.ISN = e.ISN
	}
	end.Wanted = end.Wanted || !e.Unwanted
	if e.Sk != end.sk {
		t.setSock(end, e.Sk)
	}
	if !complete(end.Local) {
		end.Local, end.Family = e.Local, e.Family
	}
	if !complete(end.Remote) {
		end.Remote, end.Family = e.Remote, e.Family
	}
}

// setSock records the address of the end's struct sock. If there is an earlier end at that address,
// some of its lines were lost, and it is Gone.
func (t *Table) setSock(end *End, sk uint64) {
	if t.socks[end.sk] == end {
		delete(t.socks, end.sk)
	}
	end.sk = sk
	if before := t.socks[sk]; before != nil && before.Lost() {
		t.drop(before)
	}
	t.socks[sk] = end
}

// drop ends an End whose last lines were lost. It is touched before the end that the line is about.
func (t *Table) drop(end *End) {
	end.Gone = true
	t.finish(end)
	// They were paired by address, and the addresses may belong to another connection by now.
	if p := end.Peer; p != nil && end.Pairing != ByISN &&
		(end.Step(event.Established) == nil || p.Step(event.Established) == nil) {
		t.separate(end, p)
	}
	t.touched = append(t.touched, end)
}

// finish removes end, which is over, from the Table.
func (t *Table) finish(end *End) {
	end.Over, end.endLosses = true, t.losses
	delete(t.ends, end.ID)
	if t.socks[end.sk] == end {
		delete(t.socks, end.sk)
	}
	t.leaveSynSent(end)
	t.removeTuple(end)
	// If the handshake failed for the client, it cannot have succeeded for its server: the server
	// has another client.
	if p := end.Peer; end.Pairing == Perhaps && end.Role == event.Client &&
		end.Step(event.Established) == nil && p.Step(event.Established) != nil {
		t.separate(end, p)
	}
}

// leaveSynSent removes end from the records of clients in SYN_SENT.
func (t *Table) leaveSynSent(end *End) {
	t.setPortless(end, false)
	t.removeConnecting(end)
}
