// Package print writes Events as lines: as text for people, as NDJSON and CSV for programs.
package print

import (
	"fmt"
	"io"

	"sstrace/internal/event"
)

// The formats and the clocks of a text line, as the command line names them.
var (
	Formats = []string{"text", "wide", "ndjson", "csv"}
	Clocks  = []string{"wall", "mono", "rel", "delta"}
)

// Printer numbers the lines and gathers them until Flush, or until there are many. It is not safe for concurrent use.
type Printer struct {
	w     io.Writer
	buf   []byte
	seq   uint64
	line  func(b []byte, e *event.Event) []byte
	lines bool // the format has lines for losses and for the balance
}

// flushAt is well above a line and well below a pipe's 64 KiB.
const flushAt = 32 << 10

// New makes a Printer of one of Formats, and writes its header, so that a person sees that the trace is on. clock is one of
// Clocks and matters to text alone, as color does.
func New(w io.Writer, format, clock string, color bool) (*Printer, error) {
	p := &Printer{w: w, buf: make([]byte, 0, 2*flushAt)}
	switch format {
	case "ndjson":
		p.line = func(b []byte, e *event.Event) []byte { return e.AppendJSON(b) }
		p.lines = true
	case "csv":
		p.line = appendCSV
		p.buf = append(p.buf, csvHeader...)
	case "text", "wide":
		t := &text{clock: clock, color: color, wide: format == "wide"}
		p.line = t.appendLine
		p.buf = t.appendHeader(p.buf)
	}
	return p, p.Flush()
}

// Print takes one line.
func (p *Printer) Print(e *event.Event) error {
	if e.Type == event.End && !p.lines {
		return nil
	}
	p.seq++
	e.Seq = p.seq
	p.buf = p.line(p.buf, e)
	if len(p.buf) >= flushAt {
		return p.Flush()
	}
	return nil
}

// Flush writes what was gathered. It must be called whenever the source has nothing more at the moment, and at the end.
func (p *Printer) Flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	_, err := p.w.Write(p.buf)
	p.buf = p.buf[:0]
	if err != nil {
		return fmt.Errorf("write lines: %w", err)
	}
	return nil
}
