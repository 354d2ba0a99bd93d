package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

func init() {
	roles["worker"] = worker
	roles["holder"] = func() { _, _ = os.Stdin.Read(make([]byte, 1)) } // keeps its files until stdin ends
}

// worker is one process of a prefork server. It accepts connections on the listener that it
// inherited, reports its PID, and waits for the peer to close. Its number decides which of the two
// system calls it uses.
func worker() {
	call := uintptr(unix.SYS_ACCEPT4)
	if len(os.Args) > 1 && os.Args[1] == "0" {
		call = unix.SYS_ACCEPT
	}
	var me [4]byte
	binary.NativeEndian.PutUint32(me[:], uint32(os.Getpid()))
	for {
		fd, _, errno := unix.Syscall6(call, 3, 0, 0, 0, 0, 0)
		if errno != 0 {
			return
		}
		_, _ = unix.Write(int(fd), me[:])
		_, _ = unix.Read(int(fd), make([]byte, 1))
		_ = unix.Close(int(fd))
	}
}

// In a prefork server, the owner of a connection is the process that accepted it. Until then the
// owner is unknown.
func TestAcceptedByAWorker(t *testing.T) {
	const workers, connections = 4, 1000
	h := newHost(t)
	l := h.listen("127.0.0.1:7781", 64)
	for i := range workers {
		cmd := self("worker", strconv.Itoa(i%2))
		cmd.ExtraFiles = []*os.File{l.file()}
		h.do(func() { h.must("start a worker", cmd.Start()) })
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	accepted := make(map[uint16]uint32) // by the client's port
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		for i := range connections {
			c := h.socket(unix.AF_INET)
			// Otherwise two connections, a second apart, may have the same port:
			// net.ipv4.tcp_tw_reuse.
			h.must("bind", unix.Bind(c.fd, &unix.SockaddrInet4{Port: 20000 + i, Addr: [4]byte{127, 0, 0, 1}}))
			h.must("connect", unix.Connect(c.fd, &unix.SockaddrInet4{Port: 7781, Addr: [4]byte{127, 0, 0, 1}}))
			me := make([]byte, 4)
			_, err := unix.Read(c.fd, me)
			h.must("read who accepted", err)
			accepted[uint16(20000+i)] = binary.NativeEndian.Uint32(me)
			c.close()
		}
		h.quiet()
	})
	established := make(map[uint64]int64)
	by := make(map[uint32]int)
	for _, e := range r.changes {
		if e.Local != netip.MustParseAddrPort("127.0.0.1:7781") || e.Role != event.Server {
			continue
		}
		pid := accepted[e.Remote.Port()]
		switch e.New {
		case event.SynRecv, event.Established:
			// The test itself also holds the listener.
			if e.OwnerPID != uint32(os.Getpid()) && e.OwnerPID != 0 {
				t.Errorf("nobody has accepted yet: %+v", e)
			}
			established[e.ID] = e.Mono
		case event.Close:
			if e.OwnerPID != pid {
				t.Errorf("the owner of port %d is %d %v, and it was accepted by %d", e.Remote.Port(), e.OwnerPID, e.OwnerVia, pid)
			}
			by[e.OwnerPID]++
		}
	}
	for _, e := range r.accepts {
		if pid := accepted[e.Remote.Port()]; e.OwnerPID != pid || e.OwnerVia != event.ViaAccept || e.TaskPID != pid || e.Role != event.Server {
			t.Errorf("accepted by %d: %+v", pid, e)
		}
		if e.Dur != e.Mono-established[e.ID] {
			t.Errorf("in the queue from %d to %d: got %d ns", established[e.ID], e.Mono, e.Dur)
		}
	}
	if len(r.accepts) != connections {
		t.Errorf("got %d accepts, want %d", len(r.accepts), connections)
	}
	t.Logf("accepted by: %v", by)
	if len(by) < 2 {
		t.Errorf("all were accepted by one worker: this tests little: %v", by)
	}
}

// If two processes hold a socket, the last one to close it ends the connection, and is then its
// owner.
func TestInheritedSocket(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at, func(t *testing.T) { inheritedSocket(t, at) })
	}
}

func inheritedSocket(t *testing.T, at string) {
	h := newHost(t)
	var holder int
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		l, c, s := h.connection(at, at)
		cmd := self("holder")
		cmd.ExtraFiles = []*os.File{s.file()}
		stdin, err := cmd.StdinPipe()
		h.must("pipe", err)
		h.must("start a holder", cmd.Start())
		holder = cmd.Process.Pid
		h.must("close our copies", cmd.ExtraFiles[0].Close())
		s.close() // nothing happens
		stdin.Close()
		h.must("wait", cmd.Wait())
		c.reach(unix.BPF_TCP_CLOSE_WAIT)
		c.close()
		h.quiet()
		l.close()
	})
	checkViews(t, r.file)
	for _, e := range r.changes {
		switch {
		case e.Role == event.Server && e.New == event.Established && e.OwnerPID != uint32(os.Getpid()),
			e.Role == event.Server && e.New == event.FinWait1 && (e.OwnerPID != uint32(holder) || e.OwnerVia != event.ViaClose):
			t.Errorf("%v→%v: owner %d %v; we are %d, the holder was %d", e.Old, e.New, e.OwnerPID, e.OwnerVia, os.Getpid(), holder)
		}
	}
	paths := r.paths()
	slices.Sort(paths)
	want := []string{rfcListener, rfcPassiveClient, rfcActiveServer}
	slices.Sort(want)
	if !slices.Equal(paths, want) {
		t.Errorf("got %q, want %q", paths, want)
	}
}

// If tracefs is not mounted, sstrace mounts it privately.
func TestAcceptWithoutTracefs(t *testing.T) {
	h := newHost(t)
	cmd := self("sstrace", "-o", "ndjson", "--netns", h.netns(), "--", "true")
	// A mount namespace without tracefs.
	cmd.Args = append([]string{"unshare", "-m", "--propagation", "unchanged", "sh", "-c",
		"mount --make-rprivate /sys && { umount -l /sys/kernel/tracing 2>/dev/null; exec \"$@\"; }", "sh", cmd.Path}, cmd.Args[1:]...)
	path, err := exec.LookPath("unshare")
	h.must("find unshare", err)
	cmd.Path = path
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) == 0 || out[0] != '{' {
		t.Errorf("%v: %s", err, out)
	}
}
