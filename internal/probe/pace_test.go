//go:build linux

package probe

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"

	"github.com/cilium/ebpf/ringbuf"
)

// fakeRing is a ring that only has a fill level and a deadline.
type fakeRing struct {
	ring
	available int
	deadline  time.Time
}

func (r *fakeRing) AvailableBytes() int     { return r.available }
func (r *fakeRing) SetDeadline(t time.Time) { r.deadline = t }

// How the reader waits depends on the size of the ring and on how much was in it.
func TestRest(t *testing.T) {
	const big, tiny = 16 << 20, 4 << 10
	for _, c := range []struct {
		name      string
		size      int
		found     int
		soon      bool
		available int // bytes in the ring after the reader has asked to be woken
		slept     time.Duration
		asked     bool
		waits     time.Duration // minimum
	}{
		{"after a batch", big, 1000, false, 0, longestNap, false, 0},
		{"soon", big, 0, true, 0, longestNap, false, 0},
		{"nothing", big, 0, false, 0, 0, true, doze},
		{"a change in the same instant", big, 0, false, 1, 0, true, 0},
		{"after a batch that filled the ring", big, big, false, 0, longestNap / 2, false, 0},
		{"too small for a nap", tiny, 1000, false, 0, 0, true, soonAgain},
		{"too small for a nap, soon", tiny, 0, true, 0, 0, true, soonAgain},
		{"too small for a nap, nothing", tiny, 0, false, 0, 0, true, doze},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &fakeRing{available: c.available}
			var slept time.Duration
			asked := false
			p := newPace(r, c.size, func() { asked = true })
			p.longest = longestNapFor(c.size, 4)
			p.nap = p.longest
			p.sleep = func(d time.Duration) { slept += d }
			before := time.Now()
			p.rest(c.found, c.soon)
			if slept != c.slept || asked != c.asked {
				t.Errorf("got sleep %v, asked to be woken %v; want %v, %v", slept, asked, c.slept, c.asked)
			}
			if c.waits == 0 && !r.deadline.Equal(longAgo) {
				t.Error("the next look waits")
			}
			if r.deadline.Before(before.Add(c.waits)) && c.waits > 0 {
				t.Errorf("the next look waits for %v, want at least %v", r.deadline.Sub(before), c.waits)
			}
		})
	}
}

// While the ring fills up, naps get shorter and finally stop. Once it no longer fills up, they get
// longer again.
func TestNapFollowsTheRing(t *testing.T) {
	const size = 1 << 20
	r := new(fakeRing)
	var slept time.Duration
	p := newPace(r, size, func() {})
	p.longest = longestNap
	p.nap = longestNap
	p.sleep = func(d time.Duration) { slept = d }
	last := 2 * longestNap
	for last > 0 {
		slept = 0
		p.rest(size/2, false)
		if slept >= last {
			t.Fatalf("slept %v after %v", slept, last)
		}
		last = slept
	}
	for range 100 {
		p.rest(1, false)
	}
	if slept != longestNap {
		t.Errorf("slept %v, want %v", slept, longestNap)
	}
	// However large and fast the machine is, a ring never gets more than half full during a nap.
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 16 << 20} {
		for _, cpus := range []int{1, 2, 32, 1024} {
			nap := longestNapFor(size, cpus)
			if records := int(nap.Microseconds()) * cpus; nap > longestNap || records*recordSpace > size/2 {
				t.Errorf("%d bytes, %d CPUs: a nap of %v, in which %d records may come", size, cpus, nap, records)
			}
		}
	}
}

// watchedRing detects a reader that polls. Such a reader checks the ring again right after it has
// found it empty, without a nap and without having asked to be woken.
type watchedRing struct {
	ring
	t      *testing.T
	empty  bool // the last check found nothing
	rested bool // the reader has napped since then
	asked  bool // the reader has asked to be woken since then
	naps   int
}

func (r *watchedRing) AvailableBytes() int {
	n := r.ring.AvailableBytes()
	if n > 0 {
		r.empty = false
	}
	return n
}

func (r *watchedRing) SetDeadline(t time.Time) {
	if !t.Equal(longAgo) && !r.asked {
		r.t.Error("the reader waits for a wake-up without having asked for one")
	}
	r.ring.SetDeadline(t)
}

func (r *watchedRing) ReadInto(rec *ringbuf.Record) error {
	if r.empty && !r.rested && !r.asked {
		r.t.Error("the reader looked into an empty ring again at once")
	}
	err := r.ring.ReadInto(rec)
	r.empty, r.rested, r.asked = errors.Is(err, os.ErrDeadlineExceeded), false, false
	return err
}

// Under load, the reader naps between any two batches, and does not check the ring during a nap.
func TestReaderDoesNotPoll(t *testing.T) {
	needsRoot(t)
	for _, test := range []struct {
		name string
		size int
		naps bool
	}{{"too small for a nap", 4 << 10, false}, {"large", 16 << 20, true}} {
		t.Run(test.name, func(t *testing.T) {
			p, err := Open(new(filter.Filter), test.size, true, false)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			r := &watchedRing{ring: p.reader, t: t}
			p.reader, p.pace.ring = r, r
			p.pace.ask = func() {
				r.asked = true
				p.askToBeWoken()
			}
			p.pace.sleep = func(d time.Duration) {
				if d < shortestNap {
					t.Errorf("a nap of %v, shorter than %v", d, shortestNap)
				}
				r.rested = true
				r.naps++
				sleep(d)
			}
			load := make(chan error, 1)
			go func() {
				load <- connects(200)
				p.Stop()
			}()
			changes := 0
			for e, err := range p.Records(func(int64) (bool, error) { return false, nil }) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == event.Change {
					changes++
				}
			}
			if err := <-load; err != nil {
				t.Fatal(err)
			}
			if changes == 0 || (r.naps > 0) != test.naps {
				t.Errorf("%d changes, %d naps; want naps: %v", changes, r.naps, test.naps)
			}
		})
	}
}

// connects makes n connections, one after the other.
func connects(n int) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	for range n {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		s, err := l.Accept()
		if err != nil {
			return err
		}
		if err := errors.Join(c.Close(), s.Close()); err != nil {
			return err
		}
	}
	return nil
}
