package track

import (
	"errors"
	"slices"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// settled settles b and returns the times of the lines.
func settled(t *testing.T, b *backlog, mono int64, giveUp func(*pending)) (monos []int64) {
	t.Helper()
	err := b.settle(mono, giveUp, func(e *event.Event) error {
		monos = append(monos, e.Mono)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return monos
}

func at(mono int64) *record.Record {
	return &record.Record{Event: event.Event{Mono: mono}}
}

func TestBacklogKeepsOrder(t *testing.T) {
	giveUp := func(p *pending) { t.Errorf("the record of %d was given up", p.rec.Mono) }
	for _, test := range []struct {
		name    string
		resolve []int // indexes of records, in this order
		want    [][]int64
	}{
		{"first to last", []int{0, 1, 2}, [][]int64{{10}, {20}, {30}}},
		{"last to first", []int{2, 1, 0}, [][]int64{nil, nil, {10, 20, 30}}},
		{"the middle first", []int{1, 0, 2}, [][]int64{nil, {10, 20}, {30}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b backlog
			waiting := []*pending{b.add(at(10), awaitsPort), b.add(at(20), awaitsReason), b.add(at(30), awaitsClose)}
			for i, n := range test.resolve {
				waiting[n].resolve(true)
				if got := settled(t, &b, 40, giveUp); !slices.Equal(got, test.want[i]) {
					t.Errorf("with record %d resolved: got %d lines, want %d", n, got, test.want[i])
				}
			}
			if !b.empty() {
				t.Errorf("got %d waiting records, want 0", b.waiting())
			}
		})
	}
}

func TestBacklogOmitsMergedRecords(t *testing.T) {
	var b backlog
	b.add(at(10), awaitsClose).resolve(false)
	b.add(at(20), awaitsNothing).resolve(true)
	if n := b.waiting(); n != 1 {
		t.Errorf("got %d waiting records, want 1", n)
	}
	if got := settled(t, &b, 30, nil); !slices.Equal(got, []int64{20}) {
		t.Errorf("got lines of %d, want 20", got)
	}
}

func TestBacklogPatience(t *testing.T) {
	var b backlog
	var given []awaited
	giveUp := func(p *pending) {
		given = append(given, p.awaits)
		if p.awaits == awaitsTimer {
			p.awaits = awaitsReuse // so it waits for something else
			return
		}
		p.resolve(true)
	}
	b.add(at(10), awaitsTimer)
	b.add(at(20), awaitsNothing).resolve(true)
	b.add(at(30), awaitsPort)
	if got := settled(t, &b, 10+patience-1, giveUp); got != nil || given != nil {
		t.Errorf("before its time: lines of %d, gave up %d", got, given)
	}
	if n := b.waiting(); n != 3 {
		t.Errorf("got %d waiting records, want 3", n)
	}
	if got := settled(t, &b, 10+patience, giveUp); !slices.Equal(got, []int64{10, 20}) {
		t.Errorf("got lines of %d, want 10 and 20", got)
	}
	if want := []awaited{awaitsTimer, awaitsReuse}; !slices.Equal(given, want) {
		t.Errorf("gave up waiting for %d, want %d", given, want)
	}
	if got := settled(t, &b, 30+patience, giveUp); !slices.Equal(got, []int64{30}) {
		t.Errorf("got lines of %d, want 30", got)
	}
}

func TestBacklogDoesNotCountLost(t *testing.T) {
	var b backlog
	b.add(at(10), awaitsPort)
	lost := at(20)
	lost.Kind = record.Lost
	b.add(lost, awaitsNothing).resolve(true)
	if n := b.waiting(); n != 1 {
		t.Errorf("got %d waiting records, want 1", n)
	}
}

// If emit fails, the lines after the failed one are neither lost nor emitted twice.
func TestBacklogEmitFails(t *testing.T) {
	var b backlog
	for mono := range int64(3) {
		b.add(at(mono), awaitsNothing).resolve(true)
	}
	full := errors.New("full")
	var got []int64
	emit := func(e *event.Event) error {
		got = append(got, e.Mono)
		if e.Mono == 1 {
			return full
		}
		return nil
	}
	if err := b.settle(10, nil, emit); !errors.Is(err, full) {
		t.Errorf("got error %v, want the error from emit", err)
	}
	if n := b.waiting(); n != 1 {
		t.Errorf("got %d waiting records, want 1", n)
	}
	b.add(at(3), awaitsNothing).resolve(true)
	if err := b.settle(10, nil, emit); err != nil {
		t.Error(err)
	}
	if want := []int64{0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("got lines of %d, want %d", got, want)
	}
}

// Memory depends on how many records wait at a time, not on how many have ever waited. This is true
// even if the backlog is never empty.
func TestBacklogReusesMemory(t *testing.T) {
	var b backlog
	giveUp := func(*pending) {}
	emit := func(*event.Event) error { return nil }
	r := at(0)
	last := b.add(r, awaitsPort)
	cycle := func() {
		for range 1000 {
			next := b.add(r, awaitsPort)
			last.resolve(true)
			last = next
			if err := b.settle(0, giveUp, emit); err != nil {
				t.Fatal(err)
			}
		}
	}
	cycle()
	if n := testing.AllocsPerRun(10, cycle); n != 0 {
		t.Errorf("%v allocations for 1000 records", n)
	}
	if n := b.waiting(); n != 1 {
		t.Errorf("got %d waiting records, want 1", n)
	}
}
