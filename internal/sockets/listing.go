package sockets

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/print"
)

// Formats are those of a Listing, as the command line names them.
var Formats = []string{"text", "wide", "ndjson"}

// Listing is a view that lists sockets, for people as a table with its sums.
type Listing struct {
	lines  *print.Lines
	format string
	all    []*event.Event
	lost   bool
}

// New makes a Listing of one of Formats.
func New(out io.Writer, format string) *Listing {
	return &Listing{lines: print.NewLines(out), format: format}
}

// Take takes a Socket, and at last the End.
func (l *Listing) Take(e *event.Event) error {
	switch {
	case l.format == "ndjson":
		return l.lines.Event(e)
	case e.Type == event.Socket:
		kept := *e
		l.all = append(l.all, &kept)
	case e.Type == event.Lost:
		l.lost = true
	case e.Type == event.End:
		return l.table()
	}
	return nil
}

// Flush writes what was gathered.
func (l *Listing) Flush(int64) error { return l.lines.Flush() }

// table writes all that there is.
func (l *Listing) table() error {
	slices.SortFunc(l.all, Compare)
	wide := l.format == "wide"
	several := slices.ContainsFunc(l.all, func(e *event.Event) bool { return e.NetNS != l.all[0].NetNS })
	rows := [][]string{Header(wide)}
	for _, e := range l.all {
		rows = append(rows, Row(e, wide))
	}
	if several && !wide { // two may have the same ends
		for i, e := range l.all {
			rows[i+1] = slices.Insert(rows[i+1], 1, strconv.FormatUint(uint64(e.NetNS), 10))
		}
		rows[0] = slices.Insert(rows[0], 1, ">NETNS")
	}
	if err := l.lines.Text(string(align(nil, rows))); err != nil {
		return err
	}
	note := ""
	if l.lost {
		note = "Changes were lost in the recording: sockets that made none after that are not listed.\n"
	}
	return l.lines.Text("\n" + Sums(l.all) + "\n" + note)
}

// Sums tells how many there are, in all and in each state.
func Sums(all []*event.Event) string {
	count := make(map[event.State]int)
	for _, e := range all {
		count[e.New]++
	}
	var parts []string
	for _, s := range slices.SortedFunc(maps.Keys(count), func(a, b event.State) int { return rank[a] - rank[b] }) {
		parts = append(parts, s.String()+" "+strconv.Itoa(count[s]))
	}
	sum := "1 socket"
	if len(all) != 1 {
		sum = strconv.Itoa(len(all)) + " sockets"
	}
	if len(parts) > 0 {
		sum += ": " + strings.Join(parts, ", ")
	}
	return sum
}

// Header names the columns; > marks one that is set to the right.
func Header(wide bool) []string {
	h := []string{"STATE", ">RECV-Q", ">SEND-Q", "LOCAL", "REMOTE", ">AGE", ">LEFT"}
	if wide {
		h = append(h, ">NETNS", "ROLE", ">UID", ">COOKIE", "UNIT")
	}
	return append(h, "HOLDERS")
}

// Row makes the cells of a socket, as Header names them.
func Row(e *event.Event, wide bool) []string {
	s := e.Status
	cells := []string{
		e.New.String(), number(s.RecvQueue), number(s.SendQueue), print.Address(e.Local), print.Address(e.Remote), Age(e), left(e),
	}
	if wide {
		uid := "-"
		if e.UID != event.NoUID {
			uid = strconv.FormatUint(uint64(e.UID), 10)
		}
		cookie := "-"
		if e.Cookie != 0 {
			cookie = strconv.FormatUint(e.Cookie, 16)
		}
		cells = append(cells, strconv.FormatUint(uint64(e.NetNS), 10), print.OrDash(e.Role.String()), uid, cookie, unit(e))
	}
	return append(cells, Holders(e))
}

func number(v int64) string {
	if v == event.Unknown {
		return "-"
	}
	return strconv.FormatInt(v, 10)
}

// Age tells how long e has been in its state: exactly, at least, or "-".
func Age(e *event.Event) string {
	switch {
	case e.Dur != event.Unknown:
		return Short(e.Dur)
	case e.Status.AtLeast != event.Unknown:
		return "≥" + Short(e.Status.AtLeast)
	}
	return "-"
}

// left tells how long it is until a timer ends e; of a half-open connection, how many SYN-ACKs were sent, for their number ends it.
func left(e *event.Event) string {
	switch {
	case e.Status.Left != event.Unknown:
		return Short(e.Status.Left)
	case e.New == event.SynRecv && e.SynRetrans != event.Unknown:
		return fmt.Sprintf("SYN-ACK×%d", e.SynRetrans+1)
	}
	return "-"
}

// Short writes an age for people, which ticks: exact digits are NDJSON's.
func Short(ns int64) string {
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

// unit tells whose container or systemd unit it is.
func unit(e *event.Event) string {
	if id := e.Container(); id != "" {
		return id[:12] // as docker ps has it
	}
	return print.OrDash(print.Visible(e.Unit()))
}

// Holders names every process that has the socket, with its descriptors; or, where that is not known, the owner.
func Holders(e *event.Event) string {
	var b []byte
	name := func(pid uint32, comm string) {
		if len(b) > 0 {
			b = append(b, ", "...)
		}
		b = append(b, print.Process(pid, comm)...)
	}
	if e.Status.Holders == nil && e.OwnerPID != 0 {
		name(e.OwnerPID, e.OwnerComm)
	}
	for i, h := range e.Status.Holders {
		if i > 0 && e.Status.Holders[i-1].PID == h.PID {
			b = append(b, ',')
		} else {
			name(h.PID, h.Comm)
			b = append(b, " fd "...)
		}
		b = strconv.AppendUint(b, uint64(h.FD), 10)
	}
	return print.OrDash(string(b))
}

// align appends rows as lines, with columns as wide as their widest cell. The first row is the header, in which > marks a column that is set to the
// right. The last column may grow as it likes.
func align(b []byte, rows [][]string) []byte {
	right := make([]bool, len(rows[0]))
	width := make([]int, len(rows[0]))
	for i, cell := range rows[0] {
		rows[0][i], right[i] = strings.CutPrefix(cell, ">")
	}
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			blanks := width[i] - utf8.RuneCountInString(cell)
			switch {
			case i == len(row)-1:
				b = append(append(b, cell...), '\n')
			case right[i]:
				b = append(append(print.Pad(b, 0, blanks), cell...), ' ')
			default:
				b = append(print.Pad(append(b, cell...), 0, blanks), ' ')
			}
		}
	}
	return b
}
