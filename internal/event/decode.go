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
	"time"
)

// Read returns the Events of a recording, in order, until its end or the first error, which names
// the line. An Event is valid until the next one. Unknown keys are skipped. A last line without a
// newline, as a killed tracer leaves it, is an error that wraps io.ErrUnexpectedEOF.
func Read(r io.Reader) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		in := bufio.NewReaderSize(r, 1<<16)
		d := decoder{names: make(map[string]string)}
		e := new(Event)
		for line := 1; ; line++ {
			text, err := in.ReadSlice('\n')
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				yield(nil, fmt.Errorf("line %d: longer than 64 KiB: not a recording made by sstrace -o ndjson", line))
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

// DecodeJSON decodes one NDJSON line into e. Keys may come in any order, with any white space
// between them; unknown keys are skipped.
func (e *Event) DecodeJSON(line []byte) error {
	d := decoder{names: make(map[string]string)}
	return d.decode(line, e)
}

// decode decodes one line into e.
func (d *decoder) decode(text []byte, e *Event) error {
	*e = Event{Dur: Unknown, UID: NoUID, SynRetrans: Unknown}
	d.in, d.pos = text, 0
	l := line{status: Status{RecvQueue: Unknown, SendQueue: Unknown, AtLeast: Unknown, Left: Unknown}}
	if err := d.line(e, &l); err != nil {
		return err
	}
	if d.space(); d.pos != len(d.in) {
		return d.fail("more after the object")
	}
	if e.Type == Lost || e.Type == End {
		e.UID, e.SynRetrans = 0, 0
	}
	e.Local, e.Remote = netip.AddrPortFrom(l.laddr, l.lport), netip.AddrPortFrom(l.raddr, l.rport)
	return l.check(e)
}

// line holds what decode collects in addition to the Event: the keys that every line must have,
// addresses and ports, which have separate keys, and the members that only a Socket or an End has.
type line struct {
	version      uint64
	hasType      bool
	hasTime      bool
	laddr, raddr netip.Addr
	lport, rport uint16
	status       Status
	balance      Balance
}

// check completes e, or returns an error about what is missing.
func (l *line) check(e *Event) error {
	switch {
	case l.version == 0 || !l.hasType || !l.hasTime || e.Seq == 0:
		return errors.New("not a line written by sstrace -o ndjson: v, type, seq or ts is missing")
	case l.version != Version:
		return fmt.Errorf("v is %d and this sstrace reads %d: use the version that wrote it", l.version, Version)
	case e.Type == Change && (e.ID == 0 || e.Old == 0 || e.New == 0 || e.Family == 0 || e.Proto == 0):
		return errors.New("a change without id, old, new, family or proto")
	case (e.Type == Accept || e.Type == ConnectFailed) && (e.ID == 0 || e.Family == 0 || e.Proto == 0):
		return fmt.Errorf("a line of type %v without id, family or proto", e.Type)
	case e.Type == Socket && (e.New == 0 || e.Family == 0 || e.Proto == 0):
		return errors.New("a socket without state, family or proto")
	case e.Type == Socket:
		status := l.status // a copy, so that l stays on the stack
		e.Status = &status
	case e.Type == End:
		balance := l.balance
		e.Balance, e.RingFull = &balance, 0
	case e.OwnerPID == 0:
		e.OwnerComm, e.OwnerVia = "", 0
	}
	return nil
}

// lineType decodes the key type.
func (d *decoder) lineType(e *Event, l *line) error {
	if err := enum(d, typeNames, &e.Type); err != nil {
		return fmt.Errorf("%w: only the output of a trace or of ls can be read, made with -o ndjson by this version "+
			"or an older one", err)
	}
	l.hasType = true
	return nil
}

// hostPID decodes a process ID of the initial PID namespace, or null.
func (d *decoder) hostPID(pid *uint32) error {
	var host uint32
	if err := number(d, &host); err != nil || host == 0 {
		return err
	}
	if host >= HostPID || *pid != 0 {
		return d.fail("a process has two IDs, or one that is too large")
	}
	*pid = host | HostPID
	return nil
}

// answer decodes true as 1 and false as 2, or leaves v alone for null.
func answer[T ~uint8](d *decoder, v *T) error {
	if d.null() {
		return nil
	}
	var yes bool
	if err := d.bool(&yes); err != nil {
		return d.fail("expected true, false or null")
	}
	if *v = 2; yes {
		*v = 1
	}
	return nil
}

// totals decodes an object, or leaves t unknown for null.
func (d *decoder) totals(t *Totals) error {
	if d.null() {
		return nil
	}
	t.Known = true
	return d.totalsKeys(t)
}

// holders decodes an array, or leaves all nil for null.
func (d *decoder) holders(all *[]Holder) error {
	if d.null() {
		return nil
	}
	if !d.take('[') {
		return d.fail("expected [")
	}
	*all = []Holder{}
	for first := true; !d.take(']'); first = false {
		if !first && !d.take(',') {
			return d.fail("expected , or ]")
		}
		var h Holder
		if err := d.holderKeys(&h); err != nil {
			return err
		}
		*all = append(*all, h)
	}
	return nil
}

// slot decodes the slot in an io_uring, or null if the process has a descriptor for the socket.
func (d *decoder) slot(h *Holder) error {
	if d.null() {
		return nil
	}
	h.How = BySlot
	return number(d, &h.Slot)
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
	return fmt.Errorf("%q is unknown to this version", b)
}

// addr decodes an address without a zone, or leaves v alone for null.
func (d *decoder) addr(v *netip.Addr) error {
	if d.null() {
		return nil
	}
	b, err := d.text()
	if err != nil {
		return err
	}
	if *v, err = netip.ParseAddr(d.intern(b)); err == nil && v.Zone() != "" { // no line has one; it may be any text
		return fmt.Errorf("%q is an address with a zone", b)
	}
	return err
}

// pointer decodes a hexadecimal number, or leaves v alone for null.
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

// wall decodes the key ts.
func (d *decoder) wall(v *int64, l *line) error {
	b, err := d.text()
	if err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("%q is not an RFC 3339 time", b)
	}
	*v, l.hasTime = t.UnixNano(), true
	return nil
}
