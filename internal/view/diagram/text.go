package diagram

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"sstrace/internal/event"
)

// The picture for a terminal has the same layout as the SVG, but is measured in cells. The three
// columns of states are as far apart as a width of 100 allows. The rows are as far apart as the
// labels require.
const (
	columns                 = 100
	cellHalf                = 6 // half the width of a state: 13 cells hold ESTABLISHED and a border
	cellLeft, cellMid       = cellHalf, columns/2 - 1
	cellRight               = columns - 1 - cellHalf
	midLeft, midRight       = cellMid - 2, cellMid + 2 // where two lines go down from the middle column
	rightInner, rightOuter  = cellRight - 2, cellRight + 3
	leftInside, leftOfMid   = cellLeft + cellHalf + 1, cellMid - cellHalf - 1 // the cells beside the states
	rightOfMid, rightInside = cellMid + cellHalf + 1, cellRight - cellHalf - 1
	beforeMid, behindMid    = (leftInside + leftOfMid) / 2, (rightOfMid + rightInside) / 2
	besideLeft              = leftInside + 4 // leaves room for a label to the left of the middle column
)

// The colors are legible on both dark and light backgrounds.
const (
	plain    = ""
	dim      = "\x1b[2m"
	emphasis = "\x1b[1m"
	red      = "\x1b[31m"
	reset    = "\x1b[0m"
)

var (
	partyLetters = [parties]string{"c", "s", "?"}
	partyColors  = [parties]string{"\x1b[34m", "\x1b[33m", "\x1b[35m"}
)

// strokes are the characters that form a line. A corner is looked up by the directions before and
// after it.
type strokes struct {
	horizontal, vertical rune
	corners              map[[2]point]rune
}

func corners(rightDown, leftDown, rightUp, leftUp rune) map[[2]point]rune {
	r, l, d, u := point{1, 0}, point{-1, 0}, point{0, 1}, point{0, -1}
	return map[[2]point]rune{
		{r, d}: leftDown, {u, l}: leftDown, {l, d}: rightDown, {u, r}: rightDown, {r, u}: leftUp, {d, l}: leftUp,
		{l, u}: rightUp, {d, r}: rightUp,
	}
}

var (
	heavy = strokes{'━', '┃', corners('┏', '┓', '┗', '┛')}
	light = strokes{'╌', '╎', corners('┌', '┐', '└', '┘')}
	heads = map[point]rune{{1, 0}: '►', {-1, 0}: '◄', {0, 1}: '▼', {0, -1}: '▲'}
)

// grid holds the cells of a picture for a terminal.
type grid struct {
	rows  [][columns]rune
	color [][columns]string
}

func newGrid(rows int) *grid {
	return &grid{make([][columns]rune, rows), make([][columns]string, rows)}
}

func (g *grid) set(x, y int, r rune, color string) { g.rows[y][x], g.color[y][x] = r, color }

func (g *grid) write(x, y int, text, color string) {
	for _, r := range text {
		g.set(x, y, r, color)
		x++
	}
}

// line draws a way from its first cell to its last. The last cell holds the arrowhead.
func (g *grid) line(way []point, s *strokes, color string) {
	for i := 1; i < len(way); i++ {
		d := direction(way[i-1], way[i])
		piece := s.horizontal
		if d.x == 0 {
			piece = s.vertical
		}
		for p := way[i-1]; p != way[i]; p = (point{p.x + d.x, p.y + d.y}) {
			g.set(p.x, p.y, piece, color)
		}
		if i > 1 {
			g.set(way[i-1].x, way[i-1].y, s.corners[[2]point{direction(way[i-2], way[i-1]), d}], color)
		}
		if i == len(way)-1 {
			g.set(way[i].x, way[i].y, heads[d], color)
		}
	}
}

// state draws a state from row top to row end.
func (g *grid) state(s *summary, state event.State, x, top, end int) {
	color := dim
	if s.seen[state] {
		color = plain
	}
	for y := top; y <= end; y++ {
		l, fill, r := '│', ' ', '│'
		switch y {
		case top:
			l, fill, r = '┌', '─', '┐'
		case end:
			l, fill, r = '└', '─', '┘'
		}
		for i := x - cellHalf; i <= x+cellHalf; i++ {
			g.set(i, y, fill, color)
		}
		g.set(x-cellHalf, y, l, color)
		g.set(x+cellHalf, y, r, color)
	}
	name := state.String()
	y := (top + end) / 2
	if s.seen[state] {
		color = emphasis
	}
	g.write(x-len(name)/2, y, name, color)
	if e := s.ends[state]; e != nil {
		text := fmt.Sprintf("×%d", e.Count)
		if len(text)+1 <= 2*cellHalf-1 { // × takes two bytes, and this leaves room for a space
			text = fmt.Sprintf("× %d", e.Count)
		}
		g.write(x-utf8.RuneCountInString(text)/2, y+1, text, red)
	}
}

// arrow draws an edge of the figure. A horizontal line has its label above it and its caption in
// the line itself. A vertical line has both beside it, with the caption above the label.
func (g *grid) arrow(s *summary, e event.Edge, at point, where side, way ...point) {
	tallies := s.of(e)
	var rows, colors []string
	for p, t := range tallies {
		if t != nil {
			rows = append(rows, fmt.Sprintf("%s %d %s", partyLetters[p], t.Count, median(t)))
			colors = append(colors, partyColors[p])
		}
	}
	pieces, color := &light, dim
	switch {
	case len(rows) == 1:
		pieces, color = &heavy, colors[0]
	case len(rows) > 1:
		pieces, color = &heavy, plain
	}
	g.line(way, pieces, color)
	caption := captionOf(e)
	y := at.y - len(rows)
	switch where {
	case above:
		g.write(at.x-(len(caption)+2)/2, at.y, " "+caption+" ", dim)
	default:
		rows, colors = append([]string{caption}, rows...), append([]string{dim}, colors...)
		y = at.y
	}
	widest := 0
	for _, r := range rows {
		widest = max(widest, utf8.RuneCountInString(r))
	}
	for i, r := range rows {
		x := at.x - widest/2
		switch where {
		case toLeft:
			x = at.x - 1 - utf8.RuneCountInString(r)
		case toRight:
			x = at.x + 2
		}
		g.write(x, y+i, r, colors[i])
	}
}

// rows returns the largest number of rows that the counts of any one of these edges need. The
// result is at least 1.
func (s *summary) rows(edges ...event.Edge) int {
	most := 1
	for _, e := range edges {
		n := 0
		for _, t := range s.of(e) {
			if t != nil {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// textRows holds the rows of the picture for a terminal, from top to bottom. It has the first row
// of each state, or of each group of states side by side, and the rows y1 to y6 of the horizontal
// lines. The members whose names start with high are the distances from the first row of a state to
// its last.
type textRows struct {
	closed, listen, syn, synEnd, estab, fin, finEnd, wait, last int

	y1, y2, y3, y4, y5, y6                    int
	highListen, highEstab, highWait, highLast int
}

// place returns the rows of the picture. They are as far apart as the labels between them require.
func (s *summary) place() (r textRows) {
	// high returns the distance from the first row of a state to its last. States with more text
	// are taller.
	high := func(states ...event.State) int {
		if slices.ContainsFunc(states, func(state event.State) bool { return s.ends[state] != nil }) {
			return 3
		}
		return 2
	}
	r.highListen, r.highEstab, r.highWait = high(event.Listen), high(event.Established),
		high(event.FinWait2, event.Closing, event.LastAck)
	r.highLast = high(event.TimeWait)
	r.closed = s.rows(event.Close.To(event.SynSent)) - 1
	r.listen = r.closed + 6 + s.rows(event.Close.To(event.Listen), event.Listen.To(event.Close),
		event.SynSent.To(event.Close))
	r.y1 = r.listen + 2 + max(r.highListen, s.rows(event.Listen.To(event.SynRecv), event.Listen.To(event.SynSent)))
	r.y2 = r.y1 + 1 + s.rows(event.SynSent.To(event.SynRecv))
	r.y3 = r.y2 + 1 + s.rows(event.SynRecv.To(event.Established), event.SynSent.To(event.Established))
	r.estab = r.y3 + 2
	r.fin = r.estab + max(r.highEstab+1, s.rows(event.SynRecv.To(event.FinWait1))+
		s.rows(event.Established.To(event.FinWait1), event.Established.To(event.CloseWait)))
	r.y4 = r.fin + 1
	r.y5 = r.y4 + 1 + s.rows(event.FinWait1.To(event.Closing))
	r.finEnd = r.y5 + 1
	r.wait = r.finEnd + 2 + s.rows(event.FinWait1.To(event.FinWait2), event.CloseWait.To(event.LastAck))
	r.last = r.wait + r.highWait + 1 + s.rows(event.Closing.To(event.TimeWait), event.LastAck.To(event.Close)) +
		s.rows(event.FinWait2.To(event.TimeWait), event.TimeWait.To(event.Close))
	r.y6 = r.last + 1
	r.syn, r.synEnd = r.y1-1, r.y3+1
	return r
}

// picture draws the figure on a grid of cells.
func (s *summary) picture() *grid {
	r := s.place()
	g := newGrid(r.last + r.highLast + 1)
	g.arrow(s, event.Close.To(event.Listen), point{midLeft, r.closed + 5}, toLeft, point{midLeft, r.closed + 5},
		point{midLeft, r.listen - 1})
	g.arrow(s, event.Listen.To(event.Close), point{midRight, r.closed + 5}, toRight, point{midRight, r.listen - 1},
		point{midRight, r.closed + 5})
	g.arrow(s, event.Close.To(event.SynSent), point{behindMid, r.closed + 1}, above,
		point{rightOfMid, r.closed + 1}, point{rightOuter, r.closed + 1}, point{rightOuter, r.syn - 1})
	g.arrow(s, event.SynSent.To(event.Close), point{rightInner, r.closed + 5}, toLeft,
		point{rightInner, r.syn - 1}, point{rightInner, r.closed + 3}, point{rightOfMid, r.closed + 3})
	g.arrow(s, event.SynRecv.To(event.Listen), point{besideLeft, r.listen + 1}, above,
		point{cellLeft, r.syn - 1}, point{cellLeft, r.listen + 1}, point{leftOfMid, r.listen + 1})
	g.arrow(s, event.Listen.To(event.SynRecv), point{beforeMid, r.y1}, above,
		point{midLeft, r.listen + r.highListen + 1}, point{midLeft, r.y1}, point{leftInside, r.y1})
	g.arrow(s, event.Listen.To(event.SynSent), point{behindMid, r.y1}, above,
		point{midRight, r.listen + r.highListen + 1}, point{midRight, r.y1}, point{rightInside, r.y1})
	g.arrow(s, event.SynSent.To(event.SynRecv), point{cellMid, r.y2}, above, point{rightInside, r.y2},
		point{leftInside, r.y2})
	g.arrow(s, event.SynRecv.To(event.Established), point{beforeMid, r.y3}, above, point{leftInside, r.y3},
		point{midLeft, r.y3}, point{midLeft, r.estab - 1})
	g.arrow(s, event.SynSent.To(event.Established), point{behindMid, r.y3}, above, point{rightInside, r.y3},
		point{midRight, r.y3}, point{midRight, r.estab - 1})
	g.arrow(s, event.SynRecv.To(event.FinWait1), point{cellLeft, r.synEnd + 1}, toRight, point{cellLeft, r.synEnd + 1},
		point{cellLeft, r.fin - 1})
	g.arrow(s, event.Established.To(event.FinWait1), point{beforeMid, r.y4}, above,
		point{midLeft, r.estab + r.highEstab + 1}, point{midLeft, r.y4}, point{leftInside, r.y4})
	g.arrow(s, event.Established.To(event.CloseWait), point{behindMid, r.y4}, above,
		point{midRight, r.estab + r.highEstab + 1}, point{midRight, r.y4}, point{rightInside, r.y4})
	g.arrow(s, event.FinWait1.To(event.Closing), point{beforeMid, r.y5}, above, point{leftInside, r.y5},
		point{cellMid, r.y5}, point{cellMid, r.wait - 1})
	g.arrow(s, event.FinWait1.To(event.FinWait2), point{cellLeft, r.finEnd + 1}, toRight,
		point{cellLeft, r.finEnd + 1}, point{cellLeft, r.wait - 1})
	g.arrow(s, event.CloseWait.To(event.LastAck), point{cellRight, r.finEnd + 1}, toLeft,
		point{cellRight, r.finEnd + 1}, point{cellRight, r.wait - 1})
	g.arrow(s, event.FinWait2.To(event.TimeWait), point{beforeMid, r.y6}, above,
		point{cellLeft, r.wait + r.highWait + 1}, point{cellLeft, r.y6}, point{leftOfMid, r.y6})
	g.arrow(s, event.Closing.To(event.TimeWait), point{cellMid, r.wait + r.highWait + 1}, toRight,
		point{cellMid, r.wait + r.highWait + 1}, point{cellMid, r.last - 1})
	g.arrow(s, event.LastAck.To(event.Close), point{cellRight, r.wait + r.highWait + 1}, toLeft,
		point{cellRight, r.wait + r.highWait + 1}, point{cellRight, r.last - 1})
	g.arrow(s, event.TimeWait.To(event.Close), point{behindMid, r.y6}, above, point{rightOfMid, r.y6},
		point{rightInside, r.y6})

	g.state(s, event.Close, cellMid, r.closed, r.closed+4)
	g.state(s, event.Listen, cellMid, r.listen, r.listen+r.highListen)
	g.state(s, event.SynRecv, cellLeft, r.syn, r.synEnd)
	g.state(s, event.SynSent, cellRight, r.syn, r.synEnd)
	g.state(s, event.Established, cellMid, r.estab, r.estab+r.highEstab)
	g.state(s, event.FinWait1, cellLeft, r.fin, r.finEnd)
	g.state(s, event.CloseWait, cellRight, r.fin, r.finEnd)
	g.state(s, event.FinWait2, cellLeft, r.wait, r.wait+r.highWait)
	g.state(s, event.Closing, cellMid, r.wait, r.wait+r.highWait)
	g.state(s, event.LastAck, cellRight, r.wait, r.wait+r.highWait)
	g.state(s, event.TimeWait, cellMid, r.last, r.last+r.highLast)
	g.state(s, event.Close, cellRight, r.last, r.last+r.highLast)
	return g
}

// text returns the picture for a terminal.
func (s *summary) text(color bool) string {
	var b strings.Builder
	in := func(text, with string) string {
		if color && with != plain && text != "" {
			return with + text + reset
		}
		return text
	}
	b.WriteString(in(s.title, emphasis) + "\n")
	for _, n := range s.notes {
		with := plain
		if n.alarm {
			with = red
		}
		for _, l := range wrapped(columns, "", strings.Fields(n.text), " ") {
			b.WriteString(in(l, with) + "\n")
		}
	}
	b.WriteByte('\n')
	g := s.picture()
	for y := range g.rows {
		end := columns
		for end > 0 && (g.rows[y][end-1] == 0 || g.rows[y][end-1] == ' ') {
			end--
		}
		for x := 0; x < end; {
			with, run := g.color[y][x], ""
			for ; x < end && g.color[y][x] == with; x++ {
				if g.rows[y][x] == 0 {
					run += " "
				} else {
					run += string(g.rows[y][x])
				}
			}
			b.WriteString(in(run, with))
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString("━━► taken, ╌╌► not taken; how often, and the median time in the state that was left:\n")
	for p, legend := range partyLegends {
		fmt.Fprintf(&b, "  %s\n", in(fmt.Sprintf("%s  %s", partyLetters[p], legend), partyColors[p]))
	}
	if len(s.ends) > 0 {
		b.WriteString(in("× to CLOSE in ways that the figure does not show:", red) + "\n")
		for _, state := range event.Lifecycle() {
			e := s.ends[state]
			if e == nil {
				continue
			}
			var reasons []string
			for _, r := range e.reasons {
				reasons = append(reasons, r.String())
			}
			head := fmt.Sprintf("  %-11v  %9d  %6s  ", state, e.Count, median(e.tally))
			for _, l := range wrapped(columns, head, reasons, ", ") {
				b.WriteString(l + "\n")
			}
		}
	}
	for _, r := range s.remarks() {
		for _, l := range wrapped(columns, "", strings.Fields(r), " ") {
			b.WriteString(in(l, dim) + "\n")
		}
	}
	return b.String()
}

// wrapped returns lines that contain head and then the words. The separator follows each word
// except the last. Lines after the first are indented by the width of head.
func wrapped(columns int, head string, words []string, separator string) (lines []string) {
	line, indent := head, strings.Repeat(" ", utf8.RuneCountInString(head))
	for i, w := range words {
		if i < len(words)-1 {
			w += separator
		}
		if line != head && line != indent && utf8.RuneCountInString(strings.TrimRight(line+w, " ")) > columns {
			lines = append(lines, strings.TrimRight(line, " "))
			line = indent
		}
		line += w
	}
	return append(lines, strings.TrimRight(line, " "))
}
