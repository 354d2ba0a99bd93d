package explain

import (
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
	for r := event.ReasonNormal; r <= event.ReasonUnexplained; r++ {
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
