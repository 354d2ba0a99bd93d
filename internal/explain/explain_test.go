package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

// Every state and every reason has a text, and its name may be spelled in any form.
func TestExplain(t *testing.T) {
	names := []string{"SYN_SENT:CLOSE", "syn-sent:close", "SYN_SENT → CLOSE"}
	for _, s := range event.States() {
		names = append(names, s.String(), strings.ToLower(strings.ReplaceAll(s.String(), "_", "-")), "TCP_"+s.String())
	}
	for _, r := range event.Reasons() {
		names = append(names, r.String())
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			text, err := Explain(name)
			first, rest, _ := strings.Cut(text, "\n")
			if err != nil || normalize(first) != normalize(name) || rest == "" {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
}

func TestExplainAllStates(t *testing.T) {
	all, err := Explain("")
	if got := strings.Count(all, "Source:"); err != nil || got != len(event.States()) {
		t.Errorf("got %d sources, %v; want %d", got, err, len(event.States()))
	}
}

func TestUnknownTopic(t *testing.T) {
	for _, name := range []string{"CLOSE:TIME_WAIT", "0", "9999", "errno", "EXYZ"} {
		t.Run(name, func(t *testing.T) {
			text, err := Explain(name)
			want := fmt.Sprintf("unknown topic %q; the topics are CLOSE LISTEN ", name)
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %q, %v; want an error that begins with %q", text, err, want)
			}
		})
	}
}

// An errno can be found by name, in any case, and by number. Its reason has a text, too.
func TestErrnos(t *testing.T) {
	for _, e := range event.Errnos() {
		t.Run(e.Name, func(t *testing.T) {
			text, err := Explain(e.Name)
			if err != nil || !strings.HasPrefix(text, e.Name+"\n  "+e.Text) || !strings.Contains(text, e.Source) {
				t.Errorf("got %q, %v", text, err)
			}
			number := strconv.Itoa(int(e.Number))
			for _, other := range []string{strings.ToLower(e.Name), number, "errno " + number} {
				if same, err := Explain(other); err != nil || same != text {
					t.Errorf("%s: got %q, %v; want %q", other, same, err, text)
				}
			}
			if _, err := Explain(e.Reason.String()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Both ends of each edge are valid states.
func TestEdges(t *testing.T) {
	var known []string
	for _, s := range event.States() {
		known = append(known, s.String())
	}
	for _, e := range edges {
		from, to, _ := strings.Cut(e.name, ":")
		if !slices.Contains(known, from) || !slices.Contains(known, to) {
			t.Errorf("%s is not a change between two states", e.name)
		}
	}
}

// The indented texts fit a terminal.
func TestWidth(t *testing.T) {
	for _, topic := range slices.Concat(states, edges, reasons) {
		for line := range strings.Lines(topic.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > 100 {
				t.Errorf("%s: a line has %d characters, want at most 100: %s", topic.name, n, line)
			}
		}
	}
}
