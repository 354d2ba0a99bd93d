package track

import (
	"fmt"
	"slices"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// scenario is a sequence of records about some sockets, and the lines that are expected in each
// vocabulary. A line is "id OLD NEW mono dur", followed by the reason, the errno and a missing
// port, if any. The kernel's vocabulary receives only the records of full sockets.
type scenario struct {
	name    string
	records []record.Record
	kernel  []string
	rfc     []string
	merged  uint64 // records, in the RFC vocabulary
}

func line(e *event.Event) string {
	s := fmt.Sprint(e.ID, " ", e.Old, " ", e.New, " ", e.Mono, " ", e.Dur)
	if e.Reason != 0 {
		s += " " + e.Reason.String()
	}
	if e.Err != 0 {
		s += fmt.Sprint(" errno ", e.Err)
	}
	if e.New == event.SynSent && e.Local.Port() == 0 {
		s += " without port"
	}
	return s
}

// check passes records to a tracker. It checks the lines, and that every record is accounted for.
func check(t *testing.T, tr Tracker, records []record.Record, want []string, merged uint64) {
	t.Helper()
	var got []string
	var last int64
	for _, e := range track(t, tr, records...) {
		got = append(got, line(&e))
		if e.Mono < last {
			t.Errorf("a line of %d comes after one of %d", e.Mono, last)
		}
		last = e.Mono
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	reported := uint64(0)
	for _, r := range records {
		if r.Kind != record.Existing {
			reported++
		}
	}
	if tr.Merged() != merged || uint64(len(got))+tr.Merged()+tr.Duplicates() != reported {
		t.Errorf("%d records are %d lines, %d merged (want %d) and %d duplicates",
			reported, len(got), tr.Merged(), merged, tr.Duplicates())
	}
}

func TestScenarios(t *testing.T) {
	for _, s := range slices.Concat(handshakes, connects, closes, failures, duplicates) {
		t.Run(s.name, func(t *testing.T) {
			t.Run("kernel", func(t *testing.T) {
				var full []record.Record
				for _, r := range s.records {
					switch r.Kind {
					case record.Change, record.SecondChange:
						full = append(full, r)
					}
				}
				check(t, new(Kernel), full, s.kernel, 0)
			})
			t.Run("rfc", func(t *testing.T) {
				var m RFC
				check(t, &m, s.records, s.rfc, s.merged)
				n := len(m.awaitingClose) + len(m.awaitingReuse) + len(m.awaitingTimer) + len(m.awaitingReason)
				if n != 0 {
					t.Errorf("%d records are remembered as waiting", n)
				}
			})
		})
	}
}
