package quantile

import (
	"testing"

	"sstrace/internal/event"
)

func TestTally(t *testing.T) {
	a, b := NewTally(), NewTally()
	a.Add(5)
	a.Add(event.Unknown)
	b.Add(0)
	b.Add(7)
	if err := a.Merge(b); err != nil {
		t.Fatal(err)
	}
	if a.Count != 4 || a.Times.Count() != 3 || a.Times.Min() != 0 || a.Times.Max() != 7 {
		t.Errorf("%d events, %d times from %d to %d", a.Count, a.Times.Count(), a.Times.Min(), a.Times.Max())
	}
	if b.Count != 2 || b.Times.Count() != 2 {
		t.Errorf("after the merge the other has %d events, %d times", b.Count, b.Times.Count())
	}
}
