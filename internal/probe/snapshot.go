//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"slices"
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
	netns            []uint32           // the namespaces that are wanted; all, if there are none
	ends             map[uint32]openEnd // found by the last look at all
	closed           int                // namespaces that we may not enter, as the last look found

	waiting []event.Event // what listeners found last
	looked  time.Time
	took    time.Duration
}

// Listing is what List finds.
type Listing struct {
	Sockets    []event.Event
	Wall, Mono int64 // when it was over, ns
	Closed     int   // network namespaces that we may not enter, and whose sockets are missing
}

// List finds the sockets that exist now, half-open ones and those in TIME_WAIT included, in the network namespaces that f wants. Nothing is attached.
func List(f *filter.Filter) (*Listing, error) {
	_ = rlimit.RemoveMemlock() // see Open
	l, err := list(f)
	switch {
	case errors.Is(err, ErrNoCgroup):
		return nil, err
	case err != nil:
		return nil, explain(err)
	}
	return l, nil
}

func list(f *filter.Filter) (*Listing, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[bpfVarWantMini].Set(true); err != nil {
		return nil, err
	}
	var objs struct {
		Sockets *ebpf.Program `ebpf:"sockets"`
		Holders *ebpf.Program `ebpf:"holders"`
	}
	if err := loadHere(spec, func() error { return spec.LoadAndAssign(&objs, nil) }); err != nil {
		return nil, err
	}
	defer func() {
		_ = errors.Join(objs.Sockets.Close(), objs.Holders.Close()) // they are read to the end
	}()
	l := lister{sockets: objs.Sockets, holders: objs.Holders, names: newNamer(), netns: f.NetNS}
	defer l.names.cgroupFS.close()
	for _, path := range f.Cgroups {
		if _, err := l.names.cgroupFS.id(path); err != nil {
			return nil, err
		}
	}
	all, err := l.all()
	var clock clock
	for i := range all {
		all[i].Wall = clock.wall(all[i].Mono)
	}
	mono := monotonic()
	return &Listing{all, clock.wall(mono), mono, l.closed}, err
}

// all finds the sockets in every network namespace that a process is in, that has a name, or that a process has a socket of.
func (l *lister) all() ([]event.Event, error) {
	holders, err := l.whoHolds()
	if err != nil {
		return nil, err
	}
	var all []event.Event
	noBacklog := make(map[uint16]bool) // ports with a listener of backlog 0: its children look like clients
	err = l.eachNetNS(l.ends, func() error {
		return iterate(l.sockets, func(f *bpfSockFound) bool {
			e := l.socket(f)
			switch {
			case f.IsMini != 0:
				if e.Mini = true; f.Listener != 0 {
					e.Role = event.Server
				}
			case e.New == event.Listen: // listeners come first
				if e.Role = event.Listener; f.AcceptBacklog == 0 {
					noBacklog[f.Lport] = true
				}
			case f.AcceptBacklog != 0:
				e.Role = event.Server // only listen() sets it, and only a child inherits it (sk_clone_lock in net/core/sock.c)
			case !noBacklog[f.Lport]:
				e.Role = event.Client
			}
			if e.Status.Holders = holders[f.Sk]; e.Status.Holders == nil {
				e.Status.Holders = []event.Holder{}
			}
			if pid, comm := onlyHolder(e.Status.Holders); pid != 0 {
				e.OwnerPID, e.OwnerComm, e.OwnerVia = pid, comm, event.ViaSnapshot
			}
			all = append(all, e)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look at existing sockets: %w", err)
	}
	return all, nil
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
	ends := l.ends
	if len(l.netns) == 0 {
		ends = nil // each is borrowed from its process for a moment: too much to do all the time
	}
	l.waiting = nil
	err := l.eachNetNS(ends, func() error {
		return iterate(l.sockets, func(f *bpfSockFound) bool {
			if event.State(f.State) != event.Listen {
				return false // they come first
			}
			e := l.socket(f)
			e.Role = event.Listener
			l.waiting = append(l.waiting, e)
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
		Type: event.Socket, Mono: int64(f.MonoNs), Cookie: f.Cookie, Sk: f.Sk, NetNS: f.Netns, Proto: proto(f.Proto), New: state, Listener: f.Listener,
		Dur: event.Unknown, SynRetrans: event.Unknown, UID: f.Uid, Cgroup: l.names.cgroup(f.CgroupId), CgroupID: f.CgroupId,
		Status: &event.Status{RecvQueue: int64(f.RecvQueue), SendQueue: int64(f.SendQueue), AtLeast: event.Unknown, Left: event.Unknown},
	}
	e.Family, e.Local, e.Remote = ends(f.Family, &f.Laddr, &f.Raddr, f.Lport, f.Rport, state == event.Listen)
	if f.IsMini != 0 {
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

// openEnd is a socket that some process holds, of a network namespace that perhaps no process is in.
type openEnd struct {
	pid, fd, netns uint32
}

// whoHolds finds the processes that have each socket among their file descriptors, by the address of its sock; and one socket of each network namespace.
func (l *lister) whoHolds() (map[uint64][]event.Holder, error) {
	holders := make(map[uint64][]event.Holder)
	l.ends = make(map[uint32]openEnd)
	err := iterate(l.holders, func(f *bpfHolderFound) bool {
		h := event.Holder{PID: f.Pid, FD: f.Fd, Comm: l.names.comm(&f.Comm)}
		if !slices.Contains(holders[f.Sk], h) { // a thread may have files of its own
			holders[f.Sk] = append(holders[f.Sk], h)
		}
		l.ends[f.Netns] = openEnd{f.Pid, f.Fd, f.Netns}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("look at open files: %w", err)
	}
	return holders, nil
}

// iterate runs an iterator program in the calling thread's network namespace and gives each struct T that it writes, until each has enough.
func iterate[T any](prog *ebpf.Program, each func(*T) bool) error {
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
	buf := make([]byte, 200*size)
	for have := 0; ; {
		n, err := in.Read(buf[have:])
		have += n
		at := 0
		for ; have-at >= size; at += size {
			if !each((*T)(unsafe.Pointer(&buf[at]))) {
				return nil
			}
		}
		have = copy(buf, buf[at:have])
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN): // too many objects without output at once (bpf_seq_read): go on
		case err != nil:
			return fmt.Errorf("read iterator: %w", err)
		}
	}
}

// eachNetNS calls do in a thread inside each network namespace that is wanted. Those that have gone are left out, and those that we may not enter are
// counted.
func (l *lister) eachNetNS(ends map[uint32]openEnd, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		result <- l.visitAll(ends, do)
	}()
	return <-result
}

func (l *lister) visitAll(ends map[uint32]openEnd, do func() error) error {
	l.closed = 0
	seen := make(map[uint64]bool)
	wanted := func(inode uint64) bool {
		return !seen[inode] && (len(l.netns) == 0 || slices.Contains(l.netns, uint32(inode)))
	}
	visit := func(open func() (int, error)) error {
		ns, err := open()
		if err == nil {
			defer unix.Close(ns)
			var stat unix.Stat_t
			if err := unix.Fstat(ns, &stat); err != nil || !wanted(stat.Ino) { // another than it seemed, by now
				return nil
			}
			seen[stat.Ino] = true
			err = unix.Setns(ns, unix.CLONE_NEWNET)
		}
		switch {
		case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
			l.closed++
			return nil
		case err != nil:
			return nil // gone
		}
		return do()
	}
	own, err := inodeOf("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find our network namespace: %w", err)
	}
	if wanted(own) {
		seen[own] = true
		if err := do(); err != nil {
			return err
		}
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is right
	named, _ := filepath.Glob("/run/netns/*")
	for _, path := range append(paths, named...) {
		inode, err := inodeOf(path)
		if err != nil || !wanted(inode) {
			continue
		}
		if err := visit(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) }); err != nil {
			return err
		}
	}
	for _, end := range ends {
		if !wanted(uint64(end.netns)) {
			continue
		}
		if err := visit(end.openNetNS); err != nil {
			return err
		}
	}
	return nil
}

func inodeOf(path string) (uint64, error) {
	var stat unix.Stat_t
	err := unix.Stat(path, &stat)
	return stat.Ino, err
}

// openNetNS opens the namespace of a socket that some process holds: the process itself may be in another one by now.
func (h openEnd) openNetNS() (int, error) {
	pid, err := unix.PidfdOpen(int(h.pid), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(pid)
	socket, err := unix.PidfdGetfd(pid, int(h.fd), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(socket)
	return unix.IoctlRetInt(socket, unix.SIOCGSKNS)
}
