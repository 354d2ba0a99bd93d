// Package text formats output for people: addresses, processes, times, sizes, states and reasons.
// The Append functions allocate only if b has too little room.
package text

import (
	"strconv"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
)

const (
	red   = "\x1b[31m"
	reset = "\x1b[0m"
)

// StateColor maps a state to the escape sequence that starts its color. States that are not in the
// map are not colored.
var StateColor = map[event.State]string{
	event.Established: "\x1b[32m",
	event.CloseWait:   "\x1b[33m",
	event.TimeWait:    "\x1b[36m",
	event.Listen:      "\x1b[34m",
	event.Close:       "\x1b[2m",
}

// ResetColor ends a color.
const ResetColor = reset

// State returns the name of s, colored if color is set.
func State(s event.State, color bool) string {
	if c := StateColor[s]; color && c != "" {
		return c + s.String() + reset
	}
	return s.String()
}

// Alarm returns s, in red if color is set.
func Alarm(s string, color bool) string {
	if !color || s == "" {
		return s
	}
	return red + s + reset
}

// Reason returns why a connection ended and the socket's error, as AppendReason writes them.
func Reason(r event.Reason, err int32) string { return string(AppendReason(nil, r, err)) }

// AppendReason appends why a connection ended and the socket's error, whichever of them exist, or
// "-".
func AppendReason(b []byte, r event.Reason, err int32) []byte {
	b = append(b, r.String()...)
	if r != 0 && err != 0 {
		b = append(b, ' ')
	}
	if r == 0 || err != 0 {
		b = append(b, errName(err)...)
	}
	return b
}

func errName(err int32) string {
	if n := event.ErrnoName(err); n != "" {
		return n
	}
	if err == 0 {
		return "-"
	}
	return "errno " + strconv.Itoa(int(err))
}

// Lost returns the line that reports a Lost, with its wall time and its newline.
func Lost(e *event.Event, color bool) string {
	b := time.Unix(0, e.Wall).AppendFormat(nil, "15:04:05.000000000 ")
	return string(AppendLost(b, e.RingFull, color))
}

// AppendLost appends a line that reports changes lost here, with its newline.
func AppendLost(b []byte, changes uint64, color bool) []byte {
	if color {
		b = append(b, red...)
	}
	b = append(b, "--- "...)
	b = strconv.AppendUint(b, changes, 10)
	b = append(b, " changes lost here, the ring buffer was full: a filter or a larger --buffer helps ---"...)
	if color {
		b = append(b, reset...)
	}
	return append(b, '\n')
}

// Pad appends the spaces that widen a field from have to want columns.
func Pad(b []byte, have, want int) []byte {
	for ; have < want; have++ {
		b = append(b, ' ')
	}
	return b
}

// OrDash returns s, or "-" if s is empty, which means unknown.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Visible returns s as AppendVisible writes it.
func Visible(s string) string { return string(AppendVisible(nil, s)) }

// AppendVisible appends s. It escapes everything that does not print as itself, as Go does, and
// doubles each backslash. A command name holds whatever bytes its process chose, and a terminal
// obeys some of them.
func AppendVisible(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\x`...)
			b = append(b, "0123456789abcdef"[s[i]>>4], "0123456789abcdef"[s[i]&15])
		case r == '\\' || !strconv.IsPrint(r):
			q := strconv.AppendQuoteRune(b, r)
			n := copy(q[len(b):], q[len(b)+1:len(q)-1]) // without its quotes
			b = q[:len(b)+n]
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return b
}
