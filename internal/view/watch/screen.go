package watch

import (
	"cmp"
	"slices"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/text"
	"sstrace/internal/view/ls"
)

// screen is the user interface. It decides which part of a table is shown, and what each key does.
// It does not depend on a terminal.
type screen struct {
	host  string
	wide  bool
	color bool

	width, height int
	now           *snapshot
	shown         []*row // the sorted rows of now that match the filter
	first, left   int    // the first visible row of shown, and the first visible column of its text
	columns       []column
	by            int // the index in columns of the column to sort by
	reverse       bool
	filter        string
	editing       bool
	help, paused  bool

	words map[*event.Event]*words // the words for each Event in now
}

// words are the texts of an Event that are expensive to format and do not change over time.
type words struct {
	all, unit, holders string
}

// column is a column of the table. It sorts by compare, or by a number: the largest first, and
// unknown ones last.
type column struct {
	title   string
	right   bool
	width   int // the width of the widest cell shown so far
	number  func(r *row) (n int64, known bool)
	compare func(a, b *row) int
}

func newScreen(host string, wide, color bool) *screen {
	s := &screen{host: text.Visible(host), wide: wide, color: color, now: new(snapshot),
		words: make(map[*event.Event]*words)}
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
		"LOCAL":   func(a, b *row) int { return a.Local.Compare(b.Local) },
		"REMOTE":  func(a, b *row) int { return a.Remote.Compare(b.Remote) },
		"PROTO":   func(a, b *row) int { return cmp.Compare(a.Proto, b.Proto) },
		"ROLE":    func(a, b *row) int { return cmp.Compare(a.Role, b.Role) },
		"UNIT":    func(a, b *row) int { return cmp.Compare(s.of(a.Event).unit, s.of(b.Event).unit) },
		"HOLDERS": func(a, b *row) int { return cmp.Compare(s.of(a.Event).holders, s.of(b.Event).holders) },
	}
	least := map[string]int{
		"STATE": len("ESTABLISHED"), "LOCAL": len("255.255.255.255:65535"), "REMOTE": len("255.255.255.255:65535"),
		"AGE": len(">120h30m"), "LEFT": len("59.9s"),
	}
	for _, title := range ls.Header(wide) {
		title, right := strings.CutPrefix(title, ">")
		s.columns = append(s.columns, column{
			title: title, right: right, width: max(len(title)+1, least[title]), number: numbers[title],
			compare: compares[title],
		})
	}
	return s
}

// of returns the words for an Event.
func (s *screen) of(e *event.Event) *words {
	if w := s.words[e]; w != nil {
		return w
	}
	lasting := *e // a copy without the parts that change over time
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

// set shows a snapshot.
func (s *screen) set(now *snapshot) {
	s.now = now
	s.arrange()
}

// arrange selects the rows to show, and sorts them.
func (s *screen) arrange() {
	if len(s.words) > 2*len(s.now.rows)+1000 { // most of them are for Events that no longer exist
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

// compare orders two rows by the column to sort by.
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

// The number of lines above the rows, including the header of the table, and the number below them.
const (
	above = 4
	below = 1
)

// visible returns the number of rows that fit on the screen.
func (s *screen) visible() int { return max(s.height-above-below, 1) }

// scroll scrolls down by this number of rows, or as far as possible.
func (s *screen) scroll(by int) {
	s.first = max(min(s.first+by, len(s.shown)-s.visible()), 0)
}

func (s *screen) resize(width, height int) {
	s.width, s.height = width, height
	s.scroll(0)
}
