// Package pair puts the lines of the stream together into connections with their two ends. It knows no view; it keeps what is open, and nothing else.
package pair

import (
	"cmp"
	"net/netip"
	"slices"

	"sstrace/internal/event"
)

// Late is for how long after a client is ESTABLISHED its server's end may still appear, in ns. With SYN cookies, and where mini-socks are not seen, that
// is made when the ACK has come.
const Late = 100e6

// Table has the ends that are open. Its zero value is ready; it is not safe for concurrent use.
//
// An end is found by its ID, and the other one by the addresses:
//
//   - A server's end belongs to the client whose addresses are its own, the other way round. In one network namespace there is only one such socket
//     at a time; else it must be the only one of all namespaces, and no loopback address, for these mean another host in each.
//   - If there is none, the network may have given the SYN another destination on its way (DNAT, as for the published ports of containers): then it
//     belongs to the client with its remote address and port that waits for an answer, if there is only one.
//   - What may be one of two is not paired at all.
type Table struct {
	ends     map[uint64]*End // by ID
	at       map[uint64]*End // by the address of the kernel's struct: what is there now
	byEnds   map[ends]*End
	dialing  map[origin][]*End // clients in SYN_SENT that have no server's end, or one by DNAT: by their local address
	portless int               // clients in SYN_SENT whose local port is not known
	losses   uint64
	count    uint64
	touched  []*End
}

// ends are those of a connection, as one of them sees it.
type ends struct {
	proto         event.Proto
	local, remote netip.AddrPort
}

type origin struct {
	proto event.Proto
	local netip.AddrPort
}

// Take takes a line and gives the ends of which there is something new: the one that the line is about, and before it those of which it shows that they
// have gone. There is none for what is no connection's. The slice is valid until the next call.
func (t *Table) Take(e *event.Event) []*End {
	t.touched = t.touched[:0]
	switch e.Type {
	case event.Lost:
		t.losses++
	case event.Accept:
		// An end that is not known was over before it was accepted, or is older than the trace: its next change tells more.
		if end := t.ends[e.ID]; end != nil {
			end.AcceptedAt, end.Queued = e.Mono, max(e.Dur, event.Unknown)
			end.Accepted = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
			t.learn(end, e)
			t.touched = append(t.touched, end)
		}
	case event.Change:
		t.change(e)
	}
	return t.touched
}

// Open gives the ends that are open, in the order in which they appeared.
func (t *Table) Open() []*End {
	open := make([]*End, 0, len(t.ends))
	for _, end := range t.ends {
		open = append(open, end)
	}
	slices.SortFunc(open, func(a, b *End) int { return cmp.Compare(a.number, b.number) })
	return open
}

func (t *Table) change(e *event.Event) {
	if e.Role == event.Listener || e.New == event.Listen || e.Old == event.TimeWait || e.Old == event.Listen && e.New == event.Close {
		return // no connection's; or, for its end came before, no more
	}
	begins := e.Old == event.Listen || e.Old == event.Close
	end := t.ends[e.ID]
	if end != nil && (begins || !end.goesOn(e)) {
		t.gone(end)
		end = nil
	}
	if end == nil {
		end = t.begin(e, begins)
	}
	end.step(e, t.losses)
	t.learn(end, e)
	t.pair(end)
	switch {
	case e.New == event.Close, e.New == event.TimeWait:
		end.Reason, end.Err, end.Closer = e.Reason, e.Err, e.Closer
		t.over(end)
	case e.New != event.SynSent:
		t.answered(end)
	}
	t.touched = append(t.touched, end)
}

// order is that of a connection's life (RFC 9293 section 3.3.2). active and passive are the branches of who closes first and second.
var (
	order = map[event.State]int{
		event.SynSent: 1, event.SynRecv: 2, event.Established: 3, event.FinWait1: 4, event.CloseWait: 4, event.FinWait2: 5, event.Closing: 5, event.LastAck: 5,
	}
	active  = []event.State{event.FinWait1, event.FinWait2, event.Closing}
	passive = []event.State{event.CloseWait, event.LastAck}
)

// goesOn reports whether e can be about the same connection as the line before of its socket: the socket may have had another since, the beginning of which
// was lost.
func (end *End) goesOn(e *event.Event) bool {
	if whole(end.Local) && whole(e.Local) && end.Local != e.Local || whole(end.Remote) && whole(e.Remote) && end.Remote != e.Remote {
		return false
	}
	return end.state == e.Old || order[end.state] < order[e.Old] &&
		(!slices.Contains(active, end.state) || !slices.Contains(passive, e.Old)) && (!slices.Contains(passive, end.state) || !slices.Contains(active, e.Old))
}

// begin makes an end of its first line.
func (t *Table) begin(e *event.Event, begins bool) *End {
	if t.ends == nil {
		t.ends, t.at, t.byEnds, t.dialing = make(map[uint64]*End), make(map[uint64]*End), make(map[ends]*End), make(map[origin][]*End)
	}
	t.count++
	end := &End{
		ID: e.ID, Proto: e.Proto, NetNS: e.NetNS, Older: !begins, Queued: event.Unknown, SynRetrans: event.Unknown,
		state: e.Old, first: e.Origin, number: t.count, losses: t.losses, run: &t.losses, Path: make([]Step, 0, 6),
	}
	if !begins {
		end.Path = append(end.Path, Step{State: e.Old, Dur: event.Unknown})
	}
	t.ends[e.ID] = end
	return end
}

// step goes on to the state that e came into.
func (end *End) step(e *event.Event, losses uint64) {
	end.Last = moment{e.Mono, e.Wall}
	if n := len(end.Path); n > 0 {
		last := &end.Path[n-1]
		switch {
		case e.Old == e.New: // in the kernel vocabulary: the next line tells a part of the time
			end.again = true
			return
		case last.State != e.Old: // lines between were lost
			end.Path = append(end.Path, Step{State: e.Old, Dur: event.Unknown})
		case !end.again:
			last.Dur = e.Dur
		case last.Seen() && last.losses == losses:
			last.Dur = e.Mono - last.Mono
		}
		end.again = false
	}
	end.state = e.New
	if e.New != event.Close {
		end.Path = append(end.Path, Step{e.New, e.Mono, e.Wall, event.Unknown, losses})
	}
	if e.Old == event.SynSent || e.Old == event.SynRecv {
		switch {
		case e.SynRetrans == event.Unknown:
		case end.SynRetrans == event.Unknown:
			end.SynRetrans = e.SynRetrans
		default: // both, of one that crossed the peer's SYN
			end.SynRetrans += e.SynRetrans
		}
	}
	if e.Totals.Known {
		end.Totals = e.Totals
	}
	if e.OwnerVia == event.ViaConnect {
		end.Connected = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
	}
}

// learn takes from e what each line of an end tells, or the next one may tell.
func (t *Table) learn(end *End, e *event.Event) {
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
	end.Wanted = end.Wanted || !e.Unwanted
	if e.Sk != end.sk {
		t.move(end, e.Sk)
	}
	if !whole(end.Local) {
		end.Local, end.Family = e.Local, e.Family
	}
	if !whole(end.Remote) {
		end.Remote, end.Family = e.Remote, e.Family
	}
}

// move notes the address of end's struct in the kernel. Where that was another's before, and lines were lost, that one has gone without a word.
func (t *Table) move(end *End, sk uint64) {
	if t.at[end.sk] == end {
		delete(t.at, end.sk)
	}
	end.sk = sk
	if before := t.at[sk]; before != nil && before.Lost() {
		t.gone(before)
	}
	t.at[sk] = end
}

func whole(a netip.AddrPort) bool { return a.Addr().IsValid() && a.Port() != 0 }

func loopback(end *End) bool { return end.Local.Addr().IsLoopback() || end.Remote.Addr().IsLoopback() }

// gone: the end of end was lost. Who takes the lines is told of it first.
func (t *Table) gone(end *End) {
	end.Gone = true
	t.over(end)
	if p := end.Peer; p != nil && (end.Step(event.Established) == nil || p.Step(event.Established) == nil) {
		part(end, p) // the addresses paired them; they may be another's by now
	}
	t.touched = append(t.touched, end)
}

// over forgets end.
func (t *Table) over(end *End) {
	end.Over, end.ended = true, t.losses
	delete(t.ends, end.ID)
	if t.at[end.sk] == end {
		delete(t.at, end.sk)
	}
	t.answered(end)
	if end.inEnds {
		end.inEnds = false
		key := ends{end.Proto, end.Local, end.Remote}
		if first := t.byEnds[key]; first != end {
			for first.sameEnds != end {
				first = first.sameEnds
			}
			first.sameEnds = end.sameEnds
		} else if end.sameEnds != nil {
			t.byEnds[key] = end.sameEnds
		} else {
			delete(t.byEnds, key)
		}
		end.sameEnds = nil
	}
	// A handshake that failed for the client cannot have succeeded with its server: that was another's.
	if p := end.Peer; p != nil && end.Role == event.Client && translated(end, p) && end.Step(event.Established) == nil && p.Step(event.Established) != nil {
		part(end, p)
	}
}

// translated reports whether c and s were paired although their addresses differ.
func translated(c, s *End) bool { return c.Remote != s.Local }

func part(a, b *End) { a.Peer, b.Peer = nil, nil }

// answered: end is in SYN_SENT no more.
func (t *Table) answered(end *End) {
	if end.portless {
		end.portless = false
		t.portless--
	}
	t.stopDialing(end)
}

func (t *Table) stopDialing(end *End) {
	if !end.dialing {
		return
	}
	end.dialing = false
	key := origin{end.Proto, end.Local}
	all := t.dialing[key]
	all[slices.Index(all, end)] = all[len(all)-1]
	all[len(all)-1] = nil
	if all = all[:len(all)-1]; len(all) == 0 {
		delete(t.dialing, key)
	} else {
		t.dialing[key] = all
	}
}

// pair looks for the other end of end, when its own addresses get known.
func (t *Table) pair(end *End) {
	waits := end.state == event.SynSent
	if !whole(end.Local) || !whole(end.Remote) {
		if waits && !end.portless {
			end.portless = true
			t.portless++
		}
		return
	}
	if end.inEnds {
		return
	}
	if end.portless {
		end.portless = false
		t.portless--
	}
	t.index(end)
	if end.Local == end.Remote { // connected to itself: there is no other
		return
	}
	var peer *End
	switch {
	case end.Role == event.Server && !end.Older:
		peer = t.client(end)
	case end.Role == event.Client && (!end.Older || end.Path[0].State == event.SynSent):
		if peer = t.server(end); peer == nil && waits {
			key := origin{end.Proto, end.Local}
			t.dialing[key] = append(t.dialing[key], end)
			end.dialing = true
		}
	case end.Older:
		peer = t.older(end)
	}
	if peer != nil {
		t.join(end, peer)
	}
}

func (t *Table) join(a, b *End) {
	a.Peer, b.Peer = b, a
	if !translated(a, b) {
		t.stopDialing(a)
		t.stopDialing(b)
	}
}

// index makes end findable by its ends. Another one of its namespace with the same ends, of which lines may be missing, has gone without a word.
func (t *Table) index(end *End) {
	key := ends{end.Proto, end.Local, end.Remote}
	for other := t.byEnds[key]; other != nil; {
		next := other.sameEnds
		if other.NetNS == end.NetNS && other.Lost() {
			t.gone(other)
		}
		other = next
	}
	end.sameEnds, end.inEnds = t.byEnds[key], true
	t.byEnds[key] = end
}

// opposite gives the ends that see the same addresses the other way round, the newest first.
func (t *Table) opposite(end *End, suits func(*End) bool) *End {
	var elsewhere *End
	several := false
	for o := t.byEnds[ends{end.Proto, end.Remote, end.Local}]; o != nil; o = o.sameEnds {
		switch {
		case !suits(o):
		case o.NetNS == end.NetNS:
			return o
		default:
			several = elsewhere != nil
			elsewhere = o
		}
	}
	if several || loopback(end) {
		return nil
	}
	return elsewhere
}

// client finds that of s, which has just begun.
func (t *Table) client(s *End) *End {
	c := t.opposite(s, func(c *End) bool { return c.awaits(s) })
	if c == nil {
		return t.translatedClient(s)
	}
	if c.Peer != nil {
		part(c, c.Peer)
	}
	return c
}

// awaits reports whether c is a client to which s may be the answer: none that has another, unless that was found by DNAT and this one has the very
// address that c dialled.
func (c *End) awaits(s *End) bool {
	if c.Role != event.Client || c.Peer != nil && !translated(c, c.Peer) {
		return false
	}
	if c.state == event.SynSent {
		return true
	}
	established := c.Step(event.Established)
	return established != nil && established.Seen() && s.Last.Mono-established.Mono <= Late
}

// translatedClient finds the one client whose SYN may have come to s with another destination. A client whose port is not known yet may be another.
func (t *Table) translatedClient(s *End) *End {
	var found *End
	if t.portless > 0 {
		return nil
	}
	for _, c := range t.dialing[origin{s.Proto, s.Remote}] {
		switch {
		case c.Peer != nil, c.NetNS != s.NetNS && (loopback(c) || loopback(s)):
		case found != nil, c.Lost():
			return nil
		default:
			found = c
		}
	}
	return found
}

// server finds that of c, whose port was not known when it appeared, or whose first line came after the server's.
func (t *Table) server(c *End) *End {
	s := t.opposite(c, func(s *End) bool {
		begun, _ := c.Began()
		return s.Role == event.Server && !s.Older && (s.Peer == nil || translated(s.Peer, s)) && s.Path[0].Mono >= begun ||
			c.Older && s.Role == event.Server && s.Peer == nil && !s.Older
	})
	if s != nil && s.Peer != nil {
		part(s, s.Peer)
	}
	return s
}

// older finds the other end of one that is older than the trace, as that is. Only within a namespace is it certain.
func (t *Table) older(end *End) *End {
	return t.opposite(end, func(o *End) bool {
		return o.Older && o.Peer == nil && o.NetNS == end.NetNS && (o.Role == 0 || o.Role != end.Role)
	})
}
