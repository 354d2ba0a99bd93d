// Package diagram draws the state diagram of RFC 9293, with the edges that were taken in a stream.
// Each edge shows how often clients and servers took it, and the median time spent in the state
// that it leaves.
package diagram

import (
	"io"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/quantile"
)

// Formats are the output formats. The first one is the default.
var Formats = []string{"svg", "dot", "text", "ndjson"}

// View counts changes, and draws the picture at the end. Its memory use depends on the number of
// kinds of change, not on the number of changes. It is not safe for concurrent use.
type View struct {
	lines  *ndjson.Lines
	format string
	color  bool

	counts       map[kind]*quantile.Tally
	changes      uint64
	lost         uint64
	kernelStates bool // a change to CLOSE had no reason: the vocabulary is the kernel's

	begun       bool
	first, last moment
	balance     *event.Balance // nil if the recording has no end
}

type moment struct{ wall, mono int64 }

// kind is a kind of change. inFigure tells an edge in the figure from an end that the figure leaves
// out.
type kind struct {
	event.Edge
	role     event.Role
	reason   event.Reason
	inFigure bool
}

// New returns a View that writes to w in one of Formats. color affects only text.
func New(w io.Writer, format string, color bool) *View {
	return &View{lines: ndjson.NewLines(w), format: format, color: color, counts: make(map[kind]*quantile.Tally)}
}

// Begin does nothing: the picture is drawn at the end.
func (v *View) Begin() error { return nil }

// Take counts one line.
func (v *View) Take(e *event.Event) error {
	v.see(e)
	switch e.Type {
	case event.Change:
		v.count(e)
	case event.Lost:
		v.lost += e.RingFull
		if v.format == "ndjson" {
			return v.lines.Event(e)
		}
	}
	return nil
}

// Idle does nothing: the picture is drawn at the end.
func (v *View) Idle(int64) error { return nil }

// End draws the picture.
func (v *View) End(end *event.Event) error {
	if v.balance = end.Balance; v.balance != nil {
		v.see(end)
		v.lost = max(v.lost, v.balance.RingFull)
	}
	if err := v.draw(); err != nil {
		return err
	}
	if v.format == "ndjson" {
		return v.lines.End(end)
	}
	return v.lines.Flush()
}

// see notes the time of a line.
func (v *View) see(e *event.Event) {
	v.last = moment{e.Wall, e.Mono}
	if !v.begun {
		v.begun, v.first = true, v.last
	}
}

func (v *View) count(e *event.Event) {
	v.changes++
	if e.New == event.Close && e.Reason == 0 {
		v.kernelStates = true
	}
	k := kind{Edge: e.Edge(), role: e.Role, reason: e.Reason, inFigure: inFigure(e)}
	t := v.counts[k]
	if t == nil {
		t = quantile.NewTally()
		v.counts[k] = t
	}
	t.Add(e.Dur)
}

func (v *View) draw() error {
	if v.format == "ndjson" {
		return v.ndjson()
	}
	s, err := v.summary()
	if err != nil {
		return err
	}
	switch v.format {
	case "dot":
		return v.lines.Text(s.dot())
	case "text":
		return v.lines.Text(s.text(v.color))
	}
	return v.lines.Text(s.svg())
}

// kinds returns every kind of change that occurred, ordered by the states of a connection's life.
func (v *View) kinds() []kind {
	kinds := make([]kind, 0, len(v.counts))
	for k := range v.counts {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b kind) int { return slices.Compare(a.position(), b.position()) })
	return kinds
}

func (k kind) position() []int {
	outside := 1
	if k.inFigure {
		outside = 0
	}
	return []int{k.Old.Position(), k.New.Position(), outside, int(k.role), int(k.reason)}
}
