// Package handshakes reports how long each connection took to set up, and where that time went: the
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

// Groupings are the ways to group handshakes: by the server's port, by the peer's address, by the
// owner's name, or by container. The last two come from the server's end. If that end is unknown,
// they come from the client's.
var Groupings = []string{"port", "remote", "process", "container"}

// patience is how late a line may arrive in a live trace, in ns. Lines can be late because
// internal/track holds them back until they are complete.
const patience = 10e6

// Options select what is reported.
type Options struct {
	By       string        // one of Groupings, or "" for a single group
	Interval time.Duration // also report percentiles for each interval
	Summary  bool          // report only percentiles
}

// View reports handshakes. It is not safe for concurrent use.
type View struct {
	lines *ndjson.Lines
	Options
	text, color bool
	widths      text.Widths
	legWidth    int

	table   pair.Table
	pending []*pair.End // established clients without a known server's end, which may still appear

	groups  *rollup.Rollup[string, *tally]
	started bool // some text has been written
	wrote   bool // some text has been written
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

// Take adds a line.
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
		case v.Summary: // the table includes this handshake
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

// End reports the handshakes that are still open, and the whole run.
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

// start writes the header, so that a person can see that the trace is running.
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

// settle reports each pending handshake whose other end can no longer appear. All lines up to the
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

// finish reports the handshakes that are not over, and the percentiles of the whole run.
func (v *View) finish() error {
	for _, end := range v.table.Open() {
		if c := end.Conn(); !c.Reported() && isHandshake(c) {
			if err := v.report(c); err != nil {
				return err
			}
		}
	}
	for _, c := range v.pending { // connections that ended before the wait for their server's end was over
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
	if c.Server == nil && !end.Over && end.Step(event.SynRecv) == nil { // no server's end, no simultaneous open
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

// report counts a handshake, and writes its line.
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
	if v.tabled { // repeat the header, because the first one has scrolled away
		line = "\n" + v.header() + line
	}
	v.tabled = false
	if err := v.start(); err != nil {
		return err
	}
	return v.lines.Text(line)
}
