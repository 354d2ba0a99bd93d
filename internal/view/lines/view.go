// Package lines prints each Event as a line: as text for people, or as NDJSON or CSV for programs.
package lines

import (
	"io"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
)

// Formats are the names of the formats, and Clocks are the names of the clocks for the text
// formats.
var (
	Formats = []string{"text", "wide", "ndjson", "csv"}
	Clocks  = []string{"wall", "mono", "rel", "delta"}
)

// View prints lines. It is not safe for concurrent use.
type View struct {
	lines      *ndjson.Lines
	header     string
	appendLine func(b []byte, e *event.Event) []byte // nil for NDJSON
}

// New returns a View that writes to w in one of Formats. Only the text formats use color, and
// clock, which is one of Clocks.
func New(w io.Writer, format, clock string, color bool) *View {
	v := &View{lines: ndjson.NewLines(w)}
	switch format {
	case "csv":
		v.appendLine = appendCSV
		v.header = string(appendCSVHeader(nil))
	case "text", "wide":
		t := newTable(clock, color, format == "wide")
		v.appendLine = t.appendLine
		v.header = string(t.appendHeader(nil))
	}
	return v
}

// Begin writes the header, so that a person can see that the trace is running.
func (v *View) Begin() error {
	if err := v.lines.Text(v.header); err != nil {
		return err
	}
	return v.lines.Flush()
}

// Take prints e.
func (v *View) Take(e *event.Event) error {
	if v.appendLine == nil {
		return v.lines.Event(e)
	}
	return v.lines.Encode(e, v.appendLine)
}

// Idle writes the buffered lines.
func (v *View) Idle(int64) error { return v.lines.Flush() }

// End writes the buffered lines. In NDJSON it also writes the balance, for which the other formats
// have no line.
func (v *View) End(end *event.Event) error {
	if v.appendLine == nil {
		return v.lines.End(end)
	}
	return v.lines.Flush()
}
