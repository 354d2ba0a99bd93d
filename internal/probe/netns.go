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
	netns, pid, fd uint32
}

// eachNetNS calls do inside each network namespace that is wanted, in so many threads. Those that have gone are left out, and those that we may not enter are
// counted. It takes ends, of namespaces that it has not been in, until they are closed.
func (l *lister) eachNetNS(threads int, ends <-chan openEnd, do func() error) error {
	v := visits{wanted: l.netns, fates: make(map[uint64]fate)}
	all := namespacePaths()
	paths := make(chan string, len(all))
	for _, path := range all {
		paths <- path
	}
	close(paths)
	errs := make(chan error)
	for range threads {
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			errs <- v.all(paths, ends, do)
		}()
	}
	var err error
	for range threads {
		if e := <-errs; err == nil {
			err = e
		}
	}
	l.closed = v.closed()
	return err
}

// visits are those of some threads, each of which goes to where no other has been.
type visits struct {
	wanted []uint32 // all, if there are none

	mu    sync.Mutex
	fates map[uint64]fate // by inode
}

// fate is what became of a namespace.
type fate int

const (
	refused fate = iota + 1 // we may not enter, as far as was tried
	entered
)

func (v *visits) all(paths <-chan string, ends <-chan openEnd, do func() error) error {
	own, err := inodeOf("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find our network namespace: %w", err)
	}
	if v.enter(own) {
		if err := do(); err != nil {
			return err
		}
	}
	for path := range paths {
		inode, err := inodeOf(path)
		if err != nil || !v.open(inode) {
			continue
		}
		if err := v.visit(inode, func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) }, do); err != nil {
			return err
		}
	}
	for end := range ends {
		if !v.open(uint64(end.netns)) {
			continue
		}
		if err := v.visit(uint64(end.netns), end.openNetNS, do); err != nil {
			return err
		}
	}
	return nil
}

// visit calls do inside the namespace that open opens. It should be the one with this inode; it may be another by now.
func (v *visits) visit(inode uint64, open func() (int, error), do func() error) error {
	ns, err := open()
	if err == nil {
		defer unix.Close(ns)
		var stat unix.Stat_t
		if err := unix.Fstat(ns, &stat); err != nil || !v.enter(stat.Ino) {
			return nil
		}
		if err = unix.Setns(ns, unix.CLONE_NEWNET); err == nil {
			return do()
		}
		inode = stat.Ino
		v.leave(inode)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		v.refuse(inode)
	}
	return nil // else it is gone
}

// open reports whether this namespace is wanted, and nobody has been there.
func (v *visits) open(inode uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fates[inode] != entered && (len(v.wanted) == 0 || slices.Contains(v.wanted, uint32(inode)))
}

// enter reports whether this namespace is open; it is not any more.
func (v *visits) enter(inode uint64) bool {
	open := v.open(inode)
	v.mu.Lock()
	defer v.mu.Unlock()
	if !open || v.fates[inode] == entered { // by another thread, since
		return false
	}
	v.fates[inode] = entered
	return true
}

func (v *visits) leave(inode uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.fates, inode)
}

// refuse keeps in mind that one way into this namespace is closed, unless another one was not.
func (v *visits) refuse(inode uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fates[inode] != entered {
		v.fates[inode] = refused
	}
}

// closed is how many could be entered in no way.
func (v *visits) closed() (n int) {
	for _, fate := range v.fates {
		if fate == refused {
			n++
		}
	}
	return n
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
