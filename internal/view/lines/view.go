// Package lines prints each Event as a line: as text for people, as NDJSON and CSV for programs.
package lines

import (
	"io"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
)

// The names of the formats, and of the clocks of the text formats.
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

// New returns a View that writes to w in one of Formats. Only the text formats use clock, one of
// Clocks, and color.
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

// Begin writes the header, which shows a person that the trace is running.
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

// End writes the buffered lines and, in NDJSON, the balance; the other formats have no line for it.
func (v *View) End(end *event.Event) error {
	if v.appendLine == nil {
		return v.lines.End(end)
	}
	return v.lines.Flush()
}
