//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"unsafe"

	"sstrace/internal/event"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// holder is who has a socket among its file descriptors.
type holder struct {
	pid   uint32
	fd    uint32
	netns uint32 // of the socket
	comm  [16]byte
	many  bool // more than one process: none of them is the owner for sure
}

// snapshot finds the sockets that exist now, in every network namespace that a process is in, that has a name, or that a process
// has a socket of. Request and timewait socks are not among them: they never reach the tracepoint.
func (p *Probe) snapshot() ([]event.Event, error) {
	holders := make(map[uint64]holder)
	err := iterate(p.objs.Programs[bpfProgHolders], func(f *bpfSockFound) {
		h, ok := holders[f.Sk]
		switch {
		case !ok:
			h = holder{pid: f.HolderPid, fd: f.HolderFd, netns: f.Netns, comm: f.HolderComm}
		case h.pid != f.HolderPid:
			h.many = true
		}
		holders[f.Sk] = h
	})
	if err != nil {
		return nil, fmt.Errorf("look at open files: %w", err)
	}

	var all []event.Event
	noBacklog := make(map[uint16]bool) // ports with a listener of backlog 0: its children look like clients
	add := func(f *bpfSockFound) {
		state := event.State(f.State)
		e := event.Event{
			Type: event.Socket, Mono: int64(f.MonoNs), Cookie: f.Cookie, Sk: f.Sk, NetNS: f.Netns, Proto: proto(f.Proto), New: state,
			UID: f.Uid, Cgroup: p.names.cgroup(f.CgroupId), CgroupID: f.CgroupId,
		}
		e.Family, e.Local, e.Remote = ends(f.Family, &f.Laddr, &f.Raddr, f.Lport, f.Rport, state == event.Listen)
		switch {
		case f.IsMini != 0:
			e.Mini, e.Listener = true, f.Listener
			if f.Listener != 0 {
				e.Role = event.Server
			} else {
				e.UID = event.NoUID
			}
		case state == event.Listen: // listeners come first
			e.Role = event.Listener
			if f.AcceptBacklog == 0 {
				noBacklog[f.Lport] = true
			}
		case f.AcceptBacklog != 0:
			e.Role = event.Server // only listen() sets it, and only a child inherits it (sk_clone_lock in net/core/sock.c)
		case !noBacklog[f.Lport]:
			e.Role = event.Client
		}
		if h := holders[f.Sk]; h.pid != 0 && !h.many {
			e.OwnerPID, e.OwnerComm = h.pid, p.names.comm(&h.comm)
		}
		all = append(all, e)
	}
	return all, eachNetNS(holders, func() error { return iterate(p.objs.Programs[bpfProgSockets], add) })
}

// iterate runs an iterator program in the calling thread's network namespace and gives each struct that it writes.
func iterate(prog *ebpf.Program, each func(*bpfSockFound)) error {
	const size = int(unsafe.Sizeof(bpfSockFound{}))
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
	buf := make([]byte, 64*size)
	for have := 0; ; {
		n, err := in.Read(buf[have:])
		have += n
		at := 0
		for ; have-at >= size; at += size {
			each((*bpfSockFound)(unsafe.Pointer(&buf[at])))
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
func eachNetNS(holders map[uint64]holder, do func() error) error {
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
			for _, h := range holders {
				if err := visit(uint64(h.netns), h.openNetNS); err != nil {
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
func (h holder) openNetNS() (int, error) {
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
