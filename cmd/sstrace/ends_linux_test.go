package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// The command's own stdin, stdout, stderr and exit code pass through, and none of its changes is lost.
func TestCommand(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	for _, test := range []struct {
		name   string
		argv   []string
		code   int
		stdout string
		stderr string
	}{
		{"fine", []string{"cat"}, 0, "to the command\n", ""},
		{"exit code", []string{"sh", "-c", "cat; echo oops >&2; exit 42"}, 42, "to the command\n", "oops\n"},
		{"killed", []string{"sh", "-c", "kill -TERM $$"}, 143, "", ""},
		{"not found", []string{"no-such-command-here"}, 127, "", "executable file not found"},
		{"not a file", []string{"/no/such/file"}, 127, "", "no such file"},
		{"not a program", []string{"/etc/passwd"}, 126, "", "permission denied"},
		{"like a subcommand", []string{"check"}, 127, "", "executable file not found"},
		{"SIGPIPE as ever", []string{"sh", "-c", "trap; yes | head -n 1"}, 0, "y\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, "to the command\n", append([]string{"-o", "ndjson", "-w", file, "--netns", h.netns(), "--"}, test.argv...)...)
			if r.code != test.code || r.stdout != test.stdout || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %+v", r.code, r.stdout, r.stderr, test)
			}
		})
	}

	// A command whose whole life is one connection after another.
	const connections = 200
	l := h.listen("127.0.0.1:7781", connections)
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
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.do(func() {
		r := sstrace(t, "", "-o", "ndjson", "-w", file, "--rport", "7781", "--netns", h.netns(), "--",
			"env", roleVariable+"=connect", exe, "127.0.0.1:7781", fmt.Sprint(connections))
		if r.code != 0 {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	begun := 0
	for _, e := range readRecording(t, file).changes {
		if e.New == event.SynSent {
			begun++
		}
	}
	if begun != connections {
		t.Errorf("the command connected %d times, %d are told", connections, begun)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode: %v, %v", info.Mode(), err)
	}
	unix.Shutdown(l.fd, unix.SHUT_RD)
}

// A line is there at once, through a pipe too, although nobody is woken for each of many.
func TestLinesComeAtOnce(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	if header := tr.line(); !strings.HasPrefix(header, "TIME ") {
		t.Fatalf("no header: %q", header)
	}
	for range 20 {
		h.listen("127.0.0.1:7781", 1).close() // the ring was empty, and the reader sleeps
		for _, want := range []string{"CLOSE       → LISTEN", "LISTEN      → CLOSE"} {
			if line := tr.line(); !strings.Contains(line, want) {
				t.Errorf("got %q, want %q", line, want)
			}
		}
	}
	tr.end(unix.SIGINT, 0)
	if !strings.Contains(tr.stderr.String(), ": 40 printed, ") {
		t.Errorf("balance: %q", &tr.stderr)
	}
}

func TestCountStopsExactly(t *testing.T) {
	h := newHost(t)
	tr := h.start([]string{"-o", "ndjson", "-n", "3"})
	await(t, "enough", func() bool {
		h.listen("127.0.0.1:7781", 1).close()
		return tr.hasEnded()
	})
	if tr.code() != 0 {
		t.Errorf("exit code %d: %s", tr.code(), &tr.stderr)
	}
	file := filepath.Join(t.TempDir(), "trace")
	rest, _ := io.ReadAll(tr.stdout)
	if err := os.WriteFile(file, rest, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := readRecording(t, file); len(r.changes) != 3 {
		t.Errorf("%d changes, want 3", len(r.changes))
	}
}

// -n stops at once, although the line that is enough was told only after a wait, and nothing comes after it.
func TestCountStopsAfterAWait(t *testing.T) {
	h := newHost(t)
	h.sysctl("tcp_synack_retries", "1")
	w := h.newWire()
	l := h.listen("10.0.0.1:7781", 8)
	defer l.close()
	cmd := self("sstrace", "--netns", h.netns(), "--edge", "SYN_RECV:CLOSE", "-n", "1")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await(t, "the end", func() bool { // the first may come before it is attached
		w.send(segment{from: netip.MustParseAddrPort("10.1.2.3:40602"), to: netip.MustParseAddrPort("10.0.0.1:7781"), flags: syn, seq: 1000})
		select {
		case err := <-ended:
			h.must("end", err)
			return true
		case <-time.After(5 * time.Second):
			return false
		}
	})
	if !strings.Contains(out.String(), "handshake_abandoned") {
		t.Errorf("%q", &out)
	}
}

// A line that waited comes with another: -n may stop between the two, and the balance still adds up.
func TestCountStopsBetweenTwo(t *testing.T) {
	for n := range 2 {
		h := newHost(t)
		l := h.listen("127.0.0.1:7781", 8)
		file := filepath.Join(t.TempDir(), "trace")
		h.do(func() {
			exe, err := os.Executable()
			h.must("find ourselves", err)
			r := sstrace(t, "", "-o", "ndjson", "-w", file, "--netns", h.netns(), "--lport", "1024-65535", "-n", fmt.Sprint(n+1), "--",
				"env", roleVariable+"=connect-once", exe, "127.0.0.1:7781")
			if r.code != 0 {
				t.Errorf("exit code %d: %s", r.code, r.stderr)
			}
		})
		if r := readRecording(t, file); len(r.changes) != n+1 || r.end.Unread == 0 {
			t.Errorf("%d changes, want %d; %+v", len(r.changes), n+1, *r.end)
		}
		l.close()
	}
}

func init() {
	roles["connect-once"] = func() {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(s, sockaddr(netip.MustParseAddrPort(os.Args[1]), unix.AF_INET))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func TestFor(t *testing.T) {
	h := newHost(t)
	if r := sstrace(t, "", "--netns", h.netns(), "--for", "10ms"); r.code != 0 || !strings.Contains(r.stderr, ": 0 printed, ") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

// SIGINT and SIGTERM drain: what happened before is told.
func TestSignalsDrain(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		h := newHost(t)
		tr := h.start([]string{"-o", "ndjson"})
		h.awaitAttached(tr.pipe)
		for range 500 {
			h.listen("127.0.0.1:7781", 1).close()
		}
		file := filepath.Join(t.TempDir(), "trace")
		copied := make(chan error)
		go func() {
			text, err := io.ReadAll(tr.stdout)
			if err == nil {
				err = os.WriteFile(file, text, 0o600)
			}
			copied <- err
		}()
		tr.end(signal, 0)
		h.must("copy", <-copied)
		if got := len(firstChanges(readRecording(t, file).changes)); got < 501 {
			t.Errorf("%v: %d listeners, want 501 or more", signal, got)
		}
	}
}

// `sstrace | head -n 1` ends, quietly.
func TestClosedStdout(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	tr.pipe.Close()
	await(t, "end", func() bool {
		h.listen("127.0.0.1:7781", 1).close()
		return tr.hasEnded()
	})
	if tr.code() != 0 || tr.stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", tr.code(), &tr.stderr)
	}
}

// Nor does it need a line to notice that nobody reads any more.
func TestClosedStdoutWhileNothingHappens(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	tr.pipe.Close()
	await(t, "end", tr.hasEnded)
	if tr.code() != 0 || tr.stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q", tr.code(), &tr.stderr)
	}
}

func TestFullDisk(t *testing.T) {
	h := newHost(t)
	tr := h.start([]string{"-w", "/dev/full", "-o", "ndjson"})
	await(t, "end", func() bool {
		h.listen("127.0.0.1:7781", 1).close()
		return tr.hasEnded()
	})
	if got := tr.stderr.String(); tr.code() != exitFailure || strings.Count(got, "no space left on device") != 1 || strings.Count(got, "\n") != 2 {
		t.Errorf("exit code %d, stderr %q", tr.code(), got)
	}
}

// Killed, it leaves nothing in the kernel.
func TestKilled(t *testing.T) {
	h := newHost(t)
	tr := h.start(nil)
	tr.line()
	ids := tr.programs()
	if len(ids) == 0 {
		t.Fatal("a running sstrace holds no program: this tests nothing")
	}
	tr.end(unix.SIGKILL, -1)
	await(t, "programs are gone", func() bool {
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

// A comm is any 15 bytes.
func TestHostileComm(t *testing.T) {
	h := newHost(t)
	const comm = "a\"\\\n\x1b[31m\xff\u202e,"
	r := trace(t, []string{"--netns", h.netns()}, func() {
		h.do(func() { h.must("comm", os.WriteFile("/proc/thread-self/comm", []byte(comm), 0)) })
		h.do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			h.must("socket", err)
			h.must("listen", unix.Listen(fd, 1))
			h.must("close", unix.Close(fd))
		})
	})
	if len(r.changes) != 2 {
		t.Fatalf("%d changes, want 2", len(r.changes))
	}
	want := strings.ToValidUTF8(comm, "\ufffd") // as JSON has to have it
	if got := r.changes[0].TaskComm; got != want {
		t.Errorf("comm is %q, want %q", got, want)
	}
	var lines bytes.Buffer
	for _, e := range r.changes {
		lines.Write(e.AppendJSON(nil))
	}
	lines.WriteString(`{"v":1,"type":"end","seq":3,"ts":"2026-11-22T14:03:12.123637499Z","mono_ns":1,"seen":2,"added":0,"filtered":0,"ring_full":0,"unread":0,"merged":0,"printed":2,"missed":0,"partial":false}` + "\n")
	for _, format := range []string{"text", "wide", "csv"} {
		out := sstrace(t, lines.String(), "-r", "-", "-o", format).stdout
		if strings.Count(out, "\n") != 3 || strings.ContainsAny(out, "\x1b\u202e") {
			t.Errorf("%s: %q", format, out)
		}
	}
}

func TestCheck(t *testing.T) {
	needRoot(t)
	r := sstrace(t, "", "check")
	if r.code != 0 || strings.Contains(r.stdout, "NO ") || !strings.Contains(r.stdout, "programs load and attach") {
		t.Errorf("exit code %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// Without privileges it says which would do.
func TestNotRoot(t *testing.T) {
	cmd := self("sstrace")
	if os.Geteuid() == 0 {
		// The test binary is not where another user may look: it is opened before the user changes.
		exe, err := os.Open(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer exe.Close()
		cmd.ExtraFiles = []*os.File{exe}
		cmd.Path = "/proc/self/fd/3"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(string(out), "without CAP_BPF and CAP_PERFMON: run it as root") {
		t.Errorf("exit code %d, %v: %s", cmd.ProcessState.ExitCode(), err, out)
	}
}

// tracer is a running sstrace.
type tracer struct {
	h      *host
	cmd    *exec.Cmd
	pipe   *os.File
	stdout *bufio.Reader
	stderr bytes.Buffer
	done   chan struct{}
}

// start runs sstrace for the namespace.
func (h *host) start(args []string) *tracer {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	tr := &tracer{h: h, cmd: self("sstrace", append(args, "--states", "kernel", "--netns", h.netns())...), pipe: r, stdout: bufio.NewReader(r), done: make(chan struct{})}
	tr.cmd.Stdout, tr.cmd.Stderr = w, &tr.stderr
	if err := tr.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	w.Close()
	go func() {
		_ = tr.cmd.Wait()
		close(tr.done)
	}()
	h.t.Cleanup(func() {
		_ = tr.cmd.Process.Kill()
		<-tr.done
		r.Close()
	})
	return tr
}

func (tr *tracer) line() string {
	tr.h.t.Helper()
	line, err := tr.stdout.ReadString('\n')
	if err != nil {
		tr.h.t.Fatalf("read a line: %v", err)
	}
	return line
}

func (tr *tracer) hasEnded() bool {
	select {
	case <-tr.done:
		return true
	default:
		return false
	}
}

func (tr *tracer) code() int { return tr.cmd.ProcessState.ExitCode() }

func (tr *tracer) end(signal unix.Signal, code int) {
	tr.h.t.Helper()
	tr.h.must("signal", tr.cmd.Process.Signal(signal))
	<-tr.done
	if got := tr.code(); got != code {
		tr.h.t.Errorf("exit code %d after %v, want %d: %s", got, signal, code, &tr.stderr)
	}
}

// programs gives the ids of the BPF programs that a process holds (fdinfo, Documentation/filesystems/proc.rst).
func (tr *tracer) programs() (ids []uint32) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", tr.cmd.Process.Pid))
	tr.h.must("look at its files", err)
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may just have been closed
		for line := range strings.Lines(string(text)) {
			var id uint32
			if _, err := fmt.Sscanf(line, "prog_id: %d", &id); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
