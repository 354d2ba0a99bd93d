package conns

import (
	"strings"
	"unicode/utf8"
)

// width is the width of a ladder.
const width = 100

// canvas is a line of text that can be written at any column. The zero canvas is empty.
type canvas struct {
	runes []rune
	at    int    // the column of plain
	plain string // the part of plain to color
	color string // the same part, with its color
}

// put writes text, starting at column at.
func (c *canvas) put(at int, text string) {
	for _, r := range text {
		for len(c.runes) <= at {
			c.runes = append(c.runes, ' ')
		}
		c.runes[at] = r
		at++
	}
}

// right writes text so that its last character is just before column end.
func (c *canvas) right(end int, text string) { c.put(max(0, end-utf8.RuneCountInString(text)), text) }

// center centers text on column middle. color is the same text with its color codes, or empty. Only
// the last text of a line can have a color.
func (c *canvas) center(middle int, text, color string) {
	n := utf8.RuneCountInString(text)
	at := max(0, min(middle-n/2, width-n))
	c.put(at, text)
	c.at, c.plain, c.color = at, text, color
}

// arrow draws an arrow from column from to column to, with a name on it.
func (c *canvas) arrow(from, to int, name string) {
	low, high := min(from, to), max(from, to)
	c.put(low, strings.Repeat("─", high-low+1))
	if from < to {
		c.put(high, "▶")
	} else {
		c.put(low, "◀")
	}
	name = " " + name + " "
	c.put((low+high)/2-len(name)/2, name)
}

// String returns the line with its newline.
func (c *canvas) String() string {
	text := string(c.runes)
	if c.color != "" && c.color != c.plain {
		text = string(c.runes[:c.at]) + c.color + string(c.runes[c.at+utf8.RuneCountInString(c.plain):])
	}
	return strings.TrimRight(text, " ") + "\n"
}
