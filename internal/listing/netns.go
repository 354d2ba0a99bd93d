//go:build linux

package listing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"sstrace/internal/linux"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// socketRef is a socket that some process holds. It leads to a network namespace that may not
// contain any process.
type socketRef struct {
	netns, pid, fd uint32
}

// eachNetNS calls do once inside each wanted network namespace, in several threads. Until refs is
// closed, it uses the sockets from there to reach further namespaces. Namespaces that are gone are
// skipped, and namespaces that this process may not enter are counted in l.closed.
func (l *Lister) eachNetNS(threads int, refs <-chan socketRef, do func() error) error {
	v := visits{wanted: l.netns, results: make(map[uint64]result)}
	all := namespacePaths()
	paths := make(chan string, len(all))
	for _, path := range all {
		paths <- path
	}
	close(paths)
	var g errgroup.Group
	for range threads {
		g.Go(func() error {
			runtime.LockOSThread() // never unlocked: the thread, which changes its namespace, ends with this goroutine
			return v.all(paths, refs, do)
		})
	}
	err := g.Wait()
	l.closed = v.closed()
	return err
}

// visits coordinates several threads. Each thread enters only namespaces that no other thread has
// entered.
type visits struct {
	wanted []uint32 // empty: all

	mu      sync.Mutex
	results map[uint64]result // by inode
}

// result is the outcome of the attempts to enter a namespace.
type result int

const (
	refused result = iota + 1 // by every attempt so far
	entered
)

func (v *visits) all(paths <-chan string, refs <-chan socketRef, do func() error) error {
	own, err := linux.Inode("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find sstrace's network namespace: %w", err)
	}
	if v.enter(own) {
		if err := do(); err != nil {
			return err
		}
	}
	for path := range paths {
		inode, err := linux.Inode(path)
		if err != nil || !v.open(inode) {
			continue
		}
		open := func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) }
		if err := v.visit(inode, open, do); err != nil {
			return err
		}
	}
	for ref := range refs {
		if !v.open(uint64(ref.netns)) {
			continue
		}
		if err := v.visit(uint64(ref.netns), ref.openNetNS, do); err != nil {
			return err
		}
	}
	return nil
}

// visit calls do inside the namespace that open opens. This should be the namespace with this
// inode, but by now it may be another one.
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
	return nil // any other error: the namespace is gone
}

// open reports whether a namespace is wanted and no thread has entered it.
func (v *visits) open(inode uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.isOpen(inode)
}

func (v *visits) isOpen(inode uint64) bool {
	return v.results[inode] != entered && (len(v.wanted) == 0 || slices.Contains(v.wanted, uint32(inode)))
}

// enter marks an open namespace as entered. It reports whether it was open.
func (v *visits) enter(inode uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.isOpen(inode) {
		return false
	}
	v.results[inode] = entered
	return true
}

// leave undoes enter.
func (v *visits) leave(inode uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.results, inode)
}

// refuse marks a namespace as refused, unless another attempt has entered it.
func (v *visits) refuse(inode uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.results[inode] != entered {
		v.results[inode] = refused
	}
}

// closed returns how many namespaces refused every attempt.
func (v *visits) closed() (n int) {
	for _, r := range v.results {
		if r == refused {
			n++
		}
	}
	return n
}

// namespacePaths returns the paths of the network namespaces of all processes, and of named network
// namespaces. A path may not exist.
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
	named, _ := filepath.Glob("/run/netns/*") // fails only for a malformed pattern
	return append(paths, named...)
}

// openNetNS opens the socket's network namespace, which may differ from that of its process.
func (r socketRef) openNetNS() (int, error) {
	pid, err := unix.PidfdOpen(int(r.pid), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(pid)
	socket, err := unix.PidfdGetfd(pid, int(r.fd), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(socket)
	return unix.IoctlRetInt(socket, unix.SIOCGSKNS)
}
