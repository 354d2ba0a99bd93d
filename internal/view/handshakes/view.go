// Package handshakes tells how long it took to set up each connection, and where that time went: to the server, back, to the server again, and in the queue
// for accept(). It tells the percentiles, too.
package handshakes

import (
	"io"
	"slices"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/text"
)

// Formats are the formats, text first.
var Formats = []string{"text", "ndjson"}

// Groupings are what handshakes can be grouped by: the server's port, the address of the peer, the name of the server's owner (or else the client's), the
// container of the server's end (or else the client's).
var Groupings = []string{"port", "remote", "process", "container"}

// patience is how long a line may come after its time, live: it waits with others for what they lack (internal/track).
const patience = 10e6

// Options are what to tell.
type Options struct {
	By       string        // one of Groupings; "": all are one group
	Interval time.Duration // tell the percentiles of each, too
	Summary  bool          // the percentiles alone
}

// Handshakes is a view of the lines. It is not safe for concurrent use.
type Handshakes struct {
	lines *ndjson.Lines
	Options
	text, color bool
	widths      widths

	table pair.Table
	held  []*pair.End // clients that are ESTABLISHED and alone: the server's end may still appear

	groups  map[string]*group
	others  *group                    // of those that were too many
	lost    struct{ run, now uint64 } // changes, in the periods before, in this one
	begun   bool                      // the next three are known
	begin   int64                     // of the run; CLOCK_MONOTONIC
	period  int64                     // when it began
	now     int64                     // the latest moment seen
	wall    int64                     // the wall clock's distance
	clocked bool                      // wall is known
	greeted bool
	wrote   bool // any text
	tabled  bool // a table at last
	over    bool // all was told
}

// New makes a Handshakes that writes to w in one of Formats.
func New(w io.Writer, format string, color bool, o Options) *Handshakes {
	return &Handshakes{
		lines: ndjson.NewLines(w), Options: o, text: format == "text", color: color, groups: make(map[string]*group), others: newGroup(),
		widths: widths{leg: 12, address: 21, owner: 18},
	}
}

// Take takes one line.
func (h *Handshakes) Take(e *event.Event) error {
	h.clocked, h.wall = true, e.Wall-e.Mono
	if err := h.advance(e.Mono, e.Mono); err != nil {
		return err
	}
	switch e.Type {
	case event.End:
		if err := h.finish(); err != nil || h.text {
			return err
		}
		return h.lines.Event(e)
	case event.Lost:
		h.table.Take(e)
		h.lost.now += e.RingFull
		switch {
		case !h.text:
			return h.lines.Event(e)
		case h.Summary: // the table says it
			return nil
		}
		return h.lines.Text(text.Lost(e, h.color))
	}
	for _, end := range h.table.Take(e) {
		if err := h.look(end); err != nil {
			return err
		}
	}
	return nil
}

// Flush tells what is due. A recording that has nothing more and had no End was cut off: what there was is told.
func (h *Handshakes) Flush(now int64) error {
	var err error
	switch {
	case h.over:
	case now == 0:
		err = h.finish()
	default:
		if err = h.greet(); err == nil {
			err = h.advance(now, now-patience)
		}
	}
	if err != nil {
		return err
	}
	return h.lines.Flush()
}

// greet shows a person that the trace is on.
func (h *Handshakes) greet() error {
	if h.greeted || !h.text {
		return nil
	}
	h.greeted, h.wrote = true, true
	switch {
	case !h.Summary:
		return h.lines.Text(h.header())
	case h.Interval > 0:
		return h.lines.Text("Timing handshakes: a table comes each " + h.Interval.String() + ", that of the whole run at the end\n")
	}
	return h.lines.Text("Timing handshakes: the table comes at the end; with --interval 10s one also comes each 10 s\n")
}

// advance takes notice that it is now, and that all lines until told have come.
func (h *Handshakes) advance(now, told int64) error {
	if !h.begun {
		h.begun, h.begin, h.period, h.now = true, now, now, now
	}
	h.now = max(h.now, now)
	for len(h.held) > 0 {
		c := h.held[0]
		if !c.Told && c.Peer == nil {
			if told-c.Step(event.Established).Mono <= pair.Late {
				break
			}
			if err := h.tell(c.Conn()); err != nil {
				return err
			}
		}
		h.held[0] = nil
		h.held = h.held[1:]
	}
	if h.Interval == 0 || !h.clocked {
		return nil
	}
	for interval := int64(h.Interval); h.now-h.period >= interval; {
		end := h.period + interval
		if h.idle() { // all of the time that was, at once, and nothing to tell
			end = h.now - (h.now-h.period)%interval
		}
		if err := h.endPeriod(end, !h.idle()); err != nil {
			return err
		}
	}
	return nil
}

// finish tells what is not over, and the percentiles of the whole run.
func (h *Handshakes) finish() error {
	if h.over || !h.clocked {
		return nil
	}
	h.over = true
	for _, end := range h.table.Open() {
		if c := end.Conn(); !told(c) && isHandshake(c) {
			if err := h.tell(c); err != nil {
				return err
			}
		}
	}
	for _, c := range h.held { // over, and so briefly
		if !c.Told {
			if err := h.tell(c.Conn()); err != nil {
				return err
			}
		}
	}
	if err := h.endPeriod(h.now, h.Interval > 0 && !h.idle()); err != nil {
		return err
	}
	return h.tellAll(span{begin: h.begin, end: h.now, lost: h.lost.run, final: true}, func(g *group) *tally { return g.whole })
}

// look tells the handshake of end if it is over.
func (h *Handshakes) look(end *pair.End) error {
	c := end.Conn()
	if told(c) || !isHandshake(c) || !isOver(c) {
		return nil
	}
	if c.Server == nil && !end.Over && end.Step(event.SynRecv) == nil { // alone, and its SYN crossed none
		if s := end.Step(event.Established); s != nil && s.Seen() {
			if !end.Held {
				end.Held = true
				h.held = append(h.held, end)
			}
			return nil
		}
	}
	return h.tell(c)
}

// The states of a handshake.
const (
	accepted    = "accepted"
	established = "established" // and accept() was not seen, or is not here
	failed      = "failed"
	open        = "open"
	lost        = "lost"
)

func told(c pair.Conn) bool {
	return c.Client != nil && c.Client.Told || c.Server != nil && c.Server.Told
}

// shakes reports whether anything of the end's handshake was seen.
func shakes(e *pair.End) bool {
	return e != nil && (!e.Older || e.Path[0].State == event.SynSent || e.Path[0].State == event.SynRecv)
}

func isHandshake(c pair.Conn) bool { return shakes(c.Client) || shakes(c.Server) }

// stateOf tells how far the handshake of e got; "" if e is not here.
func stateOf(e *pair.End) string {
	switch {
	case e == nil:
		return ""
	case e.AcceptedAt != 0:
		return accepted
	}
	for _, s := range e.Path {
		if s.State != event.SynSent && s.State != event.SynRecv {
			return established
		}
	}
	switch {
	case e.Gone:
		return lost
	case e.Over:
		return failed
	}
	return open
}

func isOver(c pair.Conn) bool {
	client, server := stateOf(c.Client), stateOf(c.Server)
	return client != open && server != open && (server != established || c.Server.Over)
}

// worse is the order in which the state of one end is that of both.
var worse = []string{lost, failed, open, accepted, established, ""}

func state(c pair.Conn) string {
	return worse[min(slices.Index(worse, stateOf(c.Client)), slices.Index(worse, stateOf(c.Server)))]
}

// The legs, the two sums of them that one end can tell alone, and the wait for data behind the ACK.
const (
	syn = iota
	synAck
	ack
	accept
	connect
	serve
	deferred
	legs
)

// times gives the legs of a handshake; event.Unknown where a leg is not known.
func times(c pair.Conn) (t [legs]int64) {
	for i := range t {
		t[i] = event.Unknown
	}
	if c.Client != nil {
		t[connect] = setup(c.Client)
	}
	if c.Server != nil {
		t[accept] = c.Server.Queued
		if c.Server.Deferred > 0 {
			t[deferred] = c.Server.Deferred
		}
		if s := c.Server.SynArrived(); s != nil && s.Dur != event.Unknown {
			t[serve] = s.Dur - c.Server.Deferred
		}
	}
	if c.Certain() {
		t[syn] = pair.Between(c.Client.Step(event.SynSent), c.Server.SynArrived())
		t[synAck] = pair.Between(c.Server.SynArrived(), c.Client.Step(event.Established))
		t[ack] = pair.Between(c.Client.Step(event.Established), c.Server.AckArrived())
	}
	return t
}

// setup is how long a client was in SYN_SENT, and in SYN_RECV if its SYN crossed the peer's.
func setup(e *pair.End) (sum int64) {
	for _, s := range e.Path {
		if s.State != event.SynSent && s.State != event.SynRecv {
			break
		}
		if s.Dur == event.Unknown {
			return event.Unknown
		}
		sum += s.Dur
	}
	if sum == 0 { // its first state is another
		return event.Unknown
	}
	return sum
}

// failedAfter returns how long the handshake of e was under way when it failed; event.Unknown if its beginning was not seen.
func failedAfter(e *pair.End) int64 {
	if e.Role == event.Server {
		if s := e.SynArrived(); s != nil {
			return s.Dur
		}
		return event.Unknown
	}
	return setup(e)
}

// noSyn reports whether it is known that a client sent no SYN.
func noSyn(e *pair.End) bool {
	return e != nil && (e.NoSyn || e.Reason == event.ReasonNoPort)
}

// tell tells the handshake of c.
func (h *Handshakes) tell(c pair.Conn) error {
	for _, e := range []*pair.End{c.Client, c.Server} {
		if e != nil {
			e.Told = true
		}
	}
	if !c.Wanted() {
		return nil
	}
	of, state := times(c), state(c)
	h.count(c, state, of)
	if h.Summary {
		return nil
	}
	if h.text {
		line := h.line(c, state, of)
		if h.tabled { // the columns again, for who scrolls
			line = "\n" + h.header() + line
		}
		h.tabled = false
		if err := h.greet(); err != nil {
			return err
		}
		return h.lines.Text(line)
	}
	return h.lines.JSON(jsonLine(c, state, of))
}

// who gives the owner of an end as it was when the handshake was over.
func who(e *pair.End) pair.Process {
	switch {
	case e == nil:
		return pair.Process{}
	case e.Accepted.PID != 0:
		return e.Accepted
	case e.Connected.PID != 0:
		return e.Connected
	}
	return e.Owner
}

// why gives why it failed, of the client's end first.
func why(c pair.Conn) (reason event.Reason, err int32, end *pair.End) {
	for _, e := range []*pair.End{c.Client, c.Server} {
		if stateOf(e) == failed {
			return e.Reason, e.Err, e
		}
	}
	return 0, 0, nil
}
