// Package lines writes lines: Events as text for people, as NDJSON and CSV for programs; and what others have to tell.
package lines

import (
	"errors"
	"io"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
)

// The formats and the clocks of a text line, as the command line names them.
var (
	Formats = []string{"text", "wide", "ndjson", "csv"}
	Clocks  = []string{"wall", "mono", "rel", "delta"}
)

// Printer makes a line of each Event.
type Printer struct {
	lines *ndjson.Lines
	line  func(b []byte, e *event.Event) []byte // nil: NDJSON
}

// New makes a Printer of one of Formats, and writes its header, so that a person sees that the trace is on. clock is one of
// Clocks and matters to text alone, as color does.
func New(w io.Writer, format, clock string, color bool) (*Printer, error) {
	p := &Printer{lines: ndjson.NewLines(w)}
	var err error
	switch format {
	case "csv":
		p.line = appendCSV
		err = p.lines.Text(string(appendCSVHeader(nil)))
	case "text", "wide":
		t := &table{clock: clock, color: color, wide: format == "wide"}
		p.line = t.appendLine
		err = p.lines.Text(string(t.appendHeader(nil)))
	}
	return p, errors.Join(err, p.lines.Flush())
}

// Take takes one line.
func (p *Printer) Take(e *event.Event) error {
	switch {
	case p.line == nil:
		return p.lines.Event(e)
	case e.Type == event.End: // the other formats have no line for the balance
		return nil
	}
	return p.lines.Encode(e, p.line)
}

// Flush writes what was gathered. It must be called whenever the source has nothing more at the moment, and at the end.
func (p *Printer) Flush(int64) error { return p.lines.Flush() }
