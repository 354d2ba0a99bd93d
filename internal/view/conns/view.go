// Package conns tells of each connection when it is over: what became of each end, and for how long it was in each state; or it draws both ends as a ladder.
package conns

import (
	"io"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/text"
)

// Formats are the formats, text first.
var Formats = []string{"text", "ndjson"}

// Conns is a view of the lines. It is not safe for concurrent use.
type Conns struct {
	lines       *ndjson.Lines
	text, color bool
	timeline    bool
	widths      widths

	table   pair.Table
	now     int64 // Mono of the latest line
	greeted bool
	over    bool // all was told
}

// New makes a Conns that writes to w in one of Formats. timeline is text's alone.
func New(w io.Writer, format string, color, timeline bool) *Conns {
	return &Conns{lines: ndjson.NewLines(w), text: format == "text", color: color, timeline: timeline, widths: widths{address: 21, owner: 18}}
}

// Take takes one line.
func (c *Conns) Take(e *event.Event) error {
	c.now = max(c.now, e.Mono)
	touched := c.table.Take(e)
	switch {
	case e.Type == event.End:
		if err := c.finish(); err != nil || c.text {
			return err
		}
		return c.lines.Event(e)
	case e.Type == event.Lost && c.text:
		if err := c.greet(); err != nil {
			return err
		}
		return c.lines.Text(text.Lost(e, c.color))
	case e.Type == event.Lost:
		return c.lines.Event(e)
	}
	for _, end := range touched {
		if err := c.look(end); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes what is told. A recording that has nothing more and had no End was cut off: what there was is told.
func (c *Conns) Flush(now int64) error {
	var err error
	switch {
	case c.over:
	case now == 0:
		err = c.finish()
	default:
		err = c.greet()
	}
	if err != nil {
		return err
	}
	return c.lines.Flush()
}

// greet shows a person that the trace is on.
func (c *Conns) greet() error {
	if c.greeted || !c.text || c.timeline {
		return nil
	}
	c.greeted = true
	return c.lines.Text(c.header())
}

// look tells what there is to tell of end's connection. A line of one end may make both wanted, also when the other is over.
func (c *Conns) look(end *pair.End) error {
	conn := end.Conn()
	if !conn.Wanted() {
		return nil
	}
	if c.timeline {
		if isOpen(conn.Client) || isOpen(conn.Server) {
			return nil
		}
		return c.draw(conn)
	}
	for _, e := range []*pair.End{conn.Client, conn.Server} {
		if e != nil && e.Over {
			if err := c.tell(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func isOpen(e *pair.End) bool { return e != nil && !e.Over }

// finish tells what is still open.
func (c *Conns) finish() error {
	if c.over {
		return nil
	}
	c.over = true
	for _, end := range c.table.Open() {
		conn := end.Conn()
		if !conn.Wanted() {
			continue
		}
		var err error
		if c.timeline {
			err = c.draw(conn)
		} else {
			err = c.tell(end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tell writes the line of an end, once.
func (c *Conns) tell(e *pair.End) error {
	if e.Told {
		return nil
	}
	e.Told = true
	if !c.text {
		return c.lines.JSON(c.jsonLine(e))
	}
	if err := c.greet(); err != nil {
		return err
	}
	return c.lines.Text(c.line(e))
}

// life is how long e has been, until its full socket was gone or until now; event.Unknown if it is older than the trace.
func (c *Conns) life(e *pair.End) int64 {
	if e.Older || e.Gone || e.NoSyn {
		return event.Unknown
	}
	begun, _ := e.Began()
	if e.Over {
		return e.Last.Mono - begun
	}
	return max(c.now-begun, 0)
}

// state is how long an open end has been in the state that it is in; event.Unknown if that is not known.
func (c *Conns) state(e *pair.End) int64 {
	if e.Over || e.Lost() {
		return event.Unknown
	}
	last := e.Path[len(e.Path)-1]
	if !last.Seen() {
		return event.Unknown
	}
	return max(c.now-last.Mono, 0)
}
