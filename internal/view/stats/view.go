// Package stats counts the changes between states, and computes percentiles of the time in the
// state that was left. It does so for each interval and for the whole run, either for all sockets
// or for each group of sockets. Its memory use is bounded.
package stats

import (
	"io"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/rollup"
)

// Formats are the output formats. The first one is the default.
var Formats = []string{"text", "ndjson"}

// Options configure a View.
type Options struct {
	By        string        // one of Groupings, or "" for a single group
	Interval  time.Duration // 0 reports only the whole run
	Histogram bool          // in text, draw a histogram of the times of each edge
}

// View counts the lines of a stream. It is not safe for concurrent use.
type View struct {
	lines *ndjson.Lines
	text  bool
	Options
	groups *rollup.Rollup[name, *counts]

	greeted bool
	wrote   bool // some text has been written
}

// New returns a View that writes to w in one of Formats.
func New(w io.Writer, format string, o Options) *View {
	v := &View{lines: ndjson.NewLines(w), text: format == "text", Options: o}
	v.groups = rollup.New(rollup.Options[name, *counts]{
		Interval: o.Interval, New: newCounts, Compare: name.compare, Report: v.report, Evict: true,
	})
	return v
}

// Begin does nothing: only a live source has a header.
func (v *View) Begin() error { return nil }

// Take counts one line.
func (v *View) Take(e *event.Event) error {
	if err := v.groups.See(e); err != nil {
		return err
	}
	switch e.Type {
	case event.Lost:
		v.groups.Lost(e.RingFull)
		if v.text { // the report of this interval contains the number
			return nil
		}
		return v.lines.Event(e)
	case event.Change, event.Accept, event.ConnectFailed:
		c, err := v.groups.At(nameOf(v.By, e))
		if err != nil {
			return err
		}
		c.add(e)
	}
	return nil
}

// Idle reports the intervals that ended before mono.
func (v *View) Idle(mono int64) error {
	if v.text && !v.greeted {
		if err := v.greet(); err != nil {
			return err
		}
	}
	if err := v.groups.Advance(mono); err != nil {
		return err
	}
	return v.lines.Flush()
}

// End reports the last interval and the whole run.
func (v *View) End(end *event.Event) error {
	if end.Balance != nil { // a recording that was cut off ends with its last line
		if err := v.groups.See(end); err != nil {
			return err
		}
	}
	if err := v.groups.Finish(); err != nil {
		return err
	}
	if v.text {
		return v.lines.Flush()
	}
	return v.lines.End(end)
}

func (v *View) report(r *report) error {
	write := v.reportJSON
	if v.text {
		write = v.reportText
	}
	if err := write(r); err != nil || r.Final {
		return err
	}
	return v.lines.Flush() // a recording may arrive slowly through a pipe
}

// report holds the counts for an interval or for the whole run.
type report = rollup.Report[name, *counts]
