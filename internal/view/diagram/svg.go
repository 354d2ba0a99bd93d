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

// The picture is laid out by hand, as the RFC's is. Each label has room for three parties with counts of nine digits; the tests hold every label against
// every other, the states and the lines.

type point struct{ x, y int }

// The three columns of states, by their middle, and the width of a state, from there to each side. inLeft and inRight is where the lines run that go
// down in the outer columns: on the inside, so that there is room for an end outside.
const (
	width, height    = 1280, 1376
	margin           = 24
	left, mid, right = 200, 640, 1080
	half             = 75
	inLeft, inRight  = left + 40, right - 40
	lane             = 7 // between two lines of an edge
)

// box is a state.
type box struct {
	state       event.State
	x, top, end int
	ends        side // where it is told how connections ended there
}

// side is where something stands.
type side int

const (
	above side = iota // the caption below the line
	over              // the caption, too, above it
	toLeft
	toRight
	below
)

// The second CLOSE is where the figure ends.
var boxes = []box{
	{event.Close, mid, 170, 214, below},
	{event.Listen, mid, 318, 362, toRight},
	{event.SynRecv, left, 402, 602, below},
	{event.SynSent, right, 402, 602, below},
	{event.Established, mid, 652, 696, toRight},
	{event.FinWait1, left, 736, 860, below},
	{event.CloseWait, right, 736, 860, below},
	{event.FinWait2, left, 964, 1008, below},
	{event.Closing, mid, 964, 1008, toRight},
	{event.LastAck, right, 964, 1008, below},
	{event.TimeWait, mid, 1154, 1198, below},
	{event.Close, right, 1154, 1198, below},
}

// route is the way of an arrow of the figure, and where its label stands.
type route struct {
	edge
	way   []point
	at    point // of the line, where the label is
	label side
}

var routes = []route{
	{edge{event.Close, event.Listen}, []point{{mid - 24, 214}, {mid - 24, 318}}, point{mid - 24, 266}, toLeft},
	{edge{event.Listen, event.Close}, []point{{mid + 24, 318}, {mid + 24, 214}}, point{mid + 24, 266}, toRight},
	{edge{event.Close, event.SynSent}, []point{{mid + half, 182}, {right + 35, 182}, {right + 35, 402}}, point{mid + 265, 182}, over},
	{edge{event.SynSent, event.Close}, []point{{right - 15, 402}, {right - 15, 202}, {mid + half, 202}}, point{right - 15, 266}, toLeft},
	{edge{event.SynRecv, event.Listen}, []point{{left, 402}, {left, 340}, {mid - half, 340}}, point{left + 113, 340}, above},
	{edge{event.Listen, event.SynRecv}, []point{{mid - 24, 362}, {mid - 24, 422}, {left + half, 422}}, point{mid - 198, 422}, above},
	{edge{event.Listen, event.SynSent}, []point{{mid + 24, 362}, {mid + 24, 422}, {right - half, 422}}, point{mid + 198, 422}, above},
	{edge{event.SynSent, event.SynRecv}, []point{{right - half, 502}, {left + half, 502}}, point{mid, 502}, above},
	{edge{event.SynRecv, event.Established}, []point{{left + half, 582}, {mid - 24, 582}, {mid - 24, 652}}, point{mid - 198, 582}, above},
	{edge{event.SynSent, event.Established}, []point{{right - half, 582}, {mid + 24, 582}, {mid + 24, 652}}, point{mid + 198, 582}, above},
	{edge{event.SynRecv, event.FinWait1}, []point{{inLeft, 602}, {inLeft, 736}}, point{inLeft, 662}, toRight},
	{edge{event.Established, event.FinWait1}, []point{{mid - 24, 696}, {mid - 24, 756}, {left + half, 756}}, point{mid - 198, 756}, above},
	{edge{event.Established, event.CloseWait}, []point{{mid + 24, 696}, {mid + 24, 756}, {right - half, 756}}, point{mid + 198, 756}, above},
	{edge{event.FinWait1, event.Closing}, []point{{left + half, 840}, {mid, 840}, {mid, 964}}, point{mid - 198, 840}, above},
	{edge{event.FinWait1, event.FinWait2}, []point{{inLeft, 860}, {inLeft, 964}}, point{inLeft, 912}, toRight},
	{edge{event.CloseWait, event.LastAck}, []point{{inRight, 860}, {inRight, 964}}, point{inRight, 908}, toLeft},
	{edge{event.FinWait2, event.TimeWait}, []point{{inLeft, 1008}, {inLeft, 1176}, {mid - half, 1176}}, point{mid - 198, 1176}, above},
	{edge{event.Closing, event.TimeWait}, []point{{mid, 1008}, {mid, 1154}}, point{mid, 1081}, toRight},
	{edge{event.LastAck, event.Close}, []point{{inRight, 1008}, {inRight, 1154}}, point{inRight, 1078}, toLeft},
	{edge{event.TimeWait, event.Close}, []point{{mid + half, 1176}, {right - half, 1176}}, point{mid + 220, 1176}, above},
}

// The sizes of letters, and the heights of lines of them.
const (
	countSize, countLine     = 13, 15
	captionSize, captionLine = 11, 13
	noteSize, noteLine       = 13, 19
	reasonSize               = 11
	swatch                   = 26 // a piece of line before a count, and the gap behind it
)

// paint is how something looks: by attributes, which hold everywhere, and by a class, by which a style sheet changes them in the dark.
// Client and server differ by hue, lightness and dashes.
type paint struct{ class, light, dark string }

var (
	ground = paint{"ground", "#ffffff", "#14181d"}
	ink    = paint{"ink", "#1f2933", "#e6eaee"}
	gray   = paint{"gray", "#66707b", "#98a2ad"}  // letters
	faint  = paint{"faint", "#b4bcc5", "#4c555f"} // lines
	calm   = paint{"calm", "#eef2f6", "#222a33"}  // a state that was seen
	alarm  = paint{"alarm", "#a4133c", "#ff8fa3"}
	blush  = paint{"blush", "#fff2f4", "#2d1a20"} // behind an end

	paints       = []paint{ground, ink, gray, faint, calm, alarm, blush}
	partyPaints  = [parties]paint{{"client", "#0067a5", "#6cb8ff"}, {"server", "#b34700", "#f5a962"}, {"unknown", "#6b4a9e", "#c5a5ef"}}
	partyDashes  = [parties]string{"", "8 4", "2 3"}
	partyLegends = [parties]string{"client: active open", "server: passive open; its listener", "client or server: not known"}
)

// canvas is an SVG that is being written.
type canvas struct{ bytes.Buffer }

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Buffer, format, args...) }

func (p paint) fill() string   { return fmt.Sprintf(`class="%s" fill="%s"`, p.class, p.light) }
func (p paint) stroke() string { return fmt.Sprintf(`class="%s-line" stroke="%s"`, p.class, p.light) }

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder does not fail
	return b.String()
}

// text writes a line of text; more are further attributes.
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

// widthOf is how wide a text is at most in the fonts of the stack: these are DejaVu Sans' digits, bold and not, which are the widest.
func widthOf(text string, size int, strong bool) int {
	if strong {
		return utf8.RuneCountInString(text) * size * 70 / 100
	}
	return utf8.RuneCountInString(text) * size * 64 / 100
}

// tally writes count and median; the count stands out.
func (c *canvas) tally(at point, size int, p paint, before string, t *tally, more ...string) {
	c.add(`<text x="%d" y="%d" font-size="%d" %s%s><tspan font-weight="bold">%s%d</tspan> · %s</text>`+"\n",
		at.x, at.y, size, p.fill(), attributes(more), escaped(before), t.count, escaped(t.median()))
}

// width is that of what tally writes.
func (t *tally) width(size int, before string) int {
	return widthOf(fmt.Sprint(before, t.count), size, true) + widthOf(" · "+t.median(), size, false)
}

// svg is the picture as SVG 1.1.
func (s *summary) svg() string {
	var c canvas
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" version="1.1" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
		`aria-labelledby="sstrace-title sstrace-desc" class="sstrace" `+
		`font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif">`+"\n", width, height, width, height)
	c.add("<title id=\"sstrace-title\">%s</title>\n<desc id=\"sstrace-desc\">%s</desc>\n", escaped(s.title), escaped(s.description()))
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

// description is what a reader hears who does not see the picture.
func (s *summary) description() string {
	var b strings.Builder
	b.WriteString("The state diagram of RFC 9293, figure 5, with how often each change was made and the median time in the state that was left.")
	for _, n := range s.notes {
		b.WriteString(" " + n.text + ".")
	}
	for i := range figure {
		for p, t := range s.of(figure[i].edge) {
			if t != nil {
				fmt.Fprintf(&b, " %v to %v, %s: %d, %s.", figure[i].old, figure[i].new, partyNames[p], t.count, t.median())
			}
		}
	}
	for _, state := range lifeOrder {
		if e := s.ends[state]; e != nil {
			fmt.Fprintf(&b, " Other ends of %v: %d.", state, e.count)
		}
	}
	return b.String()
}

// of gives the tallies of an edge; nil where a party has not travelled it.
func (s *summary) of(e edge) [parties]*tally {
	if t := s.edges[e]; t != nil {
		return *t
	}
	return [parties]*tally{}
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

// line draws a line of a party, or with parties one that was not travelled, from the first point to the last.
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

// shortened leaves room for the arrow's head.
func shortened(way []point) []point {
	n := len(way) - 1
	d := direction(way[n-1], way[n])
	short := append([]point(nil), way...)
	short[n] = point{way[n].x - 9*d.x, way[n].y - 9*d.y}
	return short
}

// direction is a step from a to b; each piece of a way goes straight along one axis.
func direction(a, b point) point { return point{sign(b.x - a.x), sign(b.y - a.y)} }

func sign(v int) int {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	}
	return 0
}

// beside is a way that runs beside another, by so much to its right.
func beside(way []point, by int) []point {
	moved := make([]point, len(way))
	for i, p := range way {
		var before, after point
		if i > 0 {
			before = direction(way[i-1], p)
		}
		if i < len(way)-1 {
			after = direction(p, way[i+1])
		}
		// To the right of (x, y), where y grows downwards, is (-y, x). At a corner both pieces move.
		moved[i] = point{p.x - by*before.y, p.y + by*before.x}
		if after != before {
			moved[i].x -= by * after.y
			moved[i].y += by * after.x
		}
	}
	return moved
}

// rounded is the path of a way, with round corners.
func rounded(way []point) string {
	const radius = 10
	var b strings.Builder
	fmt.Fprintf(&b, "M%d %d", way[0].x, way[0].y)
	for i := 1; i < len(way); i++ {
		p := way[i]
		if i < len(way)-1 {
			from, to := direction(way[i-1], p), direction(p, way[i+1])
			fmt.Fprintf(&b, " L%d %d Q%d %d %d %d", p.x-radius*from.x, p.y-radius*from.y, p.x, p.y, p.x+radius*to.x, p.y+radius*to.y)
			continue
		}
		fmt.Fprintf(&b, " L%d %d", p.x, p.y)
	}
	return b.String()
}

// route draws an edge of the figure, and its label.
func (c *canvas) route(s *summary, r *route) {
	var who []party
	tallies := s.of(r.edge)
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

// tip is what is shown of an edge when one points at it: all that is known.
func (r *route) tip(tallies [parties]*tally) string {
	text := fmt.Sprintf("%v → %v", r.old, r.new)
	for p, t := range tallies {
		if t != nil {
			text += "\n" + partyNames[p] + ": " + t.tip()
		}
	}
	return text
}

func (t *tally) tip() string {
	tip := fmt.Sprintf("%d, %d of them timed", t.count, t.times.Count())
	if t.times.Count() > 0 {
		tip += fmt.Sprintf(": least %s, median %s, most %s", text.Time(t.times.Min()), t.median(), text.Time(t.times.Max()))
	}
	return tip
}

// label writes an edge's caption and its counts, a line for each party.
func (c *canvas) label(r *route, who []party, tallies [parties]*tally) {
	caption := ""
	for i := range figure {
		if figure[i].edge == r.edge {
			caption = figure[i].caption()
		}
	}
	n := len(who)
	off := max(n-1, 0)*lane/2 + 1 // from the middle of the lines to their edge
	var at point                  // of the first count's baseline
	var quiet point               // of the caption's
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
		widest = max(widest, tallies[p].width(countSize, ""))
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

// box draws a state, and how connections in it ended otherwise.
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

// badge writes how connections in a state ended in ways that the figure does not draw.
func (c *canvas) badge(b *box, e *end) {
	const pad, line, head = 7, 13, "→ CLOSE "
	wide := e.width(reasonSize, head)
	reasons := few(e.reasons, 3)
	for _, r := range reasons {
		wide = max(wide, widthOf(fmt.Sprintf("%s %d", r.name, r.count), reasonSize, false))
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
	text := fmt.Sprintf("%v → CLOSE otherwise: %s", b.state, e.tip())
	for _, r := range e.reasons {
		text += fmt.Sprintf("\n%s %d", r.name, r.count)
	}
	c.add(`<g class="end"><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="5" class="blush alarm-line" fill="%s" stroke="%s"/>`+"\n",
		escaped(text), x, y, wide, high, blush.light, alarm.light)
	c.tally(point{x + pad, y + pad + line - 4}, reasonSize, alarm, head, &e.tally)
	for i, r := range reasons {
		c.text(point{x + pad, y + pad + line*(i+2) - 4}, reasonSize, ink, fmt.Sprintf("%s %d", r.name, r.count))
	}
	c.add("</g>\n")
}

// legend tells what the lines mean, and the numbers.
func (c *canvas) legend() {
	const x, far, top, line = margin, mid + 150, 1232, 18
	for p := range parties + 1 {
		y := top + int(p)*line
		c.line([]point{{x, y - 4}, {x + 52, y - 4}}, p, true)
		text := "not travelled"
		if p < parties {
			text = partyLegends[p]
		}
		c.text(point{x + 62, y}, captionSize, gray, text)
	}
	c.add(`<text x="%d" y="%d" font-size="%d" %s><tspan font-weight="bold">12</tspan> · 57.3µs</text>`+"\n", far, top, captionSize, gray.fill())
	c.text(point{far + 80, top}, captionSize, gray, "how often · median time in the state that was left")
	c.add(`<rect x="%d" y="%d" width="64" height="17" rx="5" class="blush alarm-line" fill="%s" stroke="%s"/>`+"\n", far, top+line-12, blush.light, alarm.light)
	c.text(point{far + 7, top + line}, captionSize, alarm, "→ CLOSE", bold)
	c.text(point{far + 80, top + line}, captionSize, gray, "ends that the figure does not draw: reset, timeout, …")
}

// foot says what is not in the picture, and what Linux does in its own way.
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

// remarks stand below the picture.
func (s *summary) remarks() []string {
	var all []string
	if len(s.other) > 0 {
		text := "Not in the figure:"
		for i, o := range few(s.other, 4) {
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf(" %s %d", o.name, o.count)
		}
		all = append(all, text)
	}
	if s.kernel {
		all = append(all, "In the kernel vocabulary, as here, half-open connections and those in TIME_WAIT are not seen: FIN_WAIT2 → CLOSE is where TIME_WAIT begins.")
	}
	return append(all, "RFC 9293, figure 5, with Linux's names. In Linux a listener stays in LISTEN while its connections begin there; a half-open one that is reset goes "+
		"to CLOSE, not to LISTEN; a listener does not send; and FIN_WAIT1 → TIME_WAIT (note 2 of the figure) goes by way of FIN_WAIT2.")
}
