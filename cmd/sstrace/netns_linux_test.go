package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips a test that needs root. In CI it fails the test instead, because a skip would hide
// that nothing was tested.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// kernelVersion is a kernel version.
type kernelVersion struct{ major, minor int }

// kernelBefore reports whether the running kernel is older than the version.
func kernelBefore(t testing.TB, major, minor int) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var x, y int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &x, &y); err != nil {
		t.Fatalf("%v: %s", err, release)
	}
	return x < major || x == major && y < minor
}

// await waits for a condition that must become true. It fails only if the program is broken.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// host is a network namespace for one test, with lo up and no other traffic. It has a thread that
// runs functions in the namespace. Sockets and processes that are created there stay there.
type host struct {
	t     testing.TB
	inode uint64
	work  chan func()
	leave func() // ends the thread and, unless something else uses it, the namespace
}

func newHost(t testing.TB) *host {
	t.Helper()
	needRoot(t)
	h := &host{t: t, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and the namespace with its last user
		ready <- h.enter()
		for f := range h.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	h.leave = sync.OnceFunc(func() { close(h.work) })
	t.Cleanup(h.leave)
	return h
}

func (h *host) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		return err
	}
	h.inode = stat.Ino
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifreq)
}

func (h *host) must(what string, err error) {
	if err != nil {
		h.t.Helper()
		h.t.Errorf("%s: %v", what, err)
	}
}

// do runs f in the namespace and waits for it.
func (h *host) do(f func()) {
	done := make(chan struct{})
	h.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// run runs a command in the namespace.
func (h *host) run(out io.Writer, command ...string) {
	h.t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout = out
	if err := h.wait(cmd); err != nil {
		h.t.Fatalf("%v: %v", command, err)
	}
}

// wait runs cmd in the namespace until it exits. The error includes the command's stderr.
func (h *host) wait(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var err error
	h.do(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, &stderr)
	}
	return nil
}

// tid returns the ID of the thread that runs in the namespace.
func (h *host) tid() (tid int) {
	h.do(func() { tid = unix.Gettid() })
	return tid
}

func (h *host) netns() string { return fmt.Sprint(h.inode) }

// sysctl sets net.ipv4.name to value.
func (h *host) sysctl(name, value string) {
	h.do(func() { h.must(name, os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0)) })
}

// fastOpenWithoutCookie is a value of tcp_fastopen: 0x607, for clients and every listener.
const fastOpenWithoutCookie = "1543"

// destroy destroys sockets as an administrator would, with ss -K.
func (h *host) destroy(state, end, addr string) {
	h.run(nil, "ss", "-K", "state", state, end, addr)
}

// spreadPackets lets all CPUs receive packets on lo: RPS, Documentation/networking/scaling.rst.
func (h *host) spreadPackets() {
	dir := h.t.TempDir()
	h.do(func() {
		// sysfs shows the network namespace of the process that mounted it.
		h.must("mount", unix.Mount("sysfs", dir, "sysfs", 0, ""))
		file := filepath.Join(dir, "class/net/lo/queues/rx-0/rps_cpus")
		h.must("RPS", os.WriteFile(file, fmt.Appendf(nil, "%x", 1<<cpus()-1), 0))
		h.must("unmount", unix.Unmount(dir, unix.MNT_DETACH))
	})
}

func cpus() int {
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	return set.Count()
}

// cgroupTree returns the mount point of the cgroup v2 tree. It mounts the tree if necessary.
func cgroupTree(t *testing.T) string {
	t.Helper()
	mounts, err := exec.Command("findmnt", "-n", "-t", "cgroup2", "-o", "TARGET").Output()
	root, _, _ := strings.Cut(string(mounts), "\n")
	root = strings.TrimSpace(root)
	if err != nil || root == "" {
		root = t.TempDir()
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	}
	return root
}
