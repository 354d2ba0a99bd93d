package pair

import (
	"slices"

	"sstrace/internal/event"
)

func loopback(end *End) bool { return end.Local.Addr().IsLoopback() || end.Remote.Addr().IsLoopback() }

// translated reports whether the addresses of b do not mirror those of a.
func translated(a, b *End) bool { return a.Remote != b.Local || a.Local != b.Remote }

// pairing returns how certain it is that a and b, whose addresses match, are one connection.
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

// prefers reports whether a has no peer, or a peer that is less certain than b.
func prefers(a, b *End) bool {
	certainty := func(p *End) int {
		n := 2 * int(pairing(a, p))
		if !translated(a, p) {
			n++
		}
		return n
	}
	return a.Peer == nil || certainty(a.Peer) < certainty(b)
}

// match looks for the peer of end once its addresses are known, and again once its initial sequence
// number is known. newISN is set in the second case.
func (t *Table) match(end *End, newISN bool) {
	if !complete(end.Local) || !complete(end.Remote) {
		if end.state == event.SynSent {
			t.setPortless(end, true)
		}
		return
	}
	if end.indexed && !newISN {
		return
	}
	t.setPortless(end, false)
	if !end.indexed {
		t.addTuple(end)
	}
	if end.Local == end.Remote { // connected to itself: there is no peer
		return
	}
	if p := end.Peer; p != nil {
		if pairing(end, p) != Unpaired {
			t.join(end, p)
		} else {
			t.separate(end, p)
		}
	}
	if peer := t.find(end); peer != nil && prefers(end, peer) {
		t.join(end, peer)
	}
	if end.Peer == nil {
		t.addConnecting(end)
	}
}

func (t *Table) join(a, b *End) {
	for _, e := range []*End{a, b} {
		if e.Peer != nil && a.Peer != b {
			t.separate(e, e.Peer)
		}
	}
	a.Peer, b.Peer = b, a
	a.Pairing = pairing(a, b)
	b.Pairing = a.Pairing
	if a.Pairing == ByISN || !translated(a, b) {
		t.removeConnecting(a)
		t.removeConnecting(b)
	}
}

func (t *Table) separate(a, b *End) {
	for _, e := range []*End{a, b} {
		e.Peer, e.Pairing = nil, Unpaired
		t.addConnecting(e)
	}
	t.touched = append(t.touched, a, b)
}

// find returns the peer of end, or nil.
func (t *Table) find(end *End) *End {
	switch {
	case end.Role == event.Server && !end.Older:
		return t.findClient(end)
	case end.Role == event.Client && (!end.Older || end.Path[0].State == event.SynSent):
		return t.findServer(end)
	case end.Older:
		return t.findOlder(end)
	}
	return nil
}

// findMirrored returns the end that has the mirrored tuple and satisfies suits, or nil. If several
// ends in one namespace and on one device do, it returns the newest one, because lines of the
// others are missing.
func (t *Table) findMirrored(end *End, suits func(*End) bool) *End {
	var certain, here, elsewhere *End
	severalHere, severalElsewhere := false, false
	for o := t.byTuple[tuple{end.Proto, end.Remote, end.Local}]; o != nil; o = o.sameTuple {
		if !suits(o) || !prefers(o, end) || o.NetNS != end.NetNS && loopback(end) {
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
			severalElsewhere = elsewhere != nil
			elsewhere = o
		}
	}
	switch {
	case certain != nil:
		return certain
	case severalHere, here == nil && severalElsewhere:
		return nil
	case here != nil:
		return here
	}
	return elsewhere
}

// findClient returns the client of server, which has just appeared, or nil.
func (t *Table) findClient(server *End) *End {
	if c := t.findMirrored(server, func(c *End) bool { return c.awaits(server) }); c != nil {
		return c
	}
	return t.findTranslatedClient(server)
}

// awaits reports whether c is a client that server may have answered.
func (c *End) awaits(server *End) bool {
	if c.Role != event.Client {
		return false
	}
	if c.state == event.SynSent || pairing(c, server) == ByISN {
		return true
	}
	established := c.Step(event.Established)
	return established != nil && established.Seen() && server.Last.Mono-established.Mono <= Late
}

// findTranslatedClient returns the one client whose SYN may have reached server through DNAT, or
// nil. A client whose port is still unknown counts as another candidate.
func (t *Table) findTranslatedClient(server *End) *End {
	var found *End
	several := t.portless > 0
	for _, c := range t.connecting[local{server.Proto, server.Remote}] {
		switch p := pairing(c, server); {
		case p == Unpaired, !prefers(c, server), c.NetNS != server.NetNS && (loopback(c) || loopback(server)):
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

// findServer returns the server's end of the client's connection, or nil. It is needed if the
// client's port was unknown when it appeared, or if its first line came after the server's.
func (t *Table) findServer(client *End) *End {
	begun, _ := client.Began()
	return t.findMirrored(client, func(s *End) bool {
		return s.Role == event.Server && !s.Older &&
			(s.Path[0].Mono >= begun || pairing(client, s) == ByISN || client.Older && s.Peer == nil)
	})
}

// findOlder returns the peer of an end that is older than the trace, or nil. The peer is also older
// than the trace. It is certain only within a namespace.
func (t *Table) findOlder(end *End) *End {
	return t.findMirrored(end, func(o *End) bool {
		return o.Older && o.Peer == nil && o.NetNS == end.NetNS && (o.Role == 0 || o.Role != end.Role)
	})
}

// addTuple adds end to byTuple. If another end has the same tuple, namespace and device, some of
// its lines are missing, and that end is Gone.
func (t *Table) addTuple(end *End) {
	key := end.tuple()
	for other := t.byTuple[key]; other != nil; {
		next := other.sameTuple
		if other.NetNS == end.NetNS && other.IfIndex == end.IfIndex && other.Lost() {
			t.drop(other)
		}
		other = next
	}
	end.sameTuple, end.indexed = t.byTuple[key], true
	t.byTuple[key] = end
}

// removeTuple removes end from byTuple, if present.
func (t *Table) removeTuple(end *End) {
	if !end.indexed {
		return
	}
	end.indexed = false
	key := end.tuple()
	if first := t.byTuple[key]; first != end {
		for first.sameTuple != end {
			first = first.sameTuple
		}
		first.sameTuple = end.sameTuple
	} else if end.sameTuple != nil {
		t.byTuple[key] = end.sameTuple
	} else {
		delete(t.byTuple, key)
	}
	end.sameTuple = nil
}

// addConnecting adds end to connecting if it is a client that waits for an answer.
func (t *Table) addConnecting(end *End) {
	if end.Role != event.Client || end.state != event.SynSent || end.Over || end.connecting || !end.indexed {
		return
	}
	t.connecting[end.local()] = append(t.connecting[end.local()], end)
	end.connecting = true
}

// removeConnecting removes end from connecting, if present.
func (t *Table) removeConnecting(end *End) {
	if !end.connecting {
		return
	}
	end.connecting = false
	all := t.connecting[end.local()]
	all[slices.Index(all, end)] = all[len(all)-1]
	all[len(all)-1] = nil
	if all = all[:len(all)-1]; len(all) == 0 {
		delete(t.connecting, end.local())
	} else {
		t.connecting[end.local()] = all
	}
}

// setPortless sets whether end is a client in SYN_SENT whose port is unknown.
func (t *Table) setPortless(end *End, portless bool) {
	if end.portless == portless {
		return
	}
	end.portless = portless
	if portless {
		t.portless++
	} else {
		t.portless--
	}
}
