//go:build linux

package probe

import (
	"runtime"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	// longestNap is how long the reader of a busy ring sleeps between two batches, if the ring has
	// room for the records that arrive meanwhile. No change wakes it: waking the reader for every
	// change would cost the host more than everything else combined.
	longestNap = time.Millisecond
	// shortestNap is the shortest sleep that is worthwhile, because the kernel may prolong any
	// sleep by as much (the timer slack of prctl(2)).
	shortestNap = 50 * time.Microsecond
	// soonAgain bounds the wait for a wake-up when a nap would be right but the ring is too small
	// for one. The poller of cilium/ebpf truncates the remaining time to milliseconds, so 1 ms
	// would be 0.
	soonAgain = 2 * time.Millisecond
	// recordSpace is how many bytes the longest record takes in the ring, with its header
	// (BPF_RINGBUF_HDR_SZ).
	recordSpace = closedSize + 8
)

// doze is the longest time that the reader of an empty ring sleeps. The next change wakes the
// reader. Only a change at the very instant at which the reader falls asleep may have to wait that
// long.
var doze = 100 * time.Millisecond

var longAgo = time.Unix(1, 0)

// ring is the part of a ringbuf.Reader that a Probe uses.
type ring interface {
	ReadInto(rec *ringbuf.Record) error
	SetDeadline(t time.Time)
	AvailableBytes() int
	Flush() error
	Close() error
}

// pace decides how the reader waits once the ring is empty.
type pace struct {
	ring    ring
	size    int           // of the ring, in bytes
	longest time.Duration // nap
	nap     time.Duration // the next one
	sleep   func(time.Duration)
	ask     func() // makes the next change wake the reader, and is a full memory barrier
}

func newPace(r ring, size int, ask func()) *pace {
	longest := longestNapFor(size, runtime.NumCPU())
	return &pace{ring: r, size: size, longest: longest, nap: longest, sleep: sleep, ask: ask}
}

// longestNapFor returns how long a ring of this size may be left alone. Given all the TCP work
// behind each record, a CPU needs at least a microsecond to make one, so half of the ring stays
// free even if no CPU does anything else. 16 MiB allows longestNap on up to 38 CPUs.
func longestNapFor(size, cpus int) time.Duration {
	return min(longestNap, time.Duration(size/2/recordSpace/cpus)*time.Microsecond)
}

// rest waits before an empty ring is next read, or sets how long that read itself waits for a
// wake-up. found is how many bytes were in the ring when the last batch started, or 0 if there was
// none; soon asks for a read within milliseconds although nothing came.
//
// After a batch, the next one is near: the reader naps, and does not check the ring meanwhile. A
// nap during which the ring filled too far, because it lasted longer than requested, makes the next
// one shorter. If even the shortest nap is too long, the next change wakes the reader, as on an
// idle host.
func (p *pace) rest(found int, soon bool) {
	if found > p.size/4 {
		p.nap /= 2
	} else {
		p.nap = min(p.longest, max(2*p.nap, shortestNap))
	}
	if found > 0 || soon {
		if p.nap >= shortestNap {
			p.sleep(p.nap)
			p.ring.SetDeadline(longAgo)
			return
		}
		p.wait(soonAgain)
		return
	}
	p.wait(doze)
}

// wait makes the next read wait for a wake-up, at most this long. A change that came before the
// request does not wake the reader, so the reader checks the ring once more.
func (p *pace) wait(atMost time.Duration) {
	p.ask()
	if p.ring.AvailableBytes() > 0 {
		p.ring.SetDeadline(longAgo)
		return
	}
	p.ring.SetDeadline(time.Now().Add(atMost))
}

// sleep sleeps for d, or less if a signal arrives. The timers of Go's runtime would round d up to a
// millisecond.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a shorter nap does no harm
}
