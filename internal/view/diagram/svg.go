package diagram

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// The font sizes and their line heights.
const (
	countSize, countLine     = 13, 15
	captionSize, captionLine = 11, 13
	noteSize, noteLine       = 13, 19
	reasonSize               = 11
	swatch                   = 26 // the sample of a line before a count, and the gap after it
)

// paint is a color. Attributes set the light color, for viewers that ignore style sheets. A style
// sheet sets the color by class, and uses the dark one on a dark background. Client and server
// differ in hue, in lightness and in dashes.
type paint struct{ class, light, dark string }

var (
	ground = paint{"ground", "#ffffff", "#14181d"}
	ink    = paint{"ink", "#1f2933", "#e6eaee"}
	gray   = paint{"gray", "#66707b", "#98a2ad"}  // letters
	faint  = paint{"faint", "#b4bcc5", "#4c555f"} // lines
	calm   = paint{"calm", "#eef2f6", "#222a33"}  // a state that was entered or left
	alarm  = paint{"alarm", "#a4133c", "#ff8fa3"}
	blush  = paint{"blush", "#fff2f4", "#2d1a20"} // the background of an end

	paints      = []paint{ground, ink, gray, faint, calm, alarm, blush}
	partyPaints = [parties]paint{{"client", "#0067a5", "#6cb8ff"}, {"server", "#b34700", "#f5a962"},
		{"unknown", "#6b4a9e", "#c5a5ef"}}
	partyDashes  = [parties]string{"", "8 4", "2 3"}
	partyLegends = [parties]string{"client: active open", "server: passive open, and its listener",
		"unknown: client or server"}
)

// canvas is an SVG document under construction.
type canvas struct{ bytes.Buffer }

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Buffer, format, args...) }

func (p paint) fill() string   { return fmt.Sprintf(`class="%s" fill="%s"`, p.class, p.light) }
func (p paint) stroke() string { return fmt.Sprintf(`class="%s-line" stroke="%s"`, p.class, p.light) }

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // writing to a Builder never fails
	return b.String()
}

// text writes a line of text. more contains further attributes.
func (c *canvas) text(at point, size int, p paint, text string, more ...string) {
	c.add(`<text x="%d" y="%d" font-size="%d" %s%s>%s</text>`+"\n", at.x, at.y, size, p.fill(), attributes(more), escaped(text))
}

func attributes(all []string) (text string) {
	for _, a := range all {
		text += " " + a
	}
	return text
}

const (
	anchorEnd    = `text-anchor="end"`
	anchorMiddle = `text-anchor="middle"`
	bold         = `font-weight="bold"`
)

// widthOf returns the maximum width of a text in any of the fonts that may be used. It assumes the
// width of a digit in DejaVu Sans, the widest of these fonts.
func widthOf(text string, size int, strong bool) int {
	if strong {
		return utf8.RuneCountInString(text) * size * 70 / 100
	}
	return utf8.RuneCountInString(text) * size * 64 / 100
}

// tally writes the count in bold, and then the median.
func (c *canvas) tally(at point, size int, p paint, before string, t tally, more ...string) {
	c.add(`<text x="%d" y="%d" font-size="%d" %s%s><tspan font-weight="bold">%s%d</tspan> · %s</text>`+"\n",
		at.x, at.y, size, p.fill(), attributes(more), escaped(before), t.Count, escaped(median(t)))
}

// tallyWidth returns the width of the text that canvas.tally writes.
func tallyWidth(t tally, size int, before string) int {
	return widthOf(fmt.Sprint(before, t.Count), size, true) + widthOf(" · "+median(t), size, false)
}

// svg returns the picture as SVG 1.1.
func (s *summary) svg() string {
	var c canvas
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" version="1.1" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
		`aria-labelledby="sstrace-title sstrace-desc" class="sstrace" `+
		`font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif">`+"\n", width, height, width, height)
	c.add("<title id=\"sstrace-title\">%s</title>\n<desc id=\"sstrace-desc\">%s</desc>\n", escaped(s.title),
		escaped(s.description()))
	c.style()
	c.add(`<rect width="%d" height="%d" %s/>`+"\n", width, height, ground.fill())
	c.text(point{margin, 38}, 22, ink, s.title, bold)
	for i, n := range s.notes {
		p := ink
		if n.alarm {
			p = alarm
		}
		c.text(point{margin, 64 + i*noteLine}, noteSize, p, n.text)
	}
	c.legend()
	for i := range routes {
		c.route(s, &routes[i])
	}
	for i := range boxes {
		c.box(s, &boxes[i])
	}
	c.foot(s)
	c.add("</svg>\n")
	return c.String()
}

// description returns the picture in words, for screen readers.
func (s *summary) description() string {
	var b strings.Builder
	b.WriteString("The state diagram of RFC 9293, figure 5, with how often each edge was taken and the median time in the state that was left.")
	for _, n := range s.notes {
		b.WriteString(" " + n.text + ".")
	}
	for i := range figure {
		for p, t := range s.of(figure[i].Edge) {
			if t != nil {
				fmt.Fprintf(&b, " %v to %v, %s: %d, %s.", figure[i].Old, figure[i].New, partyNames[p], t.Count,
					median(t))
			}
		}
	}
	for _, state := range event.Lifecycle() {
		if e := s.ends[state]; e != nil {
			fmt.Fprintf(&b, " Other ends of %v: %d.", state, e.Count)
		}
	}
	return b.String()
}

func (c *canvas) style() {
	c.add("<style>.sstrace text{font-variant-numeric:tabular-nums}@media (prefers-color-scheme:dark){")
	for _, p := range append(paints, partyPaints[:]...) {
		c.add(".sstrace .%s{fill:%s}.sstrace .%s-line{stroke:%s}", p.class, p.dark, p.class, p.dark)
	}
	c.add("}</style>\n<defs>\n")
	for _, p := range append(partyPaints[:], faint) {
		c.add(`<marker id="sstrace-to-%s" viewBox="0 0 9 8" refX="0" refY="4" markerWidth="9" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">`+
			`<path d="M0 0 L9 4 L0 8 z" %s/></marker>`+"\n", p.class, p.fill())
	}
	c.add("</defs>\n")
}

// line draws the line of party p along way. If p is parties, the edge was not taken, and its line
// is faint.
func (c *canvas) line(way []point, p party, arrow bool) {
	look, more := faint, ` stroke-width="1.25"`
	if p < parties {
		look, more = partyPaints[p], ` stroke-width="2.25"`
		if partyDashes[p] != "" {
			more += fmt.Sprintf(` stroke-dasharray="%s"`, partyDashes[p])
		}
	}
	if arrow {
		more += fmt.Sprintf(` marker-end="url(#sstrace-to-%s)"`, look.class)
		way = shortened(way)
	}
	c.add(`<path d="%s" fill="none" %s%s/>`+"\n", rounded(way), look.stroke(), more)
}

// route draws an edge of the figure with its label.
func (c *canvas) route(s *summary, r *route) {
	var who []party
	tallies := s.of(r.Edge)
	for p := range parties {
		if tallies[p] != nil {
			who = append(who, p)
		}
	}
	c.add("<g>\n<title>%s</title>\n", escaped(r.tip(tallies)))
	if len(who) == 0 {
		c.line(r.way, parties, true)
	}
	for i, p := range who {
		c.line(beside(r.way, i*lane-(len(who)-1)*lane/2), p, true)
	}
	c.label(r, who, tallies)
	c.add("</g>\n")
}

// tip returns the tooltip of an edge, which contains everything known about the edge.
func (r *route) tip(tallies [parties]tally) string {
	text := fmt.Sprintf("%v → %v", r.Old, r.New)
	for p, t := range tallies {
		if t != nil {
			text += "\n" + partyNames[p] + ": " + tip(t)
		}
	}
	return text
}

// tip returns the tooltip of a tally, which contains everything known about the tally.
func tip(t tally) string {
	line := fmt.Sprintf("%d, %d timed", t.Count, t.Times.Count())
	if t.Times.Count() > 0 {
		line += fmt.Sprintf(": min %s, median %s, max %s", text.Time(t.Times.Min()), median(t),
			text.Time(t.Times.Max()))
	}
	return line
}

// label writes the caption of an edge and its counts, with one line for each party.
func (c *canvas) label(r *route, who []party, tallies [parties]tally) {
	caption := captionOf(r.Edge)
	n := len(who)
	off := max(n-1, 0)*lane/2 + 1 // from the middle of the lines to the edge of the outermost one
	var at point                  // the baseline of the first count
	var quiet point               // the baseline of the caption
	anchor := anchorMiddle
	switch r.label {
	case above:
		at = point{r.at.x, r.at.y - off - 6 - (n-1)*countLine}
		quiet = point{r.at.x, r.at.y + off + 14}
	case over:
		at = point{r.at.x, r.at.y - off - 6 - (n-1)*countLine}
		quiet = point{r.at.x, at.y - countLine}
		if n == 0 {
			quiet.y = r.at.y - off - 6
		}
	case toLeft, toRight:
		top := r.at.y - (captionLine+n*countLine)/2
		quiet = point{r.at.x - off - 8, top + captionLine - 3}
		anchor = anchorEnd
		if r.label == toRight {
			quiet.x, anchor = r.at.x+off+8, `text-anchor="start"`
		}
		at = point{quiet.x, top + captionLine + countLine - 3}
	}
	c.text(quiet, captionSize, gray, caption, anchor)
	widest := 0
	for _, p := range who {
		widest = max(widest, tallyWidth(tallies[p], countSize, ""))
	}
	for i, p := range who {
		y := at.y + i*countLine
		x, piece, anchor := at.x+swatch, at.x, `text-anchor="start"`
		switch r.label {
		case above, over:
			piece = at.x - (swatch+widest)/2
			x = piece + swatch
		case toLeft:
			x, piece, anchor = at.x-swatch, at.x-swatch+6, anchorEnd
		}
		c.line([]point{{piece, y - 4}, {piece + swatch - 6, y - 4}}, p, false)
		c.tally(point{x, y}, countSize, partyPaints[p], "", tallies[p], anchor)
	}
}

// box draws a state, and the ends in that state that the figure leaves out.
func (c *canvas) box(s *summary, b *box) {
	fill, line, letters, weight := ground, faint, gray, 1.25
	if s.seen[b.state] {
		fill, line, letters, weight = calm, ink, ink, 1.75
	}
	c.add(`<g class="state"><rect x="%d" y="%d" width="%d" height="%d" rx="8" class="%s %s-line" fill="%s" stroke="%s" stroke-width="%g"/>`+"\n",
		b.x-half, b.top, 2*half, b.end-b.top, fill.class, line.class, fill.light, line.light, weight)
	c.text(point{b.x, (b.top+b.end)/2 + 5}, 15, letters, b.state.String(), bold, anchorMiddle)
	c.add("</g>\n")
	if e := s.ends[b.state]; e != nil && b.state != event.Close {
		c.badge(b, e)
	}
}

// badge draws the ends in one state that the figure leaves out.
func (c *canvas) badge(b *box, e *end) {
	const pad, line, head = 7, 13, "→ CLOSE "
	wide := tallyWidth(e.tally, reasonSize, head)
	reasons := atMost(3, e.reasons)
	for _, r := range reasons {
		wide = max(wide, widthOf(r.String(), reasonSize, false))
	}
	wide += 2 * pad
	high := 2*pad + line*(1+len(reasons)) - 3
	x, y := b.x+half+10, b.end-high
	if b.ends == below {
		y = b.end + 8
		switch b.x {
		case left:
			x = min(left-half, inLeft-lane-5-wide)
		case right:
			x = max(right+half-wide, inRight+lane+5)
		default:
			x = b.x - wide/2
		}
	}
	text := fmt.Sprintf("%v → CLOSE otherwise: %s", b.state, tip(e.tally))
	for _, r := range e.reasons {
		text += "\n" + r.String()
	}
	c.add(`<g class="end"><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="5" class="blush alarm-line" fill="%s" stroke="%s"/>`+"\n",
		escaped(text), x, y, wide, high, blush.light, alarm.light)
	c.tally(point{x + pad, y + pad + line - 4}, reasonSize, alarm, head, e.tally)
	for i, r := range reasons {
		c.text(point{x + pad, y + pad + line*(i+2) - 4}, reasonSize, ink, r.String())
	}
	c.add("</g>\n")
}

// legend explains what the lines and numbers mean.
func (c *canvas) legend() {
	const x, far, top, line = margin, mid + 150, 1232, 18
	for p := range parties + 1 {
		y := top + int(p)*line
		c.line([]point{{x, y - 4}, {x + 52, y - 4}}, p, true)
		text := "not taken"
		if p < parties {
			text = partyLegends[p]
		}
		c.text(point{x + 62, y}, captionSize, gray, text)
	}
	c.add(`<text x="%d" y="%d" font-size="%d" %s><tspan font-weight="bold">12</tspan> · 57.3µs</text>`+"\n", far, top, captionSize, gray.fill())
	c.text(point{far + 80, top}, captionSize, gray, "count · median time in the state that was left")
	c.add(`<rect x="%d" y="%d" width="64" height="17" rx="5" class="blush alarm-line" fill="%s" stroke="%s"/>`+"\n", far, top+line-12, blush.light, alarm.light)
	c.text(point{far + 7, top + line}, captionSize, alarm, "→ CLOSE", bold)
	c.text(point{far + 80, top + line}, captionSize, gray, "ends that the figure does not show: reset, timeout, …")
}

// foot writes the remarks so that the last one is at the bottom.
func (c *canvas) foot(s *summary) {
	const line = 16
	var lines []string
	for _, text := range s.remarks() {
		lines = append(lines, wrapped(160, "", strings.Fields(text), " ")...)
	}
	for i, text := range lines {
		c.text(point{margin, height - 20 - (len(lines)-1-i)*line}, captionSize, gray, text)
	}
}
