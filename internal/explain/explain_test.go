package explain

import (
	"strconv"
	"strings"
	"testing"

	"sstrace/internal/event"
)

// Every state and every reason is explained, whatever way it is written.
func TestEverythingIsExplained(t *testing.T) {
	var names []string
	for _, s := range event.States() {
		names = append(names, s.String(), strings.ToLower(strings.ReplaceAll(s.String(), "_", "-")), "TCP_"+s.String())
	}
	for _, r := range event.Reasons() {
		names = append(names, r.String())
	}
	names = append(names, "SYN_SENT:CLOSE", "syn-sent:close", "SYN_SENT → CLOSE")
	for _, name := range names {
		text, err := Explain(name)
		if err != nil || len(text) < 30 {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	all, err := Explain("")
	if err != nil || strings.Count(all, "Source:") != len(states) {
		t.Errorf("all states: %v, %d of %d have a source", err, strings.Count(all, "Source:"), len(states))
	}
	if _, err := Explain("CLOSE:TIME_WAIT"); err == nil || !strings.Contains(err.Error(), "LISTEN") {
		t.Errorf("an impossible change: %v", err)
	}
}

// Each errno is found by its name, in any case, and by its number, and its reason is explained, too.
func TestErrnos(t *testing.T) {
	for _, e := range event.Errnos() {
		text, err := Explain(e.Name)
		if err != nil || !strings.HasPrefix(text, e.Name+"\n  "+e.Text) || !strings.Contains(text, e.Source) {
			t.Errorf("%s: %q, %v", e.Name, text, err)
		}
		number := strconv.Itoa(int(e.Number))
		for _, other := range []string{strings.ToLower(e.Name), number, "errno " + number} {
			if same, err := Explain(other); err != nil || same != text {
				t.Errorf("%s: %q, %v; want %q", other, same, err, text)
			}
		}
		if _, err := Explain(e.Reason.String()); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
	for _, unknown := range []string{"0", "9999", "errno", "EXYZ"} {
		if text, err := Explain(unknown); err == nil {
			t.Errorf("%s: %q, want an error", unknown, text)
		}
	}
}

// The edges are between states that exist.
func TestEdges(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range event.States() {
		known[s.String()] = true
	}
	for _, e := range edges {
		from, to, ok := strings.Cut(e.name, ":")
		if !ok || !known[from] || !known[to] {
			t.Errorf("%s is no change", e.name)
		}
	}
}
