package lines

import (
	"strconv"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// table writes lines for people. Everything that may grow without bound stands at the end of a line, and the address columns widen
// once, for good, at the first address that needs it: so columns stay aligned.
type table struct {
	clock string
	color bool
	wide  bool

	addrs       int   // width of an address column
	owners      int   // and of one of processes
	first, last int64 // Mono of the first line and of the one before
	begun       bool
	field       []byte
}

const (
	ipv4Width = len("255.255.255.255:65535")
	ipv6Width = len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
)

var clockWidth = map[string]int{
	"wall":  len("15:04:05.000000000"),
	"mono":  len("1000000.000000000"),
	"rel":   len("10000.000000000"),
	"delta": len("10000.000000000"),
}

const (
	durWidth   = len("1m0.000123456s")
	stateWidth = len("ESTABLISHED")
)

func (t *table) appendHeader(b []byte) []byte {
	t.addrs, t.owners = ipv4Width, text.OwnerWidth
	b = text.Pad(append(b, "TIME"...), 4, clockWidth[t.clock]+1)
	if t.wide {
		b = append(b, "      ID CPU      NETNS PROTO FAMILY      ROLE     "...)
	}
	b = text.Pad(b, 0, durWidth-len("DURATION"))
	b = append(b, "DURATION OLD         → NEW         "...)
	b = text.Pad(append(b, "LOCAL"...), 5, t.addrs+1)
	b = text.Pad(append(b, "REMOTE"...), 6, t.addrs+1)
	if t.wide {
		b = append(b, "       UID     COOKIE "...)
	}
	b = text.Pad(append(b, "OWNER"...), 5, t.owners+1)
	if t.wide {
		b = append(b, "VIA      TASK                    REASON              ERR           CGROUP\n"...)
		return b
	}
	return append(b, "REASON\n"...)
}

func (t *table) appendLine(b []byte, e *event.Event) []byte {
	if !t.begun {
		t.begun, t.first, t.last = true, e.Mono, e.Mono
	}
	b = t.appendTime(b, e)
	if e.Type == event.Lost {
		return text.AppendLost(b, e.RingFull, t.color)
	}
	if t.wide {
		b = t.right(strconv.AppendUint(t.field[:0], e.ID, 10), b, 8)
		b = t.right(strconv.AppendUint(t.field[:0], uint64(e.CPU), 10), b, 3)
		b = t.right(appendUint(t.field[:0], uint64(e.NetNS), 10), b, 10)
		b = t.left(append(t.field[:0], e.Proto.String()...), b, 5)
		b = t.left(append(t.field[:0], e.Family.String()...), b, 11)
		b = t.left(append(t.field[:0], text.OrDash(e.Role.String())...), b, 8)
	}
	if e.Dur == event.Unknown {
		b = t.right(append(t.field[:0], '-'), b, durWidth)
	} else {
		b = t.right(append(t.field[:0], time.Duration(e.Dur).String()...), b, durWidth)
	}
	from, to := e.Old.String(), e.New.String()
	switch e.Type {
	case event.Accept:
		from, to = "(queue)", "(accepted)"
	case event.ConnectFailed:
		from, to = "(connect)", "(failed)"
	}
	b = t.left(append(t.field[:0], from...), b, stateWidth)
	b = append(b, "→ "...)
	color := ""
	if t.color && e.Type == event.Change {
		color = text.StateColor[e.New]
	}
	b = append(b, color...)
	b = append(b, to...)
	if color != "" {
		b = append(b, text.ResetColor...)
	}
	b = text.Pad(b, len(to), stateWidth+1)
	local := text.AppendLocal(t.field[:0], e, t.wide)
	ends := text.AppendRemote(local, e)
	remote := ends[len(local):]
	if n := max(utf8.RuneCount(local), utf8.RuneCount(remote)); n > t.addrs {
		t.addrs = max(n, ipv6Width)
	}
	b = t.left(local, b, t.addrs)
	b = t.left(remote, b, t.addrs)
	if t.wide {
		if e.UID == event.NoUID {
			b = t.right(append(t.field[:0], '-'), b, 10)
		} else {
			b = t.right(strconv.AppendUint(t.field[:0], uint64(e.UID), 10), b, 10)
		}
		b = t.right(appendUint(t.field[:0], e.Cookie, 16), b, 10)
	}
	if e.OwnerPID&event.HostPID != 0 || t.wide && e.TaskPID&event.HostPID != 0 {
		t.owners = text.ProcessWidth(event.HostPID)
	}
	b = t.left(text.AppendProcess(t.field[:0], e.OwnerPID, e.OwnerComm, e.OwnerPID != 0), b, t.owners)
	if t.wide {
		b = t.left(append(t.field[:0], text.OrDash(e.OwnerVia.String())...), b, 8)
		b = t.left(text.AppendProcess(t.field[:0], e.TaskPID, e.TaskComm, true), b, t.owners)
		b = t.left(append(t.field[:0], text.OrDash(e.Reason.String())...), b, len("handshake_abandoned"))
		b = t.left(text.AppendReason(t.field[:0], 0, e.Err), b, 13)
		b = text.AppendVisible(b, text.OrDash(e.Cgroup))
		return append(b, '\n')
	}
	if t.color && e.Err != 0 {
		return append(append(b, text.Alarm(text.Reason(e.Reason, e.Err), true)...), '\n')
	}
	return append(text.AppendReason(b, e.Reason, e.Err), '\n')
}

func (t *table) appendTime(b []byte, e *event.Event) []byte {
	var ns int64
	switch t.clock {
	case "wall":
		b = time.Unix(0, e.Wall).AppendFormat(b, "15:04:05.000000000")
		return append(b, ' ')
	case "mono":
		ns = e.Mono
	case "rel":
		ns = e.Mono - t.first
	case "delta":
		ns = e.Mono - t.last
		t.last = e.Mono
	}
	f := t.field[:0]
	if ns < 0 { // two CPUs' changes need not come in order
		f, ns = append(f, '-'), -ns
	}
	f = strconv.AppendInt(f, ns/1e9, 10)
	f = append(f, '.')
	frac := strconv.AppendInt(f, ns%1e9+1e9, 10) // a leading 1 keeps the zeros
	copy(frac[len(f):], frac[len(f)+1:])
	return t.right(frac[:len(frac)-1], b, clockWidth[t.clock])
}

func (t *table) left(field, b []byte, width int) []byte {
	t.field = field
	return append(text.Pad(append(b, field...), utf8.RuneCount(field), width), ' ')
}

func (t *table) right(field, b []byte, width int) []byte {
	t.field = field
	b = text.Pad(b, utf8.RuneCount(field), width)
	return append(append(b, field...), ' ')
}

func appendUint(b []byte, v uint64, base int) []byte {
	if v == 0 {
		return append(b, '-')
	}
	return strconv.AppendUint(b, v, base)
}
