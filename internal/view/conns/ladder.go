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

// The columns of a ladder, from left to right: the times, the client's lane, the segments, and the
// server's lane. If only one end is known, it gets the first lane.
const (
	timeEnd      = 16
	offHost      = 60 // the far end of an arrow to or from another host
	timeWaitLane = '┊'
)

var laneMiddles = [2]int{30, 80}

// rung is a row of a ladder: something that happened at one end.
type rung struct {
	lane     int
	mono     int64 // 0: not seen
	order    int64 // the position among the rungs of both ends
	label    string
	color    string // label with its color
	received string // the segment that must have arrived
	sent     string // the segment that must have been sent
	after    rune   // the lane below
}

// draw draws a connection, once.
func (v *View) draw(conn pair.Conn) error {
	var lanes []*pair.End
	for e := range conn.Ends {
		if e.Reported {
			return nil
		}
		e.Reported = true
		lanes = append(lanes, e)
	}
	var rungs []rung
	for i, e := range lanes {
		rungs = append(rungs, v.rungs(i, e)...)
	}
	slices.SortStableFunc(rungs, func(a, b rung) int { return cmp.Compare(a.order, b.order) })

	var b strings.Builder
	if v.started {
		b.WriteByte('\n')
	}
	v.started = true
	title(&b, conn, lanes)
	verticals := [2]rune{' ', ' '}
	before := int64(0)
	perhaps := lanes[0].Pairing == pair.Perhaps
	for _, r := range rungs {
		if perhaps { // it is not known whether one end's segment reached the other
			r.received, r.sent = "", ""
		}
		r.write(&b, verticals, len(lanes) == 2, before)
		verticals[r.lane] = r.after
		if r.mono != 0 {
			before = r.mono
		}
	}
	for _, e := range lanes {
		fmt.Fprintf(&b, "%s: %s\n", cmp.Or(e.Role.String(), "end"), v.epilogue(e))
	}
	if perhaps {
		b.WriteString("these may be two connections: " +
			"the addresses match, but the initial sequence numbers are unknown\n")
	}
	return v.lines.Text(b.String())
}

// title writes the start time of the connection, its addresses, and the owners of its ends.
func title(b *strings.Builder, conn pair.Conn, lanes []*pair.End) {
	zone := lanes[0].Zone()
	from, to := text.AddressIn(lanes[0].Local, zone), text.AddressIn(lanes[0].Remote, zone)
	if conn.Client == nil {
		from, to = to, from
	}
	_, wall := lanes[0].Began()
	at := time.Unix(0, wall).Format(text.Clock)
	parts := []string{from + " →", to}
	if conn.Redirected() {
		parts[1] += ","
		parts = append(parts, "arrived at "+text.AddressIn(conn.Server.Local, conn.Server.Zone()))
	}
	if route := strings.Join(parts, " "); len(at)+2+utf8.RuneCountInString(route) <= width {
		fmt.Fprintf(b, "%s  %s\n", at, route)
	} else {
		fmt.Fprintf(b, "%s\n%s\n", at, strings.Join(parts, "\n"))
	}
	var roles, owners canvas
	for i, e := range lanes {
		roles.center(laneMiddles[i], text.OrDash(e.Role.String()), "")
		owners.center(laneMiddles[i], text.Process(e.Owner.PID, e.Owner.Comm), "")
	}
	b.WriteString(roles.String())
	b.WriteString(owners.String())
}

// rungs returns what happened at e, in order.
func (v *View) rungs(lane int, e *pair.End) []rung {
	rungs := v.path(e)
	switch {
	case e.Gone:
		rungs = append(rungs, rung{label: "?", after: ' '})
	case e.ConnectFailed:
		rungs = append(rungs, rung{mono: e.Last.Mono, label: "(failed)", after: ' '})
	case e.Over && e.State() == event.Close:
		var old event.State
		if n := len(e.Path); n > 0 {
			old = e.Path[n-1].State
		}
		r := rung{mono: e.Last.Mono, label: "CLOSE", color: text.State(event.Close, v.color), after: ' '}
		r.received, r.sent = segments(e, old, event.Close)
		rungs = append(rungs, r)
	}
	// A rung that was not seen is placed before the next one.
	at := e.Last.Mono
	for i := range slices.Backward(rungs) {
		r := &rungs[i]
		if r.mono != 0 {
			at = r.mono
		}
		r.order, r.lane = at, lane
		if r.after == 0 {
			r.after = '│'
		}
	}
	if e.Older {
		rungs[0].order = math.MinInt64
	}
	return rungs
}

// path returns a rung for each state that e entered and for each event within a state.
func (v *View) path(e *pair.End) (rungs []rung) {
	accept := e.AcceptedAt != 0
	var old event.State
	for _, s := range e.Path {
		if accept && s.Seen() && e.AcceptedAt <= s.Mono {
			accept = false
			rungs = append(rungs, rung{mono: e.AcceptedAt, label: "accept()"})
		}
		r := rung{mono: s.Mono, label: s.State.String(), color: text.State(s.State, v.color)}
		if s.Seen() {
			r.received, r.sent = segments(e, old, s.State)
		} else { // e is older than the trace, or its line was lost
			r.label = "(" + r.label + ")"
			r.color = r.label
		}
		if s.State == event.TimeWait {
			r.after = timeWaitLane
		}
		rungs = append(rungs, r)
		old = s.State
		if s.State == event.SynRecv && e.Deferred > 0 {
			rungs = append(rungs, rung{mono: e.AckArrived().Mono, label: "(waiting for data)", received: "ACK"})
		}
	}
	if accept {
		rungs = append(rungs, rung{mono: e.AcceptedAt, label: "accept()"})
	}
	return rungs
}

// write writes a rung as a row. lanes are the lanes above it.
func (r *rung) write(b *strings.Builder, lanes [2]rune, both bool, before int64) {
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
	mine, other := laneMiddles[r.lane], laneMiddles[1-r.lane]
	if both {
		row.put(other, string(lanes[1-r.lane]))
	}
	near, far := mine+half+2, other-2
	if r.lane == 1 {
		near, far = mine-half-2, other+2
	}
	switch {
	case r.received != "" && both:
		row.arrow(far, near, r.received)
	case r.received != "":
		row.arrow(offHost, near, r.received)
	case r.sent != "" && !both:
		row.arrow(near, offHost, r.sent)
	}
	row.center(mine, r.label, r.color)
	b.WriteString(row.String())
}

// epilogue returns the summary of an end once the end or the run is over.
func (v *View) epilogue(e *pair.End) string {
	var parts []string
	switch {
	case e.Gone:
		parts = append(parts, "its last change was lost")
	case !e.Over && v.stateTime(e) != event.Unknown:
		parts = append(parts, "still in "+e.State().String()+", for "+time.Duration(v.stateTime(e)).String()+" so far")
	case !e.Over:
		parts = append(parts, "still in "+e.State().String())
	case e.State() == event.Close:
		parts = append(parts, text.Alarm(text.Reason(e.Reason, e.Err), v.color && e.Reason != event.ReasonNormal))
	}
	if e.NoSyn() {
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
			parts = append(parts, text.Count(uint64(t.Retrans), "segment")+" retransmitted")
		}
	}
	if life := v.life(e); e.Over && life != event.Unknown {
		parts = append(parts, "lived "+time.Duration(life).String())
	}
	if e.Lost() {
		parts = append(parts, "lines may be missing")
	}
	return strings.Join(parts, ", ")
}
