package watch

import (
	"errors"
	"testing"

	"sstrace/internal/event"

	tea "charm.land/bubbletea/v2"
)

// testView returns a View whose terminal does nothing.
func testView(o Options) *View {
	o.Listed, o.Wanted = all, all
	v := New(o)
	v.terminal = &tea.Program{}
	v.nextLook = lookInterval
	return v
}

// Snapshots are taken a few times a second, and looks every few seconds.
func TestIntervals(t *testing.T) {
	looks, snapshots := 0, 0
	v := testView(Options{Sockets: func() ([]event.Event, error) {
		looks++
		return []event.Event{socket(1, 0, event.Established)}, nil
	}})
	var last *snapshot
	step := func(now int64) {
		if err := v.Idle(now); err != nil {
			t.Fatal(err)
		}
		if s := v.latest.Load(); s != last {
			snapshots++
			last = s
		}
	}
	e := line(1, 0, event.Close, event.SynSent)
	if err := v.Take(&e); err != nil {
		t.Fatal(err)
	}
	for now := int64(0); now < 10*second; now += second / 100 { // constant changes
		v.changed = true
		step(now)
	}
	// On a slow machine, looks and snapshots take longer, and there are fewer of them.
	if snapshots > 51 || snapshots < 2 || looks > 4 || looks < 1 {
		t.Errorf("%d snapshots and %d looks in 10 s", snapshots, looks)
	}
	v = testView(Options{Sockets: func() ([]event.Event, error) { return nil, nil }})
	v.nextLook = 1 << 62
	snapshots, last = 0, nil
	for now := int64(0); now < 10*second; now += second / 100 { // only ages change
		step(now)
	}
	if snapshots > 11 || snapshots < 2 {
		t.Errorf("%d snapshots of an idle table in 10 s", snapshots)
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	v := testView(Options{Sockets: func() ([]event.Event, error) { return nil, broken }})
	if err := v.Idle(lookInterval); !errors.Is(err, broken) {
		t.Errorf("a look: %v", err)
	}
	v.err = broken
	close(v.ended)
	if err := v.Idle(2 * lookInterval); !errors.Is(err, broken) {
		t.Errorf("the terminal: %v", err)
	}
}
