//go:build linux

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// openEnd is a socket that some process holds, of a network namespace that perhaps no process is in.
type openEnd struct {
	pid, fd uint32
}

// eachNetNS calls do inside each network namespace that is wanted, in so many threads. Those that have gone are left out, and those that we may not enter are
// counted. It asks for the ends, of namespaces that it has not been in, last.
func (l *lister) eachNetNS(threads int, ends func() map[uint32][]openEnd, do func() error) error {
	v := visits{wanted: l.netns, seen: make(map[uint64]bool), closed: make(map[uint64]bool)}
	errs := make(chan error)
	for range threads {
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			errs <- v.all(ends, do)
		}()
	}
	var err error
	for range threads {
		err = errors.Join(err, <-errs)
	}
	l.closed = len(v.closed)
	return err
}

// visits are those of some threads, each of which goes to where no other has been.
type visits struct {
	wanted []uint32

	mu     sync.Mutex
	seen   map[uint64]bool
	closed map[uint64]bool // may not be entered
}

func (v *visits) all(ends func() map[uint32][]openEnd, do func() error) error {
	own, err := inodeOf("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find our network namespace: %w", err)
	}
	if v.open(own) && v.enter(own) {
		if err := do(); err != nil {
			return err
		}
	}
	for _, path := range namespacePaths() {
		inode, err := inodeOf(path)
		if err != nil || !v.open(inode) {
			continue
		}
		if err := v.visit(inode, func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) }, do); err != nil {
			return err
		}
	}
	for netns, some := range ends() {
		for _, end := range some {
			if !v.open(uint64(netns)) {
				break
			}
			if err := v.visit(uint64(netns), end.openNetNS, do); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit calls do inside the namespace that open opens, if it is still the one with this inode, and open.
func (v *visits) visit(inode uint64, open func() (int, error), do func() error) error {
	ns, err := open()
	if err == nil {
		defer unix.Close(ns)
		var stat unix.Stat_t
		if err := unix.Fstat(ns, &stat); err != nil || stat.Ino != inode || !v.enter(inode) {
			return nil
		}
		err = unix.Setns(ns, unix.CLONE_NEWNET)
	}
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	v.mu.Lock()
	if refused {
		v.closed[inode] = true
	} else if err == nil {
		delete(v.closed, inode) // by another way
	}
	v.mu.Unlock()
	if err != nil { // refused, or gone
		return nil
	}
	return do()
}

// open reports whether this namespace is wanted, and nobody has been there.
func (v *visits) open(inode uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.seen[inode] && (len(v.wanted) == 0 || slices.Contains(v.wanted, uint32(inode)))
}

// enter reports whether this namespace is open; it is not any more.
func (v *visits) enter(inode uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	been := v.seen[inode]
	v.seen[inode] = true
	return !been
}

// namespacePaths are those of each process, and those that have a name. Of what is not there, there are none.
func namespacePaths() (paths []string) {
	proc, err := os.Open("/proc")
	if err == nil {
		names, _ := proc.Readdirnames(-1)
		proc.Close()
		for _, name := range names {
			if name[0] >= '1' && name[0] <= '9' {
				paths = append(paths, "/proc/"+name+"/ns/net")
			}
		}
	}
	named, _ := filepath.Glob("/run/netns/*") // the pattern is right
	return append(paths, named...)
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
