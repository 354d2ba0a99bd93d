package diagram

import (
	"fmt"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// ranks are the rows of the figure.
var ranks = [][]event.State{
	{event.Close}, {event.Listen}, {event.SynRecv, event.SynSent}, {event.Established}, {event.FinWait1, event.CloseWait},
	{event.FinWait2, event.Closing, event.LastAck}, {event.TimeWait},
}

// dot is the picture as Graphviz's input: what it tells is the same, the layout is Graphviz's.
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
	for _, state := range lifeOrder {
		color := faint.light
		if s.seen[state] {
			color = ink.light
		}
		label := state.String()
		if e := s.ends[state]; e != nil {
			label += "\n→ CLOSE " + e.label()
			for _, r := range e.reasons {
				label += fmt.Sprintf("\n%s %d", r.name, r.count)
			}
		}
		fmt.Fprintf(&b, "\t%v [label=%s, color=%s];\n", state, quoted(label), quoted(color))
	}
	for i := range figure {
		a := &figure[i]
		travelled := false
		for p, t := range s.of(a.edge) {
			if t == nil {
				continue
			}
			travelled = true
			color := quoted(partyPaints[p].light)
			fmt.Fprintf(&b, "\t%v -> %v [label=%s, color=%s, fontcolor=%s, style=%s, penwidth=2, tooltip=%s];\n", a.old, a.new,
				quoted(partyNames[p]+" "+t.label()), color, color, [parties]string{"solid", "dashed", "dotted"}[p], quoted(a.caption()))
		}
		if !travelled {
			fmt.Fprintf(&b, "\t%v -> %v [label=%s, color=%s, fontcolor=%s];\n", a.old, a.new, quoted(a.caption()), quoted(faint.light), quoted(gray.light))
		}
	}
	for i, text := range s.remarks() {
		fmt.Fprintf(&b, "\t// %d: %s\n", i+1, text)
	}
	b.WriteString("}\n")
	return b.String()
}

// quoted is a string of the dot language. All that it has to say is printable, and strconv leaves that as it is.
func quoted(text string) string { return strconv.Quote(text) }
