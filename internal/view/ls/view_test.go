package ls

import (
	"io"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
)

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 57254: "57µs", 1500 * time.Microsecond: "2ms", 1234 * time.Millisecond: "1.2s",
		59 * time.Second: "59s", 61500 * time.Millisecond: "1m2s",
		time.Hour: "1h0m", 25*time.Hour + 29*time.Second: "25h0m",
	} {
		t.Run(d.String(), func(t *testing.T) {
			if got := short(d.Nanoseconds()); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// change returns a change of socket id to state.
func change(id uint64, mono int64, state event.State) event.Event {
	return event.Event{
		Type: event.Change, ID: id, Mono: mono, New: state, Dur: event.Unknown, Family: event.IPv4, Proto: event.TCP,
		Local: netip.MustParseAddrPort("127.0.0.1:7781"), OwnerPID: 7, OwnerComm: "nc", OwnerVia: event.ViaListener,
	}
}

// A recording implies which sockets exist at its end, and their owners. After a loss, it implies
// only the sockets that have changed since.
func TestImplied(t *testing.T) {
	accept := change(2, 40, 0)
	accept.Type, accept.OwnerPID, accept.OwnerComm = event.Accept, 8, "srv"
	lost, end := event.Event{Type: event.Lost, Mono: 50},
		event.Event{Type: event.End, Mono: 100, Balance: &event.Balance{}}
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  []string // state, age, holders
	}{
		{"nothing", []event.Event{end}, nil},
		{"an owner by accept", []event.Event{change(1, 10, event.Listen), change(2, 20, event.SynRecv),
			change(2, 30, event.Established), accept, end},
			[]string{"LISTEN 90ns 7/nc", "ESTABLISHED 70ns 8/srv"}},
		{"a closed socket", []event.Event{change(1, 10, event.Listen), change(1, 20, event.Close), end}, nil},
		{"after a loss", []event.Event{change(1, 10, event.Listen), lost, change(2, 60, event.CloseWait), end},
			[]string{"CLOSE_WAIT 40ns 7/nc"}},
		{"cut off", []event.Event{change(1, 10, event.Listen)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			source := iter.Seq2[*event.Event, error](func(yield func(*event.Event, error) bool) {
				for i := range test.lines {
					if !yield(&test.lines[i], nil) {
						return
					}
				}
			})
			for e := range Implied(source) {
				if e.Type == event.Socket {
					got = append(got, e.New.String()+" "+time.Duration(e.Dur).String()+" "+string(appendHolders(nil,
						e)))
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
	for want, states := range map[string][]event.State{
		"0 sockets": nil, "1 socket: LISTEN 1": {event.Listen},
		"3 sockets: LISTEN 2, CLOSE_WAIT 1": {event.CloseWait, event.Listen, event.Listen},
	} {
		var sums Sums
		for _, state := range states {
			sums[state]++
		}
		t.Run(want, func(t *testing.T) {
			if got := sums.String(); got != want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// The namespace is shown if there are several. Each column is as wide as its widest cell, in
// characters.
func TestTable(t *testing.T) {
	socket := func(netns uint32, remote string, atLeast int64, holders ...event.Holder) event.Event {
		e := change(0, 0, event.Established)
		e.Type, e.NetNS, e.Remote = event.Socket, netns, netip.MustParseAddrPort(remote)
		e.Status = &event.Status{AtLeast: atLeast, Left: event.Unknown, Holders: holders}
		return e
	}
	table := func(all ...event.Event) string {
		var out strings.Builder
		eventtest.Feed(t, New(&out, "text"), append(all, *eventtest.New(event.End))...)
		return "\n" + out.String()
	}
	first := socket(0, "127.0.0.1:40001", 2e9, event.Holder{PID: 7, FD: 3, Comm: "größer"},
		event.Holder{PID: 7, FD: 4, Comm: "größer"}, event.Holder{PID: 8, FD: 3, Comm: "nc"})
	second := socket(0, "127.0.0.1:9", event.Unknown)
	if got, want := table(first, second), `
STATE       RECV-Q SEND-Q LOCAL          REMOTE          AGE LEFT HOLDERS
ESTABLISHED      0      0 127.0.0.1:7781 127.0.0.1:9       -    - 7/nc
ESTABLISHED      0      0 127.0.0.1:7781 127.0.0.1:40001 ≥2s    - 7/größer fd 3,4, 8/nc fd 3

2 sockets: ESTABLISHED 2
`; got != want {
		t.Errorf("got%swant%s", got, want)
	}
	third := socket(4026531840, "127.0.0.1:9", event.Unknown)
	if got, want := table(second, third), `
STATE            NETNS RECV-Q SEND-Q LOCAL          REMOTE      AGE LEFT HOLDERS
ESTABLISHED          0      0      0 127.0.0.1:7781 127.0.0.1:9   -    - 7/nc
ESTABLISHED 4026531840      0      0 127.0.0.1:7781 127.0.0.1:9   -    - 7/nc

2 sockets: ESTABLISHED 2
`; got != want {
		t.Errorf("got%swant%s", got, want)
	}
}

// A cell may be as long as a recording allows.
func TestLongCell(t *testing.T) {
	unit := strings.Repeat("\x7f", 16_371) + ".service"
	e := change(0, 0, event.Established)
	e.Type, e.Cgroup = event.Socket, "/"+unit
	e.Status = &event.Status{Left: event.Unknown, Holders: []event.Holder{{PID: 7, FD: 3, Comm: "nc"}}}
	var out strings.Builder
	eventtest.Feed(t, New(&out, "wide"), e, *eventtest.New(event.End))
	if want := strings.Repeat(`\x7f`, 16_371) + ".service 7/nc fd 3\n"; !strings.Contains(out.String(), want) {
		t.Errorf("the unit is missing: %d bytes in all, want at least %d", out.Len(), len(want))
	}
}

// ns/socket is the time for each of 20,000 sockets.
func BenchmarkListing(b *testing.B) {
	const sockets = 20000
	e := change(0, 100, event.Established)
	e.Type, e.Cookie, e.UID = event.Socket, 0x1234, 1000
	e.Status = &event.Status{AtLeast: 12_345_678_901, Left: event.Unknown,
		Holders: []event.Holder{{PID: 4711, FD: 12, Comm: "redis-server"}}}
	for _, format := range Formats {
		b.Run(format, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v := New(io.Discard, format)
				for i := range uint64(sockets) {
					e.NetNS = uint32(i & 1)
					e.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i * 7 >> 8), byte(i * 7)}),
						uint16(i*31))
					if err := v.Take(&e); err != nil {
						b.Fatal(err)
					}
				}
				if err := v.End(eventtest.New(event.End)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sockets), "ns/socket")
		})
	}
}

// Sockets are in the order of a connection's life, with those in CLOSE at the end. Sockets in the
// same state are ordered by tuple.
func TestCompare(t *testing.T) {
	at := func(state event.State, remote string) event.Event {
		e := change(0, 0, state)
		e.Remote = netip.MustParseAddrPort(remote)
		return e
	}
	var want []event.Event
	for _, state := range append(event.Lifecycle()[1:], event.Close) {
		want = append(want, at(state, "127.0.0.1:9"), at(state, "127.0.0.1:40001"), at(state, "127.0.0.2:1"))
	}
	for i := range want[1:] {
		a, b := &want[i], &want[i+1]
		if Compare(a, b) >= 0 || Compare(b, a) <= 0 || Compare(a, a) != 0 {
			t.Errorf("%v %v is not before %v %v", a.New, a.Remote, b.New, b.Remote)
		}
	}
}
