// Package ls lists the sockets that exist, now or at the end of a recording.
package ls

import (
	"io"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
)

// Formats are the output formats. The first one is the default.
var Formats = []string{"text", "wide", "ndjson"}

// View lists sockets. For people, the listing is a sorted table with sums. View is not safe for
// concurrent use.
type View struct {
	lines *ndjson.Lines
	json  bool
	table
	lost bool
}

// New returns a View that writes to out in one of Formats.
func New(out io.Writer, format string) *View {
	v := &View{lines: ndjson.NewLines(out), json: format == "ndjson"}
	v.wide, v.netns = format == "wide", make(map[uint32]bool)
	var c cells
	for _, title := range header(v.wide) {
		title, right := strings.CutPrefix(title, ">")
		v.right = append(v.right, right)
		c.add(append(c.text, title...))
	}
	v.header = v.keep(&c)
	return v
}

// Begin does nothing: columns become as wide as their widest cell, which is not known yet.
func (v *View) Begin() error { return nil }

// Take adds a Socket.
func (v *View) Take(e *event.Event) error {
	switch {
	case v.json:
		return v.lines.Event(e)
	case e.Type == event.Socket:
		v.add(e)
	case e.Type == event.Lost:
		v.lost = true
	}
	return nil
}

// Idle does nothing: a listing ends immediately.
func (v *View) Idle(int64) error { return nil }

// End writes the table. If the end of a listing is missing, there is no table.
func (v *View) End(end *event.Event) error {
	if v.json {
		return v.lines.End(end)
	}
	if end.Balance != nil {
		if err := v.writeTable(); err != nil {
			return err
		}
	}
	return v.lines.Flush()
}

// writeTable writes the header, the block of each state, and the sums.
func (v *View) writeTable() error {
	var sums Sums
	for state, rows := range v.rows {
		sums[state] = len(rows)
	}
	var blocks []chan []byte // the blocks are made concurrently
	for _, state := range sums.states() {
		block := make(chan []byte, 1)
		blocks = append(blocks, block)
		go func() { block <- v.block(v.rows[state]) }()
	}
	if err := v.lines.Text(string(v.appendLine(nil, v.header))); err != nil {
		return err
	}
	for _, block := range blocks {
		if err := v.lines.Block(<-block); err != nil {
			return err
		}
	}
	note := ""
	if v.lost {
		note = "Changes were lost in the recording: sockets that have not changed since are not listed.\n"
	}
	return v.lines.Text("\n" + sums.String() + "\n" + note)
}
