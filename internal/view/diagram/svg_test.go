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

// rectangle is what something covers.
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

// scene is what a picture shows, as read from its SVG: texts by themselves, and states and badges with the texts that belong in them.
type scene struct {
	all           rectangle
	texts         []rectangle
	frames        []rectangle
	framed        [][]rectangle
	lines         []rectangle
	title, desc   string
	role, styling string
}

// How wide a letter is, in ems: generous for each of the fonts of the stack.
const (
	advance     = 0.64
	boldAdvance = 0.70
	nameAdvance = 0.80 // capitals, bold
)

// look reads an SVG. It must be well-formed.
func look(t *testing.T, svg string) (s scene) {
	t.Helper()
	number := func(text string) float64 {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	type element struct {
		name string
		attr map[string]string
	}
	var open []element
	var strong, normal, said string
	framed := -1 // the frame that we are in
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{token.Name.Local, make(map[string]string)}
			for _, a := range token.Attr {
				if _, twice := e.attr[a.Name.Local]; twice {
					t.Errorf("<%s> has %s twice", e.name, a.Name.Local)
				}
				e.attr[a.Name.Local] = a.Value
			}
			open = append(open, e)
			switch e.name {
			case "svg":
				box := strings.Fields(e.attr["viewBox"])
				s.all = rectangle{"all", number(box[0]), number(box[1]), number(box[2]), number(box[3])}
				s.role = e.attr["role"]
			case "text":
				strong, normal = "", ""
			case "title", "desc", "style":
				said = ""
			case "g":
				framed = -1
			case "rect":
				class := open[len(open)-2].attr["class"]
				if class != "state" && class != "end" {
					break
				}
				x, y := number(e.attr["x"]), number(e.attr["y"])
				framed = len(s.frames)
				s.frames = append(s.frames, rectangle{class, x, y, x + number(e.attr["width"]), y + number(e.attr["height"])})
				s.framed = append(s.framed, nil)
			case "path":
				if open[len(open)-2].name == "marker" {
					break
				}
				s.lines = append(s.lines, pieces(t, e.attr["d"], e.attr["marker-end"] != "")...)
			}
		case xml.CharData:
			e := open[max(len(open)-1, 0):]
			switch {
			case len(e) == 0:
			case e[0].name == "tspan", e[0].name == "text" && e[0].attr["font-weight"] == "bold":
				strong += string(token)
			case e[0].name == "text":
				normal += string(token)
			default:
				said += string(token)
			}
		case xml.EndElement:
			e := open[len(open)-1]
			open = open[:len(open)-1]
			switch e.name {
			case "title":
				if open[len(open)-1].name == "svg" {
					s.title = said
				}
			case "desc":
				s.desc = said
			case "style":
				s.styling = said
			case "g":
				framed = -1
			case "text":
				size, x, y := number(e.attr["font-size"]), number(e.attr["x"]), number(e.attr["y"])
				em := boldAdvance
				if framed >= 0 && s.frames[framed].what == "state" {
					em = nameAdvance
				}
				wide := size * (em*float64(utf8.RuneCountInString(strong)) + advance*float64(utf8.RuneCountInString(normal)))
				switch e.attr["text-anchor"] {
				case "end":
					x -= wide
				case "middle":
					x -= wide / 2
				}
				r := rectangle{strong + normal, x, y - 0.8*size, x + wide, y + 0.22*size}
				if framed >= 0 {
					s.framed[framed] = append(s.framed[framed], r)
				} else {
					s.texts = append(s.texts, r)
				}
			}
		}
	}
	return s
}

// pieces are the straight pieces of a path, corners as if they were not round; with is whether it has an arrow's head.
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
			t.Fatalf("a path that this test cannot read: %q", d)
		}
	}
	for i := 1; i < len(way); i++ {
		a, b := way[i-1], way[i]
		if a.x != b.x && a.y != b.y {
			t.Errorf("%q does not go straight from %v to %v", d, a, b)
		}
		if step := direction(a, b); head && i == len(way)-1 {
			b = point{b.x + 9*step.x, b.y + 9*step.y}
		}
		r := rectangle{d, float64(min(a.x, b.x)), float64(min(a.y, b.y)), float64(max(a.x, b.x)), float64(max(a.y, b.y))}
		all = append(all, r.grown(1.2)) // half of how thick it is
	}
	return all
}

// Nothing covers anything else, whatever there is to tell.
func TestNothingOverlaps(t *testing.T) {
	pictures := map[string]string{
		"empty": drawn(t, "svg", &event.Balance{}), "recording": drawn(t, "svg", nil, recording()...),
		"one": many(t, 1).svg(), "four digits": many(t, 1234).svg(), "nine digits": many(t, 123456789).svg(),
	}
	for seed := range uint64(100) {
		pictures[fmt.Sprint("some ", seed)] = some(t, 123456789, seed).svg()
	}
	for name, svg := range pictures {
		s := look(t, svg)
		if len(s.frames) < len(boxes) || name == "nine digits" && (len(s.frames) != len(boxes)+10 || len(s.texts) < len(figure)*int(parties+1)) {
			t.Errorf("%s: only %d states and badges, %d texts", name, len(s.frames), len(s.texts))
		}
		for i, a := range s.texts {
			if !s.all.holds(a) {
				t.Errorf("%s: %q is not inside the picture: %v", name, a.what, a)
			}
			for _, b := range s.texts[i+1:] {
				if a.overlaps(b) {
					t.Errorf("%s: %q and %q overlap: %v %v", name, a.what, b.what, a, b)
				}
			}
			for _, f := range s.frames {
				if a.overlaps(f) {
					t.Errorf("%s: %q overlaps a frame of %q: %v %v", name, a.what, f.what, a, f)
				}
			}
			for _, l := range s.lines {
				if a.overlaps(l) {
					t.Errorf("%s: %q is crossed by the line %s: %v %v", name, a.what, l.what, a, l)
				}
			}
		}
		for i, f := range s.frames {
			if !s.all.holds(f) {
				t.Errorf("%s: a frame of %q is not inside the picture: %v", name, f.what, f)
			}
			for _, text := range s.framed[i] {
				if !f.holds(text) {
					t.Errorf("%s: %q is not inside its frame: %v %v", name, text.what, text, f)
				}
			}
			for _, o := range s.frames[i+1:] {
				if f.overlaps(o) {
					t.Errorf("%s: two frames overlap: %v %v", name, f, o)
				}
			}
			for _, l := range s.lines {
				if f.grown(-2).overlaps(l) {
					t.Errorf("%s: a line runs through a frame of %q: %v %v", name, f.what, l, f)
				}
			}
		}
	}
}

// The picture needs nothing from elsewhere, looks right where style sheets are ignored, and tells who does not see it what it shows.
func TestSelfContained(t *testing.T) {
	svg := drawn(t, "svg", &event.Balance{Seen: 58, Printed: 58}, recording()...)
	s := look(t, svg)
	if s.role != "img" || s.title == "" || !strings.Contains(s.desc, "ESTABLISHED to FIN_WAIT1, client: 2, 57.3µs.") || !strings.Contains(s.desc, "Other ends of SYN_SENT: 1.") {
		t.Errorf("role %q, title %q, desc %q", s.role, s.title, s.desc)
	}
	for _, bad := range []string{"<script", "<image", "@import", "@font-face", "xlink", "url(http", "<foreignObject", "context-stroke", "var("} {
		if strings.Contains(svg, bad) {
			t.Errorf("there is %s", bad)
		}
	}
	if strings.Count(svg, "http") != 1 { // the name of the namespace
		t.Error("it refers to something elsewhere")
	}
	for _, tag := range strings.Split(svg, "<") {
		if (strings.HasPrefix(tag, "text") || strings.HasPrefix(tag, "rect")) && !strings.Contains(tag, `fill="#`) || strings.Contains(tag, `stroke-width="2`) && !strings.Contains(tag, `stroke="#`) {
			t.Errorf("no colour of its own: <%s", tag)
		}
	}
	for _, p := range append(partyPaints[:], paints...) {
		if !strings.Contains(s.styling, "."+p.class+"{fill:"+p.dark+"}") {
			t.Errorf("%s has no colour in the dark", p.class)
		}
	}
}

func TestEscaped(t *testing.T) {
	s := many(t, 1)
	s.title = `<&">`
	s.notes = append(s.notes, note{text: "a\x00b</text>"})
	if got := look(t, s.svg()); got.title != s.title {
		t.Errorf("the title is %q", got.title)
	}
}
