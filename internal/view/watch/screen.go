package watch

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/text"
	"sstrace/internal/view/ls"

	"github.com/charmbracelet/x/ansi"
)

// screen is what a person sees of a table, and does with it. It knows no terminal.
type screen struct {
	host  string
	wide  bool
	color bool

	width, height int
	now           *snapshot
	shown         []*row // those of now that the filter wants, sorted
	first, left   int    // of shown, the first that is visible; and of their text
	columns       []column
	by            int // which column they are sorted by
	reverse       bool
	filter        string
	editing       bool
	help, paused  bool

	words map[*event.Event]*words // what is made of an Event, while it is in now
}

// words are what of an Event is costly to write, and does not change with time.
type words struct {
	all, unit, holders string
}

// column is one of the table's. It is sorted by a number, the largest first and what is not known last; or by compare.
type column struct {
	title   string
	right   bool
	width   int // of what was visible so far
	number  func(r *row) (n int64, known bool)
	compare func(a, b *row) int
}

func newScreen(host string, wide, color bool) *screen {
	s := &screen{host: text.Visible(host), wide: wide, color: color, now: new(snapshot), words: make(map[*event.Event]*words)}
	known := func(v int64) (int64, bool) { return v, v != event.Unknown }
	numbers := map[string]func(r *row) (int64, bool){
		"RECV-Q": func(r *row) (int64, bool) { return known(r.Status.RecvQueue) },
		"SEND-Q": func(r *row) (int64, bool) { return known(r.Status.SendQueue) },
		"AGE":    func(r *row) (int64, bool) { return -r.since, true },
		"LEFT":   func(r *row) (int64, bool) { return r.Mono + r.Status.Left, r.Status.Left != event.Unknown },
		"NETNS":  func(r *row) (int64, bool) { return int64(r.NetNS), true },
		"UID":    func(r *row) (int64, bool) { return int64(r.UID), r.UID != event.NoUID },
		"COOKIE": func(r *row) (int64, bool) { return int64(r.Cookie), r.Cookie != 0 },
	}
	compares := map[string]func(a, b *row) int{
		"STATE":   func(a, b *row) int { return ls.Compare(a.Event, b.Event) },
		"LOCAL":   func(a, b *row) int { return compareEnds(a.Local, b.Local) },
		"REMOTE":  func(a, b *row) int { return compareEnds(a.Remote, b.Remote) },
		"PROTO":   func(a, b *row) int { return cmp.Compare(a.Proto, b.Proto) },
		"ROLE":    func(a, b *row) int { return cmp.Compare(a.Role, b.Role) },
		"UNIT":    func(a, b *row) int { return cmp.Compare(s.of(a.Event).unit, s.of(b.Event).unit) },
		"HOLDERS": func(a, b *row) int { return cmp.Compare(s.of(a.Event).holders, s.of(b.Event).holders) },
	}
	least := map[string]int{"STATE": len("ESTABLISHED"), "LOCAL": len("255.255.255.255:65535"), "REMOTE": len("255.255.255.255:65535"), "AGE": len(">120h30m"), "LEFT": len("59.9s")}
	for _, title := range ls.Header(wide) {
		title, right := strings.CutPrefix(title, ">")
		s.columns = append(s.columns, column{title: title, right: right, width: max(len(title)+1, least[title]), number: numbers[title], compare: compares[title]})
	}
	return s
}

func compareEnds(a, b netip.AddrPort) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
}

// of gives the words of an Event.
func (s *screen) of(e *event.Event) *words {
	if w := s.words[e]; w != nil {
		return w
	}
	lasting := *e // without what goes on with time
	lasting.Dur = event.Unknown
	status := *e.Status
	status.AtLeast, status.Left = event.Unknown, event.Unknown
	lasting.Status = &status
	cells := ls.Row(&lasting, true)
	w := &words{unit: cells[len(cells)-2], holders: cells[len(cells)-1]}
	if !s.wide {
		cells = ls.Row(&lasting, false)
	}
	w.all = strings.ToLower(strings.Join(cells, " "))
	s.words[e] = w
	return w
}

// set takes what the table is like now.
func (s *screen) set(now *snapshot) {
	s.now = now
	s.arrange()
}

// arrange chooses and sorts what is shown.
func (s *screen) arrange() {
	if len(s.words) > 2*len(s.now.rows)+1000 { // most of them are of Events that are no more
		clear(s.words)
	}
	s.shown = slices.Clone(s.now.rows)
	if s.filter != "" {
		text := strings.ToLower(s.filter)
		s.shown = slices.DeleteFunc(s.shown, func(r *row) bool { return !strings.Contains(s.of(r.Event).all, text) })
	}
	slices.SortFunc(s.shown, s.compare)
	s.scroll(0)
}

func (s *screen) compare(a, b *row) int {
	c, order := s.columns[s.by], 0
	if c.number != nil {
		x, known := c.number(a)
		y, alsoKnown := c.number(b)
		switch {
		case known && alsoKnown:
			order = cmp.Compare(y, x)
		case known:
			return -1
		case alsoKnown:
			return 1
		}
	} else {
		order = c.compare(a, b)
	}
	if s.reverse {
		order = -order
	}
	return cmp.Or(order, ls.Compare(a.Event, b.Event), cmp.Compare(a.ID, b.ID))
}

// Lines of the screen that are no rows: above the table, with its header, and below.
const (
	above = 4
	below = 1
)

// visible is for how many rows there is room.
func (s *screen) visible() int { return max(s.height-above-below, 1) }

// scroll goes down by so many rows, as far as there are.
func (s *screen) scroll(by int) {
	s.first = max(min(s.first+by, len(s.shown)-s.visible()), 0)
}

func (s *screen) resize(width, height int) {
	s.width, s.height = width, height
	s.scroll(0)
}

const sideways = 8

// press takes a key by its name, or text that was typed or pasted, and reports whether it is enough.
func (s *screen) press(key, text string) (quit bool) {
	switch {
	case key == "ctrl+c":
		return true
	case s.editing:
		s.edit(key, text)
		return false
	case s.help:
		s.help = false
		return key == "q"
	}
	switch key {
	case "q", "esc":
		return true
	case "up", "k":
		s.scroll(-1)
	case "down", "j":
		s.scroll(1)
	case "pgup", "ctrl+b":
		s.scroll(-s.visible())
	case "pgdown", "ctrl+f":
		s.scroll(s.visible())
	case "home", "g":
		s.scroll(-len(s.shown))
	case "end", "G":
		s.scroll(len(s.shown))
	case "left", "h":
		s.left = max(s.left-sideways, 0)
	case "right", "l":
		s.left += sideways
	case "s", ">":
		s.sort(1)
	case "<":
		s.sort(-1)
	case "r":
		s.reverse = !s.reverse
		s.arrange()
	case "p", "space":
		s.paused = !s.paused
	case "/":
		s.editing = true
	case "?":
		s.help = true
	}
	return false
}

func (s *screen) sort(by int) {
	s.by = (s.by + by + len(s.columns)) % len(s.columns)
	s.arrange()
}

// edit changes the filter, which holds at once.
func (s *screen) edit(key, text string) {
	switch key {
	case "enter":
		s.editing = false
	case "esc":
		s.editing, s.filter = false, ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(s.filter)
		s.filter = s.filter[:len(s.filter)-size]
	case "ctrl+u":
		s.filter = ""
	default:
		s.filter += text
	}
	s.arrange()
}

const (
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	reverse = "\x1b[7m"
	green   = "\x1b[32m"
	red     = "\x1b[31m"
	struck  = "\x1b[9m"
	plain   = "\x1b[0m"
)

// lines gives the screen, from top to bottom; each fits.
func (s *screen) lines() []string {
	var all []string
	if s.help {
		all = append(all, help...)
	} else {
		all = append(all, s.title(), s.now.sums.String(), s.count())
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
		all = append(all, s.header())
		for i, cells := range rows {
			all = append(all, s.line(s.shown[s.first+i], cells))
		}
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

var help = []string{
	"↑ ↓ j k PgUp PgDn Home End  scroll",
	"← → h l  scroll sideways",
	"s < >    sort by another column",
	"r        reverse the order",
	"/        show rows with a text",
	"p space  pause, and go on",
	"q Esc    quit",
	"+ new  * changed  - gone, for 2 s",
	"≥ so old at least: older than the trace",
}

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

// count tells how many there are, and how many of them are visible.
func (s *screen) count() string {
	text := "none"
	if n := len(s.shown); n > 0 {
		text = fmt.Sprintf("%d-%d of %d", s.first+1, min(s.first+s.visible(), n), n)
	}
	if s.filter != "" {
		text += fmt.Sprintf(" with %q, %d in all", s.filter, s.now.there)
	}
	if s.now.lost > 0 {
		note := fmt.Sprintf("%d changes lost", s.now.lost)
		if s.now.unsure {
			note += ", not all is right until the next look"
		}
		text += "; " + s.paint(red, note)
	}
	return text
}

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return color + text + plain
}

func (s *screen) header() string {
	cells := make([]string, len(s.columns))
	for i, c := range s.columns {
		cells[i] = c.title
		if i == s.by {
			down := c.number != nil // the largest is on top
			if s.reverse {
				down = !down
			}
			cells[i] += map[bool]string{true: "▼", false: "▲"}[down]
		}
	}
	line := sign + s.cut(s.align(cells))
	return reverse + line + strings.Repeat(" ", max(s.width-ansi.StringWidth(line), 0)) + plain
}

// align sets cells below one another.
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

// cut gives what of a row's text is visible.
func (s *screen) cut(text string) string {
	return ansi.Cut(text, s.left, s.left+max(s.width-len(sign), 0))
}

// sign is what stands before a row with no mark.
const sign = "  "

// line writes a row.
func (s *screen) line(r *row, cells []string) string {
	sign, style := sign, ""
	if s.now.now-r.marked < linger {
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

func (s *screen) footer() string {
	switch {
	case s.editing:
		return "/" + text.Visible(s.filter) + reverse + " " + plain + "  Enter: keep  Esc: all"
	case s.help:
		return "any key: back"
	}
	if all := "q quit  ↑↓ scroll  <> sort  r reverse  / filter  p pause  ? help"; ansi.StringWidth(all) <= s.width {
		return all
	}
	return "? help  q quit  / filter  s sort"
}
