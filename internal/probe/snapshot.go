//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/filter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// lister finds sockets that exist, by BPF iterators.
type lister struct {
	sockets, holders *ebpf.Program
	names            *namer
	clock            *clock
	netns            []uint32             // the namespaces that are wanted; all, if there are none
	ends             map[uint32][]openEnd // found by the last look at all, by namespace
	closed           int                  // namespaces that we may not enter, as the last look found
	seen             uint64               // sockets that the last look at all gave

	waiting []event.Event // what listeners found last
	looked  time.Time
	took    time.Duration
}

// Listing is the sockets that exist.
type Listing struct {
	lister
	clock clock
}

// List makes ready to find sockets in the network namespaces that f wants. Nothing is attached.
func List(f *filter.Filter) (*Listing, error) {
	_ = rlimit.RemoveMemlock() // see Open
	l := new(Listing)
	err := l.load(f)
	if err != nil {
		l.Close()
	}
	switch {
	case errors.Is(err, ErrNoCgroup):
		return nil, err
	case err != nil:
		return nil, explain(err)
	}
	return l, nil
}

func (l *Listing) load(f *filter.Filter) error {
	spec, o, err := readObject()
	if err != nil {
		return err
	}
	if err := spec.Variables[bpfVarWantMini].Set(true); err != nil {
		return err
	}
	var objs struct {
		Sockets *ebpf.Program `ebpf:"sockets"`
		Holders *ebpf.Program `ebpf:"holders"`
	}
	if err := loadHere(spec, func() error { return spec.LoadAndAssign(&objs, &o) }); err != nil {
		return err
	}
	l.lister = lister{sockets: objs.Sockets, holders: objs.Holders, names: newNamer(), clock: &l.clock, netns: f.NetNS}
	for _, path := range f.Cgroups {
		if _, err := l.names.cgroupFS.id(path); err != nil {
			return err
		}
	}
	return nil
}

// Close gives back what List took.
func (l *Listing) Close() {
	_ = errors.Join(l.sockets.Close(), l.holders.Close()) // they were only read
	if l.names != nil {
		l.names.cgroupFS.close()
	}
}

// All gives every socket that exists now, half-open ones and those in TIME_WAIT included. Before the first, or where there is none, it calls ready: by then
// most that can fail has not.
func (l *Listing) All(ready func() error) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		for e, err := range l.all() {
			if err != nil {
				err = explain(err)
			} else if l.seen == 1 {
				err = ready()
			}
			if !yield(e, err) {
				return
			}
		}
		if l.seen == 0 {
			if err := ready(); err != nil {
				yield(event.Event{}, err)
			}
		}
	}
}

// Seen is how many All has given.
func (l *Listing) Seen() uint64 { return l.seen }

// Now gives the time by both clocks, ns: CLOCK_REALTIME and CLOCK_MONOTONIC.
func (l *Listing) Now() (wall, mono int64) {
	mono = monotonic()
	return l.clock.wall(mono), mono
}

// Closed is how many network namespaces All may not enter: their sockets are missing.
func (l *Listing) Closed() int { return l.closed }

// all gives the sockets in every network namespace that a process is in, that has a name, or that a process has a socket of. Two threads read them
// while this one finds who holds them. They never wait for who takes what they found, for it is to be of one moment: there is room for 15 million.
func (l *lister) all() iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		found := make(chan []bpfSockFound, 1<<16)
		held := make(chan struct{})
		var enough atomic.Bool
		var unread error
		go func() {
			defer close(found)
			ends := func() map[uint32][]openEnd {
				<-held
				return l.ends
			}
			unread = l.eachNetNS(2, ends, func() error {
				if enough.Load() {
					return nil
				}
				return iterate(l.sockets, func(some []bpfSockFound) bool {
					found <- slices.Clone(some)
					return !enough.Load()
				})
			})
		}()
		holders, err := l.whoHolds()
		enough.Store(err != nil)
		close(held)
		l.seen = 0
		backlog0 := make(map[port]bool)
		for some := range found {
			for i := 0; i < len(some) && !enough.Load(); i++ {
				e := l.socket(&some[i])
				e.Role = role(&some[i], backlog0)
				if e.Status.Holders = holders[e.Sk]; e.Status.Holders == nil {
					e.Status.Holders = []event.Holder{}
				}
				if pid, comm := onlyHolder(e.Status.Holders); pid != 0 {
					e.OwnerPID, e.OwnerComm, e.OwnerVia = pid, comm, event.ViaSnapshot
				}
				l.seen++
				if !yield(e, nil) {
					enough.Store(true)
				}
			}
		}
		switch {
		case err != nil:
			yield(event.Event{}, err)
		case unread != nil && !enough.Load():
			yield(event.Event{}, fmt.Errorf("look at existing sockets: %w", unread))
		}
	}
}

// port is one of a network namespace.
type port struct {
	netns  uint32
	number uint16
}

// role tells which side f is, of the sockets of its namespace in order: listeners come first. backlog0 are those of backlog 0, whose children look like clients.
func role(f *bpfSockFound, backlog0 map[port]bool) event.Role {
	at := port{f.Netns, f.Lport}
	switch {
	case f.IsMini != 0:
		if f.Listener != 0 {
			return event.Server
		}
	case event.State(f.State) == event.Listen:
		if f.AcceptBacklog == 0 {
			backlog0[at] = true
		}
		return event.Listener
	case f.AcceptBacklog != 0:
		return event.Server // only listen() sets it, and only a child inherits it (sk_clone_lock in net/core/sock.c)
	case !backlog0[at]:
		return event.Client
	}
	return 0
}

// onlyHolder gives the process that alone holds a socket: of several none is the owner for sure.
func onlyHolder(holders []event.Holder) (pid uint32, comm string) {
	for _, h := range holders {
		if pid != 0 && pid != h.PID {
			return 0, ""
		}
		pid, comm = h.PID, h.Comm
	}
	return pid, comm
}

// listeners finds those alone, and how many connections wait in their queues. A look walks through the tables of each namespace, so what the last one found
// stands for a hundred times as long as it took.
func (l *lister) listeners() ([]event.Event, error) {
	begin := time.Now()
	if begin.Sub(l.looked) < 100*l.took {
		return l.waiting, nil
	}
	ends := func() map[uint32][]openEnd {
		if len(l.netns) == 0 {
			return nil // each is borrowed from its process for a moment: too much to do all the time
		}
		return l.ends
	}
	l.waiting = nil
	err := l.eachNetNS(1, ends, func() error {
		return iterate(l.sockets, func(found []bpfSockFound) bool {
			for i := range found {
				if event.State(found[i].State) != event.Listen {
					return false // they come first
				}
				e := l.socket(&found[i])
				e.Role = event.Listener
				l.waiting = append(l.waiting, e)
			}
			return true
		})
	})
	l.looked, l.took = time.Now(), time.Since(begin)
	if err != nil {
		return nil, fmt.Errorf("look at listeners: %w", err)
	}
	return l.waiting, nil
}

// socket makes an Event of what the iterator found.
func (l *lister) socket(f *bpfSockFound) event.Event {
	state := event.State(f.State)
	e := event.Event{
		Type: event.Socket, Wall: l.clock.wall(int64(f.MonoNs)), Mono: int64(f.MonoNs), Cookie: f.Cookie, Sk: f.Sk, NetNS: f.Netns, Proto: proto(f.Proto), New: state, Listener: f.Listener,
		Dur: event.Unknown, SynRetrans: event.Unknown, UID: f.Uid, Cgroup: l.names.cgroup(f.CgroupId), CgroupID: f.CgroupId,
		Status: &event.Status{RecvQueue: int64(f.RecvQueue), SendQueue: int64(f.SendQueue), AtLeast: event.Unknown, Left: event.Unknown},
	}
	e.Family, e.Local, e.Remote = ends(f.Family, &f.Laddr, &f.Raddr, f.Lport, f.Rport, state == event.Listen)
	if e.Mini = f.IsMini != 0; e.Mini {
		e.Status.RecvQueue, e.Status.SendQueue = event.Unknown, event.Unknown
	}
	switch {
	case state == event.Listen:
		e.Status.SendQueue = int64(f.AcceptBacklog)
	case f.Listener != 0:
		e.SynRetrans = int32(f.Retrans)
		if f.SynackUs != 0 {
			e.Dur = e.Mono - int64(f.SynackUs)*1000
		}
	case f.IsMini != 0:
		e.UID = event.NoUID
		if jiffy := jiffy(f.Jiffies, e.Mono); jiffy != 0 {
			e.Status.Left = int64(f.Left) * jiffy
		}
	case state != event.FinWait1 && state != event.LastAck && state != event.Close && f.ActiveUs != 0:
		// A segment made it come to this state, or a connect(), and took the time (tcp_mstamp_refresh in tcp_rcv_established, tcp_rcv_state_process and
		// tcp_connect); any later one took it again. A close() need not: its FIN may go with what was sent already.
		e.Status.AtLeast = max(e.Mono-int64(f.ActiveUs)*1000, 0)
	}
	return e
}

// jiffy tells how long one is, in ns; 0 if that cannot be told. The kernel is built with one of several frequencies, and its count begins 5 minutes before 2^32
// (INITIAL_JIFFIES in include/linux/jiffies.h); mono is what CLOCK_MONOTONIC was when it stood at count. Both stand still while the machine sleeps.
func jiffy(count uint64, mono int64) int64 {
	const begin = 300e9 // when the count passes 2^32, and tells nothing
	since := mono - begin
	if max(since, -since) < 30e9 {
		return 0
	}
	hz := (float64(count) - 1<<32) / float64(since) * 1e9
	whole := math.Round(hz)
	if whole < 1 || math.Abs(hz-whole) > whole/100 {
		return 0
	}
	return int64(1e9 / whole)
}

// whoHolds finds the processes that have each socket among their file descriptors, by the address of its sock; and one socket of each network namespace.
func (l *lister) whoHolds() (map[uint64][]event.Holder, error) {
	holders := make(map[uint64][]event.Holder)
	l.ends = make(map[uint32][]openEnd)
	err := iterate(l.holders, func(found []bpfHolderFound) bool {
		for i := range found {
			f := &found[i]
			h := event.Holder{PID: f.Pid, FD: f.Fd, Comm: l.names.comm(&f.Comm)}
			if of := holders[f.Sk]; !slices.Contains(of, h) { // a thread may have files of its own
				holders[f.Sk] = append(of, h)
			}
			if of := l.ends[f.Netns]; len(of) == 0 || len(of) < 3 && of[len(of)-1].pid != f.Pid { // if one is closed meanwhile, there is another
				l.ends[f.Netns] = append(of, openEnd{f.Pid, f.Fd})
			}
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("look at open files: %w", err)
	}
	return holders, nil
}

// iterate runs an iterator program in the calling thread's network namespace and gives the structs T that it writes, some at a time, until each has enough.
func iterate[T any](prog *ebpf.Program, each func([]T) bool) error {
	var t T
	size := int(unsafe.Sizeof(t))
	iter, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attach iterator: %w", err)
	}
	defer iter.Close()
	in, err := iter.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer in.Close()
	some := make([]T, 256) // the kernel gathers 32 KiB (bpf_seq_read in kernel/bpf/bpf_iter.c)
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&some[0])), size*len(some))
	for have := 0; ; {
		n, err := in.Read(buf[have:])
		have += n
		whole := have / size
		if whole > 0 && !each(some[:whole]) {
			return nil
		}
		have = copy(buf, buf[whole*size:have])
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN): // too many objects without output at once (bpf_seq_read): go on
		case err != nil:
			return fmt.Errorf("read iterator: %w", err)
		}
	}
}
