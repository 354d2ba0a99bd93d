// Package handshakes reports how long each connection took to set up, and where the time went: the
// SYN, the SYN-ACK, the ACK, and the accept queue. It also reports percentiles.
package handshakes

import (
	"io"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/rollup"
	"sstrace/internal/text"
)

// Formats are the names of the formats, text first.
var Formats = []string{"text", "ndjson"}

// Groupings are the ways to group handshakes: by the server's port, the peer's address, the owner's
// name, or the container. The last two are taken from the server's end, or from the client's if the
// server's is unknown.
var Groupings = []string{"port", "remote", "process", "container"}

// patience is how much later than its time a line may arrive in a live trace, in ns: internal/track
// holds lines back until they are complete.
const patience = 10e6

// Options select the contents of the report.
type Options struct {
	By       string        // one of Groupings, or "" for a single group
	Interval time.Duration // also report the percentiles of each interval
	Summary  bool          // report percentiles only
}

// View reports handshakes. It is not safe for concurrent use.
type View struct {
	lines *ndjson.Lines
	Options
	text, color bool
	widths      text.Widths
	legWidth    int

	table   pair.Table
	pending []*pair.End // clients that are ESTABLISHED and unpaired: the server's end may still appear

	groups  *rollup.Rollup[string, *tally]
	started bool // the first text is written
	wrote   bool // any text is written
	tabled  bool // the latest text was a table
}

// New returns a View that writes to w in one of Formats.
func New(w io.Writer, format string, color bool, o Options) *View {
	v := &View{
		lines: ndjson.NewLines(w), Options: o, text: format == "text", color: color,
		widths: text.Widths{Address: text.IPv4Width, Process: 18}, legWidth: 12,
	}
	v.groups = rollup.New(rollup.Options[string, *tally]{
		Interval: o.Interval, New: newTally, Compare: strings.Compare, Report: v.summarize,
	})
	return v
}

// Begin does nothing: only a live source has a header.
func (v *View) Begin() error { return nil }

// Take takes a line.
func (v *View) Take(e *event.Event) error {
	if err := v.settle(e.Mono); err != nil {
		return err
	}
	if err := v.groups.See(e); err != nil {
		return err
	}
	if e.Type == event.Lost {
		v.table.Take(e)
		v.groups.Lost(e.RingFull)
		switch {
		case !v.text:
			return v.lines.Event(e)
		case v.Summary: // the table includes it
			return nil
		}
		return v.lines.Text(text.Lost(e, v.color))
	}
	for _, end := range v.table.Take(e) {
		if err := v.check(end); err != nil {
			return err
		}
	}
	return nil
}

// Idle reports what is due at mono.
func (v *View) Idle(mono int64) error {
	if err := v.advance(mono); err != nil {
		return err
	}
	return v.lines.Flush()
}

// End reports what is open, and the whole run.
func (v *View) End(end *event.Event) error {
	if end.Balance != nil {
		if err := v.settle(end.Mono); err != nil {
			return err
		}
		if err := v.groups.See(end); err != nil {
			return err
		}
	}
	if err := v.finish(); err != nil {
		return err
	}
	if v.text {
		return v.lines.Flush()
	}
	return v.lines.End(end)
}

// start writes the header, which shows a person that the trace is running.
func (v *View) start() error {
	if v.started || !v.text {
		return nil
	}
	v.started, v.wrote = true, true
	if !v.Summary {
		return v.lines.Text(v.header())
	}
	when := "the table appears at the end; --interval 10s also prints one every 10 s"
	if v.Interval > 0 {
		when = "a table every " + v.Interval.String() + ", and one for the whole run at the end"
	}
	return v.lines.Text("Timing handshakes: " + when + "\n")
}

// advance reports what is due at now.
func (v *View) advance(now int64) error {
	if err := v.start(); err != nil {
		return err
	}
	if err := v.settle(now - patience); err != nil {
		return err
	}
	return v.groups.Advance(now)
}

// settle reports the pending handshakes whose other end can no longer appear: all lines up to the
// time complete have arrived.
func (v *View) settle(complete int64) error {
	for len(v.pending) > 0 {
		c := v.pending[0]
		if !c.Reported && c.Peer == nil {
			if complete-c.Step(event.Established).Mono <= pair.Late {
				break
			}
			if err := v.report(c.Conn()); err != nil {
				return err
			}
		}
		v.pending[0] = nil
		v.pending = v.pending[1:]
	}
	return nil
}

// finish reports what is not over, and the percentiles of the whole run.
func (v *View) finish() error {
	for _, end := range v.table.Open() {
		if c := end.Conn(); !c.Reported() && isHandshake(c) {
			if err := v.report(c); err != nil {
				return err
			}
		}
	}
	for _, c := range v.pending { // connections that were shorter than the wait for their server's end
		if !c.Reported {
			if err := v.report(c.Conn()); err != nil {
				return err
			}
		}
	}
	return v.groups.Finish()
}

// check reports the handshake of end if it is over.
func (v *View) check(end *pair.End) error {
	c := end.Conn()
	if c.Reported() || !isHandshake(c) || !isOver(c) {
		return nil
	}
	if c.Server == nil && !end.Over && end.Step(event.SynRecv) == nil { // unpaired, and not a simultaneous open
		if s := end.Step(event.Established); s != nil && s.Seen() {
			if !end.Pending {
				end.Pending = true
				v.pending = append(v.pending, end)
			}
			return nil
		}
	}
	return v.report(c)
}

// report counts a handshake and writes its line.
func (v *View) report(c pair.Conn) error {
	for e := range c.Ends {
		e.Reported = true
	}
	if !c.Wanted() {
		return nil
	}
	state, of := stateOf(c), times(c)
	if err := v.count(c, state, of); err != nil {
		return err
	}
	if v.Summary {
		return nil
	}
	if !v.text {
		return v.lines.JSON(newLine(c, state, of))
	}
	line := v.line(c, state, of)
	if v.tabled { // repeat the header, since the first one has scrolled away
		line = "\n" + v.header() + line
	}
	v.tabled = false
	if err := v.start(); err != nil {
		return err
	}
	return v.lines.Text(line)
}
