package diagram

import (
	"fmt"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// ranks lists the states in each row of the picture.
var ranks = [][]event.State{
	{event.Close}, {event.Listen}, {event.SynRecv, event.SynSent}, {event.Established},
	{event.FinWait1, event.CloseWait},
	{event.FinWait2, event.Closing, event.LastAck}, {event.TimeWait},
}

// dot returns the picture as input for Graphviz, which chooses the layout.
func (s *summary) dot() string {
	var b strings.Builder
	head := s.title
	for _, n := range s.notes {
		head += "\n" + n.text
	}
	fmt.Fprintf(&b, "digraph tcp {\n\tgraph [label=%s, labelloc=t, fontname=Helvetica];\n", quoted(head))
	fmt.Fprintf(&b, "\tnode [shape=box, style=rounded, fontname=Helvetica];\n\tedge [fontname=Helvetica, fontsize=10];\n")
	for _, row := range ranks {
		b.WriteString("\t{ rank=same;")
		for _, state := range row {
			fmt.Fprintf(&b, " %v;", state)
		}
		b.WriteString(" }\n")
	}
	for _, state := range event.Lifecycle() {
		color := faint.light
		if s.seen[state] {
			color = ink.light
		}
		caption := state.String()
		if e := s.ends[state]; e != nil {
			caption += "\n→ CLOSE " + label(e.tally)
			for _, r := range e.reasons {
				caption += "\n" + r.String()
			}
		}
		fmt.Fprintf(&b, "\t%v [label=%s, color=%s];\n", state, quoted(caption), quoted(color))
	}
	for i := range figure {
		a := &figure[i]
		taken := false
		for p, t := range s.of(a.Edge) {
			if t == nil {
				continue
			}
			taken = true
			color := quoted(partyPaints[p].light)
			fmt.Fprintf(&b, "\t%v -> %v [label=%s, color=%s, fontcolor=%s, style=%s, penwidth=2, tooltip=%s];\n",
				a.Old, a.New,
				quoted(partyNames[p]+" "+label(t)), color, color, [parties]string{"solid", "dashed", "dotted"}[p],
				quoted(a.caption()))
		}
		if !taken {
			fmt.Fprintf(&b, "\t%v -> %v [label=%s, color=%s, fontcolor=%s];\n", a.Old, a.New, quoted(a.caption()),
				quoted(faint.light), quoted(gray.light))
		}
	}
	for i, text := range s.remarks() {
		fmt.Fprintf(&b, "\t// %d: %s\n", i+1, text)
	}
	b.WriteString("}\n")
	return b.String()
}

// quoted returns text as a string of the dot language. All texts in a picture are printable, and
// strconv.Quote leaves printable characters unchanged.
func quoted(text string) string { return strconv.Quote(text) }
