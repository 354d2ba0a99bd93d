//go:build linux

// Package probe does the tracing: it loads and attaches the BPF programs, yields their records, and
// accounts for every change.
package probe

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"
	"sstrace/internal/listing"
	"sstrace/internal/needs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

const (
	// settleTime bounds the wait for programs that are running when they are detached. Each takes a
	// microsecond.
	settleTime = time.Second

	membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL in include/uapi/linux/membarrier.h
)

// Probe is an attached tracer. The methods of its Lister must not run at the same time as Records,
// except in the functions that Records calls.
type Probe struct {
	*listing.Lister

	objs    *ebpf.Collection
	maps    bpfMaps
	vars    bpfVariables
	tracing []*ebpf.Program // those on tracepoints, in the order of attachment
	links   []link.Link     // in that order
	reader  ring
	pace    *pace
	names   *namer
	clock   linux.Clock
	before  []event.Event // the sockets that are older than the trace

	timersErr error // see TimersUnavailable
	callsErr  error // see CallsUnavailable

	stop     sync.Once
	read     uint64 // records taken from the ring
	reported uint64 // lost changes that a Lost has reported
	fence    atomic.Uint32
}

// Open loads and attaches the programs, with the part of f that the kernel side applies, and lists
// the sockets that exist. From then on, every change is recorded. buffer is the size of the ring in
// bytes, a power of two and a multiple of the page size. If rfc is set, Open also traces what the
// rfc vocabulary needs: the timers of mini-sockets, accept() and connect(). TimersUnavailable and
// CallsUnavailable report which of these the machine cannot provide. If stacks is set, the stacks
// of calls that connect or accept are recorded. Errors say what to do, except one that wraps
// linux.ErrNoCgroup, which is about f.
func Open(f *filter.Filter, buffer int, rfc, stacks bool) (*Probe, error) {
	_ = rlimit.RemoveMemlock() // matters before Linux 5.11; if it fails, loading may
	p := &Probe{names: &namer{Names: linux.NewNames()}}
	err := p.load(f, buffer, rfc, stacks)
	if err == nil {
		err = p.attach()
	}
	if err == nil {
		return p, nil
	}
	p.Close()
	if !errors.Is(err, linux.ErrNoCgroup) {
		err = needs.Explain(err)
	}
	return nil, err
}

// attach attaches the programs, which run in the order of attachment, and then lists the sockets
// that exist. Changes in the meantime are already in the ring.
func (p *Probe) attach() error {
	for _, prog := range p.tracing {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %v: %w", prog, err)
		}
		p.links = append(p.links, l)
	}
	if p.objs.Programs[bpfProgAccepted] != nil {
		p.callsErr = p.attachCalls()
	}
	reader, err := ringbuf.NewReader(p.maps.Events)
	if err != nil {
		return fmt.Errorf("map the ring buffer: %w", err)
	}
	p.reader, p.pace = reader, newPace(reader, reader.BufferSize(), p.askToBeWoken)
	if p.before, err = p.Sockets(); err != nil {
		return err
	}
	for i := range p.before {
		if e := &p.before[i]; e.New == event.Listen && e.OwnerPID != 0 {
			_ = p.maps.Listening.Put(e.OwnerPID, uint8(1)) // if the map is full, the exit of that process is not seen
		}
	}
	return p.vars.FirstLook.Set(false)
}

// TimersUnavailable returns why the timers of mini-sockets are not traced although Open was asked
// for them, or nil.
func (p *Probe) TimersUnavailable() error { return p.timersErr }

// CallsUnavailable returns why the system calls accept() and connect() are not traced although Open
// was asked for them, or nil.
func (p *Probe) CallsUnavailable() error { return p.callsErr }

// Stop detaches the programs. Records still yields what is in the ring, and then ends. Stop may be
// called from any goroutine, and more than once.
func (p *Probe) Stop() {
	p.stop.Do(func() {
		for _, l := range slices.Backward(p.links) {
			_ = l.Close() // it is detached, whatever Close returns
		}
		// Programs run inside RCU or with preemption disabled, so this waits for those that are
		// running. If it is not supported (nohz_full), the counters serve as well: see settle.
		_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
		_ = p.reader.Flush()
	})
}

// Close frees everything. Records must have ended.
func (p *Probe) Close() {
	for _, l := range slices.Backward(p.links) {
		_ = l.Close()
	}
	if p.reader != nil {
		_ = p.reader.Close()
	}
	if p.objs != nil {
		p.objs.Close()
		_ = p.maps.Close()
	}
	p.names.Close()
}

// settle detaches the programs and waits until none is running. Each program counts a change first,
// and its outcome last.
func (p *Probe) settle() {
	p.Stop()
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if c := p.cpus(); c.Seen == c.Filtered+c.Emitted+c.RingFull {
			return
		}
	}
}

// cpus returns the sums of the counters over all CPUs.
func (p *Probe) cpus() bpfCpu {
	var all []bpfCpu
	var sum bpfCpu
	if err := p.maps.Cpus.Lookup(uint32(0), &all); err != nil {
		return sum
	}
	for i := range all {
		sum.Seen += all[i].Seen
		sum.Filtered += all[i].Filtered
		sum.Emitted += all[i].Emitted
		sum.RingFull += all[i].RingFull
		sum.Covered += all[i].Covered
	}
	return sum
}

// Balance returns the account of all changes after Records has ended. The caller must add the
// outcome of the records that Records yielded. duplicates is how many of them repeated another
// record. Those are not counted anywhere.
func (p *Probe) Balance(duplicates uint64) (*event.Balance, error) {
	c := p.cpus()
	c.Seen -= duplicates
	c.Emitted -= duplicates
	c.Covered -= min(duplicates, c.Covered)
	p.read -= duplicates
	b := &event.Balance{Seen: c.Seen, Filtered: c.Filtered, RingFull: c.RingFull, Unread: c.Emitted - p.read}
	for _, prog := range p.tracing {
		stats, err := prog.Stats()
		if err != nil {
			return nil, fmt.Errorf("read how often the kernel skipped a program: %w", err)
		}
		switch prog {
		case p.objs.Programs[bpfProgChange]:
			b.Missed += stats.RecursionMisses - min(stats.RecursionMisses, c.Covered)
		case p.objs.Programs[bpfProgTimerStarted], p.objs.Programs[bpfProgTimerCancelled],
			p.objs.Programs[bpfProgTimerExpired]:
			b.Missed += stats.RecursionMisses
		}
	}
	return b, nil
}

// Stack returns the return addresses in an Event's Stack, innermost first, or nil if it has none.
func (p *Probe) Stack(id uint32) []uint64 {
	var addrs [127]uint64
	if id == 0 || p.maps.Stacks.Lookup(id-1, &addrs) != nil {
		return nil
	}
	n := slices.Index(addrs[:], 0)
	if n < 0 {
		n = len(addrs)
	}
	return slices.Clone(addrs[:n])
}

// Check returns what tracing needs from this machine. If nothing essential is missing, Check also
// attaches the programs briefly.
func Check() []needs.Need {
	all := needs.All()
	if needs.FirstUnmet(all) != nil {
		return append(all, needs.Need{Name: "attach", Found: "not tried", Hint: "meet the needs above first"})
	}
	p, err := Open(&filter.Filter{Protos: []event.Proto{event.TCP}}, os.Getpagesize(), true, false)
	if err != nil {
		return append(all, needs.Need{
			Name: "attach", Found: err.Error(),
			Hint: "see dmesg: a security module or the seccomp filter of a container may forbid bpf(2)",
		})
	}
	defer p.Close()
	accept := needs.Need{
		Name: "who accepts", Soft: true, OK: true, Found: "syscalls:sys_exit_accept",
		Hint: "the owner of a connection is the process that listens",
	}
	if err := p.CallsUnavailable(); err != nil {
		accept.OK, accept.Found = false, err.Error()
	}
	return append(all, needs.Need{Name: "attach", OK: true, Found: "programs load and attach"}, accept)
}
