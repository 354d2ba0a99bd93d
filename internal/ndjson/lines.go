// Package ndjson writes numbered lines: NDJSON, and text that goes to the same output.
package ndjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sstrace/internal/event"
)

// Lines numbers lines and buffers them until Flush, or until the buffer is full. It is not safe for
// concurrent use.
type Lines struct {
	w   io.Writer
	buf []byte
	seq uint64
}

// flushAt is well above the length of a line and well below the 64 KiB that a pipe holds.
const flushAt = 32 << 10

// NewLines returns Lines that write to w.
func NewLines(w io.Writer) *Lines {
	return &Lines{w: w, buf: make([]byte, 0, 2*flushAt)}
}

// Head starts every NDJSON line that is not an Event. docs/ndjson.md describes the keys.
type Head struct {
	V    int    `json:"v"`
	Type string `json:"type"`
	Seq  uint64 `json:"seq"` // set by Lines
	Time string `json:"ts"`
	Mono int64  `json:"mono_ns"`
}

// NewHead returns the Head of a line of this type about this moment: wall in ns since 1970 UTC,
// mono in ns of CLOCK_MONOTONIC.
func NewHead(kind string, wall, mono int64) Head {
	return Head{V: event.Version, Type: kind, Time: string(event.AppendTime(nil, wall)), Mono: mono}
}

// Known returns the value of a nullable key: nil if v is the value that stands for unknown.
func Known[T comparable](v, unknown T) *T {
	if v == unknown {
		return nil
	}
	return &v
}

// PIDs returns the values of the two keys for a process ID: own for a process in our PID namespace,
// host for one that exists only in the initial namespace (event.HostPID).
func PIDs(pid uint32) (own, host *uint32) {
	if pid&event.HostPID != 0 {
		return nil, Known(pid&^event.HostPID, 0)
	}
	return Known(pid, 0), nil
}

func (h *Head) number(seq uint64) { h.Seq = seq }

// JSON adds one line; line points to a struct that embeds Head as its first field.
func (l *Lines) JSON(line interface{ number(seq uint64) }) error {
	l.seq++
	line.number(l.seq)
	buf := bytes.NewBuffer(l.buf)
	out := json.NewEncoder(buf)
	out.SetEscapeHTML(false)
	if err := out.Encode(line); err != nil {
		return fmt.Errorf("encode a line: %w", err)
	}
	return l.set(buf.Bytes())
}

// Event numbers e and adds it as a line of NDJSON.
func (l *Lines) Event(e *event.Event) error { return l.Encode(e, appendJSON) }

func appendJSON(b []byte, e *event.Event) []byte { return e.AppendJSON(b) }

// End writes everything that was added and the line that ends the output, unless its balance is
// unknown.
func (l *Lines) End(end *event.Event) error {
	if end.Balance != nil {
		if err := l.Event(end); err != nil {
			return err
		}
	}
	return l.Flush()
}

// Encode numbers e and adds what appendLine appends: one line with its newline.
func (l *Lines) Encode(e *event.Event, appendLine func([]byte, *event.Event) []byte) error {
	l.seq++
	e.Seq = l.seq
	return l.set(appendLine(l.buf, e))
}

// Block writes text at once, after everything that was added before: whole lines for a person.
func (l *Lines) Block(text []byte) error {
	if err := l.Flush(); err != nil {
		return err
	}
	return l.write(text)
}

// Text adds whole lines for a person.
func (l *Lines) Text(text string) error {
	return l.set(append(l.buf, text...))
}

func (l *Lines) set(buf []byte) error {
	if l.buf = buf; len(l.buf) >= flushAt {
		return l.Flush()
	}
	return nil
}

// Flush writes everything that was added.
func (l *Lines) Flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	err := l.write(l.buf)
	l.buf = l.buf[:0]
	return err
}

func (l *Lines) write(b []byte) error {
	if _, err := l.w.Write(b); err != nil {
		return fmt.Errorf("write lines: %w", err)
	}
	return nil
}
