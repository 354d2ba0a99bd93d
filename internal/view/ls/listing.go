package ls

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/text"
)

// Formats are those of a Listing, as the command line names them.
var Formats = []string{"text", "wide", "ndjson"}

// Listing is a view that lists sockets, for people as a table with its sums.
type Listing struct {
	lines  *ndjson.Lines
	format string
	header *row
	right  []bool          // which columns are set to the right
	rows   [256][]*row     // by state
	netns  map[uint32]bool // in which there are any
	mptcp  bool            // some are of MPTCP
	width  [columns]uint32 // of the widest cell
	cells  cells           // of the last row
	spare  []row           // room for the next ones
	room   []byte          // and for their texts
	lost   bool
}

// row is one of many: what it has is kept together, and short.
type row struct {
	place
	text  []byte              // its cells, one behind the other
	cells [columns - 1]extent // of each but the last
}

// extent is where a cell's text ends, and how wide it is on a screen.
type extent struct {
	end, width uint32
}

// New makes a Listing of one of Formats.
func New(out io.Writer, format string) *Listing {
	l := &Listing{lines: ndjson.NewLines(out), format: format, netns: make(map[uint32]bool)}
	var c cells
	for _, title := range header(format == "wide") {
		title, right := strings.CutPrefix(title, ">")
		l.right = append(l.right, right)
		c.add(append(c.text, title...))
	}
	l.header = l.row(&c)
	return l
}

// row keeps cells.
func (l *Listing) row(c *cells) *row {
	if len(l.spare) == 0 {
		l.spare = make([]row, 256)
	}
	r := &l.spare[0]
	l.spare = l.spare[1:]
	if cap(l.room)-len(l.room) < len(c.text) {
		l.room = make([]byte, 0, max(1<<16, len(c.text)))
	}
	l.room = append(l.room, c.text...)
	r.text = l.room[len(l.room)-len(c.text):]
	begin := 0
	for i, end := range c.ends[:len(l.right)-1] {
		width := uint32(end - begin - c.more[i])
		r.cells[i] = extent{uint32(end), width}
		l.width[i] = max(l.width[i], width)
		begin = end
	}
	return r
}

// Take takes a Socket, and at last the End.
func (l *Listing) Take(e *event.Event) error {
	switch {
	case l.format == "ndjson":
		return l.lines.Event(e)
	case e.Type == event.Socket:
		l.add(e)
	case e.Type == event.Lost:
		l.lost = true
	case e.Type == event.End:
		return l.table()
	}
	return nil
}

// Flush writes what was gathered.
func (l *Listing) Flush(int64) error { return l.lines.Flush() }

func (l *Listing) add(e *event.Event) {
	l.cells.of(e, l.format == "wide")
	r := l.row(&l.cells)
	r.place = placeOf(e)
	l.rows[e.New] = append(l.rows[e.New], r)
	if !l.netns[e.NetNS] {
		l.netns[e.NetNS] = true
	}
	l.mptcp = l.mptcp || e.Proto == event.MPTCP
}

// table writes all that there is: a block for each state, which are made at the same time.
func (l *Listing) table() error {
	var sums Sums
	for state, rows := range l.rows {
		sums[state] = len(rows)
	}
	var blocks []chan []byte
	for _, state := range sums.states() {
		block := make(chan []byte, 1)
		blocks = append(blocks, block)
		go func() { block <- l.block(l.rows[state]) }()
	}
	if err := l.lines.Text(string(l.line(nil, l.header))); err != nil {
		return err
	}
	for _, block := range blocks {
		if err := l.lines.Block(<-block); err != nil {
			return err
		}
	}
	note := ""
	if l.lost {
		note = "Changes were lost in the recording: sockets that made none after that are not listed.\n"
	}
	return l.lines.Text("\n" + sums.String() + "\n" + note)
}

func (l *Listing) block(rows []*row) (b []byte) {
	slices.SortFunc(rows, func(a, b *row) int { return a.compare(&b.place) })
	last := len(l.right) - 1
	each := last + 8 // blanks between, and what UTF-8 takes more than the width
	for _, w := range l.width[:last] {
		each += int(w)
	}
	size := each * len(rows)
	for _, r := range rows {
		size += len(r.text) - int(r.cells[last-1].end)
	}
	b = make([]byte, 0, size)
	for _, r := range rows {
		b = l.line(b, r)
	}
	return b
}

// line sets cells in columns as wide as the widest of them, but for the last one.
func (l *Listing) line(b []byte, r *row) []byte {
	begin, last := 0, len(l.right)-1
	for i, right := range l.right[:last] {
		c := &r.cells[i]
		cell := r.text[begin:c.end]
		begin = int(c.end)
		blanks := int(l.width[i] - c.width)
		switch {
		case i == narrowNetNS && l.format != "wide" && len(l.netns) < 2, i == narrowProto && l.format != "wide" && !l.mptcp:
		case right:
			b = append(append(text.Pad(b, 0, blanks), cell...), ' ')
		default:
			b = append(text.Pad(append(b, cell...), 0, blanks), ' ')
		}
	}
	return append(append(b, r.text[begin:]...), '\n')
}

// Sums is how many sockets are in each state.
type Sums [256]int

// states are those in which there are any, in order.
func (s *Sums) states() (all []event.State) {
	for state, n := range s {
		if n > 0 {
			all = append(all, event.State(state))
		}
	}
	slices.SortFunc(all, func(a, b event.State) int { return rank[a] - rank[b] })
	return all
}

// String tells how many there are, in all and in each state.
func (s *Sums) String() string {
	all := 0
	var parts []string
	for _, state := range s.states() {
		all += s[state]
		parts = append(parts, state.String()+" "+strconv.Itoa(s[state]))
	}
	text := "1 socket"
	if all != 1 {
		text = strconv.Itoa(all) + " sockets"
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// Header names the columns; > marks one that is set to the right.
func Header(wide bool) []string {
	h := header(wide)
	if !wide {
		h = slices.Delete(h, narrowNetNS, narrowProto+1)
	}
	return h
}

// Row makes the cells of a socket, as Header names them.
func Row(e *event.Event, wide bool) []string {
	var c cells
	c.of(e, wide)
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
	columns     = 14 // the most that there are
	narrowNetNS = 1  // is shown if there are several
	narrowProto = 2  // likewise
)

func header(wide bool) []string {
	if wide {
		return []string{"STATE", ">RECV-Q", ">SEND-Q", "LOCAL", "REMOTE", ">AGE", ">LEFT", ">NETNS", "PROTO", "ROLE", ">UID", ">COOKIE", "UNIT", "HOLDERS"}
	}
	return []string{"STATE", ">NETNS", "PROTO", ">RECV-Q", ">SEND-Q", "LOCAL", "REMOTE", ">AGE", ">LEFT", "HOLDERS"}
}

// cells are the texts of a row as header names them, one behind the other.
type cells struct {
	text []byte
	ends [columns]int // of each in text
	more [columns]int // bytes than characters
	n    int
}

func (c *cells) add(text []byte) {
	c.text, c.ends[c.n], c.more[c.n] = text, len(text), 0
	c.n++
}

// addAny adds a text that may have characters beyond ASCII.
func (c *cells) addAny(text []byte) {
	cell := text[len(c.text):]
	c.add(text)
	c.more[c.n-1] = len(cell) - utf8.RuneCount(cell)
}

func (c *cells) of(e *event.Event, wide bool) {
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

// Age tells how long e has been in its state: exactly, at least, or "-".
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

// appendLeft tells how long it is until a timer ends e; of a half-open connection, how many SYN-ACKs were sent, for their number ends it.
func appendLeft(b []byte, e *event.Event) []byte {
	switch {
	case e.Status.Left != event.Unknown:
		return append(b, short(e.Status.Left)...)
	case e.New == event.SynRecv && e.SynRetrans != event.Unknown:
		return strconv.AppendInt(append(b, "SYN-ACK×"...), int64(e.SynRetrans)+1, 10)
	}
	return append(b, '-')
}

// short writes an age for people, which ticks: exact digits are NDJSON's.
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

// unit tells whose container or systemd unit it is.
func unit(e *event.Event) string {
	if id := e.Container(); id != "" {
		return id[:12] // as docker ps has it
	}
	return text.OrDash(text.Visible(e.Unit()))
}

// appendHolders names every process that has the socket, with its descriptors; or, where that is not known, the owner.
func appendHolders(b []byte, e *event.Event) []byte {
	if e.Status.Holders != nil && len(e.Status.Holders) == 0 {
		return append(b, unheld[e.Status.Attached]...)
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

// unheld is what stands for the holders of a socket of which none was found.
var unheld = [256]string{"-", "-", "(accept queue)", "(kernel)", "(not found)"}

// AppendHold writes by what h holds a socket.
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
