package conns

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/pair"
	"sstrace/internal/text"
)

// The ladder is 100 columns wide: times, the client's lane, segments, the server's lane. An end alone has the first lane.
const (
	width    = 100
	timeEnd  = 16
	stub     = 60 // how far a segment goes that comes from or goes to another host
	paleLine = '┊'
)

var middles = [2]int{30, 80}

// rung is a row: something that happened at one end.
type rung struct {
	lane  int
	mono  int64 // 0: not seen
	at    int64 // where it stands among the others
	label string
	color string    // label, with color
	came  string    // the segment that it proves to have come
	went  string    // and to have gone
	after rune      // the lane from here on
	end   *pair.End // whose it is
	state event.State
}

// draw draws a connection, once.
func (c *Conns) draw(conn pair.Conn) error {
	var lanes []*pair.End
	for _, e := range []*pair.End{conn.Client, conn.Server} {
		if e == nil {
			continue
		}
		if e.Told {
			return nil
		}
		e.Told = true
		lanes = append(lanes, e)
	}
	var rungs []rung
	for i, e := range lanes {
		rungs = append(rungs, c.rungs(i, e)...)
	}
	slices.SortStableFunc(rungs, func(a, b rung) int { return cmp.Compare(a.at, b.at) })

	var b strings.Builder
	if c.greeted {
		b.WriteByte('\n')
	}
	c.greeted = true
	c.title(&b, conn, lanes)
	lines := [2]rune{' ', ' '}
	before := int64(0)
	perhaps := lanes[0].Pairing == pair.Perhaps
	for _, r := range rungs {
		if perhaps { // then nothing proves that a segment of one came to the other
			r.came, r.went = "", ""
		}
		c.rung(&b, r, lines, len(lanes) == 2, before)
		lines[r.lane] = r.after
		if r.mono != 0 {
			before = r.mono
		}
	}
	for _, e := range lanes {
		fmt.Fprintf(&b, "%s: %s\n", cmp.Or(e.Role.String(), "end"), c.epilogue(e))
	}
	if perhaps {
		b.WriteString("perhaps these are two connections: the addresses match, the initial sequence numbers are unknown\n")
	}
	return c.lines.Text(b.String())
}

// title writes who speaks with whom.
func (c *Conns) title(b *strings.Builder, conn pair.Conn, lanes []*pair.End) {
	zone := lanes[0].Zone()
	from, to := text.AddressIn(lanes[0].Local, zone), text.AddressIn(lanes[0].Remote, zone)
	if conn.Client == nil {
		from, to = to, from
	}
	_, wall := lanes[0].Began()
	at := time.Unix(0, wall).Format(clock)
	route := from + " → " + to
	if conn.Client != nil && conn.Server != nil && conn.Client.Remote != conn.Server.Local {
		route += ", came to " + text.AddressIn(conn.Server.Local, conn.Server.Zone())
	}
	if len(at)+2+utf8.RuneCountInString(route) > width {
		at += "\n" + strings.Repeat(" ", len(at)-len(clock))
		route = strings.ReplaceAll(strings.ReplaceAll(route, " → ", " →\n"), ", came", ",\ncame")
		fmt.Fprintf(b, "%s%s\n", at, route)
	} else {
		fmt.Fprintf(b, "%s  %s\n", at, route)
	}
	var roles, owners canvas
	for i, e := range lanes {
		roles.center(middles[i], cmp.Or(e.Role.String(), "-"), "")
		owners.center(middles[i], text.Process(e.Owner.PID, e.Owner.Comm), "")
	}
	b.WriteString(roles.String())
	b.WriteString(owners.String())
}

// rungs gives what happened at e, in order.
func (c *Conns) rungs(lane int, e *pair.End) (rungs []rung) {
	add := func(r rung) {
		r.lane, r.end = lane, e
		if r.after == 0 {
			r.after = '│'
		}
		rungs = append(rungs, r)
	}
	acceptedYet := e.AcceptedAt == 0
	accept := func() {
		acceptedYet = true
		add(rung{mono: e.AcceptedAt, label: "accept()"})
	}
	var old event.State
	for _, s := range e.Path {
		if !acceptedYet && s.Seen() && e.AcceptedAt <= s.Mono {
			accept()
		}
		r := rung{mono: s.Mono, label: s.State.String(), color: text.State(s.State, c.color), state: s.State}
		if s.Seen() {
			r.came, r.went = segments(e, old, s.State)
		} else { // older than the trace, or its line was lost
			r.label = "(" + r.label + ")"
			r.color = r.label
		}
		if s.State == event.TimeWait {
			r.after = paleLine
		}
		add(r)
		old = s.State
		if s.State == event.SynRecv && e.Deferred > 0 {
			add(rung{mono: e.AckArrived().Mono, label: "(waits for data)", came: "ACK"})
		}
	}
	if !acceptedYet {
		accept()
	}
	switch {
	case e.Gone:
		add(rung{label: "?", after: ' '})
	case e.NoSyn:
		add(rung{mono: e.Last.Mono, label: "(failed)", after: ' '})
	case e.Over && e.State() == event.Close:
		r := rung{mono: e.Last.Mono, label: "CLOSE", color: text.State(event.Close, c.color), after: ' ', state: event.Close}
		r.came, r.went = segments(e, old, event.Close)
		add(r)
	}
	// What was not seen stands before what comes next.
	at := e.Last.Mono
	for i := range slices.Backward(rungs) {
		if rungs[i].mono != 0 {
			at = rungs[i].mono
		}
		rungs[i].at = at
	}
	if e.Older {
		rungs[0].at = math.MinInt64
	}
	return rungs
}

// segments gives the segment whose coming is the only thing that makes this change (RFC 9293 section 3.10.7), and the one that e sends with it
// (section 3.10.1 and 3.10.4), by which an end alone tells of it.
func segments(e *pair.End, old, state event.State) (came, went string) {
	switch state {
	case event.SynSent:
		return "", "SYN"
	case event.SynRecv:
		if old == event.SynSent || e.SynArrived() != nil {
			return "SYN", ""
		}
	case event.Established:
		switch old {
		case event.SynSent:
			return "SYN-ACK", ""
		case event.SynRecv:
			if e.Deferred > 0 {
				return afterAck(e), ""
			}
			return "ACK", ""
		}
	case event.CloseWait, event.Closing:
		return "FIN", ""
	case event.FinWait1, event.LastAck:
		return "", "FIN"
	case event.FinWait2:
		return "ACK", ""
	case event.TimeWait:
		switch old {
		case event.FinWait1:
			return "FIN, ACK", ""
		case event.FinWait2:
			return "FIN", ""
		case event.Closing:
			return "ACK", ""
		}
	case event.Close:
		switch e.Reason {
		case event.ReasonRefused, event.ReasonResetByPeer:
			return "RST", ""
		case event.ReasonPortUnreachable:
			if e.Peer == nil { // else it is not known who sent it
				return "ICMP", ""
			}
		case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2, event.ReasonResetSentLateData, event.ReasonResetSentSyn,
			event.ReasonTooManyOrphans:
			return "", "RST"
		case event.ReasonNormal:
			if old == event.LastAck {
				return "ACK", ""
			}
		}
	}
	return "", ""
}

// afterAck returns what ended the wait for data of a server's end (tcp_check_req in net/ipv4/tcp_minisocks.c): a segment with more than an ACK, or, once the
// SYN-ACK was sent again because none came, an ACK alone.
func afterAck(e *pair.End) string {
	if e.SynRetrans != 0 {
		return "ACK or data"
	}
	if e.Pairing > pair.Perhaps && !e.Peer.Lost() {
		if fin := e.Peer.Step(event.FinWait1); fin == nil || fin.Mono > e.Step(event.Established).Mono {
			return "data"
		}
	}
	return "data or FIN"
}

// rung writes a row. lines are the lanes as they are before it.
func (c *Conns) rung(b *strings.Builder, r rung, lines [2]rune, both bool, before int64) {
	var row canvas
	switch {
	case r.mono == 0:
		row.right(timeEnd, "-")
	case before == 0:
		row.right(timeEnd, "0s")
	default:
		row.right(timeEnd, "+"+time.Duration(r.mono-before).String())
	}
	half := (utf8.RuneCountInString(r.label) + 1) / 2
	mine, other := middles[r.lane], middles[1-r.lane]
	if both {
		row.put(other, string(lines[1-r.lane]))
	}
	near, far := mine+half+2, other-2
	if r.lane == 1 {
		near, far = mine-half-2, other+2
	}
	switch {
	case r.came != "" && both:
		row.arrow(far, near, r.came)
	case r.came != "":
		row.arrow(stub, near, r.came)
	case r.went != "" && !both:
		row.arrow(near, stub, r.went)
	}
	row.center(mine, r.label, r.color)
	b.WriteString(row.String())
}

// epilogue tells what is known of an end when it is over, or at the end of the run.
func (c *Conns) epilogue(e *pair.End) string {
	var parts []string
	switch {
	case e.Gone:
		parts = append(parts, "its end was lost")
	case !e.Over && c.state(e) != event.Unknown:
		parts = append(parts, "still in "+e.State().String()+", for "+time.Duration(c.state(e)).String())
	case !e.Over:
		parts = append(parts, "still in "+e.State().String())
	case e.State() == event.Close:
		parts = append(parts, text.Alarm(text.Reason(e.Reason, e.Err), c.color && e.Reason != event.ReasonNormal))
	}
	if noSyn(e) {
		parts = append(parts, "no SYN was sent")
	}
	if e.Deferred > 0 {
		parts = append(parts, "waited "+text.Time(e.Deferred)+" for data (TCP_DEFER_ACCEPT)")
	}
	if e.Closer == event.WeClosed {
		parts = append(parts, "closed first")
	}
	if t := e.Totals; t.Known {
		parts = append(parts, "sent "+text.Bytes(t.BytesAcked), "received "+text.Bytes(t.BytesReceived))
		if rtt := roundTrip(&t); rtt != "-" {
			parts = append(parts, "RTT "+rtt)
		}
		if t.Retrans > 0 {
			parts = append(parts, fmt.Sprintf("%d segments sent again", t.Retrans))
		}
	}
	if life := c.life(e); e.Over && life != event.Unknown {
		parts = append(parts, "lived "+time.Duration(life).String())
	}
	if e.Lost() {
		parts = append(parts, "lines may be missing")
	}
	return strings.Join(parts, ", ")
}

// canvas is a line of text to write on anywhere.
type canvas struct {
	runes []rune
	at    int    // where colored stands
	plain string // in its place
	color string
}

func (v *canvas) put(at int, text string) {
	for _, r := range text {
		for len(v.runes) <= at {
			v.runes = append(v.runes, ' ')
		}
		v.runes[at] = r
		at++
	}
}

// right writes text so that it ends before column end.
func (v *canvas) right(end int, text string) { v.put(max(0, end-utf8.RuneCountInString(text)), text) }

// center writes text around middle. color is the same text with its color; there is one in a line at most.
func (v *canvas) center(middle int, text, color string) {
	at := max(0, min(middle-utf8.RuneCountInString(text)/2, width-utf8.RuneCountInString(text)))
	v.put(at, text)
	v.at, v.plain, v.color = at, text, color
}

// arrow draws one from column from to column to, with a name.
func (v *canvas) arrow(from, to int, name string) {
	low, high := min(from, to), max(from, to)
	v.put(low, strings.Repeat("─", high-low+1))
	if from < to {
		v.put(high, "▶")
	} else {
		v.put(low, "◀")
	}
	name = " " + name + " "
	v.put((low+high)/2-len(name)/2, name)
}

func (v *canvas) String() string {
	text := string(v.runes)
	if v.color != "" && v.color != v.plain {
		text = string(v.runes[:v.at]) + v.color + string(v.runes[v.at+utf8.RuneCountInString(v.plain):])
	}
	return strings.TrimRight(text, " ") + "\n"
}
