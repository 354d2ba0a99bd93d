// Package diagram draws the state diagram of RFC 9293 with what was travelled of it: how often each edge, by clients and by servers, and the
// median time in the state that was left.
package diagram

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/quantile"
	"sstrace/internal/text"
)

// Formats are those of a Diagram, as the command line names them.
var Formats = []string{"svg", "dot", "text", "ndjson"}

// Diagram counts the changes, and is drawn when all are there. Its memory depends on how many kinds of changes there are, not on their number.
type Diagram struct {
	lines  *ndjson.Lines
	format string
	color  bool

	travelled   map[change]*tally
	changes     uint64
	lost        uint64
	unexplained bool // a change to CLOSE came without a reason: the vocabulary is the kernel's

	begun       bool
	first, last moment
	balance     *event.Balance // nil: the recording has no end
	drawn       bool           // the picture is
}

type moment struct{ wall, mono int64 }

// change is a kind of change. inFigure: it is an edge of the figure, and not one of the ends that the figure leaves out.
type change struct {
	edge
	role     event.Role
	reason   event.Reason
	inFigure bool
}

// tally is how often something was travelled, and how long the state that was left had lasted, as far as that is known.
type tally struct {
	count uint64
	times *quantile.Sketch
}

// New makes a Diagram of one of Formats. color matters to text alone.
func New(w io.Writer, format string, color bool) *Diagram {
	return &Diagram{lines: ndjson.NewLines(w), format: format, color: color, travelled: make(map[change]*tally)}
}

// Take takes a line. At the End the picture is drawn.
func (d *Diagram) Take(e *event.Event) error {
	d.last = moment{e.Wall, e.Mono}
	if !d.begun {
		d.begun, d.first = true, d.last
	}
	switch e.Type {
	case event.Change:
		d.count(e)
	case event.Lost:
		d.lost += e.RingFull
		if d.format == "ndjson" {
			return d.lines.Event(e)
		}
	case event.End:
		d.balance = e.Balance
		d.lost = max(d.lost, e.Balance.RingFull)
		if err := d.draw(); err != nil || d.format != "ndjson" {
			return err
		}
		return d.lines.Event(e)
	}
	return nil
}

// Flush writes what is ready. A recording that has nothing more and had no End is one that was cut off: what it has is drawn.
func (d *Diagram) Flush(now int64) error {
	if now == 0 && !d.drawn {
		if err := d.draw(); err != nil {
			return err
		}
	}
	return d.lines.Flush()
}

func (d *Diagram) count(e *event.Event) {
	d.changes++
	c := change{edge: edge{e.Old, e.New}, role: e.Role, reason: e.Reason, inFigure: inFigure(e)}
	if e.New == event.Close && e.Reason == 0 {
		d.unexplained = true
	}
	t := d.travelled[c]
	if t == nil {
		t = &tally{times: quantile.New()}
		d.travelled[c] = t
	}
	t.count++
	if e.Dur != event.Unknown {
		t.times.Add(e.Dur)
	}
}

func (d *Diagram) draw() error {
	d.drawn = true
	s, err := d.sum()
	if err != nil {
		return err
	}
	switch d.format {
	case "ndjson":
		return d.ndjson()
	case "dot":
		return d.lines.Text(s.dot())
	case "text":
		return d.lines.Text(s.text(d.color))
	}
	return d.lines.Text(s.svg())
}

// line is NDJSON's of one kind of change; docs/ndjson.md has the keys.
type line struct {
	ndjson.Head
	Old      string  `json:"old"`
	New      string  `json:"new"`
	Role     *string `json:"role"`
	Reason   *string `json:"reason"`
	InFigure bool    `json:"in_figure"`
	Count    uint64  `json:"count"`
	Timed    uint64  `json:"timed"`
	Min      *int64  `json:"min_ns"`
	Median   *int64  `json:"median_ns"`
	Max      *int64  `json:"max_ns"`
}

func (d *Diagram) ndjson() error {
	for _, c := range d.kinds() {
		t := d.travelled[c]
		l := line{
			Head: ndjson.NewHead("edge", d.last.wall, d.last.mono), Old: c.old.String(), New: c.new.String(), Role: ndjson.Known(c.role.String(), ""), Reason: ndjson.Known(c.reason.String(), ""),
			InFigure: c.inFigure, Count: t.count, Timed: t.times.Count(),
		}
		if l.Timed > 0 {
			least, median, most := t.times.Min(), t.times.Quantile(0.5), t.times.Max()
			l.Min, l.Median, l.Max = &least, &median, &most
		}
		if err := d.lines.JSON(&l); err != nil {
			return err
		}
	}
	return nil
}

// kinds are all kinds of changes that there were, in the order of a connection's life.
func (d *Diagram) kinds() []change {
	var kinds []change
	for c := range d.travelled {
		kinds = append(kinds, c)
	}
	slices.SortFunc(kinds, func(a, b change) int {
		return slices.Compare(a.order(), b.order())
	})
	return kinds
}

func (c change) order() []int {
	rest := 1
	if c.inFigure {
		rest = 0
	}
	return []int{slices.Index(lifeOrder, c.old), slices.Index(lifeOrder, c.new), rest, int(c.role), int(c.reason)}
}

var lifeOrder = []event.State{
	event.Close, event.Listen, event.SynSent, event.SynRecv, event.Established, event.FinWait1, event.FinWait2, event.Closing, event.TimeWait,
	event.CloseWait, event.LastAck,
}

// party is whose path it is. A listener counts as a server's: it travels CLOSE→LISTEN→CLOSE, where no connection does.
type party int

const (
	client party = iota
	server
	unknown
	parties // how many there are
)

var partyNames = [parties]string{"client", "server", "unknown"}

func partyOf(r event.Role) party {
	switch r {
	case event.Client:
		return client
	case event.Server, event.Listener:
		return server
	}
	return unknown
}

// summary is what a picture tells.
type summary struct {
	edges map[edge]*[parties]*tally // of the figure; nil: not travelled
	ends  map[event.State]*end      // that the figure leaves out, by the state that was left
	other []named                   // changes that are neither, most frequent first
	notes []note                    // what stands above the picture
	seen  map[event.State]bool      // states that some change led to or from
	title string
	// kernel: the vocabulary of the changes is the kernel's.
	kernel bool
}

// end is how connections in one state ended in a way that the figure leaves out.
type end struct {
	tally
	reasons []named // most frequent first
}

type named struct {
	name  string
	count uint64
}

// note is a line of text; alarm: it says that not all is told.
type note struct {
	text  string
	alarm bool
}

func (t *tally) add(other *tally) error {
	t.count += other.count
	return t.times.Merge(other.times)
}

// label is count and median.
func (t *tally) label() string { return fmt.Sprintf("%d · %s", t.count, t.median()) }

func (t *tally) median() string {
	if t.times.Count() == 0 {
		return "-"
	}
	return text.Time(t.times.Quantile(0.5))
}

// sum adds up what a picture does not tell apart.
func (d *Diagram) sum() (*summary, error) {
	s := &summary{edges: make(map[edge]*[parties]*tally), ends: make(map[event.State]*end), seen: make(map[event.State]bool), kernel: d.unexplained}
	others := make(map[edge]uint64)
	for _, c := range d.kinds() {
		t := d.travelled[c]
		s.seen[c.old], s.seen[c.new] = true, true
		var sum *tally
		switch {
		case c.inFigure:
			of := s.edges[c.edge]
			if of == nil {
				of = new([parties]*tally)
				s.edges[c.edge] = of
			}
			p := partyOf(c.role)
			if of[p] == nil {
				of[p] = &tally{times: quantile.New()}
			}
			sum = of[p]
		case c.new == event.Close && c.old != event.Close:
			of := s.ends[c.old]
			if of == nil {
				of = &end{tally: tally{times: quantile.New()}}
				s.ends[c.old] = of
			}
			name := c.reason.String()
			if name == "" {
				name = "no reason told"
			}
			of.reasons = count(of.reasons, name, t.count)
			sum = &of.tally
		default:
			others[c.edge] += t.count
			continue
		}
		if err := sum.add(t); err != nil {
			return nil, err
		}
	}
	for _, e := range s.ends {
		mostFirst(e.reasons)
	}
	for e, n := range others {
		s.other = append(s.other, named{e.old.String() + " → " + e.new.String(), n})
	}
	mostFirst(s.other)
	s.title = "TCP states: what was travelled"
	s.notes = d.notes()
	return s, nil
}

// count adds n to what has this name.
func count(all []named, name string, n uint64) []named {
	for i := range all {
		if all[i].name == name {
			all[i].count += n
			return all
		}
	}
	return append(all, named{name, n})
}

func mostFirst(all []named) {
	slices.SortFunc(all, func(a, b named) int {
		if a.count != b.count {
			if a.count > b.count {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
}

// few gives the first of all and, if there are more than most, one that stands for the rest.
func few(all []named, most int) []named {
	if len(all) <= most {
		return all
	}
	rest := named{name: fmt.Sprintf("%d others", len(all)-most+1)}
	for _, n := range all[most-1:] {
		rest.count += n.count
	}
	return append(slices.Clone(all[:most-1]), rest)
}

// notes say when it was, how many connections there were, and whether this is all.
func (d *Diagram) notes() []note {
	var begun [parties]uint64
	var ended, listeners uint64
	for c, t := range d.travelled {
		switch {
		case c.old == event.Close && c.new == event.SynSent, c.old == event.Listen && c.new == event.SynRecv:
			begun[partyOf(c.role)] += t.count
		case c.new == event.Close && c.role != event.Listener:
			ended += t.count
		case c.new == event.Listen:
			listeners += t.count
		}
	}
	notes := []note{
		{text: d.period()},
		{text: fmt.Sprintf("%s; connections: %d begun as client, %d as server, %d ended; listeners: %d begun",
			plural(d.changes, "change"), begun[client], begun[server], ended, listeners)},
	}
	if b := d.balance; b != nil {
		balance := fmt.Sprintf("balance: %s seen: %d told, %d filtered, %d lost", plural(b.Seen+b.Added, "record"), b.Printed, b.Filtered, b.RingFull)
		if b.Merged > 0 {
			balance += fmt.Sprintf(", %d told in another's line", b.Merged)
		}
		if b.Unread > 0 {
			balance += fmt.Sprintf(", %d unread", b.Unread)
		}
		notes = append(notes, note{text: balance})
	} else {
		notes = append(notes, note{"the recording has no end: it was cut off, and what came then is not here", true})
	}
	if d.lost > 0 {
		notes = append(notes, note{plural(d.lost, "change") + " lost, the ring buffer was full: more was travelled than is counted here", true})
	}
	if b := d.balance; b != nil && b.Missed > 0 {
		notes = append(notes, note{plural(b.Missed, "change") + " skipped by the kernel: more was travelled than is counted here", true})
	}
	return notes
}

// period is from the first line to the last.
func (d *Diagram) period() string {
	if !d.begun {
		return "nothing was recorded"
	}
	from, to := time.Unix(0, d.first.wall), time.Unix(0, d.last.wall)
	const day, clock = "2006-01-02", "15:04:05.000"
	line := from.Format(day + " " + clock + " to ")
	if from.Format(day) != to.Format(day) {
		line += to.Format(day + " ")
	}
	return line + to.Format(clock+" MST") + " (" + text.Time(max(d.last.mono-d.first.mono, 0)) + ")"
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
