package diagram

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // the period is printed in local time
	os.Exit(m.Run())
}

const (
	wall = 1_795_000_000e9 // 2026-11-18 11:06:40
	mono = 5000e9
)

// draw returns the picture of events, which are a millisecond apart. If end is not nil, an End
// follows them.
func draw(t *testing.T, format string, end *event.Balance, events ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	v := New(&out, format, false)
	for i, e := range events {
		e.Wall, e.Mono = wall+int64(i)*1e6, mono+int64(i)*1e6
		if err := v.Take(&e); err != nil {
			t.Fatal(err)
		}
		if e.Mono == mono && format != "ndjson" {
			if err := v.Idle(e.Mono); err != nil || out.Len() > 0 {
				t.Fatalf("%d bytes before the end, %v", out.Len(), err)
			}
		}
	}
	if err := v.End(&event.Event{Type: event.End, Wall: wall + 10e9, Mono: mono + 10e9, Balance: end}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// path returns the changes of a socket that goes through these states. The time of the first change
// is unknown. That of all others is ns.
func path(role event.Role, reason event.Reason, ns int64, states ...event.State) (events []event.Event) {
	for i := 1; i < len(states); i++ {
		e := event.Event{Role: role, Old: states[i-1], New: states[i], Dur: ns}
		if i == 1 {
			e.Dur = event.Unknown
		}
		if e.New == event.Close {
			e.Reason = reason
		}
		events = append(events, e)
	}
	return events
}

// recording returns a listener and its connections. The client closes first in two of them, the
// server in one, and both at once in another one. One is reset, one is refused, and one is older
// than the recording. All changes of one kind have the same time, so their median is exact.
func recording() (events []event.Event) {
	const c, l, s, r, e, f1, f2 = event.Close, event.Listen, event.SynSent, event.SynRecv, event.Established,
		event.FinWait1, event.FinWait2
	const cl, tw, cw, la = event.Closing, event.TimeWait, event.CloseWait, event.LastAck
	for _, p := range [][]event.Event{
		path(event.Listener, event.ReasonNormal, 61e9, c, l, c),
		path(event.Client, event.ReasonTimeWaitExpired, 57254, c, s, e, f1, f2, tw, c),
		path(event.Server, event.ReasonNormal, 1234567, l, r, e, cw, la, c),
		path(event.Client, event.ReasonTimeWaitExpired, 57254, c, s, e, f1, f2, tw, c),
		path(event.Server, event.ReasonNormal, 1234567, l, r, e, cw, la, c),
		path(event.Client, event.ReasonNormal, 57254, c, s, e, cw, la, c),
		path(event.Server, event.ReasonTimeWaitExpired, 1234567, l, r, e, f1, f2, tw, c),
		path(event.Client, event.ReasonTimeWaitReused, 57254, c, s, r, e, f1, cl, tw, c),
		path(event.Client, event.ReasonResetByPeer, 57254, c, s, e, c),
		path(event.Server, event.ReasonResetSentLinger, 57254, l, r, e, c),
		path(event.Client, event.ReasonRefused, 57254, c, s, c),
		path(0, event.ReasonNormal, 850, cw, la, c),
	} {
		events = append(events, p...)
	}
	events[4].Type = event.Accept // not counted
	events[4].Old, events[4].New = 0, 0
	return append(events, event.Event{Type: event.Lost, RingFull: 3}, path(0, 0, 0, f1, f1)[0])
}

func TestGolden(t *testing.T) {
	for _, format := range Formats {
		t.Run(format, func(t *testing.T) {
			got := draw(t, format, &event.Balance{Seen: 70, RingFull: 3, Filtered: 2, Merged: 7, Printed: 58},
				recording()...)
			file := filepath.Join("testdata", "diagram."+format)
			if os.Getenv("SSTRACE_GOLDEN") == "write" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs; got:\n%s", file, got)
			}
		})
	}
}

// rfc contains the edges of figure 5 in RFC 9293, as printed there.
const rfc = `
CLOSED LISTEN
CLOSED SYN-SENT
LISTEN CLOSED
LISTEN SYN-RCVD
LISTEN SYN-SENT
SYN-RCVD LISTEN
SYN-RCVD ESTAB
SYN-RCVD FINWAIT-1
SYN-SENT CLOSED
SYN-SENT SYN-RCVD
SYN-SENT ESTAB
ESTAB FINWAIT-1
ESTAB CLOSE-WAIT
FINWAIT-1 FINWAIT-2
FINWAIT-1 CLOSING
FINWAIT-2 TIME-WAIT
CLOSING TIME-WAIT
CLOSE-WAIT LAST-ACK
LAST-ACK CLOSED
TIME-WAIT CLOSED`

// Every picture has exactly the edges of the figure, whether or not they were taken.
func TestEveryEdge(t *testing.T) {
	names := strings.NewReplacer("CLOSED", "CLOSE", "SYN-RCVD", "SYN_RECV", "SYN-SENT", "SYN_SENT", "ESTAB",
		"ESTABLISHED", "FINWAIT-1", "FIN_WAIT1", "FINWAIT-2", "FIN_WAIT2",
		"CLOSE-WAIT", "CLOSE_WAIT", "LAST-ACK", "LAST_ACK", "TIME-WAIT", "TIME_WAIT")
	edges := strings.Split(names.Replace(strings.TrimSpace(rfc)), "\n")
	if len(figure) != len(edges) || len(routes) != len(edges) {
		t.Errorf("%d edges and %d routes, want %d", len(figure), len(routes), len(edges))
	}
	for _, test := range []struct {
		name   string
		events []event.Event
	}{
		{"empty", nil}, {"recording", recording()}, {"full", full()},
	} {
		name, events := test.name, test.events
		svg, dot := draw(t, "svg", &event.Balance{}, events...), draw(t, "dot", &event.Balance{}, events...)
		for _, e := range edges {
			old, new, _ := strings.Cut(e, " ")
			if !regexp.MustCompile(`<title>` + old + " → " + new + `(<|&#xA;)`).MatchString(svg) {
				t.Errorf("%s: the SVG has no %s → %s", name, old, new)
			}
			if !strings.Contains(dot, "\t"+old+" -> "+new+" [") {
				t.Errorf("%s: dot has no %s → %s", name, old, new)
			}
		}
		if got := strings.Count(svg, "<path ") - strings.Count(svg, "<marker "); name == "empty" &&
			got != len(edges)+int(parties)+1 {
			t.Errorf("%d lines without any change, want one for each edge, and those of the legend", got)
		}
		text := draw(t, "text", &event.Balance{}, events...)
		for _, a := range figure {
			want := 0
			for _, b := range figure {
				want += strings.Count(b.caption(), a.caption())
			}
			if got := strings.Count(text, a.caption()); got != want {
				t.Errorf("%s: the text has %q %d times, want %d", name, a.caption(), got, want)
			}
		}
	}
}

// full returns the most that a picture may have to show: each edge, taken by each party, and ends
// for every reason in each state.
func full() (events []event.Event) {
	for _, role := range []event.Role{event.Client, event.Server, 0} {
		for _, a := range figure {
			reasons := map[event.State]event.Reason{
				event.SynSent: event.ReasonGivenUp, event.TimeWait: event.ReasonTimeWaitExpired,
				event.Listen: event.ReasonNormal, event.LastAck: event.ReasonNormal,
			}
			e := event.Event{Role: role, Old: a.Old, New: a.New, Dur: 57254}
			if a.New == event.Close {
				e.Reason = reasons[a.Old]
			}
			events = append(events, e)
		}
		for _, old := range event.States() {
			for _, reason := range event.Reasons()[1:] {
				if old != event.Close {
					events = append(events, event.Event{Role: role, Old: old, New: event.Close, Dur: 57254,
						Reason: reason})
				}
			}
		}
		events = append(events, event.Event{Role: role, Old: event.FinWait1, New: event.FinWait1},
			event.Event{Role: role, Old: event.Close, New: event.Established})
	}
	return events
}

// fullSummary returns the summary of full, with every count set to n.
func fullSummary(t *testing.T, n uint64) *summary {
	t.Helper()
	v := New(&bytes.Buffer{}, "svg", false)
	for _, e := range full() {
		e.Wall, e.Mono = wall, mono
		if err := v.Take(&e); err != nil {
			t.Fatal(err)
		}
	}
	v.first, v.last = moment{wall, mono}, moment{wall + 86400e9, mono + 86400e9}
	v.changes, v.lost = n, n
	v.balance = &event.Balance{Seen: n, Filtered: n, RingFull: n, Unread: n, Merged: n, Printed: n, Missed: n}
	v.kernelStates = true
	s, err := v.summary()
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range s.edges {
		for _, tally := range of {
			tally.Count = n
		}
	}
	for _, e := range s.ends {
		e.Count = n
		for i := range e.reasons {
			e.reasons[i].count = n
		}
		slices.SortFunc(e.reasons, func(a, b named) int { return len(b.name) - len(a.name) }) // only the longest are shown
	}
	return s
}

// randomSummary returns fullSummary with a random choice of its edges and ends removed.
func randomSummary(t *testing.T, n uint64, seed uint64) *summary {
	t.Helper()
	s, r := fullSummary(t, n), rand.New(rand.NewPCG(seed, 0))
	for i := range figure { // in order, so that the seed determines the choice
		for p := range s.edges[figure[i].Edge] {
			if r.IntN(3) > 0 {
				s.edges[figure[i].Edge][p] = nil
			}
		}
	}
	for _, state := range event.Lifecycle() {
		if e := s.ends[state]; e != nil && r.IntN(2) == 0 {
			e.reasons = e.reasons[:1+r.IntN(len(e.reasons))]
		} else {
			delete(s.ends, state)
		}
	}
	return s
}

// On a terminal, no label covers another label or the end of a line, and no line is too long.
func TestText(t *testing.T) {
	numbers := []uint64{1, 1234, 123456789}
	for seed := range uint64(300) {
		n := numbers[seed%3]
		s := randomSummary(t, n, seed)
		if seed < 3 {
			s = fullSummary(t, n)
		}
		text := s.text(false)
		label := fmt.Sprintf("%d 57.3µs", n)
		for p, letter := range partyLetters {
			want := 0
			for _, of := range s.edges {
				if of[p] != nil {
					want++
				}
			}
			if got := strings.Count(text, letter+" "+label); got != want {
				t.Errorf("%d: got %q %d times, want %d:\n%s", seed, letter+" "+label, got, want, text)
			}
		}
		if got := len(regexp.MustCompile(fmt.Sprintf(`│ *× ?%d *│`, n)).FindAllString(text, -1)); got != len(s.ends) {
			t.Errorf("%d: got %d states with ends, want %d:\n%s", seed, got, len(s.ends), text)
		}
		if got := strings.Count(text, "►") + strings.Count(text, "◄") + strings.Count(text, "▲") + strings.Count(text,
			"▼"); got != len(figure)+2 {
			t.Errorf("got %d arrowheads, want %d and 2 in the legend:\n%s", got, len(figure), text)
		}
		for line := range strings.Lines(text) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > columns ||
				strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("too long, or with trailing spaces: %q", line)
			}
		}
	}
	if text := fullSummary(t, 1).text(true); strings.Count(text, "\x1b[")%2 != 0 ||
		!strings.Contains(text, partyColors[client]+"c 1 57.3µs"+reset) {
		t.Errorf("colors: %q", text)
	}
}

// The reason for an end decides whether the end is in the figure. In the kernel's vocabulary, the
// socket's error decides.
func TestInFigure(t *testing.T) {
	for _, test := range []struct {
		old, new event.State
		reason   event.Reason
		err      int32
		want     bool
	}{
		{event.SynSent, event.Close, event.ReasonRefused, 111, false},
		{event.SynSent, event.Close, event.ReasonGivenUp, 0, true},
		{event.SynSent, event.Close, 0, 111, false},
		{event.SynSent, event.Close, 0, 0, true},
		{event.LastAck, event.Close, event.ReasonNormal, 0, true},
		{event.LastAck, event.Close, event.ReasonTimedOut, 110, false},
		{event.TimeWait, event.Close, event.ReasonTimeWaitExpired, 0, true},
		{event.TimeWait, event.Close, event.ReasonTimeWaitReused, 0, false},
		{event.Listen, event.Close, event.ReasonNormal, 0, true},
		{event.Established, event.Close, event.ReasonResetByPeer, 104, false},
		{event.FinWait2, event.Close, 0, 0, false},
		{event.FinWait1, event.FinWait1, 0, 0, false},
		{event.FinWait1, event.TimeWait, 0, 0, false},
		{event.Listen, event.SynRecv, 0, 0, true},
	} {
		t.Run(fmt.Sprintf("%v %v %v errno %d", test.old, test.new, test.reason, test.err), func(t *testing.T) {
			e := event.Event{Old: test.old, New: test.new, Reason: test.reason, Err: test.err}
			if got := inFigure(&e); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Every picture says what is missing from it.
func TestNotes(t *testing.T) {
	lost := event.Event{Type: event.Lost, RingFull: 12}
	for _, test := range []struct {
		name   string
		end    *event.Balance
		events []event.Event
		want   string
	}{
		{"lost", &event.Balance{Seen: 12, RingFull: 12}, []event.Event{lost},
			"12 changes lost, the ring buffer was full: the counts are too low"},
		{"missed", &event.Balance{Missed: 1}, nil, "1 change skipped by the kernel: the counts are too low"},
		{"cut off", nil, recording(), "the recording has no end line: it was cut off"},
		{"cut off at once", nil, nil, "nothing was recorded"},
		{"filtered", &event.Balance{Seen: 12, Filtered: 12}, nil, "12 filtered"},
		{"other", &event.Balance{}, path(0, 0, 0, event.FinWait1, event.FinWait1),
			"Not in the figure: FIN_WAIT1 → FIN_WAIT1 1"},
		{"kernel", &event.Balance{}, path(0, 0, 0, event.FinWait2, event.Close), "reason unknown 1"},
	} {
		for _, format := range []string{"svg", "dot", "text"} {
			t.Run(test.name+" "+format, func(t *testing.T) {
				if got := draw(t, format, test.end, test.events...); !strings.Contains(got, test.want) {
					t.Errorf("no %q in\n%s", test.want, got)
				}
			})
		}
	}
	if got := draw(t, "ndjson", nil, lost); got != `{"v":1,"type":"lost","seq":1,"ts":"2026-11-18T11:06:40.000000000Z","mono_ns":5000000000000,"ring_full":12}`+"\n" {
		t.Errorf("got %s", got)
	}
}

// The test implements the part of Graphviz's grammar that is used here:
// https://graphviz.org/doc/info/lang.html.
func TestDotSyntax(t *testing.T) {
	const (
		id         = `(?:[A-Za-z_][A-Za-z_0-9]*|[0-9.]+|"(?:[^"\\]|\\.)*")`
		attributes = `\[` + id + `=` + id + `(?:, ` + id + `=` + id + `)*\];`
	)
	statement := regexp.MustCompile(`^\t(?:(?:graph|node|edge|[A-Z_0-9]+(?: -> [A-Z_0-9]+)?) ` + attributes + `|\{ rank=same;(?: [A-Z_0-9]+;)+ \}|// .*)$`)
	for name, dot := range map[string]string{
		"empty": draw(t, "dot", &event.Balance{}), "recording": draw(t, "dot", nil, recording()...),
		"many": fullSummary(t, 123456789).dot(),
	} {
		lines := strings.Split(strings.TrimSuffix(dot, "\n"), "\n")
		if lines[0] != "digraph tcp {" || lines[len(lines)-1] != "}" {
			t.Errorf("%s: begins with %q and ends with %q", name, lines[0], lines[len(lines)-1])
		}
		for _, l := range lines[1 : len(lines)-1] {
			if !statement.MatchString(l) {
				t.Errorf("%s: not a statement: %q", name, l)
			}
		}
	}
}
