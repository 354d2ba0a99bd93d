package event

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const maxNames = 1 << 14 // limit on decoder.names

// decoder scans one JSON object. A recording keeps repeating a few strings, so decoder interns
// strings in names, and a line costs no allocation. A hostile recording cannot make names grow
// beyond maxNames.
type decoder struct {
	names map[string]string
	in    []byte
	pos   int
	buf   []byte // a string without its escapes
}

// intern returns b as a string.
func (d *decoder) intern(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if len(d.names) >= maxNames {
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}

// open skips the start of an object.
func (d *decoder) open() error {
	if !d.take('{') {
		return d.fail("not a JSON object: a recording is made with -o ndjson")
	}
	return nil
}

// next returns the next key of an object, or false at its end. The caller must decode the value
// before it calls next again. first is true for the first call.
func (d *decoder) next(first bool) (key []byte, ok bool, err error) {
	if d.take('}') {
		return nil, false, nil
	}
	if !first && !d.take(',') {
		return nil, false, d.fail("expected , or }")
	}
	if key, err = d.text(); err != nil {
		return nil, false, err
	}
	if !d.take(':') {
		return nil, false, d.fail("expected :")
	}
	return key, true, nil
}

// bool decodes true or false.
func (d *decoder) bool(v *bool) error {
	d.space()
	for _, b := range []bool{true, false} {
		if text := strconv.FormatBool(b); bytes.HasPrefix(d.in[d.pos:], []byte(text)) {
			d.pos += len(text)
			*v = b
			return nil
		}
	}
	return d.fail("expected true or false")
}

// fail returns an error for the current position.
func (d *decoder) fail(what string) error {
	return fmt.Errorf("column %d: %s", d.pos+1, what)
}

// space skips white space.
func (d *decoder) space() {
	for d.pos < len(d.in) {
		switch d.in[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

// take skips c and the white space before it, and reports whether c was next.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.pos < len(d.in) && d.in[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

// null skips null, and reports whether it was next.
func (d *decoder) null() bool {
	d.space()
	if len(d.in)-d.pos >= 4 && string(d.in[d.pos:d.pos+4]) == "null" {
		d.pos += 4
		return true
	}
	return false
}

// number decodes an integer into v, or leaves v alone for null.
func number[T ~uint16 | ~uint32 | ~uint64 | ~int32 | ~int64](d *decoder, v *T) error {
	if d.null() {
		return nil
	}
	start := d.pos
	for d.pos < len(d.in) && strings.IndexByte("+-.0123456789eE", d.in[d.pos]) >= 0 {
		d.pos++
	}
	var n uint64
	digits := d.in[start:d.pos]
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' {
		return d.fail("expected an integer or null")
	}
	for _, c := range digits {
		next := n*10 + uint64(c-'0')
		if c < '0' || c > '9' || n > (1<<64-1)/10 || next < n {
			return d.fail(fmt.Sprintf("%s is not a non-negative integer", digits))
		}
		n = next
	}
	*v = T(n)
	if uint64(*v) != n || *v < 0 {
		return d.fail(fmt.Sprintf("%s is too large", digits))
	}
	return nil
}

// text decodes a JSON string; the result is valid until the next call.
func (d *decoder) text() ([]byte, error) {
	if !d.take('"') {
		return nil, d.fail("expected a string")
	}
	start := d.pos
	for d.pos < len(d.in) {
		switch c := d.in[d.pos]; {
		case c == '"':
			d.pos++
			return d.in[start : d.pos-1], nil
		case c == '\\' || c >= utf8.RuneSelf:
			d.buf = append(d.buf[:0], d.in[start:d.pos]...)
			return d.escaped()
		case c < ' ':
			return nil, d.fail("control character in a string")
		}
		d.pos++
	}
	return nil, d.fail("string without end")
}

// escaped decodes the rest of a string that is not plain ASCII. Bytes that are not UTF-8 become
// U+FFFD, as in encoding/json.
func (d *decoder) escaped() ([]byte, error) {
	for d.pos < len(d.in) {
		c := d.in[d.pos]
		switch {
		case c == '"':
			d.pos++
			return d.buf, nil
		case c < ' ':
			return nil, d.fail("control character in a string")
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(d.in[d.pos:])
			d.buf = utf8.AppendRune(d.buf, r)
			d.pos += size
			continue
		case c != '\\':
			d.buf = append(d.buf, c)
			d.pos++
			continue
		}
		if d.pos+1 >= len(d.in) {
			break
		}
		c = d.in[d.pos+1]
		d.pos += 2
		switch c {
		case '"', '\\', '/':
			d.buf = append(d.buf, c)
		case 'b':
			d.buf = append(d.buf, '\b')
		case 'f':
			d.buf = append(d.buf, '\f')
		case 'n':
			d.buf = append(d.buf, '\n')
		case 'r':
			d.buf = append(d.buf, '\r')
		case 't':
			d.buf = append(d.buf, '\t')
		case 'u':
			r, ok := d.hex4()
			if !ok {
				return nil, d.fail(`bad \u escape`)
			}
			if utf16.IsSurrogate(r) {
				r = d.lowSurrogate(r)
			}
			d.buf = utf8.AppendRune(d.buf, r)
		default:
			return nil, d.fail("bad escape in a string")
		}
	}
	return nil, d.fail("string without end")
}

// lowSurrogate combines high with the escape after it. If that is not a low surrogate, it returns
// U+FFFD and does not consume the escape.
func (d *decoder) lowSurrogate(high rune) rune {
	at := d.pos
	if len(d.in)-d.pos >= 6 && d.in[d.pos] == '\\' && d.in[d.pos+1] == 'u' {
		d.pos += 2
		if low, ok := d.hex4(); ok {
			if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
				return r
			}
		}
	}
	d.pos = at
	return utf8.RuneError
}

// hex4 decodes four hexadecimal digits.
func (d *decoder) hex4() (rune, bool) {
	if len(d.in)-d.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range d.in[d.pos : d.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	d.pos += 4
	return r, true
}

// string decodes a string, or leaves v alone for null.
func (d *decoder) string(v *string) error {
	if d.null() {
		return nil
	}
	b, err := d.text()
	if err != nil {
		return err
	}
	*v = d.intern(b)
	return nil
}

// maxDepth is the maximum nesting depth of an unknown key's value.
const maxDepth = 64

// skip skips the value of an unknown key.
func (d *decoder) skip(depth int) error {
	d.space()
	if d.pos == len(d.in) || depth > maxDepth {
		return d.fail("expected a value")
	}
	switch d.in[d.pos] {
	case '"':
		_, err := d.text()
		return err
	case '{', '[':
		opening := d.in[d.pos]
		closing := opening + 2 // the same distance in ASCII for both pairs
		d.pos++
		for first := true; !d.take(closing); first = false {
			if !first && !d.take(',') {
				return d.fail("expected , or " + string(closing))
			}
			if opening == '{' {
				if _, err := d.text(); err != nil {
					return err
				}
				if !d.take(':') {
					return d.fail("expected :")
				}
			}
			if err := d.skip(depth + 1); err != nil {
				return err
			}
		}
		return nil
	}
	start := d.pos
	for d.pos < len(d.in) && strings.IndexByte(",}] \t\r\n", d.in[d.pos]) < 0 {
		d.pos++
	}
	if d.pos == start {
		return d.fail("expected a value")
	}
	return nil
}
