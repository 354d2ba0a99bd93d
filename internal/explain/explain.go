// Package explain describes the states, changes, reasons and errnos in words.
package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// topic is something to explain. The lines of its text fit a terminal with 100 columns.
type topic struct {
	name string
	text string
}

// errnos returns a topic for each errno.
func errnos() []topic {
	var all []topic
	for _, e := range event.Errnos() {
		text := fmt.Sprintf("%s\nNumber:    %d\n", e.Text, e.Number)
		if e.Reason != event.ReasonUnexplained {
			text += fmt.Sprintf("Reason:    %v\n", e.Reason)
		}
		all = append(all, topic{e.Name, text + "Source:    " + e.Source})
	}
	return all
}

func topics() []topic { return slices.Concat(states, reasons, edges, errnos()) }

// Topics returns the names of everything that Explain knows.
func Topics() []string {
	var names []string
	for _, t := range topics() {
		names = append(names, t.name)
	}
	return names
}

// Explain returns the text about a state, a change OLD:NEW, a reason, or an errno by name or
// number. It returns the text about all states for "", and an error that lists the topics for an
// unknown one.
func Explain(topic string) (string, error) {
	if topic == "" {
		var all []string
		for _, s := range states {
			all = append(all, s.String())
		}
		return strings.Join(all, "\n"), nil
	}
	want := normalize(topic)
	if n, err := strconv.ParseInt(strings.TrimPrefix(want, "errno"), 10, 32); err == nil {
		want = normalize(event.ErrnoName(int32(n)))
	}
	for _, t := range topics() {
		if normalize(t.name) == want {
			return t.String(), nil
		}
	}
	return "", fmt.Errorf("unknown topic %q; the topics are %s", topic, strings.Join(Topics(), " "))
}

// normalize makes CLOSE_WAIT, close-wait and TCP_CLOSE_WAIT equal.
func normalize(name string) string {
	name = strings.ToLower(strings.NewReplacer("_", "", "-", "", "→", ":", " ", "").Replace(name))
	return strings.TrimPrefix(name, "tcp")
}

// String returns the name, and the text indented below it.
func (t topic) String() string {
	return t.name + "\n  " + strings.ReplaceAll(t.text, "\n", "\n  ") + "\n"
}
