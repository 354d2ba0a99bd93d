// Package conns reports each connection when it is over: the actions of each end, its time in each
// state, and how it ended. It can also draw both ends as a ladder.
package conns

import (
	"io"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/text"
)

// Formats are the names of the formats, text first.
var Formats = []string{"text", "ndjson"}

// View reports connections. It is not safe for concurrent use.
type View struct {
	lines       *ndjson.Lines
	text, color bool
	timeline    bool
	widths      text.Widths

	table   pair.Table
	now     int64 // Mono of the latest line taken
	started bool  // some text has been written
}

// New returns a View that writes to w in one of Formats. If timeline is set, the View draws the
// connections; format must then be text.
func New(w io.Writer, format string, color, timeline bool) *View {
	return &View{
		lines: ndjson.NewLines(w), text: format == "text", color: color, timeline: timeline,
		widths: text.Widths{Address: text.IPv4Width, Process: 18},
	}
}

// Begin does nothing: a recording without connections has no output.
func (v *View) Begin() error { return nil }

// Take adds a line.
func (v *View) Take(e *event.Event) error {
	v.now = max(v.now, e.Mono)
	touched := v.table.Take(e)
	switch {
	case e.Type == event.Lost && v.text:
		if err := v.start(); err != nil {
			return err
		}
		return v.lines.Text(text.Lost(e, v.color))
	case e.Type == event.Lost:
		return v.lines.Event(e)
	}
	for _, end := range touched {
		if err := v.check(end); err != nil {
			return err
		}
	}
	return nil
}

// Idle writes the buffered output. The first call also writes the header, so that a person can see
// that the trace is running.
func (v *View) Idle(int64) error {
	if err := v.start(); err != nil {
		return err
	}
	return v.lines.Flush()
}

// start writes the header on its first call.
func (v *View) start() error {
	if v.started || !v.text || v.timeline {
		return nil
	}
	v.started = true
	return v.lines.Text(v.header())
}

// check reports each finished end of the connection that end belongs to. If the line of either end
// is wanted, both ends are reported, even if one of them finished earlier.
func (v *View) check(end *pair.End) error {
	conn := end.Conn()
	if !conn.Wanted() {
		return nil
	}
	if v.timeline {
		for e := range conn.Ends {
			if !e.Over {
				return nil
			}
		}
		return v.draw(conn)
	}
	for e := range conn.Ends {
		if !e.Over {
			continue
		}
		if err := v.report(e); err != nil {
			return err
		}
	}
	return nil
}

// End reports the connections that are still open.
func (v *View) End(end *event.Event) error {
	v.now = max(v.now, end.Mono)
	for _, e := range v.table.Open() {
		conn := e.Conn()
		if !conn.Wanted() {
			continue
		}
		var err error
		if v.timeline {
			err = v.draw(conn)
		} else {
			err = v.report(e)
		}
		if err != nil {
			return err
		}
	}
	if v.text {
		return v.lines.Flush()
	}
	return v.lines.End(end)
}

// report writes the line about an end, if it has not been written yet.
func (v *View) report(e *pair.End) error {
	if e.Reported {
		return nil
	}
	e.Reported = true
	if !v.text {
		return v.lines.JSON(v.newLine(e))
	}
	if err := v.start(); err != nil {
		return err
	}
	return v.lines.Text(v.line(e))
}

// life returns the time from the start of e until its full socket ended, or until now if it has not
// ended. The result is event.Unknown if e is older than the trace.
func (v *View) life(e *pair.End) int64 {
	if e.Older || e.Gone || e.ConnectFailed {
		return event.Unknown
	}
	begun, _ := e.Began()
	if e.Over {
		return e.Last.Mono - begun
	}
	return max(v.now-begun, 0)
}

// stateTime returns how long an open end has been in its current state. The result is event.Unknown
// if that is not known.
func (v *View) stateTime(e *pair.End) int64 {
	if e.Over || e.Lost() {
		return event.Unknown
	}
	last := e.Path[len(e.Path)-1]
	if !last.Seen() {
		return event.Unknown
	}
	return max(v.now-last.Mono, 0)
}
