package sockets

import (
	"iter"
	"net/netip"
	"testing"
	"time"

	"sstrace/internal/event"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 57254: "57µs", 1500 * time.Microsecond: "2ms", 1234 * time.Millisecond: "1.2s", 59 * time.Second: "59s", 61500 * time.Millisecond: "1m2s",
		time.Hour: "1h0m", 25*time.Hour + 29*time.Second: "25h0m",
	} {
		if got := Short(d.Nanoseconds()); got != want {
			t.Errorf("%d ns are %q, want %q", d, got, want)
		}
	}
}

func change(id uint64, mono int64, state event.State) event.Event {
	return event.Event{
		Type: event.Change, ID: id, Mono: mono, New: state, Dur: event.Unknown, Family: event.IPv4, Proto: event.TCP,
		Local: netip.MustParseAddrPort("127.0.0.1:7781"), OwnerPID: 7, OwnerComm: "nc", OwnerVia: event.ViaListener,
	}
}

// A recording implies what exists at its end, and whose it is; behind a loss only what has changed since.
func TestImplied(t *testing.T) {
	accept := change(2, 40, 0)
	accept.Type, accept.OwnerPID, accept.OwnerComm = event.Accept, 8, "srv"
	lost, end := event.Event{Type: event.Lost, Mono: 50}, event.Event{Type: event.End, Mono: 100, Balance: &event.Balance{}}
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  []string // state, age, holders
	}{
		{"nothing", []event.Event{end}, nil},
		{"what exists", []event.Event{change(1, 10, event.Listen), change(2, 20, event.SynRecv), change(2, 30, event.Established), accept, end},
			[]string{"LISTEN 90ns 7/nc", "ESTABLISHED 70ns 8/srv"}},
		{"and not what is gone", []event.Event{change(1, 10, event.Listen), change(1, 20, event.Close), end}, nil},
		{"behind a loss", []event.Event{change(1, 10, event.Listen), lost, change(2, 60, event.CloseWait), end}, []string{"CLOSE_WAIT 40ns 7/nc"}},
		{"cut off", []event.Event{change(1, 10, event.Listen)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			source := iter.Seq2[event.Event, error](func(yield func(event.Event, error) bool) {
				for _, e := range test.lines {
					if !yield(e, nil) {
						return
					}
				}
			})
			for e := range Implied(source) {
				if e.Type == event.Socket {
					got = append(got, e.New.String()+" "+time.Duration(e.Dur).String()+" "+Holders(&e))
				}
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("got %q, want %q", got[i], test.want[i])
				}
			}
		})
	}
}

func TestSums(t *testing.T) {
	a, b := change(1, 0, event.CloseWait), change(2, 0, event.Listen)
	for want, all := range map[string][]*event.Event{
		"0 sockets": nil, "1 socket: LISTEN 1": {&b}, "3 sockets: LISTEN 2, CLOSE_WAIT 1": {&a, &b, &b},
	} {
		if got := Sums(all); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
