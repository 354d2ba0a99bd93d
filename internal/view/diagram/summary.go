package diagram

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/quantile"
	"sstrace/internal/text"
)

// party is the side of a connection that takes an edge. A listener counts as a server: it takes the
// edges CLOSE → LISTEN → CLOSE, which no connection takes.
type party int

const (
	client party = iota
	server
	unknown
	parties // the number of parties
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

// summary is what a picture shows.
type summary struct {
	title  string
	notes  []note                         // shown above the picture
	edges  map[event.Edge]*[parties]tally // the edges in the figure
	ends   map[event.State]*end           // the ends that the figure leaves out, by the state left
	other  []named                        // all other changes, most frequent first
	seen   map[event.State]bool           // states that were entered or left
	kernel bool                           // the vocabulary is the kernel's
}

// A tally is nil if nothing has been counted.
type tally = *quantile.Tally

// end counts the connections that ended in one state, in ways that the figure leaves out.
type end struct {
	tally
	reasons []named // most frequent first
}

type named struct {
	name  string
	count uint64
}

// note is a line of text. A note that is an alarm says that something is missing.
type note struct {
	text  string
	alarm bool
}

// summary combines the kinds of change that look the same in a picture.
func (v *View) summary() (*summary, error) {
	s := &summary{
		title: "TCP state diagram: the paths taken", notes: v.notes(), kernel: v.kernelStates,
		edges: make(map[event.Edge]*[parties]tally), ends: make(map[event.State]*end), seen: make(map[event.State]bool),
	}
	others := make(map[event.Edge]uint64)
	for _, k := range v.kinds() {
		t := v.counts[k]
		s.seen[k.Old], s.seen[k.New] = true, true
		var sum tally
		switch {
		case k.inFigure:
			sum = s.edge(k.Edge, partyOf(k.role))
		case k.New == event.Close && k.Old != event.Close:
			e := s.end(k.Old)
			e.add(k.reason, t.Count)
			sum = e.tally
		default:
			others[k.Edge] += t.Count
			continue
		}
		if err := sum.Merge(t); err != nil {
			return nil, err
		}
	}
	for _, e := range s.ends {
		slices.SortFunc(e.reasons, mostFrequentFirst)
	}
	for e, n := range others {
		s.other = append(s.other, named{e.String(), n})
	}
	slices.SortFunc(s.other, mostFrequentFirst)
	return s, nil
}

// edge returns p's tally of an edge, creating it if necessary.
func (s *summary) edge(e event.Edge, p party) tally {
	all := s.edges[e]
	if all == nil {
		all = new([parties]tally)
		s.edges[e] = all
	}
	if all[p] == nil {
		all[p] = quantile.NewTally()
	}
	return all[p]
}

// end returns the end of a state, creating it if necessary.
func (s *summary) end(state event.State) *end {
	e := s.ends[state]
	if e == nil {
		e = &end{tally: quantile.NewTally()}
		s.ends[state] = e
	}
	return e
}

// of returns each party's tally of an edge.
func (s *summary) of(e event.Edge) [parties]tally {
	if t := s.edges[e]; t != nil {
		return *t
	}
	return [parties]tally{}
}

// add counts n ends that had the given reason.
func (e *end) add(reason event.Reason, n uint64) {
	name := reason.String()
	if name == "" {
		name = "reason unknown"
	}
	for i := range e.reasons {
		if e.reasons[i].name == name {
			e.reasons[i].count += n
			return
		}
	}
	e.reasons = append(e.reasons, named{name, n})
}

func mostFrequentFirst(a, b named) int {
	return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
}

// String returns the name followed by the count.
func (n named) String() string { return fmt.Sprintf("%s %d", n.name, n.count) }

// atMost returns all of them if there are no more than n. Otherwise it returns the first n-1, and
// one more that stands for the rest.
func atMost(n int, all []named) []named {
	if len(all) <= n {
		return all
	}
	rest := named{name: fmt.Sprintf("%d others", len(all)-n+1)}
	for _, o := range all[n-1:] {
		rest.count += o.count
	}
	return append(slices.Clone(all[:n-1]), rest)
}

// label returns the count and the median time.
func label(t tally) string { return fmt.Sprintf("%d · %s", t.Count, median(t)) }

func median(t tally) string {
	if t.Times.Count() == 0 {
		return "-"
	}
	return text.Time(t.Times.Quantile(0.5))
}

// notes returns the period that the stream covers, the number of connections, and what the stream
// lacks.
func (v *View) notes() []note {
	var begun [parties]uint64
	var ended, listeners uint64
	for k, t := range v.counts {
		switch {
		case k.Edge == event.Close.To(event.SynSent), k.Edge == event.Listen.To(event.SynRecv):
			begun[partyOf(k.role)] += t.Count
		case k.New == event.Close && k.role != event.Listener:
			ended += t.Count
		case k.New == event.Listen:
			listeners += t.Count
		}
	}
	notes := []note{
		{text: v.period()},
		{text: fmt.Sprintf("%s; connections: %d begun as client, %d as server, %d ended; listeners: %d begun",
			plural(v.changes, "change"), begun[client], begun[server], ended, listeners)},
	}
	if b := v.balance; b != nil {
		balance := fmt.Sprintf("balance: %s seen: %d counted, %d filtered, %d lost", plural(b.Seen+b.Added, "record"),
			b.Printed, b.Filtered, b.RingFull)
		if b.Merged > 0 {
			balance += fmt.Sprintf(", %d merged", b.Merged)
		}
		if b.Unread > 0 {
			balance += fmt.Sprintf(", %d unread", b.Unread)
		}
		notes = append(notes, note{text: balance})
	} else {
		notes = append(notes, note{"the recording has no end line: it was cut off, and later changes are missing",
			true})
	}
	if v.lost > 0 {
		notes = append(notes, note{plural(v.lost, "change") +
			" lost, the ring buffer was full: the counts are too low", true})
	}
	if b := v.balance; b != nil && b.Missed > 0 {
		notes = append(notes, note{plural(b.Missed, "change") + " skipped by the kernel: the counts are too low", true})
	}
	return notes
}

// period returns the times of the first and the last line.
func (v *View) period() string {
	if !v.begun {
		return "nothing was recorded"
	}
	from, to := time.Unix(0, v.first.wall), time.Unix(0, v.last.wall)
	const day, clock = "2006-01-02", "15:04:05.000"
	line := from.Format(day + " " + clock + " to ")
	if from.Format(day) != to.Format(day) {
		line += to.Format(day + " ")
	}
	return line + to.Format(clock+" MST") + " (" + text.Time(max(v.last.mono-v.first.mono, 0)) + ")"
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// remarks returns the text below the picture. It says what the figure lacks, and how Linux differs
// from the RFC.
func (s *summary) remarks() []string {
	var all []string
	if len(s.other) > 0 {
		text := "Not in the figure:"
		for i, o := range atMost(4, s.other) {
			if i > 0 {
				text += ","
			}
			text += " " + o.String()
		}
		all = append(all, text)
	}
	if s.kernel {
		all = append(all, "The kernel vocabulary, used here, does not show half-open connections and those in TIME_WAIT: FIN_WAIT2 → CLOSE is where TIME_WAIT begins.")
	}
	return append(all, "RFC 9293, figure 5, with Linux's names. On Linux a listener stays in LISTEN while its connections begin there; a half-open connection that is reset "+
		"goes to CLOSE, not to LISTEN; a listener does not send; and FIN_WAIT1 → TIME_WAIT (note 2 of the figure) passes through FIN_WAIT2.")
}
