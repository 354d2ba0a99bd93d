package stats

import (
	"cmp"
	"maps"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/quantile"
)

// counts holds the counts for one group over one period of time. There is a tally for each edge,
// and a count for each reason.
type counts struct {
	amount
	edges   map[event.Edge]*quantile.Tally
	reasons map[event.Reason]uint64
}

// amount is the number of lines counted, by kind.
type amount struct {
	changes  uint64
	accepted uint64
	failed   uint64 // calls of connect() that changed no state
}

// Some rows of a table are not changes of state. They are stored under edges that no change can
// have.
var (
	queueAccepted = event.Edge{}                 // (queue) → (accepted), with the time spent in the accept queue
	connectFailed = event.Edge{New: event.Close} // (connect) → (failed)
)

func newCounts() *counts {
	return &counts{edges: make(map[event.Edge]*quantile.Tally), reasons: make(map[event.Reason]uint64)}
}

// Total implements rollup.Counts.
func (a *amount) Total() uint64 { return a.changes + a.accepted + a.failed }

func (a *amount) addAll(o *amount) {
	a.changes += o.changes
	a.accepted += o.accepted
	a.failed += o.failed
}

// add counts a line.
func (c *counts) add(e *event.Event) {
	at := e.Edge()
	switch e.Type {
	case event.Accept:
		at = queueAccepted
		c.accepted++
	case event.ConnectFailed:
		at = connectFailed
		c.failed++
	default:
		c.changes++
	}
	c.tally(at).Add(e.Dur)
	if e.Reason != 0 {
		c.reasons[e.Reason]++
	}
}

func (c *counts) tally(at event.Edge) *quantile.Tally {
	t := c.edges[at]
	if t == nil {
		t = quantile.NewTally()
		c.edges[at] = t
	}
	return t
}

// Merge implements rollup.Counts.
func (c *counts) Merge(o *counts) error {
	c.addAll(&o.amount)
	for at, t := range o.edges {
		if err := c.tally(at).Merge(t); err != nil {
			return err
		}
	}
	for r, n := range o.reasons {
		c.reasons[r] += n
	}
	return nil
}

// order is the order of the states in a table. It follows RFC 9293 section 3.3.2, which lists the
// states of both ends together. Unlike in event.Lifecycle, TIME_WAIT is last. CLOSE is missing,
// because its position varies: see row.
var order = []event.State{
	event.Listen, event.SynSent, event.SynRecv, event.Established, event.FinWait1, event.FinWait2, event.CloseWait,
	event.Closing, event.LastAck, event.TimeWait,
}

// row returns the position of an edge in a table. CLOSE comes first among the states that are left,
// and last among the states that are entered.
func row(e event.Edge) int {
	const states = 100 // more than the number of states
	switch {
	case e == queueAccepted: // after the edges that leave SYN_RECV
		return slices.Index(order, event.SynRecv)*states + states - 1
	case e == connectFailed: // after the edges that leave CLOSE
		return -1
	case e.New == event.Close:
		return slices.Index(order, e.Old)*states + len(order)
	}
	return slices.Index(order, e.Old)*states + slices.Index(order, e.New) // for CLOSE, the index is -1
}

func compareEdges(a, b event.Edge) int { return cmp.Compare(row(a), row(b)) }

// titles returns the texts for an edge in the columns OLD and NEW.
func titles(e event.Edge) (from, to string) {
	switch e {
	case queueAccepted:
		return "(queue)", "(accepted)"
	case connectFailed:
		return "(connect)", "(failed)"
	}
	return e.Old.String(), e.New.String()
}

// rows returns the edges in the order in which a table lists them.
func (c *counts) rows() []event.Edge {
	return slices.SortedFunc(maps.Keys(c.edges), compareEdges)
}

// byFrequency returns the reasons, with the most frequent first.
func (c *counts) byFrequency() []event.Reason {
	return slices.SortedFunc(maps.Keys(c.reasons), func(a, b event.Reason) int {
		return cmp.Or(cmp.Compare(c.reasons[b], c.reasons[a]), cmp.Compare(a, b))
	})
}
