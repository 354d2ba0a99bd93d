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

const maxNames = 1 << 14

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
		case "ifindex":
			err = number(d, &e.IfIndex)
		case "ifname":
			err = d.string(&e.IfName)
		case "v6only":
			err = d.answer(&s.status.V6Only)
		case "attached":
			err = enum(d, attachedNames, &s.status.Attached)
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
		case "isn":
			err = number(d, &e.ISN)
		case "defer_ns":
			err = number(d, &e.Deferred)
		case "owner_host_pid":
			err = d.hostPID(&e.OwnerPID)
		case "task_host_pid":
			err = d.hostPID(&e.TaskPID)
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

// hostPID decodes the number that a process has in the initial PID namespace alone, or null.
func (d *decoder) hostPID(pid *uint32) error {
	var host uint32
	if err := number(d, &host); err != nil || host == 0 {
		return err
	}
	if host >= HostPID || *pid != 0 {
		return d.fail("a process ID of the host where there is one already, or that is too large")
	}
	*pid = host | HostPID
	return nil
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

// answer decodes true, false or null.
func (d *decoder) answer(a *Answer) error {
	d.space()
	for _, v := range []Answer{0, Yes, No} {
		if text := v.JSON(); bytes.HasPrefix(d.in[d.pos:], []byte(text)) {
			d.pos += len(text)
			*a = v
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
		case "srtt_open_us":
			err = number(d, &t.SRTTOpen)
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
		slot, ring := int64(Unknown), uint32(0)
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
			case "slot":
				err = number(d, &slot)
			case "ring_fd":
				err = number(d, &ring)
			default:
				err = d.skip(0)
			}
			if err != nil {
				return nil, err
			}
		}
		if slot != Unknown {
			h.How, h.FD, h.Slot = BySlot, ring, uint32(slot)
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
	case (e.Type == Accept || e.Type == ConnectFailed) && (e.ID == 0 || e.Family == 0 || e.Proto == 0):
		return fmt.Errorf("a line of type %v without id, family or proto", e.Type)
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
