package print

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
)

// text writes lines for people. Everything that may grow without bound stands at the end of a line, and the address columns widen
// once, for good, at the first address that needs it: so columns stay aligned.
type text struct {
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
	ownerWidth = len("4194304/0123456789abcde")
	hostWidth  = len(host) + ownerWidth
	red        = "\x1b[31m"
	reset      = "\x1b[0m"
)

// StateColor has the states that a person looks for.
var StateColor = map[event.State]string{
	event.Established: "\x1b[32m",
	event.CloseWait:   "\x1b[33m",
	event.TimeWait:    "\x1b[36m",
	event.Listen:      "\x1b[34m",
	event.Close:       "\x1b[2m",
}

func (t *text) appendHeader(b []byte) []byte {
	t.addrs, t.owners = ipv4Width, ownerWidth
	b = Pad(append(b, "TIME"...), 4, clockWidth[t.clock]+1)
	if t.wide {
		b = append(b, "      ID CPU      NETNS PROTO FAMILY      ROLE     "...)
	}
	b = Pad(b, 0, durWidth-len("DURATION"))
	b = append(b, "DURATION OLD         → NEW         "...)
	b = Pad(append(b, "LOCAL"...), 5, t.addrs+1)
	b = Pad(append(b, "REMOTE"...), 6, t.addrs+1)
	if t.wide {
		b = append(b, "       UID     COOKIE "...)
	}
	b = Pad(append(b, "OWNER"...), 5, t.owners+1)
	if t.wide {
		b = append(b, "VIA      TASK                    REASON              ERR           CGROUP\n"...)
		return b
	}
	return append(b, "REASON\n"...)
}

func (t *text) appendLine(b []byte, e *event.Event) []byte {
	if !t.begun {
		t.begun, t.first, t.last = true, e.Mono, e.Mono
	}
	b = t.appendTime(b, e)
	if e.Type == event.Lost {
		return t.appendLost(b, e)
	}
	if t.wide {
		b = t.right(strconv.AppendUint(t.field[:0], e.ID, 10), b, 8)
		b = t.right(strconv.AppendUint(t.field[:0], uint64(e.CPU), 10), b, 3)
		b = t.right(appendUint(t.field[:0], uint64(e.NetNS), 10), b, 10)
		b = t.left(append(t.field[:0], e.Proto.String()...), b, 5)
		b = t.left(append(t.field[:0], e.Family.String()...), b, 11)
		b = t.left(append(t.field[:0], OrDash(e.Role.String())...), b, 8)
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
		color = StateColor[e.New]
	}
	b = append(b, color...)
	b = append(b, to...)
	if color != "" {
		b = append(b, reset...)
	}
	b = Pad(b, len(to), stateWidth+1)
	local := AppendLocal(t.field[:0], e, t.wide)
	ends := AppendRemote(local, e)
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
		t.owners = hostWidth
	}
	b = t.left(AppendProcess(t.field[:0], e.OwnerPID, e.OwnerComm, e.OwnerPID != 0), b, t.owners)
	if t.wide {
		b = t.left(append(t.field[:0], OrDash(e.OwnerVia.String())...), b, 8)
		b = t.left(AppendProcess(t.field[:0], e.TaskPID, e.TaskComm, true), b, t.owners)
		b = t.left(append(t.field[:0], OrDash(e.Reason.String())...), b, len("handshake_abandoned"))
		b = t.left(append(t.field[:0], errName(e.Err)...), b, 13)
		b = appendVisible(b, OrDash(e.Cgroup))
		return append(b, '\n')
	}
	if t.color && e.Err != 0 {
		return append(t.appendReason(append(b, red...), e), reset+"\n"...)
	}
	return append(t.appendReason(b, e), '\n')
}

// appendReason writes why the connection ended, and the error, as far as there are.
func (t *text) appendReason(b []byte, e *event.Event) []byte {
	b = append(b, e.Reason.String()...)
	if e.Reason != 0 && e.Err != 0 {
		b = append(b, ' ')
	}
	if e.Reason == 0 || e.Err != 0 {
		b = append(b, errName(e.Err)...)
	}
	return b
}

func (t *text) appendLost(b []byte, e *event.Event) []byte {
	if t.color {
		b = append(b, red...)
	}
	b = append(b, "--- "...)
	b = strconv.AppendUint(b, e.RingFull, 10)
	b = append(b, " changes lost here, the ring buffer was full: a filter or a larger --buffer helps ---"...)
	if t.color {
		b = append(b, reset...)
	}
	return append(b, '\n')
}

func (t *text) appendTime(b []byte, e *event.Event) []byte {
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

// AppendAddress appends address:port, "-" for an unknown one of them.
func AppendAddress(b []byte, a netip.AddrPort) []byte { return appendBound(b, a, "") }

// AppendAddressIn appends address:port of a socket with this Event.Zone: only a link-local address needs it to be told from the
// same one on another link.
func AppendAddressIn(b []byte, a netip.AddrPort, zone string) []byte {
	if !a.Addr().Is6() || !a.Addr().IsLinkLocalUnicast() {
		zone = ""
	}
	return appendBound(b, a, zone)
}

// appendBound appends address%zone:port. Any text may be the name of a device.
func appendBound(b []byte, a netip.AddrPort, zone string) []byte {
	if !a.Addr().IsValid() && a.Port() == 0 {
		return append(b, '-')
	}
	six := a.Addr().Is6()
	if six {
		b = append(b, '[')
	}
	if a.Addr().IsValid() {
		b = a.Addr().AppendTo(b)
		if zone != "" {
			b = appendVisible(append(b, '%'), zone)
		}
	} else {
		b = append(b, '-')
	}
	if six {
		b = append(b, ']')
	}
	b = append(b, ':')
	if a.Port() == 0 {
		return append(b, '-')
	}
	return strconv.AppendUint(b, uint64(a.Port()), 10)
}

// AppendLocal appends the local end of e as address:port: a link-local address with its zone, and the
// wildcard of a socket that takes IPv4 and IPv6 as *. With device it names the network device that
// the socket is bound to whatever the address is.
func AppendLocal(b []byte, e *event.Event, device bool) []byte {
	zone := e.Zone()
	switch {
	case e.Local.Addr() == netip.IPv6Unspecified() && e.Status != nil && e.Status.V6Only == event.No:
		b = append(b, '*')
		if device && zone != "" {
			b = appendVisible(append(b, '%'), zone)
		}
		return strconv.AppendUint(append(b, ':'), uint64(e.Local.Port()), 10)
	case device:
		return appendBound(b, e.Local, zone)
	}
	return AppendAddressIn(b, e.Local, zone)
}

// AppendRemote appends the remote end of e likewise. It has a zone only if its address is link-local.
func AppendRemote(b []byte, e *event.Event) []byte { return AppendAddressIn(b, e.Remote, e.Zone()) }

func (t *text) left(field, b []byte, width int) []byte {
	t.field = field
	return append(Pad(append(b, field...), utf8.RuneCount(field), width), ' ')
}

func (t *text) right(field, b []byte, width int) []byte {
	t.field = field
	b = Pad(b, utf8.RuneCount(field), width)
	return append(append(b, field...), ' ')
}

// Pad appends the blanks that a field of width have lacks to be want wide.
func Pad(b []byte, have, want int) []byte {
	for ; have < want; have++ {
		b = append(b, ' ')
	}
	return b
}

// OrDash gives s, or - for what is not known.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func appendUint(b []byte, v uint64, base int) []byte {
	if v == 0 {
		return append(b, '-')
	}
	return strconv.AppendUint(b, v, base)
}

// host marks a process ID of the initial PID namespace.
const host = "host:"

// AppendProcess writes PID/COMM, as netstat -p does.
func AppendProcess(b []byte, pid uint32, comm string, known bool) []byte {
	if !known {
		return append(b, '-')
	}
	if pid&event.HostPID != 0 {
		b = append(b, host...)
	}
	b = strconv.AppendUint(b, uint64(pid&^event.HostPID), 10)
	b = append(b, '/')
	return appendVisible(b, comm)
}

// appendVisible writes s with all that does not print as itself escaped as in Go, and \ doubled: a comm is whatever bytes its
// process likes, and a terminal obeys some of them.
func appendVisible(b []byte, s string) []byte {
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

// Visible gives s as it may be shown to a person.
func Visible(s string) string { return string(appendVisible(nil, s)) }

func errName(err int32) string {
	if n := event.ErrnoName(err); n != "" {
		return n
	}
	if err == 0 {
		return "-"
	}
	return "errno " + strconv.Itoa(int(err))
}
