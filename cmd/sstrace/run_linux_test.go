package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// commands are run by sstrace. Each gets one line on stdin.
var commands = []struct {
	name   string
	argv   []string
	code   int
	stdout string
	stderr string
}{
	{"succeeds", []string{"cat"}, 0, "to the command\n", ""},
	{"fails", []string{"sh", "-c", "cat; echo oops >&2; exit 42"}, 42, "to the command\n", "oops\n"},
	{"killed", []string{"sh", "-c", "kill -TERM $$"}, 143, "", ""},
	{"not found", []string{"no-such-command-here"}, 127, "", "executable file not found"},
	{"no such file", []string{"/no/such/file"}, 127, "", "no such file"},
	{"not a program", []string{"/etc/passwd"}, 126, "", "permission denied"},
	{"named like a subcommand", []string{"check"}, 127, "", "executable file not found"},
	{"SIGPIPE not ignored", []string{"sh", "-c", "trap; yes | head -n 1"}, 0, "y\n", ""},
}

// The command's own stdin, stdout, stderr and exit code pass through.
func TestCommand(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	for _, test := range commands {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"-o", "ndjson", "-w", file, "--netns", h.netns(), "--"}, test.argv...)
			r := sstrace(t, "to the command\n", args...)
			if r.code != test.code || r.stdout != test.stdout || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("got %+v, want %+v", r, test)
			}
		})
	}
}

// If a command does nothing but connect, none of its connections is lost.
func TestCommandThatConnects(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	const connections = 200
	l := h.listen(loopbackAddr, connections)
	defer l.close()
	go func() {
		for {
			fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			_, _ = unix.Write(fd, []byte("+PONG\r\n"))
			_ = unix.Close(fd)
		}
	}()
	h.traceRole(t, []string{"-w", file, "--rport", "7781"}, "connect", loopbackAddr, fmt.Sprint(connections))
	begun := 0
	for _, e := range readRecording(t, file).changes {
		if e.New == event.SynSent {
			begun++
		}
	}
	if begun != connections {
		t.Errorf("got %d connects, want %d", begun, connections)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: got %v, %v, want 0600", info.Mode(), err)
	}
	unix.Shutdown(l.fd, unix.SHUT_RD)
}

// traceRole runs sstrace with args. Its command is the test binary in a role.
func (h *host) traceRole(t *testing.T, args []string, role string, roleArgs ...string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "-o", "ndjson", "--netns", h.netns(), "--", "env", roleVariable+"="+role, exe)
	h.do(func() {
		if r := sstrace(t, "", append(args, roleArgs...)...); r.code != 0 {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
}

// A line is printed immediately, even to a pipe, although not every change wakes the reader when
// there are many.
func TestLinesComeAtOnce(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	if header := tr.line(); !strings.HasPrefix(header, "TIME ") {
		t.Fatalf("got header %q", header)
	}
	for range 20 {
		h.listen(loopbackAddr, 1).close() // the ring was empty, and the reader is asleep
		for _, want := range []string{"CLOSE       → LISTEN", "LISTEN      → CLOSE"} {
			if line := tr.line(); !strings.Contains(line, want) {
				t.Errorf("got %q, want %q", line, want)
			}
		}
	}
	tr.end(unix.SIGINT, 0)
	if !strings.Contains(tr.stderr.String(), ": 40 printed, ") {
		t.Errorf("balance: got %q, want 40 printed", &tr.stderr)
	}
}

func TestCountStopsExactly(t *testing.T) {
	h := newHost(t)
	tr := h.start([]string{"-o", "ndjson", "-n", "3"})
	await(t, "the end", func() bool {
		h.listen(loopbackAddr, 1).close()
		return tr.hasEnded()
	})
	if tr.code() != 0 {
		t.Errorf("exit code %d: %s", tr.code(), &tr.stderr)
	}
	file := filepath.Join(t.TempDir(), "trace")
	h.must("copy", <-tr.copyOutput(file))
	if r := readRecording(t, file); len(r.changes) != 3 {
		t.Errorf("got %d changes, want 3", len(r.changes))
	}
}

// -n stops immediately even if the last line was delayed, and nothing follows that line.
func TestCountStopsAfterAWait(t *testing.T) {
	h := newHost(t)
	h.sysctl("tcp_synack_retries", "1")
	w := h.newWire()
	l := h.listen(hostAddr, 8)
	defer l.close()
	tr := h.start([]string{"--states", "rfc", "--edge", "SYN_RECV:CLOSE", "-n", "1"})
	await(t, "the end", func() bool { // the first SYN may be sent before sstrace is attached
		w.send(synTo(peerAddr, hostAddr))
		select {
		case <-tr.done:
			return true
		case <-time.After(5 * time.Second):
			return false
		}
	})
	out, err := io.ReadAll(tr.stdout)
	h.must("read", err)
	if tr.code() != 0 || !strings.Contains(string(out), "handshake_abandoned") {
		t.Errorf("exit code %d, stdout %q: %s", tr.code(), out, &tr.stderr)
	}
}

// A line that was delayed is printed together with another one. -n may stop between the two, and
// the balance still adds up.
func TestCountStopsBetweenTwo(t *testing.T) {
	for n := 1; n <= 2; n++ {
		h := newHost(t)
		l := h.listen(loopbackAddr, 8)
		file := filepath.Join(t.TempDir(), "trace")
		args := []string{"-w", file, "--lport", "1024-65535", "-n", fmt.Sprint(n)}
		h.traceRole(t, args, "connect-once", loopbackAddr)
		if r := readRecording(t, file); len(r.changes) != n || r.end.Unread == 0 {
			t.Errorf("got %d changes, %+v; want %d changes, and some unread", len(r.changes), *r.end, n)
		}
		l.close()
	}
}

func TestFor(t *testing.T) {
	h := newHost(t)
	r := sstrace(t, "", "--netns", h.netns(), "--for", "10ms")
	if r.code != 0 || !strings.Contains(r.stderr, ": 0 printed, ") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

// After SIGINT or SIGTERM, sstrace still prints what happened before the signal.
func TestSignalsDrain(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		h := newHost(t)
		tr := h.start([]string{"-o", "ndjson"})
		tr.awaitAttached()
		for range 500 {
			h.listen(loopbackAddr, 1).close()
		}
		file := filepath.Join(t.TempDir(), "trace")
		copied := tr.copyOutput(file)
		tr.end(signal, 0)
		h.must("copy", <-copied)
		if got := len(firstChanges(readRecording(t, file).changes)); got < 501 {
			t.Errorf("%v: got %d listeners, want at least 501", signal, got)
		}
	}
}

// `sstrace | head -n 1` exits without a message.
func TestClosedStdout(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	tr.pipe.Close()
	await(t, "the end", func() bool {
		h.listen(loopbackAddr, 1).close()
		return tr.hasEnded()
	})
	if tr.code() != 0 || tr.stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", tr.code(), &tr.stderr)
	}
}

// sstrace notices that the reader has exited even if there is no line to write.
func TestClosedStdoutWhileNothingHappens(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	tr.pipe.Close()
	await(t, "the end", tr.hasEnded)
	if tr.code() != 0 || tr.stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", tr.code(), &tr.stderr)
	}
}

func TestFullDisk(t *testing.T) {
	h := newHost(t)
	tr := h.start([]string{"-w", "/dev/full", "-o", "ndjson"})
	await(t, "the end", func() bool {
		h.listen(loopbackAddr, 1).close()
		return tr.hasEnded()
	})
	got := tr.stderr.String()
	once := strings.Count(got, "no space left on device") == 1 && strings.Count(got, "\n") == 2
	if tr.code() != exitFailure || !once {
		t.Errorf("exit code %d, stderr %q", tr.code(), got)
	}
}

// If sstrace is killed, it leaves nothing in the kernel.
func TestKilled(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	ids := tr.programs()
	if len(ids) == 0 {
		t.Fatal("a running sstrace holds no program, so this tests nothing")
	}
	tr.end(unix.SIGKILL, -1)
	await(t, "the end of its programs", func() bool {
		for _, id := range ids {
			// struct { __u32 prog_id; __u32 next_id; __u32 open_flags; } of union bpf_attr
			attr := [3]uint32{id}
			const getFDByID = 13 // BPF_PROG_GET_FD_BY_ID
			fd, _, errno := unix.Syscall(unix.SYS_BPF, getFDByID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			if errno == 0 {
				_ = unix.Close(int(fd))
				return false
			}
		}
		return true
	})
}
