package session_test

import (
	"fmt"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
	"sstrace/internal/filter"
	"sstrace/internal/session"
)

// slowest is a View that keeps the longest time spent in a state.
type slowest struct {
	state event.State
	dur   int64
}

func (s *slowest) Begin() error     { return nil }
func (s *slowest) Idle(int64) error { return nil }

func (s *slowest) Take(e *event.Event) error {
	if e.Type == event.Change && e.Dur > s.dur {
		s.state, s.dur = e.Old, e.Dur
	}
	return nil
}

func (s *slowest) End(end *event.Event) error {
	fmt.Printf("%v, %d ns; %d lines\n", s.state, s.dur, end.Balance.Printed)
	return nil
}

// A view runs on a recording in the same way as on the kernel.
func ExampleRun() {
	var lines []byte
	for i, e := range []*event.Event{
		eventtest.Change("127.0.0.1:40602", "127.0.0.1:7781", event.SynSent, event.Established),
		eventtest.Change("127.0.0.1:40602", "127.0.0.1:7781", event.Established, event.FinWait1),
		eventtest.New(event.End),
	} {
		e.Seq = uint64(i + 1)
		if e.Type == event.Change {
			e.Dur = int64(i+1) * 57254
		}
		lines = e.AppendJSON(lines)
	}
	f, err := filter.New(new(filter.Options))
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := session.OpenOutput("", "") // to standard output
	if err != nil {
		fmt.Println(err)
		return
	}
	recording := session.NewRecording(strings.NewReader(string(lines)), "trace.ndjson", session.Want{})
	if _, err := session.Run(recording, out, new(slowest), session.Options{Filter: f}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// ESTABLISHED, 114508 ns; 2 lines
}
