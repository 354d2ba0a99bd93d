// Package lines prints each Event as a line: as text for people, as NDJSON and CSV for programs.
package lines

import (
	"errors"
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
	appendLine func(b []byte, e *event.Event) []byte // nil for NDJSON
}

// New returns a View that writes to w in one of Formats. It writes the header at once, which shows
// a person that the trace is running. Only the text formats use clock, one of Clocks, and color.
func New(w io.Writer, format, clock string, color bool) (*View, error) {
	v := &View{lines: ndjson.NewLines(w)}
	var err error
	switch format {
	case "csv":
		v.appendLine = appendCSV
		err = v.lines.Text(string(appendCSVHeader(nil)))
	case "text", "wide":
		t := newTable(clock, color, format == "wide")
		v.appendLine = t.appendLine
		err = v.lines.Text(string(t.appendHeader(nil)))
	}
	return v, errors.Join(err, v.lines.Flush())
}

// Take prints e.
func (v *View) Take(e *event.Event) error {
	switch {
	case v.appendLine == nil:
		return v.lines.Event(e)
	case e.Type == event.End: // only NDJSON has a line for the balance
		return nil
	}
	return v.lines.Encode(e, v.appendLine)
}

// Flush writes the buffered lines.
func (v *View) Flush(int64) error { return v.lines.Flush() }
