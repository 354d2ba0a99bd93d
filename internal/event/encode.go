package event

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends e as one NDJSON line, with its newline: every key of its type present, in a fixed order. It allocates
// only when b has no room. The format is written down in docs/ndjson.md.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"v":1,"type":"`...)
	b = append(b, e.Type.String()...)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"ts":"`...)
	b = AppendTime(b, e.Wall)
	b = append(b, `","mono_ns":`...)
	b = strconv.AppendInt(b, e.Mono, 10)
	switch e.Type {
	case Lost:
		b = append(b, `,"ring_full":`...)
		b = strconv.AppendUint(b, e.RingFull, 10)
	case End:
		b = e.Balance.appendJSON(b)
	case Socket:
		b = e.appendSocket(b)
	default:
		b = e.appendChange(b)
	}
	return append(b, "}\n"...)
}

// appendWhich appends which socket it is.
func (e *Event) appendWhich(b []byte) []byte {
	b = append(b, `,"cookie":`...)
	b = appendUint(b, e.Cookie)
	b = append(b, `,"sk":"0x`...)
	b = strconv.AppendUint(b, e.Sk, 16)
	b = append(b, `","netns":`...)
	b = appendUint(b, uint64(e.NetNS))
	b = append(b, `,"family":`...)
	b = appendName(b, e.Family.String())
	b = append(b, `,"proto":`...)
	b = appendName(b, e.Proto.String())
	b = append(b, `,"laddr":`...)
	b = appendAddr(b, e.Local.Addr())
	b = append(b, `,"lport":`...)
	b = appendUint(b, uint64(e.Local.Port()))
	b = append(b, `,"raddr":`...)
	b = appendAddr(b, e.Remote.Addr())
	b = append(b, `,"rport":`...)
	return appendUint(b, uint64(e.Remote.Port()))
}

func (e *Event) appendChange(b []byte) []byte {
	b = append(b, `,"cpu":`...)
	b = strconv.AppendUint(b, uint64(e.CPU), 10)
	b = append(b, `,"id":`...)
	b = strconv.AppendUint(b, e.ID, 10)
	b = e.appendWhich(b)
	switch e.Type {
	case Accept:
		b = append(b, `,"queue_ns":`...)
		b = appendDur(b, e.Dur)
		b = append(b, `,"role":`...)
		b = appendName(b, e.Role.String())
	case ConnectFailed:
		b = append(b, `,"role":`...)
		b = appendName(b, e.Role.String())
		b = append(b, `,"reason":`...)
		b = appendName(b, e.Reason.String())
		b = append(b, `,"err":`...)
		b = appendUint(b, uint64(e.Err))
	default:
		b = append(b, `,"old":`...)
		b = appendName(b, e.Old.String())
		b = append(b, `,"new":`...)
		b = appendName(b, e.New.String())
		b = append(b, `,"dur_ns":`...)
		b = appendDur(b, e.Dur)
		b = append(b, `,"origin":`...)
		b = appendName(b, e.Origin.String())
		b = append(b, `,"role":`...)
		b = appendName(b, e.Role.String())
		b = append(b, `,"reason":`...)
		b = appendName(b, e.Reason.String())
		b = append(b, `,"active_close":`...)
		b = append(b, e.Closer.JSON()...)
		b = append(b, `,"err":`...)
		b = appendUint(b, uint64(e.Err))
	}
	b = e.appendOwner(b)
	b = append(b, `,"task_pid":`...)
	if e.TaskPID&HostPID != 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendUint(b, uint64(e.TaskPID), 10)
	}
	b = append(b, `,"task_comm":`...)
	b = appendString(b, e.TaskComm)
	b = e.appendWhose(b)
	if e.Type == Change {
		b = append(b, `,"totals":`...)
		if e.Totals.Known {
			b = e.Totals.appendJSON(b)
		} else {
			b = append(b, "null"...)
		}
		b = append(b, `,"syn_retrans":`...)
		b = appendDur(b, int64(e.SynRetrans))
	}
	b = append(b, `,"task_tid":`...)
	b = appendPID(b, e.TaskTID, 0)
	b = append(b, `,"ifindex":`...)
	b = appendUint(b, uint64(e.IfIndex))
	b = append(b, `,"ifname":`...)
	if e.IfName == "" {
		b = append(b, "null"...)
	} else {
		b = appendString(b, e.IfName)
	}
	b = append(b, `,"isn":`...)
	b = appendUint(b, uint64(e.ISN))
	if e.Type == Change {
		b = append(b, `,"defer_ns":`...)
		b = appendUint(b, uint64(e.Deferred))
	}
	b = append(b, `,"owner_host_pid":`...)
	b = appendPID(b, e.OwnerPID, HostPID)
	b = append(b, `,"task_host_pid":`...)
	return appendPID(b, e.TaskPID, HostPID)
}

// appendPID appends pid if it is of the namespace that want says: HostPID, or 0 for our own. Else it appends null.
func appendPID(b []byte, pid, want uint32) []byte {
	if pid&HostPID != want {
		return append(b, "null"...)
	}
	return appendUint(b, uint64(pid&^HostPID))
}

func (e *Event) appendOwner(b []byte) []byte {
	b = append(b, `,"owner_pid":`...)
	b = appendPID(b, e.OwnerPID, 0)
	b = append(b, `,"owner_comm":`...)
	if e.OwnerPID == 0 {
		b = append(b, "null"...)
	} else {
		b = appendString(b, e.OwnerComm)
	}
	b = append(b, `,"owner_via":`...)
	return appendName(b, e.OwnerVia.String())
}

// appendSocket appends what exists.
func (e *Event) appendSocket(b []byte) []byte {
	s := e.Status
	b = e.appendWhich(b)
	b = append(b, `,"state":`...)
	b = appendName(b, e.New.String())
	b = append(b, `,"age_ns":`...)
	b = appendDur(b, e.Dur)
	b = append(b, `,"age_min_ns":`...)
	b = appendDur(b, s.AtLeast)
	b = append(b, `,"left_ns":`...)
	b = appendDur(b, s.Left)
	queues := [4]string{`,"recv_q":`, `,"send_q":`, `,"accept_q":`, `,"accept_max":`}
	values := [4]int64{s.RecvQueue, s.SendQueue, Unknown, Unknown}
	if e.New == Listen {
		values = [4]int64{Unknown, Unknown, s.RecvQueue, s.SendQueue}
	}
	for i, key := range queues {
		b = append(b, key...)
		b = appendDur(b, values[i])
	}
	b = append(b, `,"syn_retrans":`...)
	b = appendDur(b, int64(e.SynRetrans))
	b = append(b, `,"role":`...)
	b = appendName(b, e.Role.String())
	b = e.appendOwner(b)
	b = e.appendWhose(s.appendHolders(b))
	b = append(b, `,"ifindex":`...)
	b = appendUint(b, uint64(e.IfIndex))
	b = append(b, `,"ifname":`...)
	b = appendText(b, e.IfName)
	b = append(b, `,"v6only":`...)
	b = append(b, s.V6Only.JSON()...)
	b = append(b, `,"attached":`...)
	return appendName(b, s.Attached.String())
}

func (s *Status) appendHolders(b []byte) []byte {
	if s.Holders == nil {
		return append(b, `,"holders":null`...)
	}
	b = append(b, `,"holders":[`...)
	for i := range s.Holders {
		if i > 0 {
			b = append(b, ',')
		}
		h := &s.Holders[i]
		b = append(b, `{"pid":`...)
		b = strconv.AppendUint(b, uint64(h.PID), 10)
		b = append(b, `,"comm":`...)
		b = appendString(b, h.Comm)
		fd, slot, ring := int64(h.FD), int64(Unknown), int64(Unknown)
		if h.How == BySlot {
			fd, slot, ring = Unknown, int64(h.Slot), fd
		}
		b = append(b, `,"fd":`...)
		b = appendDur(b, fd)
		b = append(b, `,"slot":`...)
		b = appendDur(b, slot)
		b = append(b, `,"ring_fd":`...)
		b = appendDur(b, ring)
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendWhose appends user, cgroup, and what that tells.
func (e *Event) appendWhose(b []byte) []byte {
	b = append(b, `,"uid":`...)
	if e.UID == NoUID {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendUint(b, uint64(e.UID), 10)
	}
	b = append(b, `,"cgroup":`...)
	if e.Cgroup == "" {
		b = append(b, "null"...)
	} else {
		b = appendString(b, e.Cgroup)
	}
	b = append(b, `,"cgroup_id":`...)
	b = appendUint(b, e.CgroupID)
	b = append(b, `,"container":`...)
	b = appendName(b, e.Container())
	b = append(b, `,"unit":`...)
	return appendText(b, e.Unit())
}

func (t *Totals) appendJSON(b []byte) []byte {
	b = append(b, `{"bytes_acked":`...)
	b = strconv.AppendUint(b, t.BytesAcked, 10)
	b = append(b, `,"bytes_received":`...)
	b = strconv.AppendUint(b, t.BytesReceived, 10)
	b = append(b, `,"segs_out":`...)
	b = strconv.AppendUint(b, uint64(t.SegsOut), 10)
	b = append(b, `,"segs_in":`...)
	b = strconv.AppendUint(b, uint64(t.SegsIn), 10)
	b = append(b, `,"retrans":`...)
	b = strconv.AppendUint(b, uint64(t.Retrans), 10)
	b = append(b, `,"srtt_us":`...)
	b = appendUint(b, uint64(t.SRTT))
	b = append(b, `,"srtt_open_us":`...)
	b = appendUint(b, uint64(t.SRTTOpen))
	b = append(b, `,"min_rtt_us":`...)
	b = appendUint(b, uint64(t.MinRTT))
	b = append(b, `,"cong":`...)
	b = appendString(b, t.Cong)
	return append(b, '}')
}

// JSON gives the value of the key active_close.
func (c Closer) JSON() string {
	switch c {
	case WeClosed:
		return "true"
	case TheyClosed:
		return "false"
	}
	return "null"
}

// JSON gives true, false or null.
func (a Answer) JSON() string {
	switch a {
	case Yes:
		return "true"
	case No:
		return "false"
	}
	return "null"
}

func appendDur(b []byte, dur int64) []byte {
	if dur == Unknown {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, dur, 10)
}

func (s *Balance) appendJSON(b []byte) []byte {
	b = append(b, `,"seen":`...)
	b = strconv.AppendUint(b, s.Seen, 10)
	b = append(b, `,"added":`...)
	b = strconv.AppendUint(b, s.Added, 10)
	b = append(b, `,"filtered":`...)
	b = strconv.AppendUint(b, s.Filtered, 10)
	b = append(b, `,"ring_full":`...)
	b = strconv.AppendUint(b, s.RingFull, 10)
	b = append(b, `,"unread":`...)
	b = strconv.AppendUint(b, s.Unread, 10)
	b = append(b, `,"merged":`...)
	b = strconv.AppendUint(b, s.Merged, 10)
	b = append(b, `,"printed":`...)
	b = strconv.AppendUint(b, s.Printed, 10)
	b = append(b, `,"missed":`...)
	b = strconv.AppendUint(b, s.Missed, 10)
	b = append(b, `,"partial":`...)
	return strconv.AppendBool(b, s.Partial)
}

// appendUint appends v, or null for 0, which no known value of these keys is.
func appendUint(b []byte, v uint64) []byte {
	if v == 0 {
		return append(b, "null"...)
	}
	return strconv.AppendUint(b, v, 10)
}

// appendName appends a name of ours, which needs no escapes, or null for the unknown value.
func appendName(b []byte, name string) []byte {
	if name == "" {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"')
}

// appendText appends text that may be anything, or null if there is none.
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

// appendString appends s in quotes, exactly as encoding/json does without HTML escapes: a comm may hold any bytes, and what is
// not UTF-8 becomes U+FFFD.
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

// AppendTime appends wall, in ns since 1970 UTC, as RFC 3339 with all nine digits. By hand: a layout takes four times as long, and that
// would be a third of a line.
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

func appendDigits(b []byte, v, width int) []byte {
	b = append(b, "000000000"[:width]...)
	for i := len(b) - 1; v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}
