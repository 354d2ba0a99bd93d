//go:build linux

// Package probe is the kernel: it loads and attaches the BPF programs, gives their records as Events, and accounts for every
// change. It alone imports cilium/ebpf.
package probe

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/record"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

const (
	// settleTime bounds the wait for programs that still run when they are detached. Each takes a microsecond.
	settleTime = time.Second

	membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL in include/uapi/linux/membarrier.h
)

// Probe is an attached tracer.
type Probe struct {
	objs    *ebpf.Collection
	maps    bpfMaps
	vars    bpfVariables
	tracing []*ebpf.Program // those on tracepoints, in the order in which to attach them
	links   []link.Link     // in that order
	blind   error           // why timers are not traced although they should be
	deaf    error           // why accept() is not
	reader  ring
	pace    *pace
	names   *namer
	lister  lister
	clock   clock
	before  []event.Event // the sockets that are older than the trace

	stop  sync.Once
	read  uint64 // records taken from the ring
	told  uint64 // losses told
	fence atomic.Uint32
}

// Open attaches, with the kernel's part of f, and looks at the sockets that exist. buffer is the size of the ring in bytes, a power
// of two and a multiple of the page size. rfc asks for what the rfc vocabulary needs: the timers of mini-socks, and accept().
// What of it this machine lacks, Blind and Deaf tell. stacks asks for those of who connects and who accepts. When it returns every change is being recorded.
// Errors say what to do.
func Open(f *filter.Filter, buffer int, rfc, stacks bool) (*Probe, error) {
	_ = rlimit.RemoveMemlock() // the limit counts only before Linux 5.11; if it stays too low there, loading fails and tells
	p := &Probe{names: newNamer()}
	err := p.load(f, buffer, rfc, stacks)
	if err == nil {
		err = p.attach()
	}
	if err != nil {
		p.Close()
		if errors.Is(err, ErrNoCgroup) {
			return nil, err
		}
		return nil, explain(err)
	}
	return p, nil
}

func (p *Probe) load(f *filter.Filter, buffer int, rfc, stacks bool) error {
	spec, o, err := readObject(loadBpf)
	if err != nil {
		return err
	}
	major, minor, err := kernelVersion()
	if err != nil {
		return err
	}
	timers := rfc
	if timers {
		var addrs *symbols
		if addrs, p.blind = findSymbols(); p.blind != nil {
			timers = false
		} else if err := addrs.trace(spec); err != nil {
			return err
		}
		if err := spec.Variables[bpfVarWantMini].Set(timers); err != nil {
			return err
		}
	}
	tracing := []string{bpfProgChange, bpfProgChangeMissed}
	if major >= 7 { // a task may be preempted inside a tracepoint's program, for tracepoints are under SRCU (seen from 7.1 on)
		tracing = append(tracing, bpfProgChangeMissed2, bpfProgChangeMissed3)
		if err := spec.Variables[bpfVarPreemptible].Set(true); err != nil {
			return err
		}
	}
	if timers { // that it was cancelled is told last, for it means little without what follows
		tracing = append(tracing, bpfProgTimerStarted, bpfProgTimerExpired, bpfProgSkbDropped, bpfProgTimerCancelled)
	}
	var calls []string
	if rfc {
		tracing = append(tracing, bpfProgProcessExited, bpfProgResetSent)
		calls = []string{bpfProgAccepted, bpfProgAccepted4, bpfProgConnectBegins, bpfProgConnectReturns}
		if err := spec.Variables[bpfVarTraceConnects].Set(true); err != nil {
			return err
		}
		args, err := ioUringArgs()
		switch {
		case err != nil:
			return err
		case args > 0: // else this kernel has no io_uring, or one whose completions do not tell the request (up to 5.18)
			tracing = append(tracing, bpfProgIoUringCompleted)
			if err := spec.Variables[bpfVarIoUringCompleteArgs].Set(args); err != nil {
				return err
			}
		}
	}
	if err := spec.Variables[bpfVarHaveTaskPtRegs].Set(major > 5 || major == 5 && minor >= 15); err != nil {
		return err
	}
	for name := range spec.Programs {
		if !slices.Contains(tracing, name) && !slices.Contains(calls, name) && name != bpfProgHolders && name != bpfProgSockets && name != bpfProgUnlisted && name != bpfProgSlots {
			delete(spec.Programs, name)
		}
	}
	if inode, own := pidNamespace(); own {
		if err := spec.Variables[bpfVarPidNamespace].Set(inode); err != nil {
			return err
		}
	}
	spec.Maps[bpfMapEvents].MaxEntries = uint32(buffer)
	if !stacks {
		spec.Maps[bpfMapStacks].MaxEntries = 1
	} else if err := spec.Variables[bpfVarWantStacks].Set(true); err != nil {
		return err
	}
	if err := configure(spec, f); err != nil {
		return fmt.Errorf("set filters: %w", err)
	}
	x := extras{mptcp: slices.Contains(f.Protos, event.MPTCP)}
	if err := configureLook(spec, x); err != nil {
		return fmt.Errorf("set what to look for: %w", err)
	}
	err = loadHere(spec, func() (err error) {
		p.objs, err = ebpf.NewCollectionWithOptions(spec, o)
		return err
	})
	if err != nil {
		return err
	}
	look := iterators{Sockets: p.objs.Programs[bpfProgSockets], Holders: p.objs.Programs[bpfProgHolders], Unlisted: p.objs.Programs[bpfProgUnlisted], Slots: p.objs.Programs[bpfProgSlots]}
	p.lister = lister{iterators: look, names: p.names, clock: &p.clock, netns: f.NetNS}
	for _, name := range tracing {
		p.tracing = append(p.tracing, p.objs.Programs[name])
	}
	if err := errors.Join(p.objs.Assign(&p.maps), p.objs.Assign(&p.vars)); err != nil {
		return err
	}
	p.names.devices = p.maps.Devices
	p.lister.rings = rings{p.vars.RingFound, p.vars.RingHolder, p.vars.RingSocks, p.vars.RingNext}
	return p.fill(f)
}

// readObject reads one, and beside it, for that takes longer, the types of the kernel. Those of its modules, which a host has a hundred of, are left out: all
// that is looked at is in the kernel itself.
func readObject(read func() (*ebpf.CollectionSpec, error)) (*ebpf.CollectionSpec, ebpf.CollectionOptions, error) {
	o := ebpf.CollectionOptions{Cache: btf.NewCache()}
	var types sync.WaitGroup
	types.Go(func() { o.Programs.KernelTypes, _ = o.Cache.Kernel() }) // where it has none, loading says so
	spec, err := read()
	types.Wait()
	return spec, o, err
}

// loadHere calls load, and once more with what old kernels have: up to 5.11 tracing programs have no bpf_get_socket_cookie. If that was not it, the
// second refusal tells what is.
func loadHere(spec *ebpf.CollectionSpec, load func() error) error {
	err := load()
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		if err := spec.Variables[bpfVarHaveCookie].Set(false); err != nil {
			return err
		}
		err = load()
	}
	if err != nil {
		return fmt.Errorf("load BPF programs: %w", err)
	}
	return nil
}

// configure sets the constants by which the verifier removes the code of filters that are off, and the ports.
func configure(spec *ebpf.CollectionSpec, f *filter.Filter) error {
	const either, local, remote = 1, 2, 4 // PORT_EITHER, PORT_LOCAL, PORT_REMOTE
	var ports [65536]byte
	var asked byte
	for bit, set := range map[byte]*filter.PortSet{either: f.Ports, local: f.LocalPorts, remote: f.RemotePorts} {
		if set == nil {
			continue
		}
		asked |= bit
		for port := range ports {
			if set.Has(uint16(port)) {
				ports[port] |= bit
			}
		}
	}
	wanted := make(map[event.Proto]bool)
	for _, p := range f.Protos {
		wanted[p] = true
	}
	if len(f.Protos) == 0 {
		wanted[event.TCP] = true
	}
	values := map[string]any{
		bpfVarWantTcp:      wanted[event.TCP],
		bpfVarWantMptcp:    wanted[event.MPTCP],
		bpfVarWantSctp:     wanted[event.SCTP],
		bpfVarWantIpv4:     f.Family != event.IPv6,
		bpfVarWantIpv6:     f.Family != event.IPv4,
		bpfVarFilterPorts:  asked,
		bpfVarPorts:        ports,
		bpfVarFilterHosts:  len(f.Hosts) > 0,
		bpfVarFilterNetns:  len(f.NetNS) > 0,
		bpfVarFilterUid:    len(f.UIDs) > 0,
		bpfVarFilterCgroup: len(f.Cgroups) > 0,
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return err
		}
	}
	return nil
}

// fill puts the values of the filters that are sets into their maps.
func (p *Probe) fill(f *filter.Filter) error {
	yes := uint8(1)
	for _, host := range f.Hosts {
		key := bpfHostKey{PrefixLen: uint32(host.Bits()), Addr: host.Addr().As16()}
		if host.Addr().Is4() {
			key.PrefixLen += 96 // stored as ::ffff:a.b.c.d
		}
		if err := p.maps.Hosts.Put(key, yes); err != nil {
			return fmt.Errorf("filter by host: %w", err)
		}
	}
	for _, inode := range f.NetNS {
		if err := p.maps.Netnses.Put(inode, yes); err != nil {
			return fmt.Errorf("filter by network namespace: %w", err)
		}
	}
	for _, uid := range f.UIDs {
		if err := p.maps.Uids.Put(uid, yes); err != nil {
			return fmt.Errorf("filter by user: %w", err)
		}
	}
	for _, path := range f.Cgroups {
		id, err := p.names.cgroupFS.id(path)
		if err != nil {
			return err
		}
		if err := p.maps.Cgroups.Put(id, yes); err != nil {
			return fmt.Errorf("filter by cgroup: %w", err)
		}
	}
	return nil
}

// attach attaches change first, because programs run in the order in which they were attached, and then looks around: what
// changes while it looks is in the ring already.
func (p *Probe) attach() error {
	for _, prog := range p.tracing {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %v: %w", prog, err)
		}
		p.links = append(p.links, l)
	}
	if p.objs.Programs[bpfProgAccepted] != nil {
		p.deaf = p.attachCalls()
	}
	reader, err := ringbuf.NewReader(p.maps.Events)
	if err != nil {
		return fmt.Errorf("map the ring buffer: %w", err)
	}
	p.reader, p.pace = reader, newPace(reader, reader.BufferSize(), p.askToBeWoken)
	if p.before, err = gathered(p.lister.all()); err != nil {
		return err
	}
	for i := range p.before {
		if e := &p.before[i]; e.New == event.Listen && e.OwnerPID != 0 {
			_ = p.maps.Listening.Put(e.OwnerPID, uint8(1)) // if it is full, that one's exit is not seen
		}
	}
	if err := p.vars.FirstLook.Set(false); err != nil {
		return err
	}
	return nil
}

// Deaf tells why it is not seen who accepts, although Open was asked to; nil if it is.
func (p *Probe) Deaf() error { return p.deaf }

// Blind tells why mini-socks are not seen although Open was asked to; nil if they are.
func (p *Probe) Blind() error { return p.blind }

// Stop detaches. What is in the ring is still given by Events, which then ends. It may be called from any goroutine, and again.
func (p *Probe) Stop() {
	p.stop.Do(func() {
		// Detached, they are gone, whatever Close says.
		for _, l := range slices.Backward(p.links) {
			_ = l.Close()
		}
		// Programs run with preemption off or inside RCU: this waits for those that run now. Where it is not to be had (nohz_full),
		// the counters tell as well: see settled.
		_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
		_ = p.reader.Flush()
	})
}

// Close frees everything. Events must have ended.
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
	p.names.cgroupFS.close()
}

// Records yields the sockets that are older than the trace, then each record of the ring, and a Lost
// wherever changes are missing, until Stop; then the rest of the ring. A record is valid until the
// next one. Whenever the ring is empty, Records calls idle before it sleeps, with a time at which the
// ring was still empty, and calls it again soon if idle asks for that. Records can be used once.
func (p *Probe) Records(idle func(mono int64) (soon bool, err error)) iter.Seq2[*record.Record, error] {
	return func(yield func(*record.Record, error) bool) {
		defer p.settle()
		for i := range p.before {
			e := &p.before[i]
			if !yield(&record.Record{Event: *e, Kind: record.Existing, Mini: e.Status.Mini}, nil) {
				return
			}
		}
		p.before = nil
		p.drain(idle, yield)
	}
}

func (p *Probe) drain(idle func(int64) (bool, error), yield func(*record.Record, error) bool) {
	var rec ringbuf.Record
	r := new(record.Record)
	found, flushed := 0, false // found is how full the ring was as the batch began
	p.reader.SetDeadline(longAgo)
	for {
		err := p.reader.ReadInto(&rec)
		switch {
		case err == nil:
			if found == 0 {
				found = rec.Remaining + len(rec.RawSample)
				p.reader.SetDeadline(longAgo) // at the end of the batch say so at once
			}
			raw, err := decode(rec.RawSample)
			if err != nil {
				yield(nil, err)
				return
			}
			*r = p.names.record(raw)
			if r.New == event.Close {
				r.Totals = p.names.totals(rec.RawSample)
			}
			r.Wall = p.clock.wall(r.Mono)
			if !p.tellLosses(r.Losses, r.Mono, yield) {
				return
			}
			p.read++
			if !yield(r, nil) {
				return
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			// All that was before these two must be told before anybody is told of them: the ring may have filled again by now, and more be lost after
			// what is in it.
			losses, mono := p.losses(), monotonic()
			p.fence.Add(1)
			if p.reader.AvailableBytes() > 0 {
				p.reader.SetDeadline(longAgo)
				continue
			}
			if !p.tellLosses(losses, mono, yield) {
				return
			}
			soon, err := idle(mono)
			if err != nil {
				yield(nil, err)
				return
			}
			p.pace.rest(found, soon)
			found = 0
		case errors.Is(err, ringbuf.ErrFlushed):
			if p.settle(); !flushed && p.read != p.cpus().Emitted {
				flushed = true // by now all is in the ring
				_ = p.reader.Flush()
				continue
			}
			p.tellLosses(p.losses(), monotonic(), yield)
			return
		default:
			yield(nil, fmt.Errorf("read the ring buffer: %w", err))
			return
		}
	}
}

// askToBeWoken makes the next change wake the reader.
func (p *Probe) askToBeWoken() {
	_ = p.vars.ReaderWaiting.Set(uint32(1)) // memory that we mapped
	p.fence.Add(1)                          // a look at the ring must not overtake it: a full barrier
}

// tellLosses gives a Lost if more changes than told are lost by now.
func (p *Probe) tellLosses(losses uint64, mono int64, yield func(*record.Record, error) bool) bool {
	if losses <= p.told {
		return true
	}
	e := event.Event{Type: event.Lost, Mono: mono, Wall: p.clock.wall(mono), RingFull: losses - p.told}
	p.told = losses
	return yield(&record.Record{Event: e, Kind: record.Lost}, nil)
}

func (p *Probe) losses() uint64 {
	var n uint64
	_ = p.vars.Losses.Get(&n) // memory that we mapped
	return n
}

// settle detaches and waits until no program runs any more: each counts seen first and how it ended last.
func (p *Probe) settle() {
	p.Stop()
	for end := time.Now().Add(settleTime); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if c := p.cpus(); c.Seen == c.Filtered+c.Emitted+c.RingFull {
			return
		}
	}
}

// cpus sums the counters of all CPUs.
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

// Balance accounts for all changes, after Events has ended; what was done with those that Events gave, the caller adds. duplicates
// is how many records told what another had told: they count nowhere.
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
			return nil, fmt.Errorf("read what the kernel skipped: %w", err)
		}
		switch prog {
		case p.objs.Programs[bpfProgChange]:
			b.Missed += stats.RecursionMisses - min(stats.RecursionMisses, c.Covered)
		case p.objs.Programs[bpfProgTimerStarted], p.objs.Programs[bpfProgTimerCancelled], p.objs.Programs[bpfProgTimerExpired]:
			b.Missed += stats.RecursionMisses
		}
	}
	return b, nil
}

// Sockets finds the sockets that exist now. It must not run at the same time as Events gives something.
func (p *Probe) Sockets() ([]event.Event, error) { return gathered(p.lister.all()) }

// Listeners finds the listeners alone, without their holders. As Sockets it must not run beside Events.
func (p *Probe) Listeners() ([]event.Event, error) { return p.lister.listeners() }

func gathered(source iter.Seq2[*event.Event, error]) (all []event.Event, err error) {
	for e, err := range source {
		if err != nil {
			return nil, err
		}
		s := *e
		s.Status = new(*e.Status)
		all = append(all, s)
	}
	return all, nil
}

// Stack gives the return addresses of an Event's Stack, the innermost first; nil if there is none.
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

// Now gives the time of a line that no change tells.
func (p *Probe) Now() (wall, mono int64) {
	mono = monotonic()
	return p.clock.wall(mono), mono
}
