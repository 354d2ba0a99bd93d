package quantile

import "sstrace/internal/event"

// Tally counts events, and holds the distribution of those of their times that are known.
type Tally struct {
	Count uint64
	Times *Sketch
}

// NewTally returns an empty Tally.
func NewTally() *Tally { return &Tally{Times: New()} }

// Add counts an event with its time in ns, or event.Unknown.
func (t *Tally) Add(ns int64) {
	t.Count++
	if ns != event.Unknown {
		t.Times.Add(ns)
	}
}

// Merge adds the events of other, which it leaves unchanged.
func (t *Tally) Merge(other *Tally) error {
	t.Count += other.Count
	return t.Times.Merge(other.Times)
}
