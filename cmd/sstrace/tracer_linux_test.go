package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tracer is a running sstrace whose stdout is a pipe.
type tracer struct {
	h      *host
	cmd    *exec.Cmd
	pipe   *os.File
	stdout *bufio.Reader // the read end of the pipe
	stderr bytes.Buffer
	done   chan struct{} // closed after it has exited
}

// start starts a trace of the namespace in the kernel's vocabulary. The process is killed when the
// test ends.
func (h *host) start(args []string) *tracer {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	args = append(args, "--netns", h.netns())
	if !slices.Contains(args, "--states") {
		args = append(args, "--states", "kernel")
	}
	tr := &tracer{
		h: h, cmd: self("sstrace", args...), pipe: r, stdout: bufio.NewReader(r), done: make(chan struct{}),
	}
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

// awaitAttached opens and closes listeners until the first line has been written. It does not read
// the line from the pipe.
func (tr *tracer) awaitAttached() {
	conn, err := tr.pipe.SyscallConn()
	tr.h.must("pipe", err)
	await(tr.h.t, "sstrace attaches", func() bool {
		tr.h.listen("127.0.0.1:1", 1).close()
		ready := false
		tr.h.must("poll", conn.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(fds, 10)
			ready = n == 1
		}))
		return ready
	})
}

func (tr *tracer) line() string {
	tr.h.t.Helper()
	line, err := tr.stdout.ReadString('\n')
	if err != nil {
		tr.h.t.Fatalf("read a line: %v", err)
	}
	return line
}

// copyOutput copies the rest of stdout to a file. It sends the result once the process has exited.
func (tr *tracer) copyOutput(file string) <-chan error {
	copied := make(chan error, 1)
	out, err := os.Create(file)
	if err != nil {
		tr.h.t.Fatal(err)
	}
	go func() {
		_, err := io.Copy(out, tr.stdout)
		copied <- errors.Join(err, out.Close())
	}()
	return copied
}

func (tr *tracer) hasEnded() bool {
	select {
	case <-tr.done:
		return true
	default:
		return false
	}
}

// code returns the exit code of a tracer that has exited.
func (tr *tracer) code() int { return tr.cmd.ProcessState.ExitCode() }

// end ends the tracer with a signal and checks its exit code.
func (tr *tracer) end(signal unix.Signal, code int) {
	tr.h.t.Helper()
	tr.h.must("signal", tr.cmd.Process.Signal(signal))
	<-tr.done
	if got := tr.code(); got != code {
		tr.h.t.Errorf("after %v: got exit code %d, want %d: %s", signal, got, code, &tr.stderr)
	}
}

// programs returns the IDs of the BPF programs that the process holds, from fdinfo
// (Documentation/filesystems/proc.rst).
func (tr *tracer) programs() (ids []uint32) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", tr.cmd.Process.Pid))
	tr.h.must("list its files", err)
	for _, file := range files {
		text, _ := os.ReadFile(file) // it may have just been closed
		for line := range strings.Lines(string(text)) {
			var id uint32
			if _, err := fmt.Sscanf(line, "prog_id: %d", &id); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
