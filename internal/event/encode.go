package event

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends e as one NDJSON line, with its newline. Every key of its type is present, in a
// fixed order; docs/ndjson.md describes them. It allocates only when b has to grow.
func (e *Event) AppendJSON(b []byte) []byte {
	switch e.Type {
	case Lost:
		return e.appendLost(b)
	case End:
		return e.appendEnd(b)
	case Socket:
		return e.appendSocket(b)
	case Accept:
		return e.appendAccept(b)
	case ConnectFailed:
		return e.appendConnectFailed(b)
	}
	return e.appendChange(b)
}

// MarshalJSON implements json.Marshaler, for the lines of other types that have totals.
func (t *Totals) MarshalJSON() ([]byte, error) { return t.appendJSON(nil), nil }

// appendJSON appends t as an object, or null if it is unknown.
func (t *Totals) appendJSON(b []byte) []byte {
	if !t.Known {
		return append(b, "null"...)
	}
	return t.append(b)
}

// appendHolders appends an array, or null for nil.
func appendHolders(b []byte, holders []Holder) []byte {
	if holders == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range holders {
		if i > 0 {
			b = append(b, ',')
		}
		b = holders[i].append(b)
	}
	return append(b, ']')
}

// appendPID appends pid if it belongs to the PID namespace that want selects: HostPID for the
// initial one, 0 for sstrace's own. Otherwise it appends null.
func appendPID(b []byte, pid, want uint32) []byte {
	if pid&HostPID != want {
		return append(b, "null"...)
	}
	return appendUint(b, uint64(pid&^HostPID))
}

// appendTaskPID is appendPID for a current task of sstrace's PID namespace, where 0 is the idle
// task.
func appendTaskPID(b []byte, pid uint32) []byte {
	if pid&HostPID != 0 {
		return append(b, "null"...)
	}
	return strconv.AppendUint(b, uint64(pid), 10)
}

// appendOwnerComm appends the owner's name, which may be empty, or null if there is no owner.
func (e *Event) appendOwnerComm(b []byte) []byte {
	if e.OwnerPID == 0 {
		return append(b, "null"...)
	}
	return appendString(b, e.OwnerComm)
}

func appendUID(b []byte, uid uint32) []byte {
	if uid == NoUID {
		return append(b, "null"...)
	}
	return strconv.AppendUint(b, uint64(uid), 10)
}

// JSON returns the value of the key active_close: true, false or null.
func (c Closer) JSON() string {
	switch c {
	case WeClosed:
		return "true"
	case TheyClosed:
		return "false"
	}
	return "null"
}

// JSON returns true, false or null.
func (a Answer) JSON() string {
	switch a {
	case Yes:
		return "true"
	case No:
		return "false"
	}
	return "null"
}

// appendInt appends v, or null for Unknown.
func appendInt(b []byte, v int64) []byte {
	if v == Unknown {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, v, 10)
}

// appendUint appends v, or null for 0, which is never a known value of these keys.
func appendUint(b []byte, v uint64) []byte {
	if v == 0 {
		return append(b, "null"...)
	}
	return strconv.AppendUint(b, v, 10)
}

// appendName appends the name of an enumeration's value, which needs no escapes, or null if it is
// empty.
func appendName(b []byte, name string) []byte {
	if name == "" {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"')
}

// appendText appends any text, or null if it is empty.
func appendText(b []byte, text string) []byte {
	if text == "" {
		return append(b, "null"...)
	}
	return appendString(b, text)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = a.AppendTo(b)
	return append(b, '"')
}

// appendString appends s in quotes, with the same escapes as encoding/json without HTML escaping. A
// comm may hold any bytes; those that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c >= ' ':
				b = append(b, c)
			case c == '\b':
				b = append(b, `\b`...)
			case c == '\f':
				b = append(b, `\f`...)
			case c == '\n':
				b = append(b, `\n`...)
			case c == '\r':
				b = append(b, `\r`...)
			case c == '\t':
				b = append(b, `\t`...)
			default:
				b = append(b, `\u00`...)
				b = append(b, hex[c>>4], hex[c&15])
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return append(b, '"')
}

// AppendTime appends wall, in ns since 1970 UTC, as RFC 3339 with all nine digits. It does not use
// time.AppendFormat, which takes four times as long and would account for a third of the cost of a
// line.
func AppendTime(b []byte, wall int64) []byte {
	t := time.Unix(0, wall).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = appendDigits(b, year, 4)
	b = append(b, '-')
	b = appendDigits(b, int(month), 2)
	b = append(b, '-')
	b = appendDigits(b, day, 2)
	b = append(b, 'T')
	b = appendDigits(b, hour, 2)
	b = append(b, ':')
	b = appendDigits(b, minute, 2)
	b = append(b, ':')
	b = appendDigits(b, second, 2)
	b = append(b, '.')
	b = appendDigits(b, t.Nanosecond(), 9)
	return append(b, 'Z')
}

// appendDigits appends v, padded with zeros to width.
func appendDigits(b []byte, v, width int) []byte {
	b = append(b, "000000000"[:width]...)
	for i := len(b) - 1; v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}
