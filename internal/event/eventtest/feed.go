package eventtest

import (
	"testing"

	"sstrace/internal/event"
)

// View contains what every view does with a recording. session.View is the complete interface.
type View interface {
	Begin() error
	Take(e *event.Event) error
	End(end *event.Event) error
}

// Feed runs v over lines as if they were a recording. If the last line is an event.End, Feed ends v
// with it. Otherwise, v ends as it does after a recording that was cut off.
func Feed(t testing.TB, v View, lines ...event.Event) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	check(v.Begin())
	end := event.Event{Type: event.End}
	for i := range lines {
		end.Wall, end.Mono = lines[i].Wall, lines[i].Mono
		if lines[i].Type == event.End {
			end = lines[i]
			continue
		}
		check(v.Take(&lines[i]))
	}
	check(v.End(&end))
}
