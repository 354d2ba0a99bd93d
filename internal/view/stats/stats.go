// Package stats counts the changes from each state to each other and tells how long the state on the left had lasted: for each interval and for the
// whole run, for all sockets or for each group of them. Its memory is bounded whatever comes.
package stats

import (
	"cmp"
	"io"
	"net/netip"
	"slices"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/quantile"
)

// Formats are the formats, text first.
var Formats = []string{"text", "ndjson"}

// Groupings are what sockets can be grouped by: the server's port, the peer's address, the owner's name, the container or else the systemd unit.
var Groupings = []string{"port", "remote", "process", "container"}

// most is how many groups are kept. One more, and the half of them that has the fewest lines goes into the sum of the others: so a group that comes
// late and is large is kept, and each new one costs little.
const most = 1000

// Options are what to tell.
type Options struct {
	By        string        // one of Groupings; "": all sockets are one group
	Interval  time.Duration // 0: tell of the whole run alone
	Histogram bool          // in text
}

// Stats is a view of the lines. It is not safe for concurrent use.
type Stats struct {
	lines *ndjson.Lines
	text  bool
	Options

	groups map[name]*group
	others group                     // the sum of those that were too many
	purged struct{ run, now bool }   // there were, since the run, the period began
	lost   struct{ run, now uint64 } // changes, in the periods before, in this one

	begun       bool  // the next three are known
	begin       int64 // of the run; CLOCK_MONOTONIC
	periodBegin int64
	now         int64 // the latest moment seen
	clocked     bool  // the next is known
	wall        int64 // the wall clock's distance
	greeted     bool
	wrote       bool // any text
	over        bool // the whole run was told
}

// name is that of a group. The zero one is of those of which it is not known.
type name struct {
	port uint16
	addr netip.Addr
	text string
}

func (n *name) compare(o *name) int {
	return cmp.Or(cmp.Compare(n.port, o.port), n.addr.Compare(o.addr), cmp.Compare(n.text, o.text))
}

// group counts twice: whole lacks what period has until that is over.
type group struct {
	name          name
	whole, period part
}

func (g *group) lines() uint64 { return g.whole.lines() + g.period.lines() }

// part is what was counted in some time.
type part struct {
	changes  uint64
	accepted uint64
	failed   uint64 // connect() calls that changed no state
	edges    map[edge]*tally
	reasons  map[event.Reason]uint64
	atLeast  bool // the group may have had more, which is in others now
}

func (p *part) lines() uint64 { return p.changes + p.accepted + p.failed }

// edge is a change; the zero one is (queue) → (accepted).
type edge struct{ old, new event.State }

// failedConnect is (connect) → (failed).
var failedConnect = edge{new: event.Close}

// tally is of one edge.
type tally struct {
	count uint64
	times *quantile.Sketch // of those whose time is known
}

// New makes a Stats that writes to w in one of Formats.
func New(w io.Writer, format string, o Options) *Stats {
	return &Stats{lines: ndjson.NewLines(w), text: format == "text", Options: o, groups: make(map[name]*group)}
}

// Take takes one line.
func (s *Stats) Take(e *event.Event) error {
	s.clocked, s.wall = true, e.Wall-e.Mono
	if e.Type == event.End {
		if err := s.finish(e.Mono); err != nil || s.text {
			return err
		}
		return s.lines.Event(e)
	}
	if err := s.advance(e.Mono); err != nil {
		return err
	}
	switch e.Type {
	case event.Lost:
		s.lost.now += e.RingFull
		if s.text { // the table of this period says it
			return nil
		}
		return s.lines.Event(e)
	case event.Change, event.Accept, event.ConnectFailed:
		g, err := s.group(e)
		if err != nil {
			return err
		}
		g.period.take(e)
	}
	return nil
}

// Flush tells of the periods that are over. A recording that has nothing more and had no End was cut off: what there was is told.
func (s *Stats) Flush(now int64) error {
	var err error
	switch {
	case s.over:
	case now == 0:
		err = s.finish(s.now)
	default:
		if s.text && !s.greeted {
			err = s.greet()
		}
		if err == nil {
			err = s.advance(now)
		}
	}
	if err != nil {
		return err
	}
	return s.lines.Flush()
}

// advance takes notice that it is now. It may have been later already: lines of several CPUs are not quite in order. Such a line counts in the period in
// which it comes.
func (s *Stats) advance(now int64) error {
	if !s.begun {
		s.begun, s.begin, s.periodBegin, s.now = true, now, now, now
	}
	s.now = max(s.now, now)
	interval := int64(s.Interval)
	if interval == 0 || !s.clocked || s.now-s.periodBegin < interval {
		return nil
	}
	for s.now-s.periodBegin >= interval {
		end := s.periodBegin + interval
		if s.idle() { // all of the time that was, at once
			end = s.now - (s.now-s.periodBegin)%interval
		}
		if err := s.endPeriod(end, true); err != nil {
			return err
		}
	}
	return s.lines.Flush() // a recording may come from a pipe, slowly
}

// idle reports whether nothing came in this period.
func (s *Stats) idle() bool {
	for _, g := range s.groups {
		if g.period.lines() > 0 {
			return false
		}
	}
	return s.others.period.lines() == 0 && s.lost.now == 0
}

// endPeriod begins the next one.
func (s *Stats) endPeriod(end int64, tell bool) error {
	if tell {
		if err := s.tell(span{begin: s.periodBegin, end: end, lost: s.lost.now}, func(g *group) *part { return &g.period }); err != nil {
			return err
		}
	}
	for _, g := range s.groups {
		if err := g.endPeriod(); err != nil {
			return err
		}
	}
	s.lost.run, s.lost.now = s.lost.run+s.lost.now, 0
	s.purged.now = false
	s.periodBegin = end
	return s.others.endPeriod()
}

func (g *group) endPeriod() error {
	err := g.whole.add(&g.period)
	g.period = part{}
	return err
}

// finish tells of the last period, which may be a short one, and of the whole run.
func (s *Stats) finish(now int64) error {
	if s.over || !s.clocked {
		return nil
	}
	if err := s.advance(now); err != nil {
		return err
	}
	s.over = true
	if err := s.endPeriod(s.now, s.Interval > 0 && !s.idle()); err != nil {
		return err
	}
	return s.tell(span{begin: s.begin, end: s.now, lost: s.lost.run, final: true}, func(g *group) *part { return &g.whole })
}

// group gives the one that e belongs to.
func (s *Stats) group(e *event.Event) (*group, error) {
	n := s.nameOf(e)
	g := s.groups[n]
	if g == nil {
		if len(s.groups) >= most {
			if err := s.purge(); err != nil {
				return nil, err
			}
		}
		g = &group{name: n, whole: part{atLeast: s.purged.run}, period: part{atLeast: s.purged.now}}
		s.groups[n] = g
	}
	return g, nil
}

func (s *Stats) nameOf(e *event.Event) (n name) {
	switch s.By {
	case "port":
		switch e.Role {
		case event.Client:
			n.port = e.Remote.Port()
		case event.Server, event.Listener:
			n.port = e.Local.Port()
		}
	case "remote":
		n.addr = event.Scoped(e.Remote.Addr(), e.Zone())
	case "process":
		if e.OwnerPID != 0 {
			n.text = e.OwnerComm
		}
	case "container":
		if n.text = e.Container(); n.text == "" {
			n.text = e.Unit()
		}
	}
	return n
}

// purge makes room.
func (s *Stats) purge() error {
	all := s.sorted((*group).lines)
	for _, z := range all[len(all)/2:] {
		if err := s.others.whole.add(&z.whole); err != nil {
			return err
		}
		if err := s.others.period.add(&z.period); err != nil {
			return err
		}
		delete(s.groups, z.name)
	}
	s.purged.run, s.purged.now = true, true
	return nil
}

// sized is a group with its size.
type sized struct {
	*group
	size uint64
}

// sorted gives the groups that have a size, the largest first.
func (s *Stats) sorted(size func(*group) uint64) []sized {
	all := make([]sized, 0, len(s.groups))
	for _, g := range s.groups {
		if n := size(g); n > 0 {
			all = append(all, sized{g, n})
		}
	}
	slices.SortFunc(all, func(a, b sized) int {
		if a.size == b.size {
			return a.name.compare(&b.name)
		}
		return cmp.Compare(b.size, a.size)
	})
	return all
}

func (p *part) take(e *event.Event) {
	at := edge{e.Old, e.New}
	switch e.Type {
	case event.Accept:
		at = edge{}
		p.accepted++
	case event.ConnectFailed:
		at = failedConnect
		p.failed++
	default:
		p.changes++
	}
	t := p.tally(at)
	t.count++
	if e.Dur != event.Unknown {
		t.times.Add(e.Dur)
	}
	if e.Reason != 0 {
		p.because(e.Reason, 1)
	}
}

func (p *part) tally(at edge) *tally {
	t := p.edges[at]
	if t == nil {
		if p.edges == nil {
			p.edges = make(map[edge]*tally)
		}
		t = &tally{times: quantile.New()}
		p.edges[at] = t
	}
	return t
}

func (p *part) because(r event.Reason, count uint64) {
	if p.reasons == nil {
		p.reasons = make(map[event.Reason]uint64)
	}
	p.reasons[r] += count
}

// add adds all that o has, which stays as it is.
func (p *part) add(o *part) error {
	p.count(o)
	for at, from := range o.edges {
		t := p.tally(at)
		t.count += from.count
		if err := t.times.Merge(from.times); err != nil {
			return err
		}
	}
	for r, count := range o.reasons {
		p.because(r, count)
	}
	return nil
}

// order is that of a connection's life (RFC 9293 section 3.3.2), as far as there is one. CLOSE is where each begins and ends.
var order = []event.State{
	event.Listen, event.SynSent, event.SynRecv, event.Established, event.FinWait1, event.FinWait2, event.CloseWait, event.Closing, event.LastAck, event.TimeWait,
}

// place tells where e stands in a table.
func (e edge) place() int {
	const states = 100 // more than there are
	switch {
	case e == edge{}: // behind what comes from SYN_RECV
		return slices.Index(order, event.SynRecv)*states + states - 1
	case e == failedConnect: // behind what comes from CLOSE
		return -1
	case e.new == event.Close:
		return slices.Index(order, e.old)*states + len(order)
	}
	return slices.Index(order, e.old)*states + slices.Index(order, e.new) // CLOSE, which it does not find, is the first
}

func (e edge) names() (from, to string) {
	if e == (edge{}) {
		return "(queue)", "(accepted)"
	}
	if e == failedConnect {
		return "(connect)", "(failed)"
	}
	return e.old.String(), e.new.String()
}

// row is a line of a table.
type row struct {
	edge
	*tally
}

// rows gives those of p along the life of a connection.
func (p *part) rows() []row {
	rows := make([]row, 0, len(p.edges))
	for at, t := range p.edges {
		rows = append(rows, row{at, t})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.place(), b.place()) })
	return rows
}

// because is why connections ended, and how many.
type because struct {
	event.Reason
	count uint64
}

// why gives the reasons of p, the most frequent first.
func (p *part) why() []because {
	why := make([]because, 0, len(p.reasons))
	for r, count := range p.reasons {
		why = append(why, because{r, count})
	}
	slices.SortFunc(why, func(a, b because) int { return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.Reason, b.Reason)) })
	return why
}

// span is the time that is told of.
type span struct {
	begin, end int64 // CLOCK_MONOTONIC
	lost       uint64
	final      bool // it is the whole run
}

// tell tells of the part of each group.
func (s *Stats) tell(of span, part func(*group) *part) error {
	groups := s.sorted(func(g *group) uint64 { return part(g).lines() })
	if s.text {
		return s.tellText(of, groups, part)
	}
	return s.tellJSON(of, groups, part)
}
