package watch

import (
	"unicode/utf8"

	"sstrace/internal/text"

	"github.com/charmbracelet/x/ansi"
)

// sideways is the number of columns to scroll for one press of a key.
const sideways = 8

// press handles a key or a text. The key is given by its name; the text was typed or pasted. press
// reports whether to quit.
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

// sort moves the sorting by this many columns to the right.
func (s *screen) sort(by int) {
	s.by = (s.by + by + len(s.columns)) % len(s.columns)
	s.arrange()
}

// edit edits the filter. Each change takes effect immediately.
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

// help is shown in place of the table.
var help = []string{
	"↑ ↓ j k PgUp PgDn Home End  scroll",
	"← → h l  scroll sideways",
	"s < >    sort by another column",
	"r        reverse the order",
	"/        show only rows that contain a text",
	"p Space  pause or resume",
	"q Esc    quit",
	"+ new  * changed  - closed, for 2 s",
	"≥ at least this old: older than the trace",
}

// footer returns the bottom line, which lists the keys that work now.
func (s *screen) footer() string {
	switch {
	case s.editing:
		return "/" + text.Visible(s.filter) + reverse + " " + plain + "  Enter: keep  Esc: clear"
	case s.help:
		return "press any key to go back"
	}
	if all := "q quit  ↑↓ scroll  <> sort  r reverse  / filter  p pause  ? help"; ansi.StringWidth(all) <= s.width {
		return all
	}
	return "? help  q quit  / filter  s sort"
}
