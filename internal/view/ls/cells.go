package ls

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// Header returns the column titles. A leading > marks a column that is aligned to the right.
func Header(wide bool) []string {
	h := header(wide)
	if !wide {
		h = slices.Delete(h, narrowNetNS, narrowProto+1)
	}
	return h
}

// Row returns the cells of a socket: one for each title in Header.
func Row(e *event.Event, wide bool) []string {
	var c cells
	c.set(e, wide)
	text, begin := string(c.text), 0
	row := make([]string, c.n)
	for i, end := range c.ends[:c.n] {
		row[i], begin = text[begin:end], end
	}
	if !wide {
		row = slices.Delete(row, narrowNetNS, narrowProto+1)
	}
	return row
}

const (
	columns     = 14 // the maximum number of columns
	narrowNetNS = 1  // shown if there are several namespaces
	narrowProto = 2  // shown if there are MPTCP sockets
)

func header(wide bool) []string {
	if wide {
		return []string{
			"STATE", ">RECV-Q", ">SEND-Q", "LOCAL", "REMOTE", ">AGE", ">LEFT", ">NETNS", "PROTO", "ROLE", ">UID",
			">COOKIE", "UNIT", "HOLDERS",
		}
	}
	return []string{"STATE", ">NETNS", "PROTO", ">RECV-Q", ">SEND-Q", "LOCAL", "REMOTE", ">AGE", ">LEFT", "HOLDERS"}
}

// cells holds the texts of a row. They follow one another in text, one for each title in Header.
type cells struct {
	text []byte
	ends [columns]int // where each cell ends in text
	more [columns]int // how many more bytes than characters each cell has
	n    int
}

// add adds a cell that is pure ASCII. text is c.text with the cell appended.
func (c *cells) add(text []byte) {
	c.text, c.ends[c.n], c.more[c.n] = text, len(text), 0
	c.n++
}

// addAny adds a cell that may contain characters beyond ASCII.
func (c *cells) addAny(text []byte) {
	cell := text[len(c.text):]
	c.add(text)
	c.more[c.n-1] = len(cell) - utf8.RuneCount(cell)
}

// set sets the cells to those of e.
func (c *cells) set(e *event.Event, wide bool) {
	c.text, c.n = c.text[:0], 0
	netns := func() {
		c.add(strconv.AppendUint(c.text, uint64(e.NetNS), 10))
		c.add(append(c.text, e.Proto.String()...))
	}
	c.add(append(c.text, e.New.String()...))
	if !wide {
		netns()
	}
	c.add(appendKnown(c.text, e.Status.RecvQueue))
	c.add(appendKnown(c.text, e.Status.SendQueue))
	c.addAny(text.AppendLocal(c.text, e, wide))
	c.addAny(text.AppendRemote(c.text, e))
	c.addAny(appendAge(c.text, e))
	c.addAny(appendLeft(c.text, e))
	if wide {
		uid, cookie := int64(e.UID), "-"
		if e.UID == event.NoUID {
			uid = event.Unknown
		}
		if e.Cookie != 0 {
			cookie = strconv.FormatUint(e.Cookie, 16)
		}
		netns()
		c.add(append(c.text, text.OrDash(e.Role.String())...))
		c.add(appendKnown(c.text, uid))
		c.add(append(c.text, cookie...))
		c.addAny(append(c.text, unit(e)...))
	}
	c.add(appendHolders(c.text, e))
}

func appendKnown(b []byte, v int64) []byte {
	if v == event.Unknown {
		return append(b, '-')
	}
	return strconv.AppendInt(b, v, 10)
}

// Age returns how long e has been in its state. A prefix of ≥ means "at least", and "-" means
// unknown.
func Age(e *event.Event) string { return string(appendAge(nil, e)) }

func appendAge(b []byte, e *event.Event) []byte {
	switch {
	case e.Dur != event.Unknown:
		return append(b, short(e.Dur)...)
	case e.Status.AtLeast != event.Unknown:
		return append(append(b, "≥"...), short(e.Status.AtLeast)...)
	}
	return append(b, '-')
}

// appendLeft appends the time left until a timer ends e. A half-open connection ends after a number
// of SYN-ACKs, so for such a connection the number sent so far is appended.
func appendLeft(b []byte, e *event.Event) []byte {
	switch {
	case e.Status.Left != event.Unknown:
		return append(b, short(e.Status.Left)...)
	case e.New == event.SynRecv && e.SynRetrans != event.Unknown:
		return strconv.AppendInt(append(b, "SYN-ACK×"...), int64(e.SynRetrans)+1, 10)
	}
	return append(b, '-')
}

// short returns an age with few digits, since the age keeps growing. NDJSON has all digits.
func short(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// unit returns the container of e. If e is not in a container, it returns the systemd unit.
func unit(e *event.Event) string {
	if id := e.Container(); id != "" {
		return text.ContainerID(id)
	}
	return text.OrDash(text.Visible(e.Unit()))
}

// appendHolders appends every process that holds the socket, with its descriptors. If the holders
// are unknown, it appends the owner.
func appendHolders(b []byte, e *event.Event) []byte {
	if e.Status.Holders != nil && len(e.Status.Holders) == 0 {
		return append(b, noHolder[e.Status.Attached]...)
	}
	if e.Status.Holders == nil {
		return text.AppendProcess(b, e.OwnerPID, e.OwnerComm, e.OwnerPID != 0)
	}
	for i, h := range e.Status.Holders {
		if i > 0 {
			before := &e.Status.Holders[i-1]
			if before.PID == h.PID && before.How == event.ByDescriptor && h.How == event.ByDescriptor {
				b = strconv.AppendUint(append(b, ','), uint64(h.FD), 10)
				continue
			}
			b = append(b, ", "...)
		}
		b = append(text.AppendProcess(b, h.PID, h.Comm, true), ' ')
		b = AppendHold(b, &h)
	}
	return b
}

// noHolder is the text for a socket without holders. It depends on what the socket is attached to.
var noHolder = [256]string{
	0: "-", event.AttachedNothing: "-", event.AttachedQueue: "(accept queue)", event.AttachedKernel: "(kernel)",
	event.AttachedDescriptor: "(not found)",
}

// AppendHold appends the descriptor through which h holds a socket. For an io_uring, it also
// appends the slot.
func AppendHold(b []byte, h *event.Holder) []byte {
	if h.How == event.BySlot {
		b = append(b, "io_uring "...)
	}
	b = strconv.AppendUint(append(b, "fd "...), uint64(h.FD), 10)
	if h.How == event.BySlot {
		b = strconv.AppendUint(append(b, " slot "...), uint64(h.Slot), 10)
	}
	return b
}
