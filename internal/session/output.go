package session

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/term"
)

// Output is where a view writes: standard output, or a file.
type Output struct {
	*os.File
	isStdout bool
}

// OpenOutput opens the file at path for writing, or standard output if path is empty. It fails if
// that file is the one at input, which is being read; input may be empty. A new file gets mode
// 0600.
func OpenOutput(path, input string) (*Output, error) {
	if path == "" {
		return &Output{os.Stdout, true}, nil
	}
	if sameFile(path, input) {
		return nil, fmt.Errorf("-w %s is the recording that -r reads: write to another file", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &Output{f, false}, nil
}

// sameFile reports whether a and b are names of the same existing file.
func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// Terminal reports whether a person sees the output as it is written.
func (o *Output) Terminal() bool { return term.IsTerminal(int(o.Fd())) }

// Color reports whether the output should be colored (https://no-color.org).
func (o *Output) Color() bool { return os.Getenv("NO_COLOR") == "" && o.Terminal() }

// begin drops what a file held before. It is called once lines are certain to come, so that a run
// that cannot start destroys nothing.
func (o *Output) begin() error {
	if o.isStdout {
		return nil
	}
	info, err := o.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return o.Truncate(0)
}

// Write implements io.Writer. It returns ErrReaderGone if standard output is a pipe that no process
// reads any more.
func (o *Output) Write(b []byte) (int, error) {
	n, err := o.File.Write(b)
	if o.isStdout && errors.Is(err, syscall.EPIPE) {
		err = ErrReaderGone
	}
	return n, err
}

// Close closes a file, and leaves standard output open.
func (o *Output) Close() error {
	if o.isStdout {
		return nil
	}
	return o.File.Close()
}
