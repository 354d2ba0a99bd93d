package ls

import (
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// table holds the rows of a listing. There may be very many rows, so each is kept short and in one
// piece of memory.
type table struct {
	wide   bool
	right  []bool // which columns are aligned to the right
	header *row
	rows   [256][]*row     // the rows, by state
	netns  map[uint32]bool // the namespaces that have at least one row
	mptcp  bool            // there are MPTCP sockets
	width  [columns]uint32 // the width of the widest cell
	cells  cells           // the cells of the last row
	spare  []row           // memory for further rows
	room   []byte          // memory for the texts of further rows
}

// row is one socket.
type row struct {
	event.Tuple
	text  []byte              // its cells, one after the other
	cells [columns - 1]extent // the extent of each cell except the last
}

// extent says where the text of a cell ends, and how wide the cell is on a screen.
type extent struct {
	end, width uint32
}

// keep returns a row with a copy of cells.
func (t *table) keep(c *cells) *row {
	if len(t.spare) == 0 {
		t.spare = make([]row, 256)
	}
	r := &t.spare[0]
	t.spare = t.spare[1:]
	if cap(t.room)-len(t.room) < len(c.text) {
		t.room = make([]byte, 0, max(1<<16, len(c.text)))
	}
	t.room = append(t.room, c.text...)
	r.text = t.room[len(t.room)-len(c.text):]
	begin := 0
	for i, end := range c.ends[:len(t.right)-1] {
		width := uint32(end - begin - c.more[i])
		r.cells[i] = extent{uint32(end), width}
		t.width[i] = max(t.width[i], width)
		begin = end
	}
	return r
}

func (t *table) add(e *event.Event) {
	t.cells.set(e, t.wide)
	r := t.keep(&t.cells)
	r.Tuple = e.Tuple()
	t.rows[e.New] = append(t.rows[e.New], r)
	if !t.netns[e.NetNS] {
		t.netns[e.NetNS] = true
	}
	t.mptcp = t.mptcp || e.Proto == event.MPTCP
}

// block sorts the rows, and returns them as lines.
func (t *table) block(rows []*row) (b []byte) {
	slices.SortFunc(rows, func(a, b *row) int { return a.Compare(&b.Tuple) })
	last := len(t.right) - 1
	each := last + 8 // the spaces between cells, and the bytes that UTF-8 needs beyond the width
	for _, w := range t.width[:last] {
		each += int(w)
	}
	size := each * len(rows)
	for _, r := range rows {
		size += len(r.text) - int(r.cells[last-1].end)
	}
	b = make([]byte, 0, size)
	for _, r := range rows {
		b = t.appendLine(b, r)
	}
	return b
}

// appendLine appends the cells of a row. Each cell except the last is padded to the width of its
// column. The namespace and the protocol are left out if they are the same in all rows.
func (t *table) appendLine(b []byte, r *row) []byte {
	begin, last := 0, len(t.right)-1
	for i, right := range t.right[:last] {
		c := &r.cells[i]
		cell := r.text[begin:c.end]
		begin = int(c.end)
		spaces := int(t.width[i] - c.width)
		switch {
		case i == narrowNetNS && !t.wide && len(t.netns) < 2, i == narrowProto && !t.wide && !t.mptcp:
		case right:
			b = append(append(text.Pad(b, 0, spaces), cell...), ' ')
		default:
			b = append(text.Pad(append(b, cell...), 0, spaces), ' ')
		}
	}
	return append(append(b, r.text[begin:]...), '\n')
}
