package watch

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sstrace/internal/event"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// many returns the snapshot, at 10 s, of a table with n sockets in six states. Socket i is i ms
// old.
func many(n int) *snapshot {
	table := newTable()
	states := []event.State{event.Listen, event.Established, event.SynSent, event.CloseWait, event.FinWait2,
		event.TimeWait}
	for i := range n {
		e := older(uint64(i+1), 10*second-int64(i+1)*1e6, states[i%len(states)])
		e.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 14), byte(i >> 6)}), uint16(1000+i&63))
		e.Dur, e.Status.RecvQueue = 0, int64(i*7%n)
		if i%10 == 0 {
			e.Status.RecvQueue = event.Unknown
		}
		e.Status.Holders = []event.Holder{{PID: uint32(i + 1), FD: 3, Comm: fmt.Sprint("p", i%3)}}
		table.take(&e)
	}
	return table.snapshot(10*second, all)
}

// texts returns the lines of the screen without styles.
func (s *screen) texts() []string {
	var all []string
	for _, line := range s.lines() {
		all = append(all, strings.TrimRight(ansi.Strip(line), " "))
	}
	return all
}

func testScreen(width, height, n int) *screen {
	s := newScreen("test\x1bhost", false, false)
	s.resize(width, height)
	s.set(many(n))
	return s
}

func TestScreen(t *testing.T) {
	table := newTable()
	listener := older(1, second, event.Listen)
	listener.Remote, listener.Status.RecvQueue, listener.Status.SendQueue, listener.Cookie = netip.AddrPort{}, 2, 128, 0
	hostile := older(2, second, event.CloseWait)
	hostile.Status.Holders = []event.Holder{{PID: 9, FD: 4, Comm: "\x1b[31mred\n\xff日本"}}
	fresh := line(3, 9*second, event.Close, event.SynSent)
	changed := line(2, 9*second, event.Established, event.CloseWait)
	leaves := older(4, 2*second, event.LastAck)
	gone := line(4, 9*second, event.LastAck, event.Close)
	lost := event.Event{Type: event.Lost, Mono: 9 * second, Wall: 109 * second, RingFull: 12}
	for _, e := range []event.Event{listener, hostile, leaves, fresh, changed, gone, lost} {
		table.take(&e)
	}
	s := newScreen("test\x1bhost", false, false)
	s.resize(120, 11)
	s.set(table.snapshot(10*second, all))
	got := s.texts()
	want := []string{
		"1-4 of 4; 12 changes lost: the table may be wrong until the next look",
		"  STATE▲       RECV-Q  SEND-Q LOCAL                 REMOTE                     AGE  LEFT HOLDERS",
		"  LISTEN            2     128 127.0.0.1:40001       -                          ≥9s     - 7/nc fd 3",
		"+ SYN_SENT          -       - 127.0.0.1:40003       127.0.0.1:7781              1s     - 7/nc",
		`* CLOSE_WAIT        0       0 127.0.0.1:40002       127.0.0.1:7781              1s     - 9/\x1b[31mred\n\xff日本 fd 4`,
		"- LAST_ACK          0       0 127.0.0.1:40004       127.0.0.1:7781             ≥7s     - 7/nc fd 3",
		"", "",
		"q quit  ↑↓ scroll  <> sort  r reverse  / filter  p pause  ? help",
	}
	if !slices.Equal(got[2:], want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got[2:], "\n"), strings.Join(want, "\n"))
	}
	if !strings.HasPrefix(got[0], `sstrace ls  test\x1bhost  `) || got[1] != "3 sockets: LISTEN 1, SYN_SENT 1, CLOSE_WAIT 1" {
		t.Errorf("%q, %q", got[0], got[1])
	}
	raw := strings.Join(s.lines(), "")
	for _, color := range []string{green, red, "\x1b[33m", "\x1b[34m"} {
		if strings.Contains(raw, color) {
			t.Errorf("%q without color", color)
		}
	}
	if !strings.Contains(raw, "- "+faint+struck+"LAST_ACK") || !strings.Contains(raw, "+ "+bold+"SYN_SENT") {
		t.Errorf("marks without color: %q", raw)
	}
	s.color = true
	if raw := strings.Join(s.lines(), ""); !strings.Contains(raw, "\x1b[34mLISTEN\x1b[0m") ||
		!strings.Contains(raw, "+ "+bold+green) {
		t.Errorf("with color: %q", raw)
	}
}

// Whatever the size of the terminal is, the screen has exactly as many lines as the terminal, and
// each line fits.
func TestSizes(t *testing.T) {
	for _, wide := range []bool{false, true} {
		for _, size := range [][2]int{{40, 10}, {80, 24}, {300, 100}, {20, 3}, {1, 1}, {2, 2}} {
			for _, key := range []string{"", "?", "/", "right", "end"} {
				s := newScreen("a-host-with-a-name.example.org", wide, true)
				s.resize(size[0], size[1])
				s.set(many(100))
				s.press(key, "")
				lines := s.lines()
				if len(lines) != size[1] {
					t.Errorf("%v: %d lines", size, len(lines))
				}
				for _, line := range lines {
					if ansi.StringWidth(line) > size[0] {
						t.Errorf("%v after %q: %q is %d wide", size, key, line, ansi.StringWidth(line))
					}
				}
			}
		}
	}
}

func TestScroll(t *testing.T) {
	s := testScreen(80, 25, 100) // 20 rows
	for _, step := range []struct {
		key   string
		first int
	}{
		{"up", 0}, {"down", 1}, {"j", 2}, {"k", 1}, {"pgdown", 21}, {"pgdown", 41}, {"end", 80}, {"down", 80},
		{"pgup", 60}, {"home", 0}, {"pgup", 0}, {"G", 80}, {"g", 0},
	} {
		if s.press(step.key, ""); s.first != step.first {
			t.Errorf("%s: got row %d first, want %d", step.key, s.first, step.first)
		}
	}
	s.press("end", "")
	if got := s.texts()[2]; got != "81-100 of 100" {
		t.Error(got)
	}
	s.resize(80, 55)
	if s.first != 50 {
		t.Errorf("higher: row %d is the first", s.first)
	}
	if s.set(many(10)); s.first != 0 {
		t.Errorf("fewer: row %d is the first", s.first)
	}
	s.resize(40, 10)
	s.press("right", "")
	if got := s.texts()[3]; !strings.HasPrefix(got, "       RECV-Q  SEND-Q LOCAL") {
		t.Errorf("sideways: %q", got)
	}
	for range 100 {
		s.press("right", "")
		s.lines()
	}
	if got := s.texts()[4]; !strings.HasSuffix(got, "fd 3") {
		t.Errorf("as far as it goes: %q", got)
	}
	for range 100 {
		s.press("left", "")
	}
	if got := s.texts()[4]; !strings.HasPrefix(got, "  LISTEN") {
		t.Errorf("and back: %q", got)
	}
}

// Each column sorts its values in both directions. Unknown values are always last.
func TestSort(t *testing.T) {
	s := newScreen("host", true, false)
	s.resize(200, 40)
	s.set(many(100))
	titles := 0
	for range s.columns {
		c := s.columns[s.by]
		for range 2 {
			if (c.number == nil) == (c.compare == nil) {
				t.Fatalf("%s does not sort", c.title)
			}
			unknown := false
			for i := 1; i < len(s.shown); i++ {
				a, b := s.shown[i-1], s.shown[i]
				order := 0
				if c.number != nil {
					x, known := c.number(a)
					y, alsoKnown := c.number(b)
					if unknown = unknown || !known; unknown && alsoKnown {
						t.Errorf("%s: a known value comes after an unknown one", c.title)
					}
					if known && alsoKnown {
						order = int(y - x)
					}
				} else {
					order = c.compare(a, b)
				}
				if order > 0 != s.reverse && order != 0 {
					t.Fatalf("%s, reverse %v: row %d is before row %d", c.title, s.reverse, i-1, i)
				}
			}
			if header := s.texts()[3]; strings.Contains(header, c.title+"▲") == strings.Contains(header, c.title+"▼") {
				t.Errorf("%s is not marked in %q", c.title, header)
			}
			s.press("r", "")
		}
		titles++
		s.press("s", "")
	}
	if s.by != 0 || titles != 14 {
		t.Errorf("after %d columns it is sorted by %s", titles, s.columns[s.by].title)
	}
	if s.press("<", ""); s.columns[s.by].title != "HOLDERS" {
		t.Errorf("sorted by %s", s.columns[s.by].title)
	}
}

func TestFilter(t *testing.T) {
	s := testScreen(100, 30, 60)
	s.press("end", "")
	for _, key := range "/close_w" {
		s.press(string(key), string(key))
	}
	if got := s.texts(); got[2] != `1-10 of 10 with "close_w", 60 in all` || !strings.HasPrefix(got[29], "/close_w") || !strings.HasPrefix(got[4], "  CLOSE_WAIT") {
		t.Errorf("%q, %q, %q", got[2], got[4], got[29])
	}
	s.press("q", "q") // typed as text
	if len(s.shown) != 0 || s.texts()[2] != `none with "close_wq", 60 in all` {
		t.Errorf("%d rows, %q", len(s.shown), s.texts()[2])
	}
	s.press("backspace", "")
	s.press("", "AIT\x1b") // pasted
	if s.press("backspace", ""); s.filter != "close_wAIT" || len(s.shown) != 10 {
		t.Errorf("%q, %d rows", s.filter, len(s.shown))
	}
	s.press("enter", "")
	if s.set(many(120)); len(s.shown) != 20 || s.editing {
		t.Errorf("the filter does not last: %d rows", len(s.shown))
	}
	s.press("/", "/")
	if s.press("esc", ""); s.filter != "" || len(s.shown) != 120 {
		t.Errorf("%q, %d rows", s.filter, len(s.shown))
	}
	s.filter = "37/p" // matches a holder
	if s.arrange(); len(s.shown) != 1 {
		t.Errorf("%d rows", len(s.shown))
	}
}

func TestQuit(t *testing.T) {
	for _, test := range []struct {
		keys string
		want bool
	}{
		{"q", true}, {"esc", true}, {"ctrl+c", true}, {"? q", true}, {"? x", false}, {"/ q", false}, {"/ esc", false},
		{"/ ctrl+c", true}, {"? esc", false}, {"x", false},
	} {
		s := testScreen(80, 24, 10)
		got := false
		for _, key := range strings.Fields(test.keys) {
			got = s.press(key, "")
		}
		if got != test.want {
			t.Errorf("%s: %v", test.keys, got)
		}
	}
}

// The terminal receives new snapshots, except while it is paused. It can end the trace.
func TestProgram(t *testing.T) {
	var latest atomic.Pointer[snapshot]
	p := &program{screen: newScreen("host", false, false), latest: &latest}
	p.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	p.Update(tick{})
	latest.Store(many(10))
	if p.Update(tick{}); len(p.screen.shown) != 10 {
		t.Errorf("%d rows", len(p.screen.shown))
	}
	p.Update(tea.KeyPressMsg{Code: tea.KeySpace, Text: " "})
	latest.Store(many(20))
	if p.Update(tick{}); len(p.screen.shown) != 10 || !strings.Contains(p.View().Content, " paused ") {
		t.Errorf("paused: %d rows", len(p.screen.shown))
	}
	p.Update(tea.KeyPressMsg{Code: 'p', Text: "p"})
	if p.Update(tick{}); len(p.screen.shown) != 20 {
		t.Errorf("no longer paused: %d rows", len(p.screen.shown))
	}
	if _, cmd := p.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil {
		t.Error("q does not quit")
	}
}

// The words for Events that no longer exist are dropped.
func TestWordsAreBounded(t *testing.T) {
	s := testScreen(80, 24, 10)
	s.filter = "p1"
	for range 200 {
		s.set(many(100))
	}
	if len(s.words) > 1300 {
		t.Errorf("words of %d Events", len(s.words))
	}
}

func BenchmarkScreen(b *testing.B) {
	now := many(20000)
	for _, filter := range []string{"", "p1"} {
		b.Run("filter "+filter, func(b *testing.B) {
			s := newScreen("host", false, true)
			s.filter = filter
			s.resize(200, 60)
			for b.Loop() {
				s.set(now)
				s.lines()
			}
		})
	}
	b.Run("keys", func(b *testing.B) {
		s := newScreen("host", false, true)
		s.resize(200, 60)
		s.set(now)
		for b.Loop() {
			s.press("down", "")
			s.lines()
		}
	})
}
