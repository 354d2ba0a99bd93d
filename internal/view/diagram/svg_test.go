package diagram

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

// rectangle is the area that an element covers.
type rectangle struct {
	what           string
	x0, y0, x1, y1 float64
}

func (r rectangle) overlaps(o rectangle) bool {
	return r.x0 < o.x1 && o.x0 < r.x1 && r.y0 < o.y1 && o.y0 < r.y1
}

func (r rectangle) holds(o rectangle) bool {
	return r.x0 <= o.x0 && o.x1 <= r.x1 && r.y0 <= o.y0 && o.y1 <= r.y1
}

func (r rectangle) grown(by float64) rectangle {
	return rectangle{r.what, r.x0 - by, r.y0 - by, r.x1 + by, r.y1 + by}
}

// scene is the content of a picture. It contains free texts, and the frames of states and badges
// with the texts that belong inside them.
type scene struct {
	all           rectangle
	texts         []rectangle
	frames        []rectangle
	framed        [][]rectangle
	lines         []rectangle
	title, desc   string
	role, styling string
}

// The width of a letter in ems, large enough for each of the fonts that may be used.
const (
	advance     = 0.64
	boldAdvance = 0.70
	nameAdvance = 0.80 // bold capitals
)

// element is an element of a document that has not been closed yet.
type element struct {
	name string
	attr map[string]string
}

// reader reads an SVG into a scene.
type reader struct {
	t *testing.T
	scene
	open           []element
	strong, normal string // in the current text element
	plain          string // in any other element
	framed         int    // index of the current frame, or -1
}

// look reads an SVG. The SVG must be well-formed.
func look(t *testing.T, svg string) scene {
	t.Helper()
	r := reader{t: t, framed: -1}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return r.scene
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			r.start(token)
		case xml.CharData:
			r.text(string(token))
		case xml.EndElement:
			r.end()
		}
	}
}

func (r *reader) number(text string) float64 {
	r.t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *reader) start(token xml.StartElement) {
	e := element{token.Name.Local, make(map[string]string)}
	for _, a := range token.Attr {
		if _, twice := e.attr[a.Name.Local]; twice {
			r.t.Errorf("<%s> has %s twice", e.name, a.Name.Local)
		}
		e.attr[a.Name.Local] = a.Value
	}
	r.open = append(r.open, e)
	switch e.name {
	case "svg":
		box := strings.Fields(e.attr["viewBox"])
		r.all = rectangle{"all", r.number(box[0]), r.number(box[1]), r.number(box[2]), r.number(box[3])}
		r.role = e.attr["role"]
	case "text":
		r.strong, r.normal = "", ""
	case "title", "desc", "style":
		r.plain = ""
	case "g":
		r.framed = -1
	case "rect":
		class := r.open[len(r.open)-2].attr["class"]
		if class != "state" && class != "end" {
			break
		}
		x, y := r.number(e.attr["x"]), r.number(e.attr["y"])
		r.framed = len(r.frames)
		r.frames = append(r.frames, rectangle{class, x, y, x + r.number(e.attr["width"]),
			y + r.number(e.attr["height"])})
		r.scene.framed = append(r.scene.framed, nil)
	case "path":
		if r.open[len(r.open)-2].name == "marker" {
			break
		}
		r.lines = append(r.lines, pieces(r.t, e.attr["d"], e.attr["marker-end"] != "")...)
	}
}

func (r *reader) text(data string) {
	if len(r.open) == 0 {
		return
	}
	switch e := r.open[len(r.open)-1]; {
	case e.name == "tspan", e.name == "text" && e.attr["font-weight"] == "bold":
		r.strong += data
	case e.name == "text":
		r.normal += data
	default:
		r.plain += data
	}
}

func (r *reader) end() {
	e := r.open[len(r.open)-1]
	r.open = r.open[:len(r.open)-1]
	switch e.name {
	case "title":
		if r.open[len(r.open)-1].name == "svg" {
			r.title = r.plain
		}
	case "desc":
		r.desc = r.plain
	case "style":
		r.styling = r.plain
	case "g":
		r.framed = -1
	case "text":
		r.endText(e)
	}
}

// endText adds the area that a text covers.
func (r *reader) endText(e element) {
	size, x, y := r.number(e.attr["font-size"]), r.number(e.attr["x"]), r.number(e.attr["y"])
	em := boldAdvance
	if r.framed >= 0 && r.frames[r.framed].what == "state" {
		em = nameAdvance
	}
	wide := size * (em*float64(utf8.RuneCountInString(r.strong)) + advance*float64(utf8.RuneCountInString(r.normal)))
	switch e.attr["text-anchor"] {
	case "end":
		x -= wide
	case "middle":
		x -= wide / 2
	}
	covered := rectangle{r.strong + r.normal, x, y - 0.8*size, x + wide, y + 0.22*size}
	if r.framed >= 0 {
		r.scene.framed[r.framed] = append(r.scene.framed[r.framed], covered)
	} else {
		r.texts = append(r.texts, covered)
	}
}

// pieces returns the straight pieces of a path, with sharp corners. If head is set, it includes the
// arrowhead.
func pieces(t *testing.T, d string, head bool) (all []rectangle) {
	t.Helper()
	var way []point
	for _, f := range strings.FieldsFunc(d, func(r rune) bool { return strings.ContainsRune("MLQ", r) }) {
		var p, q point
		if n, _ := fmt.Sscanf(f, "%d %d %d %d", &p.x, &p.y, &q.x, &q.y); n == 4 {
			way = append(way, p, q)
		} else if n == 2 {
			way = append(way, p)
		} else {
			t.Fatalf("cannot read the path %q", d)
		}
	}
	for i := 1; i < len(way); i++ {
		a, b := way[i-1], way[i]
		if a.x != b.x && a.y != b.y {
			t.Errorf("%q is not parallel to an axis from %v to %v", d, a, b)
		}
		if step := direction(a, b); head && i == len(way)-1 {
			b = point{b.x + 9*step.x, b.y + 9*step.y}
		}
		r := rectangle{d, float64(min(a.x, b.x)), float64(min(a.y, b.y)), float64(max(a.x, b.x)),
			float64(max(a.y, b.y))}
		all = append(all, r.grown(1.2)) // half of the line's width
	}
	return all
}

// No two elements overlap, whatever the picture shows.
func TestNothingOverlaps(t *testing.T) {
	pictures := map[string]string{
		"empty": draw(t, "svg", &event.Balance{}), "recording": draw(t, "svg", nil, recording()...),
		"one": fullSummary(t, 1).svg(), "four digits": fullSummary(t, 1234).svg(),
		"nine digits": fullSummary(t, 123456789).svg(),
	}
	for seed := range uint64(100) {
		pictures[fmt.Sprint("random ", seed)] = randomSummary(t, 123456789, seed).svg()
	}
	for name, svg := range pictures {
		t.Run(name, func(t *testing.T) {
			s := look(t, svg)
			if len(s.frames) < len(boxes) ||
				name == "nine digits" && (len(s.frames) != len(boxes)+10 || len(s.texts) < len(figure)*int(parties+1)) {
				t.Errorf("only %d states and badges, %d texts", len(s.frames), len(s.texts))
			}
			s.checkTexts(t)
			s.checkFrames(t)
		})
	}
}

func (s *scene) checkTexts(t *testing.T) {
	t.Helper()
	for i, a := range s.texts {
		if !s.all.holds(a) {
			t.Errorf("%q is not inside the picture: %v", a.what, a)
		}
		for _, b := range s.texts[i+1:] {
			if a.overlaps(b) {
				t.Errorf("%q and %q overlap: %v %v", a.what, b.what, a, b)
			}
		}
		for _, f := range s.frames {
			if a.overlaps(f) {
				t.Errorf("%q overlaps a frame of %q: %v %v", a.what, f.what, a, f)
			}
		}
		for _, l := range s.lines {
			if a.overlaps(l) {
				t.Errorf("the line %s crosses %q: %v %v", l.what, a.what, a, l)
			}
		}
	}
}

func (s *scene) checkFrames(t *testing.T) {
	t.Helper()
	for i, f := range s.frames {
		if !s.all.holds(f) {
			t.Errorf("a frame of %q is not inside the picture: %v", f.what, f)
		}
		for _, text := range s.framed[i] {
			if !f.holds(text) {
				t.Errorf("%q is not inside its frame: %v %v", text.what, text, f)
			}
		}
		for _, o := range s.frames[i+1:] {
			if f.overlaps(o) {
				t.Errorf("two frames overlap: %v %v", f, o)
			}
		}
		for _, l := range s.lines {
			if f.grown(-2).overlaps(l) {
				t.Errorf("a line runs through a frame of %q: %v %v", f.what, l, f)
			}
		}
	}
}

// The picture refers to nothing outside itself. It has all its colors even without its style sheet,
// and it describes itself to a screen reader.
func TestSelfContained(t *testing.T) {
	svg := draw(t, "svg", &event.Balance{Seen: 58, Printed: 58}, recording()...)
	s := look(t, svg)
	if s.role != "img" || s.title == "" || !strings.Contains(s.desc, "ESTABLISHED to FIN_WAIT1, client: 2, 57.3µs.") ||
		!strings.Contains(s.desc, "Other ends of SYN_SENT: 1.") {
		t.Errorf("role %q, title %q, desc %q", s.role, s.title, s.desc)
	}
	for _, bad := range []string{"<script", "<image", "@import", "@font-face", "xlink", "url(http", "<foreignObject",
		"context-stroke", "var("} {
		if strings.Contains(svg, bad) {
			t.Errorf("the picture has %s", bad)
		}
	}
	if strings.Count(svg, "http") != 1 { // the name of the XML namespace
		t.Error("the picture refers to something outside itself")
	}
	for _, tag := range strings.Split(svg, "<") {
		if (strings.HasPrefix(tag, "text") || strings.HasPrefix(tag, "rect")) && !strings.Contains(tag, `fill="#`) || strings.Contains(tag, `stroke-width="2`) && !strings.Contains(tag, `stroke="#`) {
			t.Errorf("no color without the style sheet: <%s", tag)
		}
	}
	for _, p := range append(partyPaints[:], paints...) {
		if !strings.Contains(s.styling, "."+p.class+"{fill:"+p.dark+"}") {
			t.Errorf("%s has no color for a dark background", p.class)
		}
	}
}

func TestEscaped(t *testing.T) {
	s := fullSummary(t, 1)
	s.title = `<&">`
	s.notes = append(s.notes, note{text: "a\x00b</text>"})
	if got := look(t, s.svg()); got.title != s.title {
		t.Errorf("the title is %q", got.title)
	}
}
