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
//     at a time, unless they are bound to devices; else it must be the only one of all namespaces, and no loopback address, for these mean another
//     host in each.
//   - If there is none, the network may have given the SYN another destination on its way (DNAT, as for the published ports of containers): then it
//     belongs to the client with its remote address and port that waits for an answer, if there is only one.
//   - What may be one of two is not paired at all.
//
// Where both know the client's initial sequence number that decides: two ends with different ones are never paired, and one with the same is the one
// of several. Where they do not, ends in two namespaces, or with DNAT between them, are Perhaps one connection.
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
// have gone, or are no pair. There is none for what is no connection's. The slice is valid until the next call.
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
	case event.ConnectFailed:
		t.connectFailed(e)
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

// connectFailed makes an end that is over at once. Its socket may have been in a connection before, and be so again.
func (t *Table) connectFailed(e *event.Event) {
	t.count++
	end := &End{
		ID: e.ID, Cookie: e.Cookie, NetNS: e.NetNS, Family: e.Family, Proto: e.Proto, Local: e.Local, Remote: e.Remote, IfIndex: e.IfIndex, IfName: e.IfName, Role: e.Role,
		Cgroup: e.Cgroup, Queued: event.Unknown, SynRetrans: event.Unknown, Reason: e.Reason, Err: e.Err, NoSyn: true, Over: true, Wanted: !e.Unwanted,
		Last: moment{e.Mono, e.Wall}, state: event.Close, number: t.count, losses: t.losses, ended: t.losses, run: &t.losses,
	}
	if e.OwnerPID != 0 {
		end.Owner = Process{e.OwnerPID, e.OwnerComm, e.OwnerVia}
		end.Connected = end.Owner
	}
	t.touched = append(t.touched, end)
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
	isn := end.ISN
	end.step(e, t.losses)
	t.learn(end, e)
	t.pair(end, end.ISN != isn)
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
	if whole(end.Local) && whole(e.Local) && end.Local != e.Local || whole(end.Remote) && whole(e.Remote) && end.Remote != e.Remote ||
		differ(end.IfIndex, e.IfIndex) || differ(end.ISN, e.ISN) {
		return false
	}
	return end.state == e.Old || order[end.state] < order[e.Old] &&
		(!slices.Contains(active, end.state) || !slices.Contains(passive, e.Old)) && (!slices.Contains(passive, end.state) || !slices.Contains(active, e.Old))
}

// differ reports whether two numbers, of which 0 is unknown, are known to.
func differ(a, b uint32) bool { return a != 0 && b != 0 && a != b }

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
	if e.Old == event.SynRecv && e.Deferred > 0 {
		end.Deferred = e.Deferred
		end.acked = &Step{event.SynRecv, e.Mono - e.Deferred, e.Wall - e.Deferred, event.Unknown, losses}
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
	if p := end.Peer; p != nil && end.Pairing != ByISN && (end.Step(event.Established) == nil || p.Step(event.Established) == nil) {
		t.part(end, p) // the addresses paired them; they may be another's by now
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
	if p := end.Peer; end.Pairing == Perhaps && end.Role == event.Client && end.Step(event.Established) == nil && p.Step(event.Established) != nil {
		t.part(end, p)
	}
}

// translated reports whether the addresses of b are not those of a, the other way round.
func translated(a, b *End) bool { return a.Remote != b.Local || a.Local != b.Remote }

// pairing returns how certain it is that a and b, whose addresses suit, are one connection.
func pairing(a, b *End) Pairing {
	switch {
	case differ(a.ISN, b.ISN):
		return Unpaired
	case a.ISN != 0 && a.ISN == b.ISN:
		return ByISN
	case a.NetNS == b.NetNS && !translated(a, b):
		return ByTuple
	}
	return Perhaps
}

// free reports whether a has no other end, or one that is less certain to be its than b.
func free(a, b *End) bool {
	certainty := func(p *End) int {
		n := 2 * int(pairing(a, p))
		if !translated(a, p) {
			n++
		}
		return n
	}
	return a.Peer == nil || certainty(a.Peer) < certainty(b)
}

func (t *Table) join(a, b *End) {
	for _, e := range []*End{a, b} {
		if e.Peer != nil && a.Peer != b {
			t.part(e, e.Peer)
		}
	}
	a.Peer, b.Peer = b, a
	a.Pairing = pairing(a, b)
	b.Pairing = a.Pairing
	if a.Pairing == ByISN || !translated(a, b) {
		t.stopDialing(a)
		t.stopDialing(b)
	}
}

func (t *Table) part(a, b *End) {
	for _, e := range []*End{a, b} {
		e.Peer, e.Pairing = nil, Unpaired
		t.dial(e)
	}
	t.touched = append(t.touched, a, b)
}

// answered: end is in SYN_SENT no more.
func (t *Table) answered(end *End) {
	if end.portless {
		end.portless = false
		t.portless--
	}
	t.stopDialing(end)
}

// dial notes that end waits for an answer, if it does.
func (t *Table) dial(end *End) {
	if end.Role != event.Client || end.state != event.SynSent || end.Over || end.dialing || !end.inEnds {
		return
	}
	key := origin{end.Proto, end.Local}
	t.dialing[key] = append(t.dialing[key], end)
	end.dialing = true
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

// pair looks for the other end of end when its own addresses get known, and again when its initial sequence number does.
func (t *Table) pair(end *End, isn bool) {
	waits := end.state == event.SynSent
	if !whole(end.Local) || !whole(end.Remote) {
		if waits && !end.portless {
			end.portless = true
			t.portless++
		}
		return
	}
	if end.inEnds && !isn {
		return
	}
	if end.portless {
		end.portless = false
		t.portless--
	}
	if !end.inEnds {
		t.index(end)
	}
	if end.Local == end.Remote { // connected to itself: there is no other
		return
	}
	if p := end.Peer; p != nil {
		if pairing(end, p) != Unpaired {
			t.join(end, p)
		} else {
			t.part(end, p)
		}
	}
	if peer := t.other(end); peer != nil && free(end, peer) {
		t.join(end, peer)
	}
	if end.Peer == nil {
		t.dial(end)
	}
}

// other finds the other end of end.
func (t *Table) other(end *End) *End {
	switch {
	case end.Role == event.Server && !end.Older:
		return t.client(end)
	case end.Role == event.Client && (!end.Older || end.Path[0].State == event.SynSent):
		return t.server(end)
	case end.Older:
		return t.older(end)
	}
	return nil
}

// index makes end findable by its ends. Another one of its namespace and device with the same ends, of which lines may be missing, has gone without a
// word.
func (t *Table) index(end *End) {
	key := ends{end.Proto, end.Local, end.Remote}
	for other := t.byEnds[key]; other != nil; {
		next := other.sameEnds
		if other.NetNS == end.NetNS && other.IfIndex == end.IfIndex && other.Lost() {
			t.gone(other)
		}
		other = next
	}
	end.sameEnds, end.inEnds = t.byEnds[key], true
	t.byEnds[key] = end
}

// opposite returns the end that sees the same addresses the other way round. In one namespace and on one device that is the newest: of the others lines
// are missing.
func (t *Table) opposite(end *End, suits func(*End) bool) *End {
	var certain, here, elsewhere *End
	severalHere, several := false, false
	for o := t.byEnds[ends{end.Proto, end.Remote, end.Local}]; o != nil; o = o.sameEnds {
		if !suits(o) || !free(o, end) || o.NetNS != end.NetNS && loopback(end) {
			continue
		}
		switch pairing(o, end) {
		case ByISN:
			if certain == nil || certain.NetNS != end.NetNS && o.NetNS == end.NetNS {
				certain = o
			}
		case ByTuple:
			if here == nil {
				here = o
			} else if here.IfIndex != o.IfIndex {
				severalHere = true
			}
		case Perhaps:
			several = elsewhere != nil
			elsewhere = o
		}
	}
	switch {
	case certain != nil:
		return certain
	case severalHere, here == nil && several:
		return nil
	case here != nil:
		return here
	}
	return elsewhere
}

// client finds that of s, which has just begun.
func (t *Table) client(s *End) *End {
	if c := t.opposite(s, func(c *End) bool { return c.awaits(s) }); c != nil {
		return c
	}
	return t.translatedClient(s)
}

// awaits reports whether c is a client to which s may be the answer.
func (c *End) awaits(s *End) bool {
	if c.Role != event.Client {
		return false
	}
	if c.state == event.SynSent || pairing(c, s) == ByISN {
		return true
	}
	established := c.Step(event.Established)
	return established != nil && established.Seen() && s.Last.Mono-established.Mono <= Late
}

// translatedClient finds the one client whose SYN may have come to s with another destination. A client whose port is not known yet may be another.
func (t *Table) translatedClient(s *End) *End {
	var found *End
	several := t.portless > 0
	for _, c := range t.dialing[origin{s.Proto, s.Remote}] {
		switch p := pairing(c, s); {
		case p == Unpaired, !free(c, s), c.NetNS != s.NetNS && (loopback(c) || loopback(s)):
		case p == ByISN:
			return c
		case found != nil, c.Lost():
			several = true
		default:
			found = c
		}
	}
	if several {
		return nil
	}
	return found
}

// server finds that of c, whose port was not known when it appeared, or whose first line came after the server's.
func (t *Table) server(c *End) *End {
	begun, _ := c.Began()
	return t.opposite(c, func(s *End) bool {
		return s.Role == event.Server && !s.Older && (s.Path[0].Mono >= begun || pairing(c, s) == ByISN || c.Older && s.Peer == nil)
	})
}

// older finds the other end of one that is older than the trace, as that is. Only within a namespace is it certain.
func (t *Table) older(end *End) *End {
	return t.opposite(end, func(o *End) bool {
		return o.Older && o.Peer == nil && o.NetNS == end.NetNS && (o.Role == 0 || o.Role != end.Role)
	})
}
