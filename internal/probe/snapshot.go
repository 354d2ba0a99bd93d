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
	"unsafe"

	"sstrace/internal/event"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// lister finds sockets that exist, by BPF iterators.
type lister struct {
	sockets, holders *ebpf.Program
	names            *namer
	ends             map[uint32]openEnd // found by the last look at all
}

// List finds the sockets that exist now, half-open ones and those in TIME_WAIT included. Nothing is attached.
func List() ([]event.Event, error) {
	_ = rlimit.RemoveMemlock() // see Open
	all, err := list()
	if err != nil {
		return nil, explain(err)
	}
	return all, nil
}

func list() ([]event.Event, error) {
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
	l := lister{sockets: objs.Sockets, holders: objs.Holders, names: newNamer()}
	defer l.names.cgroupFS.close()
	all, err := l.all()
	var clock clock
	for i := range all {
		all[i].Wall = clock.wall(all[i].Mono)
	}
	return all, err
}

// all finds the sockets in every network namespace that a process is in, that has a name, or that a process has a socket of.
func (l *lister) all() ([]event.Event, error) {
	holders, err := l.whoHolds()
	if err != nil {
		return nil, err
	}
	var all []event.Event
	noBacklog := make(map[uint16]bool) // ports with a listener of backlog 0: its children look like clients
	err = eachNetNS(l.ends, func() error {
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

// listeners finds those alone, and how many connections wait in their queues.
func (l *lister) listeners() ([]event.Event, error) {
	var all []event.Event
	err := eachNetNS(l.ends, func() error {
		return iterate(l.sockets, func(f *bpfSockFound) bool {
			if event.State(f.State) != event.Listen {
				return false // they come first
			}
			e := l.socket(f)
			e.Role = event.Listener
			all = append(all, e)
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look at listeners: %w", err)
	}
	return all, nil
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
	jiffy := jiffy(f.Jiffies, e.Mono)
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
		if e.Status.Left = int64(f.Left) * jiffy; state == event.TimeWait {
			// Its timer is set to TCP_TIMEWAIT_LEN (include/net/tcp.h) as it begins, and again when the peer's FIN comes once more.
			e.Status.AtLeast = max(60e9-e.Status.Left-jiffy, 0)
		}
	case state == event.CloseWait || state == event.FinWait2 || state == event.Closing:
		// A segment made it come to this state, and carried an ACK (RFC 9293 section 3.10.7.4); so that is at least as old as the last ACK.
		e.Status.AtLeast = max(int64(f.Quiet)-1, 0) * jiffy
	}
	return e
}

// jiffy tells how long one is, in ns. The kernel is built with one of four frequencies, and its count begins 5 minutes before 2^32 (INITIAL_JIFFIES in
// include/linux/jiffies.h); mono is what CLOCK_MONOTONIC was when it stood at count. Both stand still while the machine sleeps.
func jiffy(count uint64, mono int64) int64 {
	best, off := int64(0), int64(math.MaxInt64)
	for _, hz := range []int64{100, 250, 300, 1000} {
		up := (int64(count) - (1<<32 - 300*hz)) * (1e9 / hz)
		if d := max(up-mono, mono-up); d < off {
			best, off = 1e9/hz, d
		}
	}
	return best
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

// eachNetNS calls do in a thread inside each network namespace, our own first. Others that we may not enter are left out: their
// sockets are then known from their first change on.
func eachNetNS(ends map[uint32]openEnd, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		result <- func() error {
			own, err := inodeOf("/proc/thread-self/ns/net")
			if err != nil {
				return fmt.Errorf("find our network namespace: %w", err)
			}
			if err := do(); err != nil {
				return err
			}
			seen := map[uint64]bool{own: true}
			visit := func(inode uint64, open func() (int, error)) error {
				if seen[inode] {
					return nil
				}
				seen[inode] = true
				ns, err := open()
				if err != nil {
					return nil
				}
				defer unix.Close(ns)
				if unix.Setns(ns, unix.CLONE_NEWNET) != nil {
					return nil
				}
				return do()
			}
			paths, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is right
			named, _ := filepath.Glob("/run/netns/*")
			for _, path := range append(paths, named...) {
				inode, err := inodeOf(path)
				if err != nil {
					continue // the process has ended
				}
				if err := visit(inode, func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) }); err != nil {
					return err
				}
			}
			for _, end := range ends {
				if err := visit(uint64(end.netns), end.openNetNS); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	return <-result
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
