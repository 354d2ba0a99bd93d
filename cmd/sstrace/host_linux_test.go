package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips a test that only root can run. In CI that is a failure: it would hide that nothing was tested.
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

// kernelBefore tells whether this kernel is older than the version, for what only later ones do.
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

// await waits for a condition that is bound to come true; only a broken program makes it fail.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// host is a network namespace of the test's own, with lo up: nothing else speaks there. A thread that lives in it does what it is
// given; sockets and processes that are made there stay there.
type host struct {
	t     testing.TB
	inode uint64
	work  chan func()
	leave func() // ends the thread, and with it the namespace unless something else holds it
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

// do runs f in the namespace and waits.
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
	cmd := exec.Command(command[0], command[1:]...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	var err error
	h.do(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.t.Fatalf("%v: %v: %s", command, err, &stderr)
	}
}

// tid is the number of the thread that lives in the namespace.
func (h *host) tid() (tid int) {
	h.do(func() { tid = unix.Gettid() })
	return tid
}

func (h *host) netns() string { return fmt.Sprint(h.inode) }

// sock is a TCP socket by its file descriptor: the tests decide about each system call, which package net does not let them.
type sock struct {
	h  *host
	fd int
}

func (h *host) must(what string, err error) {
	if err != nil {
		h.t.Helper()
		h.t.Errorf("%s: %v", what, err)
	}
}

func (h *host) socket(family int) (s sock) {
	h.do(func() {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		h.must("socket", err)
		s = sock{h, fd}
	})
	return s
}

func sockaddr(a netip.AddrPort, family int) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// listen opens a listener on addr, as in "127.0.0.1:7781"; port 0 lets the kernel choose.
func (h *host) listen(addr string, backlog int) sock {
	a := netip.MustParseAddrPort(addr)
	s := h.socket(family(a))
	h.must("reuse", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
	h.must("listen", unix.Listen(s.fd, backlog))
	return s
}

// dial connects to addr.
func (h *host) dial(addr string) sock {
	a := netip.MustParseAddrPort(addr)
	s := h.socket(family(a))
	h.must("connect", unix.Connect(s.fd, sockaddr(a, family(a))))
	return s
}

func (s sock) accept() sock {
	fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
	s.h.must("accept", err)
	return sock{s.h, fd}
}

func (s sock) close()           { s.h.must("close", unix.Close(s.fd)) }
func (s sock) shutdown(how int) { s.h.must("shutdown", unix.Shutdown(s.fd, how)) }

func (s sock) write(text string) {
	_, err := unix.Write(s.fd, []byte(text))
	s.h.must("write", err)
}

// file is a copy, for a process to inherit.
func (s sock) file() *os.File {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	s.h.must("dup", err)
	f := os.NewFile(uintptr(fd), "socket")
	s.h.t.Cleanup(func() { f.Close() })
	return f
}

// read waits for n bytes.
func (s sock) read(n int) {
	for buf := make([]byte, n); n > 0; {
		got, err := unix.Read(s.fd, buf[:n])
		if s.h.must("read", err); err != nil || got == 0 {
			return
		}
		n -= got
	}
}

// reset makes the close() to come a reset.
func (s sock) reset() {
	s.h.must("linger", unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}

// reach waits until the kernel has the socket in state.
func (s sock) reach(state uint8) {
	await(s.h.t, "state of a socket", func() bool {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err != nil || info.State == state
	})
}
