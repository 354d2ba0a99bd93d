package lines

import (
	"strconv"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// table formats lines for people. To keep the columns aligned, everything of unlimited length is at
// the end of a line. The address columns are widened only once, when the first long address
// appears.
type table struct {
	clock string
	color bool
	wide  bool

	widths      text.Widths
	begun       bool
	first, last int64 // Mono of the first line and of the previous one
	field       []byte
}

var clockWidth = map[string]int{
	"wall":  len(text.Clock),
	"mono":  len("1000000.000000000"),
	"rel":   len("10000.000000000"),
	"delta": len("10000.000000000"),
}

const stateWidth = len("ESTABLISHED")

func newTable(clock string, color, wide bool) *table {
	widths := text.Widths{Address: text.IPv4Width, Process: text.OwnerWidth}
	return &table{clock: clock, color: color, wide: wide, widths: widths}
}

func (t *table) appendHeader(b []byte) []byte {
	b = text.Pad(append(b, "TIME"...), 4, clockWidth[t.clock]+1)
	if t.wide {
		b = append(b, "      ID CPU      NETNS PROTO FAMILY      ROLE     "...)
	}
	b = text.Pad(b, 0, text.DurationWidth-len("DURATION"))
	b = append(b, "DURATION OLD         → NEW         "...)
	b = text.Pad(append(b, "LOCAL"...), 5, t.widths.Address+1)
	b = text.Pad(append(b, "REMOTE"...), 6, t.widths.Address+1)
	if t.wide {
		b = append(b, "       UID     COOKIE "...)
	}
	b = text.Pad(append(b, "OWNER"...), 5, t.widths.Process+1)
	if t.wide {
		return append(b, "VIA      TASK                    REASON              ERR           CGROUP\n"...)
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
		b = t.appendSocket(b, e)
	}
	b = t.appendChange(b, e)
	b = t.appendAddresses(b, e)
	if t.wide {
		b = t.appendUser(b, e)
	}
	b = t.appendOwner(b, e)
	switch {
	case t.wide:
		b = t.appendDetails(b, e)
	case t.color && e.Err != 0:
		b = append(b, text.Alarm(text.Reason(e.Reason, e.Err), true)...)
	default:
		b = text.AppendReason(b, e.Reason, e.Err)
	}
	return append(b, '\n')
}

func (t *table) appendTime(b []byte, e *event.Event) []byte {
	var ns int64
	switch t.clock {
	case "wall":
		b = time.Unix(0, e.Wall).AppendFormat(b, text.Clock)
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
	if ns < 0 { // changes on two CPUs may arrive out of order
		f, ns = append(f, '-'), -ns
	}
	f = strconv.AppendInt(f, ns/1e9, 10)
	f = append(f, '.')
	frac := strconv.AppendInt(f, ns%1e9+1e9, 10) // the leading 1 preserves the zeros that follow it
	copy(frac[len(f):], frac[len(f)+1:])
	return t.right(b, clockWidth[t.clock], frac[:len(frac)-1])
}

// appendSocket appends the columns that precede DURATION in a wide line.
func (t *table) appendSocket(b []byte, e *event.Event) []byte {
	b = t.right(b, 8, strconv.AppendUint(t.field[:0], e.ID, 10))
	b = t.right(b, 3, strconv.AppendUint(t.field[:0], uint64(e.CPU), 10))
	b = t.right(b, 10, appendKnown(t.field[:0], uint64(e.NetNS), 10))
	b = leftText(b, 5, e.Proto.String())
	b = leftText(b, 11, e.Family.String())
	return leftText(b, 8, text.OrDash(e.Role.String()))
}

func (t *table) appendChange(b []byte, e *event.Event) []byte {
	if e.Dur == event.Unknown {
		b = rightText(b, text.DurationWidth, "-")
	} else {
		b = rightText(b, text.DurationWidth, time.Duration(e.Dur).String())
	}
	from, to, color := e.Old.String(), e.New.String(), ""
	switch e.Type {
	case event.Accept:
		from, to = "(queue)", "(accepted)"
	case event.ConnectFailed:
		from, to = "(connect)", "(failed)"
	default:
		if t.color {
			color = text.StateColor[e.New]
		}
	}
	b = leftText(b, stateWidth, from)
	b = append(b, "→ "...)
	b = append(b, color...)
	b = append(b, to...)
	if color != "" {
		b = append(b, text.ResetColor...)
	}
	return text.Pad(b, len(to), stateWidth+1)
}

func (t *table) appendAddresses(b []byte, e *event.Event) []byte {
	local := text.AppendLocal(t.field[:0], e, t.wide)
	both := text.AppendRemote(local, e)
	remote := both[len(local):]
	t.widths.FitAddress(max(utf8.RuneCount(local), utf8.RuneCount(remote)))
	b = t.left(b, t.widths.Address, local)
	b = t.left(b, t.widths.Address, remote)
	t.field = both
	return b
}

// appendUser appends the columns that precede OWNER in a wide line.
func (t *table) appendUser(b []byte, e *event.Event) []byte {
	if e.UID == event.NoUID {
		b = rightText(b, 10, "-")
	} else {
		b = t.right(b, 10, strconv.AppendUint(t.field[:0], uint64(e.UID), 10))
	}
	return t.right(b, 10, appendKnown(t.field[:0], e.Cookie, 16))
}

func (t *table) appendOwner(b []byte, e *event.Event) []byte {
	t.widths.FitHostProcess(e.OwnerPID)
	if t.wide {
		t.widths.FitHostProcess(e.TaskPID)
	}
	return t.left(b, t.widths.Process, text.AppendProcess(t.field[:0], e.OwnerPID, e.OwnerComm, e.OwnerPID != 0))
}

// appendDetails appends the columns that follow OWNER in a wide line.
func (t *table) appendDetails(b []byte, e *event.Event) []byte {
	b = leftText(b, 8, text.OrDash(e.OwnerVia.String()))
	b = t.left(b, t.widths.Process, text.AppendProcess(t.field[:0], e.TaskPID, e.TaskComm, true))
	b = leftText(b, len("handshake_abandoned"), text.OrDash(e.Reason.String()))
	b = t.left(b, 13, text.AppendReason(t.field[:0], 0, e.Err))
	return text.AppendVisible(b, text.OrDash(e.Cgroup))
}

// left appends field, pads it on the right to width, and adds a space. The memory of field is then
// used for the next field.
func (t *table) left(b []byte, width int, field []byte) []byte {
	t.field = field
	return append(text.Pad(append(b, field...), utf8.RuneCount(field), width), ' ')
}

// right is like left, but pads on the left.
func (t *table) right(b []byte, width int, field []byte) []byte {
	t.field = field
	b = text.Pad(b, utf8.RuneCount(field), width)
	return append(append(b, field...), ' ')
}

// leftText is left for a string.
func leftText(b []byte, width int, s string) []byte {
	return append(text.Pad(append(b, s...), utf8.RuneCountInString(s), width), ' ')
}

// rightText is right for a string.
func rightText(b []byte, width int, s string) []byte {
	b = text.Pad(b, utf8.RuneCountInString(s), width)
	return append(append(b, s...), ' ')
}

// appendKnown appends v. It appends "-" if v is 0, which means unknown.
func appendKnown(b []byte, v uint64, base int) []byte {
	if v == 0 {
		return append(b, '-')
	}
	return strconv.AppendUint(b, v, base)
}
