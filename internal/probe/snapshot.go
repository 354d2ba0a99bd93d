//go:build linux

package probe

import (
	"cmp"
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
	iterators
	names  *namer
	clock  *clock
	netns  []uint32  // the namespaces that are wanted; all, if there are none
	ends   []openEnd // that the last look at all found
	closed int       // namespaces that we may not enter, as the last look found
	seen   uint64    // sockets that the last look at all gave

	waiting []event.Event // what listeners found last
	looked  time.Time
	took    time.Duration
}

// Listing is the sockets that exist.
type Listing struct {
	lister
	clock clock
}

// List makes ready to find sockets in the network namespaces that f wants, with bound those that only
// hold a port, too. Nothing is attached.
func List(f *filter.Filter, bound bool) (*Listing, error) {
	_ = rlimit.RemoveMemlock() // see Open
	l := new(Listing)
	err := l.load(f, extras{mptcp: slices.Contains(f.Protos, event.MPTCP), bound: bound})
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

func (l *Listing) load(f *filter.Filter, x extras) error {
	names := make(chan *namer, 1)
	go func() { names <- newNamer() }()
	objs, err := loadQuickly(x)
	if err != nil {
		objs, err = loadIterators(x)
	}
	l.lister = lister{iterators: objs, names: <-names, clock: &l.clock, netns: f.NetNS}
	if err != nil {
		return err
	}
	for _, path := range f.Cgroups {
		if _, err := l.names.cgroupFS.id(path); err != nil {
			return err
		}
	}
	return nil
}

// Close gives back what List took.
func (l *Listing) Close() {
	l.close()
	if l.names != nil {
		l.names.cgroupFS.close()
	}
}

// All gives every socket that exists now, half-open ones and those in TIME_WAIT included, each good until the next one. Before the first, or where there is
// none, it calls ready: by then most that can fail has not.
func (l *Listing) All(ready func() error) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
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
				yield(nil, err)
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

// all gives the sockets in every network namespace that a process is in, that has a name, or that a process has a socket of. While this thread finds who holds
// them, two others read them, and one makes Events.
func (l *lister) all() iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		var enough atomic.Bool
		ends := make(chan openEnd, 1<<16)
		found, unread := l.read(ends, &enough)
		made, spare := l.events(found)
		holders, err := l.whoHolds(ends)
		var others []bpfSockFound
		if err == nil {
			others, err = l.unlisted()
		}
		enough.Store(err != nil)
		l.seen = 0
		twice := make(map[uint64]bool) // what more than one way may lead to
		give := func(e *event.Event) {
			if e.Proto == event.MPTCP || e.New == event.Close {
				if twice[e.Sk] {
					return
				}
				twice[e.Sk] = true
			}
			hold(e, holders[cmp.Or(e.Status.HeldAs, e.Sk)])
			l.seen++
			if !yield(e, nil) {
				enough.Store(true)
			}
		}
		for events := range made {
			for i := 0; i < len(events) && !enough.Load(); i++ {
				give(&events[i])
			}
			spare <- events[:atOnce]
		}
		for i := 0; i < len(others) && !enough.Load(); i++ {
			e := blankSockets(1)
			l.socket(&others[i], &e[0])
			e[0].Role = role(&others[i], nil)
			give(&e[0])
		}
		switch {
		case err != nil:
			yield(nil, err)
		case *unread != nil && !enough.Load():
			yield(nil, fmt.Errorf("look at existing sockets: %w", *unread))
		}
	}
}

// read reads the sockets of all namespaces, in two threads, until there are enough; err is told once found is closed. They never wait for who takes what they
// found, for it is to be of one moment: there is room for 15 million.
func (l *lister) read(ends <-chan openEnd, enough *atomic.Bool) (found chan []bpfSockFound, err *error) {
	found, err = make(chan []bpfSockFound, 1<<16), new(error)
	go func() {
		defer close(found)
		*err = l.eachNetNS(2, ends, func() error {
			if enough.Load() {
				return nil
			}
			return iterate(l.Sockets, nil, func(some []bpfSockFound) (room []bpfSockFound, more bool) {
				if len(some) < atOnce/4 {
					found <- slices.Clone(some)
					return some, !enough.Load()
				}
				found <- some
				return make([]bpfSockFound, atOnce), !enough.Load()
			})
		})
		for range ends { // where that came to nothing, too, nobody may wait
		}
	}()
	return found, err
}

// events makes them of what was found, in a thread of its own. Who has taken some gives their room back as spare.
func (l *lister) events(found <-chan []bpfSockFound) (made <-chan []event.Event, spare chan<- []event.Event) {
	full, empty := make(chan []event.Event, 4), make(chan []event.Event, 4)
	for range cap(empty) {
		empty <- blankSockets(atOnce)
	}
	go func() {
		defer close(full)
		backlog0 := make(map[port]bool)
		for some := range found {
			events := (<-empty)[:len(some)]
			for i := range some {
				l.socket(&some[i], &events[i])
				events[i].Role = role(&some[i], backlog0)
			}
			full <- events
		}
	}()
	return full, empty
}

// blankSockets are Events that socket can fill.
func blankSockets(n int) []event.Event {
	events, statuses := make([]event.Event, n), make([]event.Status, n)
	for i := range events {
		events[i].Status = &statuses[i]
	}
	return events
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
	case f.NoRole != 0 || event.State(f.State) == event.Close:
		return 0
	case f.IsMini != 0:
		if f.Listener != 0 {
			return event.Server
		}
	case event.State(f.State) == event.Listen:
		if f.AcceptBacklog == 0 && backlog0 != nil {
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

// hold tells e who holds it.
func hold(e *event.Event, holders []event.Holder) {
	if holders == nil {
		holders = []event.Holder{} // it is known that there are none
	}
	e.Status.Holders = holders
	if pid, comm := onlyHolder(holders); pid != 0 {
		e.OwnerPID, e.OwnerComm, e.OwnerVia = pid, comm, event.ViaSnapshot
	}
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
	ends := make(chan openEnd, len(l.ends))
	if len(l.netns) > 0 { // else not, for each is borrowed from its process for a moment: too much to do all the time
		for _, end := range l.ends {
			ends <- end
		}
	}
	close(ends)
	l.waiting = nil
	err := l.eachNetNS(1, ends, func() error {
		return iterate(l.Sockets, nil, func(found []bpfSockFound) ([]bpfSockFound, bool) {
			for i := range found {
				if event.State(found[i].State) != event.Listen {
					return nil, false // they come first
				}
				e := blankSockets(1)
				l.socket(&found[i], &e[0])
				e[0].Role = event.Listener
				l.waiting = append(l.waiting, e[0])
			}
			return found, true
		})
	})
	l.looked, l.took = time.Now(), time.Since(begin)
	if err != nil {
		return nil, fmt.Errorf("look at listeners: %w", err)
	}
	return l.waiting, nil
}

// socket makes e, with its Status, of what the iterator found.
func (l *lister) socket(f *bpfSockFound, e *event.Event) {
	state := event.State(f.State)
	*e.Status = event.Status{
		RecvQueue: int64(f.RecvQueue), SendQueue: int64(f.SendQueue), AtLeast: event.Unknown, Left: event.Unknown, Attached: event.Attached(f.Attached), HeldAs: f.Mptcp,
	}
	*e = event.Event{
		Type: event.Socket, Wall: l.clock.wall(int64(f.MonoNs)), Mono: int64(f.MonoNs), Cookie: f.Cookie, Sk: f.Sk, NetNS: f.Netns, Proto: proto(f.Proto), New: state,
		Dur: event.Unknown, SynRetrans: event.Unknown, UID: f.Uid, Cgroup: l.names.cgroup(f.CgroupId), CgroupID: f.CgroupId,
		Status: e.Status,
	}
	e.Family, e.Local, e.Remote = ends(f.Family, &f.Laddr, &f.Raddr, f.Lport, f.Rport, state == event.Listen || state == event.Close)
	if e.IfIndex = f.Ifindex; e.IfIndex != 0 && e.IfIndex == f.IfnameOf {
		e.IfName = unix.ByteSliceToString(f.Ifname[:])
	}
	if e.Family == event.IPv6 && (state == event.Listen || state == event.Close) {
		e.Status.V6Only = event.No
		if f.V6only != 0 {
			e.Status.V6Only = event.Yes
		}
	}
	if e.Status.Mini = f.IsMini != 0; e.Status.Mini || e.Proto == event.MPTCP || state == event.Close {
		e.Status.RecvQueue, e.Status.SendQueue = event.Unknown, event.Unknown
	}
	switch {
	case state == event.Listen && f.NoRole == 0:
		e.Status.RecvQueue, e.Status.SendQueue = int64(f.RecvQueue), int64(f.AcceptBacklog)
	case state == event.FinWait2 && f.IsMini == 0 && f.Left != math.MaxUint32:
		e.Status.Left = finWait2Left(f, jiffy(f.Jiffies, e.Mono))
		e.Status.AtLeast = atLeast(f)
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
		e.Status.AtLeast = atLeast(f)
	}
}

// atLeast returns how long ago f handled a segment last.
func atLeast(f *bpfSockFound) int64 {
	if f.ActiveUs == 0 {
		return event.Unknown
	}
	return max(int64(f.MonoNs)-int64(f.ActiveUs)*1000, 0)
}

// finWait2Left returns how long an orphan in FIN_WAIT2 that is a full socket has left, ns. Its timer
// ends it, unless it may wait for more than TCP_TIMEWAIT_LEN: then the timer makes it a timewait sock,
// which lasts for what it may wait beyond that (tcp_fin_time in include/net/tcp.h, tcp_keepalive_timer
// in net/ipv4/tcp_timer.c, tcp_time_wait in net/ipv4/tcp_minisocks.c).
func finWait2Left(f *bpfSockFound, jiffy int64) int64 {
	const timewait = 60e9
	if jiffy == 0 {
		return event.Unknown
	}
	left := max(int64(int32(f.Left)), 0) * jiffy // below 0: is about to run
	if f.FinLinger < 0 {
		return left
	}
	least := int64(f.Rto<<2-f.Rto>>1) * jiffy
	may := int64(f.FinTimeout) * jiffy
	if f.FinLinger > 0 {
		may = int64(f.FinLinger) * jiffy
	}
	if more := max(may, least) - timewait; more > 0 {
		left += max(more, least)
	}
	return left
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

// whoHolds finds the processes that have each socket among their file descriptors, by the address of its sock; and, as it goes, a few sockets of each
// network namespace, after which it closes ends.
func (l *lister) whoHolds(ends chan<- openEnd) (map[uint64][]event.Holder, error) {
	holders := make(map[uint64][]event.Holder, 1<<13)
	var room []event.Holder // most sockets have one holder
	l.ends = l.ends[:0]
	defer func() {
		go func() {
			for _, end := range l.ends { // for which there may have been no room
				ends <- end
			}
			close(ends)
		}()
	}()
	last := make(map[uint32]openEnd) // of each namespace
	many := make(map[uint32]int)
	add := func(f *bpfHolderFound) {
		h := event.Holder{PID: f.Pid, FD: f.Fd, Comm: l.names.comm(&f.Comm)}
		if f.Slot >= 0 {
			h.How, h.Slot = event.BySlot, uint32(f.Slot)
		}
		switch of := holders[f.Sk]; {
		case of == nil:
			if len(room) == 0 {
				room = make([]event.Holder, 256)
			}
			room[0] = h
			holders[f.Sk], room = room[:1:1], room[1:]
		case !slices.Contains(of, h): // a thread may have files of its own
			holders[f.Sk] = append(of, h)
		}
	}
	withSlots := false
	err := iterate(l.Holders, nil, func(found []bpfHolderFound) ([]bpfHolderFound, bool) {
		for i := range found {
			f := &found[i]
			if f.Slot == ringWithSlots {
				withSlots = true
				continue
			}
			add(f)
			if end := (openEnd{f.Netns, f.Pid, f.Fd}); many[f.Netns] < 3 && last[f.Netns].pid != f.Pid { // if one is closed meanwhile, there is another
				last[f.Netns] = end
				many[f.Netns]++
				l.ends = append(l.ends, end)
				select {
				case ends <- end:
				default: // who looks at namespaces is busy, and may wait for what comes of this
				}
			}
		}
		return found, true
	})
	if err == nil && withSlots {
		err = l.slots(add)
	}
	if err != nil {
		return nil, fmt.Errorf("look at open files: %w", err)
	}
	return holders, nil
}

// unlisted finds the sockets that are in no table that l.Sockets walks through.
func (l *lister) unlisted() (all []bpfSockFound, err error) {
	if l.Unlisted == nil {
		return nil, nil
	}
	err = iterate(l.Unlisted, nil, func(found []bpfSockFound) ([]bpfSockFound, bool) {
		for i := range found {
			if len(l.netns) == 0 || slices.Contains(l.netns, found[i].Netns) {
				all = append(all, found[i])
			}
		}
		return found, true
	})
	if err != nil {
		return nil, fmt.Errorf("look at sockets by their descriptors: %w", err)
	}
	return all, nil
}

// ringWithSlots is SLOT_TABLE in bpf/holders.h.
const ringWithSlots = -2

// slots calls add for each socket in a slot of an io_uring's own table.
func (l *lister) slots(add func(*bpfHolderFound)) (err error) {
	if l.Slots == nil {
		if l.Slots, l.rings, err = l.loadSlots(); err != nil {
			return err
		}
	}
	if err := l.rings.begin(); err != nil {
		return err
	}
	return iterate(l.Slots, func() error { return l.rings.take(add) }, func(nothing []bpfHolderFound) ([]bpfHolderFound, bool) {
		return nothing, true
	})
}

// begin makes ready for a walk through all tables of io_urings.
func (r *rings) begin() error {
	return errors.Join(r.Found.Set(uint32(0)), r.Next.Set(make([]byte, r.Next.Size())))
}

// take calls add for each holder that the walk has found since the last call.
func (r *rings) take(add func(*bpfHolderFound)) error {
	var some uint32
	if err := r.Found.Get(&some); err != nil || some == 0 {
		return err
	}
	var holder bpfHolderFound
	var socks [64]uint64 // SLOTS_AT_ONCE in bpf/holders.h
	if err := errors.Join(r.Holder.Get(&holder), r.Socks.Get(&socks)); err != nil {
		return err
	}
	first := holder.Slot
	for i, sk := range socks {
		if sk != 0 {
			holder.Sk, holder.Slot = sk, first+int32(i)
			add(&holder)
		}
	}
	return r.Found.Set(uint32(0))
}

// atOnce is how many structs are read at once, at most: of sockets the kernel gathers 178 (32 KiB, bpf_seq_read in kernel/bpf/bpf_iter.c).
const atOnce = 256

// iterate runs an iterator program in the calling thread's network namespace and gives the structs T that it writes, some at a time, until there are no
// more wanted. Who takes them gives room for as many again, which may be the same. It calls read, unless that is nil, after each read.
func iterate[T any](prog *ebpf.Program, read func() error, each func([]T) (room []T, more bool)) error {
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
	some := make([]T, atOnce)
	for have := 0; ; {
		buf := unsafe.Slice((*byte)(unsafe.Pointer(&some[0])), size*atOnce)
		n, err := in.Read(buf[have:])
		if read != nil {
			if err := read(); err != nil {
				return err
			}
		}
		have += n
		whole := have / size
		if whole > 0 {
			room, more := each(some[:whole])
			if !more {
				return nil
			}
			some = room[:atOnce]
			have = copy(unsafe.Slice((*byte)(unsafe.Pointer(&some[0])), size*atOnce), buf[whole*size:have])
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN): // too many objects without output at once (bpf_seq_read): go on
		case err != nil:
			return fmt.Errorf("read iterator: %w", err)
		}
	}
}
