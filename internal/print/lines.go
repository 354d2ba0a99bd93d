package print

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sstrace/internal/event"
)

// Lines numbers lines and gathers them until Flush, or until there are many. It is not safe for concurrent use.
type Lines struct {
	w   io.Writer
	buf []byte
	seq uint64
}

// flushAt is well above a line and well below a pipe's 64 KiB.
const flushAt = 32 << 10

// NewLines makes a Lines that writes to w.
func NewLines(w io.Writer) *Lines {
	return &Lines{w: w, buf: make([]byte, 0, 2*flushAt)}
}

// Head is how each line of NDJSON begins that is no Event; docs/ndjson.md has the keys.
type Head struct {
	V    int    `json:"v"`
	Type string `json:"type"`
	Seq  uint64 `json:"seq"` // Lines fills it in
	Time string `json:"ts"`
	Mono int64  `json:"mono_ns"`
}

// NewHead makes the Head of a line about this moment.
func NewHead(kind string, wall, mono int64) Head {
	return Head{V: event.Version, Type: kind, Time: string(event.AppendTime(nil, wall)), Mono: mono}
}

// Known gives what a nullable key has: v, or null if that is the value of what is not known.
func Known[T comparable](v, unknown T) *T {
	if v == unknown {
		return nil
	}
	return &v
}

// PIDs returns what the two keys of a process ID have: the one for those of our PID namespace, and the one for those of the initial
// one alone (event.HostPID).
func PIDs(pid uint32) (own, host *uint32) {
	if pid&event.HostPID != 0 {
		return nil, Known(pid&^event.HostPID, 0)
	}
	return Known(pid, 0), nil
}

func (h *Head) number(seq uint64) { h.Seq = seq }

// JSON takes a line of NDJSON: a pointer to a struct in which Head comes first.
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

// Event takes one as a line of NDJSON, and numbers it.
func (l *Lines) Event(e *event.Event) error {
	l.seq++
	e.Seq = l.seq
	return l.set(e.AppendJSON(l.buf))
}

// Block takes text for people, whole lines, and writes it at once.
func (l *Lines) Block(text []byte) error {
	if err := l.Flush(); err != nil {
		return err
	}
	return l.write(text)
}

// Text takes text for people: whole lines.
func (l *Lines) Text(text string) error {
	return l.set(append(l.buf, text...))
}

func (l *Lines) set(buf []byte) error {
	if l.buf = buf; len(l.buf) >= flushAt {
		return l.Flush()
	}
	return nil
}

// Flush writes what was gathered.
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
