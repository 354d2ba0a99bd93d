package diagram

import (
	"fmt"
	"strings"

	"sstrace/internal/event"
)

// The picture is laid out by hand, like the one in the RFC. Each label has room for three parties
// whose counts have nine digits. The tests check that no label overlaps another label, a state or a
// line.

type point struct{ x, y int }

// The first three are the middles of the three columns of states; the next is half the width of a
// state. Lines that go down in the outer columns do so at inLeft and inRight. Both are on the inner
// side of their columns, which leaves the outer side for an end.
const (
	width, height    = 1280, 1376
	margin           = 24
	left, mid, right = 200, 640, 1080
	half             = 75
	inLeft, inRight  = left + 40, right - 40
	lane             = 7 // the distance between two lines of the same edge
)

// box is a state.
type box struct {
	state       event.State
	x, top, end int
	ends        side // where to draw the ends that the figure leaves out
}

// side is the position of a label.
type side int

const (
	above side = iota // the label is above the line, and its caption below it
	over              // both the label and its caption are above the line
	toLeft
	toRight
	below
)

// The second CLOSE is the last state in the figure.
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

// route is the line along which an edge of the figure is drawn, with the edge's label.
type route struct {
	event.Edge
	way   []point
	at    point // the point on the line where the label goes
	label side
}

var routes = []route{
	{event.Close.To(event.Listen), []point{{mid - 24, 214}, {mid - 24, 318}}, point{mid - 24, 266}, toLeft},
	{event.Listen.To(event.Close), []point{{mid + 24, 318}, {mid + 24, 214}}, point{mid + 24, 266}, toRight},
	{event.Close.To(event.SynSent), []point{{mid + half, 182}, {right + 35, 182}, {right + 35, 402}},
		point{mid + 265, 182}, over},
	{event.SynSent.To(event.Close), []point{{right - 15, 402}, {right - 15, 202}, {mid + half, 202}},
		point{right - 15, 266}, toLeft},
	{event.SynRecv.To(event.Listen), []point{{left, 402}, {left, 340}, {mid - half, 340}}, point{left + 113, 340},
		above},
	{event.Listen.To(event.SynRecv), []point{{mid - 24, 362}, {mid - 24, 422}, {left + half, 422}},
		point{mid - 198, 422}, above},
	{event.Listen.To(event.SynSent), []point{{mid + 24, 362}, {mid + 24, 422}, {right - half, 422}},
		point{mid + 198, 422}, above},
	{event.SynSent.To(event.SynRecv), []point{{right - half, 502}, {left + half, 502}}, point{mid, 502}, above},
	{event.SynRecv.To(event.Established), []point{{left + half, 582}, {mid - 24, 582}, {mid - 24, 652}},
		point{mid - 198, 582}, above},
	{event.SynSent.To(event.Established), []point{{right - half, 582}, {mid + 24, 582}, {mid + 24, 652}},
		point{mid + 198, 582}, above},
	{event.SynRecv.To(event.FinWait1), []point{{inLeft, 602}, {inLeft, 736}}, point{inLeft, 662}, toRight},
	{event.Established.To(event.FinWait1), []point{{mid - 24, 696}, {mid - 24, 756}, {left + half, 756}},
		point{mid - 198, 756}, above},
	{event.Established.To(event.CloseWait), []point{{mid + 24, 696}, {mid + 24, 756}, {right - half, 756}},
		point{mid + 198, 756}, above},
	{event.FinWait1.To(event.Closing), []point{{left + half, 840}, {mid, 840}, {mid, 964}}, point{mid - 198, 840},
		above},
	{event.FinWait1.To(event.FinWait2), []point{{inLeft, 860}, {inLeft, 964}}, point{inLeft, 912}, toRight},
	{event.CloseWait.To(event.LastAck), []point{{inRight, 860}, {inRight, 964}}, point{inRight, 908}, toLeft},
	{event.FinWait2.To(event.TimeWait), []point{{inLeft, 1008}, {inLeft, 1176}, {mid - half, 1176}},
		point{mid - 198, 1176}, above},
	{event.Closing.To(event.TimeWait), []point{{mid, 1008}, {mid, 1154}}, point{mid, 1081}, toRight},
	{event.LastAck.To(event.Close), []point{{inRight, 1008}, {inRight, 1154}}, point{inRight, 1078}, toLeft},
	{event.TimeWait.To(event.Close), []point{{mid + half, 1176}, {right - half, 1176}}, point{mid + 220, 1176}, above},
}

// shortened returns way without the part that its arrowhead covers.
func shortened(way []point) []point {
	n := len(way) - 1
	d := direction(way[n-1], way[n])
	short := append([]point(nil), way...)
	short[n] = point{way[n].x - 9*d.x, way[n].y - 9*d.y}
	return short
}

// direction returns a step of length 1 from a towards b. Each piece of a way is parallel to an
// axis.
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

// beside returns a way parallel to the given one, at distance by to its right.
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
		// The y axis points down, so (-y, x) points to the right of (x, y). A corner is moved by
		// both of its pieces.
		moved[i] = point{p.x - by*before.y, p.y + by*before.x}
		if after != before {
			moved[i].x -= by * after.y
			moved[i].y += by * after.x
		}
	}
	return moved
}

// rounded returns a way as an SVG path with rounded corners.
func rounded(way []point) string {
	const radius = 10
	var b strings.Builder
	fmt.Fprintf(&b, "M%d %d", way[0].x, way[0].y)
	for i := 1; i < len(way); i++ {
		p := way[i]
		if i < len(way)-1 {
			from, to := direction(way[i-1], p), direction(p, way[i+1])
			fmt.Fprintf(&b, " L%d %d Q%d %d %d %d", p.x-radius*from.x, p.y-radius*from.y, p.x, p.y, p.x+radius*to.x,
				p.y+radius*to.y)
			continue
		}
		fmt.Fprintf(&b, " L%d %d", p.x, p.y)
	}
	return b.String()
}
