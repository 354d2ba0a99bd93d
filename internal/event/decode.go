package event

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Read gives the Events of a recording, in order, until its end or the first error, which names the line; each is good until the next one. Keys that it does
// not know are passed over. A line cut short by the end of the file, as a killed tracer leaves it, is an error of its own
// that wraps io.ErrUnexpectedEOF.
func Read(r io.Reader) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		in := bufio.NewReaderSize(r, 1<<16)
		d := decoder{names: make(map[string]string)}
		e := new(Event)
		for line := 1; ; line++ {
			text, err := in.ReadSlice('\n')
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				yield(nil, fmt.Errorf("line %d: longer than 64 KiB: not a recording by sstrace -o ndjson", line))
				return
			case errors.Is(err, io.EOF) && len(text) == 0:
				return
			case errors.Is(err, io.EOF):
				yield(nil, fmt.Errorf("line %d is cut short: %w", line, io.ErrUnexpectedEOF))
				return
			case err != nil:
				yield(nil, fmt.Errorf("line %d: %w", line, err))
				return
			}
			*e = Event{}
			if err := d.decode(text, e); err != nil {
				yield(nil, fmt.Errorf("line %d: %w", line, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// DecodeJSON decodes one NDJSON line into e. It takes any key order and white space, and passes over unknown keys.
func (e *Event) DecodeJSON(line []byte) error {
	d := decoder{names: make(map[string]string)}
	return d.decode(line, e)
}

// decoder scans one flat JSON object. names keeps the few strings that recur in a recording, so that a line costs no
// allocation; it is emptied when a hostile recording makes it grow.
type decoder struct {
	names map[string]string
	in    []byte
	pos   int
	buf   []byte // of a string with escapes
}

const maxNames = 1 << 14

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

func (d *decoder) decode(line []byte, e *Event) error {
	*e = Event{Dur: Unknown, UID: NoUID, SynRetrans: Unknown}
	d.in, d.pos = line, 0
	var (
		s            = fields{status: Status{RecvQueue: Unknown, SendQueue: Unknown, AtLeast: Unknown, Left: Unknown}}
		version      uint64
		laddr, raddr netip.Addr
		lport, rport uint16
	)
	for key, err := range d.members {
		if err != nil {
			return err
		}
		switch string(key) {
		case "v":
			err = number(d, &version)
		case "type":
			if err = enum(d, typeNames, &e.Type); err != nil {
				err = fmt.Errorf("%w: only what a trace or ls wrote with -o ndjson can be read again, by this version or an older one", err)
			}
			s.kind = err == nil
		case "seq":
			err = number(d, &e.Seq)
		case "ts":
			err = d.time(&e.Wall)
			s.ts = err == nil
		case "mono_ns":
			err = number(d, &e.Mono)
		case "cpu":
			err = number(d, &e.CPU)
		case "id":
			err = number(d, &e.ID)
		case "cookie":
			err = number(d, &e.Cookie)
		case "sk":
			err = d.pointer(&e.Sk)
		case "netns":
			err = number(d, &e.NetNS)
		case "family":
			err = enum(d, familyNames, &e.Family)
		case "proto":
			err = enum(d, protoNames, &e.Proto)
		case "laddr":
			err = d.addr(&laddr)
		case "lport":
			err = number(d, &lport)
		case "raddr":
			err = d.addr(&raddr)
		case "rport":
			err = number(d, &rport)
		case "state":
			err = enum(d, stateNames, &e.New)
		case "age_ns":
			err = number(d, &e.Dur)
		case "age_min_ns":
			err = number(d, &s.status.AtLeast)
		case "left_ns":
			err = number(d, &s.status.Left)
		case "recv_q", "accept_q": // null where the other is a number
			err = number(d, &s.status.RecvQueue)
		case "send_q", "accept_max":
			err = number(d, &s.status.SendQueue)
		case "holders":
			s.status.Holders, err = d.holders()
		case "old":
			err = enum(d, stateNames, &e.Old)
		case "new":
			err = enum(d, stateNames, &e.New)
		case "dur_ns", "queue_ns":
			err = number(d, &e.Dur)
		case "origin":
			err = enum(d, originNames, &e.Origin)
		case "role":
			err = enum(d, roleNames, &e.Role)
		case "reason":
			err = enum(d, reasonNames, &e.Reason)
		case "active_close":
			err = d.closer(&e.Closer)
		case "err":
			err = number(d, &e.Err)
		case "owner_pid":
			err = number(d, &e.OwnerPID)
		case "owner_comm":
			err = d.string(&e.OwnerComm)
		case "owner_via":
			err = enum(d, viaNames, &e.OwnerVia)
		case "task_pid":
			err = number(d, &e.TaskPID)
		case "task_comm":
			err = d.string(&e.TaskComm)
		case "uid":
			err = number(d, &e.UID)
		case "cgroup":
			err = d.string(&e.Cgroup)
		case "cgroup_id":
			err = number(d, &e.CgroupID)
		case "task_tid":
			err = number(d, &e.TaskTID)
		case "syn_retrans":
			err = number(d, &e.SynRetrans)
		case "totals":
			err = d.totals(&e.Totals)
		case "ring_full":
			err = number(d, &e.RingFull)
			s.balance.RingFull = e.RingFull
		case "seen":
			err = number(d, &s.balance.Seen)
		case "added":
			err = number(d, &s.balance.Added)
		case "filtered":
			err = number(d, &s.balance.Filtered)
		case "unread":
			err = number(d, &s.balance.Unread)
		case "merged":
			err = number(d, &s.balance.Merged)
		case "printed":
			err = number(d, &s.balance.Printed)
		case "missed":
			err = number(d, &s.balance.Missed)
		case "partial":
			err = d.bool(&s.balance.Partial)
		default:
			err = d.skip(0)
		}
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	if d.space(); d.pos != len(d.in) {
		return d.fail("more after the object")
	}
	if e.Type == Lost || e.Type == End {
		e.UID, e.SynRetrans = 0, 0
	}
	e.Local, e.Remote = netip.AddrPortFrom(laddr, lport), netip.AddrPortFrom(raddr, rport)
	return s.check(e, version)
}

// members gives each key of an object; whoever gets it decodes the value before it asks for the next.
func (d *decoder) members(yield func(key []byte, err error) bool) {
	if !d.take('{') {
		yield(nil, d.fail("not a JSON object: a recording is made with -o ndjson"))
		return
	}
	for first := true; !d.take('}'); first = false {
		if !first && !d.take(',') {
			yield(nil, d.fail("expected , or }"))
			return
		}
		key, err := d.text()
		if err == nil && !d.take(':') {
			err = d.fail("expected :")
		}
		if !yield(key, err) {
			return
		}
	}
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

// closer decodes true, false or null.
func (d *decoder) closer(c *Closer) error {
	d.space()
	for _, v := range []Closer{0, WeClosed, TheyClosed} {
		if text := v.JSON(); bytes.HasPrefix(d.in[d.pos:], []byte(text)) {
			d.pos += len(text)
			*c = v
			return nil
		}
	}
	return d.fail("expected true, false or null")
}

// totals decodes the object that a connection's end has, or null.
func (d *decoder) totals(t *Totals) error {
	if d.null() {
		return nil
	}
	t.Known = true
	for key, err := range d.members {
		if err != nil {
			return err
		}
		switch string(key) {
		case "bytes_acked":
			err = number(d, &t.BytesAcked)
		case "bytes_received":
			err = number(d, &t.BytesReceived)
		case "segs_out":
			err = number(d, &t.SegsOut)
		case "segs_in":
			err = number(d, &t.SegsIn)
		case "retrans":
			err = number(d, &t.Retrans)
		case "srtt_us":
			err = number(d, &t.SRTT)
		case "min_rtt_us":
			err = number(d, &t.MinRTT)
		case "cong":
			err = d.string(&t.Cong)
		default:
			err = d.skip(0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holders decodes the processes that have a socket, or null.
func (d *decoder) holders() ([]Holder, error) {
	if d.null() {
		return nil, nil
	}
	all := []Holder{}
	if !d.take('[') {
		return nil, d.fail("expected [")
	}
	for first := true; !d.take(']'); first = false {
		if !first && !d.take(',') {
			return nil, d.fail("expected , or ]")
		}
		var h Holder
		for key, err := range d.members {
			if err != nil {
				return nil, err
			}
			switch string(key) {
			case "pid":
				err = number(d, &h.PID)
			case "comm":
				err = d.string(&h.Comm)
			case "fd":
				err = number(d, &h.FD)
			default:
				err = d.skip(0)
			}
			if err != nil {
				return nil, err
			}
		}
		all = append(all, h)
	}
	return all, nil
}

// fields is what a line must have, and what only an End or a Socket keeps.
type fields struct {
	kind, ts bool
	balance  Balance
	status   Status
}

func (s *fields) check(e *Event, version uint64) error {
	switch {
	case version == 0 || !s.kind || !s.ts || e.Seq == 0:
		return errors.New("not a line by sstrace -o ndjson: v, type, seq or ts is missing")
	case version != Version:
		return fmt.Errorf("v is %d and this sstrace reads %d: use the version that wrote it", version, Version)
	case e.Type == Change && (e.ID == 0 || e.Old == 0 || e.New == 0 || e.Family == 0 || e.Proto == 0):
		return errors.New("a change without id, old, new, family or proto")
	case e.Type == Accept && (e.ID == 0 || e.Family == 0 || e.Proto == 0):
		return errors.New("an accept without id, family or proto")
	case e.Type == Socket && (e.New == 0 || e.Family == 0 || e.Proto == 0):
		return errors.New("a socket without state, family or proto")
	case e.Type == Socket:
		status := s.status
		e.Status = &status
	case e.Type == End:
		b := s.balance // here, so that only an End costs an allocation
		e.Balance, e.RingFull = &b, 0
	case e.OwnerPID == 0:
		e.OwnerComm, e.OwnerVia = "", 0
	}
	return nil
}

func (d *decoder) fail(what string) error {
	return fmt.Errorf("column %d: %s", d.pos+1, what)
}

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

// take steps over c and the white space before it, if it is next.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.pos < len(d.in) && d.in[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

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

// escaped goes on with a string that is not plain ASCII. What is not UTF-8 becomes U+FFFD, as in encoding/json.
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

// lowSurrogate joins high with the escape after it, or gives U+FFFD and leaves that escape for the next turn.
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

// enum decodes a name into its value, or leaves v alone for null.
func enum[T ~uint8](d *decoder, names []string, v *T) error {
	if d.null() {
		return nil
	}
	b, err := d.text()
	if err != nil {
		return err
	}
	for i, n := range names {
		if string(b) == n && n != "" {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not known to this version", b)
}

func (d *decoder) addr(v *netip.Addr) error {
	if d.null() {
		return nil
	}
	b, err := d.text()
	if err != nil {
		return err
	}
	if *v, err = netip.ParseAddr(d.intern(b)); err == nil && v.Zone() != "" { // no line has one, and it may be any text
		return fmt.Errorf("%q is an address with a zone", b)
	}
	return err
}

func (d *decoder) pointer(v *uint64) error {
	if d.null() {
		return nil
	}
	b, err := d.text()
	if err != nil {
		return err
	}
	if *v, err = strconv.ParseUint(d.intern(b), 0, 64); err != nil || !bytes.HasPrefix(b, []byte("0x")) {
		return fmt.Errorf("%q is not a hexadecimal number", b)
	}
	return nil
}

func (d *decoder) time(v *int64) error {
	b, err := d.text()
	if err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("%q is not an RFC 3339 time", b)
	}
	*v = t.UnixNano()
	return nil
}

// maxDepth of a value under an unknown key; our own keys have none.
const maxDepth = 64

// skip steps over the value of a key that this version does not know.
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
