package watch

import (
	"fmt"
	"strings"
	"time"

	"sstrace/internal/text"
	"sstrace/internal/view/ls"

	"github.com/charmbracelet/x/ansi"
)

const (
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	reverse = "\x1b[7m"
	green   = "\x1b[32m"
	red     = "\x1b[31m"
	struck  = "\x1b[9m"
	plain   = "\x1b[0m"
)

// lines returns the lines of the screen. Each line fits the width of the screen.
func (s *screen) lines() []string {
	var all []string
	if s.help {
		all = append(all, help...)
	} else {
		all = append(all, s.title(), s.now.sums.String(), s.count())
		all = append(all, s.table()...)
	}
	for len(all) < s.height-below {
		all = append(all, "")
	}
	all = all[:max(s.height-below, 0)]
	all = append(all, s.footer())
	for i, line := range all {
		if ansi.StringWidth(line) > s.width {
			all[i] = ansi.Truncate(line, s.width, "…") + plain
		}
	}
	return all
}

// table returns the header and the visible rows.
func (s *screen) table() []string {
	last := min(s.first+s.visible(), len(s.shown))
	rows := make([][]string, 0, last-s.first)
	for _, r := range s.shown[s.first:last] {
		e := r.at(s.now.now)
		cells := ls.Row(&e, s.wide)
		for i, cell := range cells {
			s.columns[i].width = max(s.columns[i].width, ansi.StringWidth(cell))
		}
		rows = append(rows, cells)
	}
	widest := 0
	for _, cells := range rows {
		widest = max(widest, ansi.StringWidth(s.align(cells)))
	}
	s.left = min(s.left, max(widest-(s.width-len(sign)), 0))
	all := []string{s.header()}
	for i, cells := range rows {
		all = append(all, s.line(s.shown[s.first+i], cells))
	}
	return all
}

// title returns the first line: the host and the time.
func (s *screen) title() string {
	text := bold + "sstrace ls" + plain + "  " + s.host
	if s.now.wall != 0 {
		text += "  " + time.Unix(0, s.now.wall).Format("15:04:05")
	}
	if s.paused {
		text += "  " + reverse + " paused " + plain
	}
	return text
}

// count returns which rows are visible, and the total number of rows.
func (s *screen) count() string {
	text := "none"
	if n := len(s.shown); n > 0 {
		text = fmt.Sprintf("%d-%d of %d", s.first+1, min(s.first+s.visible(), n), n)
	}
	if s.filter != "" {
		text += fmt.Sprintf(" with %q, %d in all", s.filter, s.now.exist)
	}
	if s.now.lost > 0 {
		note := fmt.Sprintf("%d changes lost", s.now.lost)
		if s.now.unsure {
			note += ": the table may be wrong until the next look"
		}
		text += "; " + s.paint(red, note)
	}
	return text
}

// paint returns text in a color if colors are enabled.
func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return color + text + plain
}

// header returns the line of titles, with a mark at the column to sort by.
func (s *screen) header() string {
	cells := make([]string, len(s.columns))
	for i, c := range s.columns {
		cells[i] = c.title
		if i == s.by {
			down := c.number != nil // the largest is at the top
			if s.reverse {
				down = !down
			}
			cells[i] += map[bool]string{true: "▼", false: "▲"}[down]
		}
	}
	line := sign + s.cut(s.align(cells))
	return reverse + line + strings.Repeat(" ", max(s.width-ansi.StringWidth(line), 0)) + plain
}

// align pads cells to the widths of their columns.
func (s *screen) align(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		blanks := strings.Repeat(" ", max(s.columns[i].width-ansi.StringWidth(cell), 0))
		switch {
		case i == len(cells)-1:
			b.WriteString(cell)
		case s.columns[i].right:
			b.WriteString(blanks + cell + " ")
		default:
			b.WriteString(cell + blanks + " ")
		}
	}
	return b.String()
}

// cut returns the visible part of a row's text.
func (s *screen) cut(text string) string {
	return ansi.Cut(text, s.left, s.left+max(s.width-len(sign), 0))
}

// sign precedes a row without a mark.
const sign = "  "

// line returns a row as a line.
func (s *screen) line(r *row, cells []string) string {
	sign, style := sign, ""
	if s.now.now-r.marked < markTime {
		switch r.mark {
		case born:
			sign, style = "+ ", bold
			if s.color {
				style += green
			}
		case changed:
			sign, style = "* ", bold
		case gone:
			sign, style = "- ", faint+struck
		}
	}
	line := s.align(cells)
	if s.color && style == "" {
		line = text.StateColor[r.New] + cells[0] + plain + strings.TrimPrefix(line, cells[0])
	}
	return sign + style + s.cut(line) + plain
}
