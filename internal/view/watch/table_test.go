package watch

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/view/ls"
)

// second is also the time at which all tests begin.
const second = int64(1e9)

func status() *event.Status {
	return &event.Status{RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown, Left: event.Unknown}
}

// line returns a change of socket id, a client with the local port 40000+id and the remote port
// 7781.
func line(id uint64, at int64, old, state event.State) event.Event {
	return event.Event{
		Type: event.Change, ID: id, Mono: at, Wall: at + 100*second, Sk: 0x1000 + id, Cookie: id, NetNS: 5, Family: event.IPv4, Proto: event.TCP, Old: old, New: state, Dur: event.Unknown,
		Local: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(40000+id)), Remote: netip.MustParseAddrPort("127.0.0.1:7781"),
		Role: event.Client, OwnerPID: 7, OwnerComm: "nc", OwnerVia: event.ViaConnect,
	}
}

// socket returns the same socket as a look at the kernel finds it.
func socket(id uint64, at int64, state event.State) event.Event {
	e := line(id, at, 0, state)
	e.Type, e.ID = event.Socket, 0
	e.Status = &event.Status{RecvQueue: 0, SendQueue: 0, AtLeast: event.Unknown, Left: event.Unknown, Holders: []event.Holder{{PID: 7, FD: 3, Comm: "nc"}}}
	return e
}

// older returns the same socket as a trace finds it at its beginning.
func older(id uint64, at int64, state event.State) event.Event {
	e := socket(id, at, state)
	e.ID = id
	return e
}

func all(*event.Event) bool { return true }

// rows returns what the table shows at time now: the mark, state, age and holders of each socket,
// by local port.
func rows(t *table, now int64) string {
	s := t.snapshot(now, all)
	slices.SortFunc(s.rows, func(a, b *row) int { return cmp.Or(a.Local.Compare(b.Local), cmp.Compare(a.marked, b.marked)) })
	var b strings.Builder
	for _, r := range s.rows {
		e := r.at(now)
		sign := ""
		if now-r.marked < markTime {
			sign = []string{"", "+", "*", "-"}[r.mark]
		}
		cells := ls.Row(&e, false)
		fmt.Fprintf(&b, "%s%d %v %s %s\n", sign, e.Local.Port()-40000, e.New, ls.Age(&e), cells[len(cells)-1])
	}
	return b.String()
}

// tableTest is a table that receives lines, then looks, then more lines. It also has the rows that
// the table should show then.
type tableTest struct {
	name  string
	lines []event.Event
	looks [][]event.Event // after the lines
	more  []event.Event   // after the looks
	now   int64
	want  string
}

func tableTests() []tableTest {
	const (
		s = second
		E = event.Established
	)
	lost := event.Event{Type: event.Lost, Mono: 5 * s, RingFull: 3}
	accept := line(1, 3*s, 0, 0)
	accept.Type, accept.OwnerPID, accept.OwnerComm, accept.OwnerVia = event.Accept, 8, "srv", event.ViaAccept
	child := line(1, 2*s, event.Listen, event.SynRecv)
	child.OwnerVia = event.ViaListener
	child2 := line(1, 2*s+1e6, event.SynRecv, E)
	child2.OwnerVia = event.ViaListener
	known := older(1, 2*s, event.SynRecv)
	known.Dur = 5e8
	quiet := older(1, 2*s, event.CloseWait)
	quiet.Status.AtLeast = 40 * s
	timeWait := socket(1, 6*s, event.TimeWait)
	timeWait.Cookie, timeWait.Sk, timeWait.Status = 99, 0x77, status()
	timeWait.Status.Mini, timeWait.Status.Left, timeWait.Status.Holders = true, 58*s, []event.Holder{}
	noPort := line(1, 2*s, event.Close, event.SynSent)
	noPort.Local = netip.AddrPortFrom(noPort.Local.Addr(), 0)
	other := socket(1, 6*s, E)
	other.Cookie = 1000
	return []tableTest{
		{"older socket: at least since it was seen", []event.Event{older(1, 2*s, E)}, nil, nil, 5 * s, "1 ESTABLISHED ≥3s 7/nc fd 3\n"},
		{"older socket: as long as it was quiet", []event.Event{quiet}, nil, nil, 5 * s, "1 CLOSE_WAIT ≥43s 7/nc fd 3\n"},
		{"older socket: age known by its SYN", []event.Event{known}, nil, nil, 3 * s, "1 SYN_RECV 1.5s 7/nc fd 3\n"},
		{"new", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, nil, nil, 3 * s, "+1 SYN_SENT 1s 7/nc\n"},
		{"new for a while, although it changes", []event.Event{line(1, 2*s, event.Close, event.SynSent), line(1, 3*s, event.SynSent, E)}, nil, nil, 4 * s, "+1 ESTABLISHED 1s 7/nc\n"},
		{"changed after a while", []event.Event{line(1, 2*s, event.Close, event.SynSent), line(1, 5*s, event.SynSent, E)}, nil, nil, 6 * s, "*1 ESTABLISHED 1s 7/nc\n"},
		{"mark fades", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, nil, nil, 4 * s, "1 SYN_SENT 2s 7/nc\n"},
		{"change of an older socket", []event.Event{older(1, 2*s, E), line(1, 4*s, E, event.CloseWait)}, nil, nil, 5 * s, "*1 CLOSE_WAIT 1s 7/nc fd 3\n"},
		{"closed, with its age", []event.Event{line(1, 2*s, event.Close, event.SynSent), line(1, 3*s, event.SynSent, event.Close)}, nil, nil, 4 * s, "-1 SYN_SENT 1s 7/nc\n"},
		{"closed a while ago", []event.Event{line(1, 2*s, event.Close, event.SynSent), line(1, 3*s, event.SynSent, event.Close)}, nil, nil, 5 * s, ""},
		{"end of an unknown socket", []event.Event{line(1, 3*s, E, event.Close)}, nil, nil, 3 * s, ""},
		{"in the accept queue: no holder", []event.Event{child, child2}, nil, nil, 3 * s, "+1 ESTABLISHED 999ms -\n"},
		{"accepted: held by who accepts", []event.Event{child, child2, accept}, nil, nil, 5 * s, "1 ESTABLISHED 3s 8/srv\n"},
		{"accept is a change", []event.Event{older(1, s, E), accept}, nil, nil, 4 * s, "*1 ESTABLISHED ≥3s 8/srv\n"},
		{"client gets its port", []event.Event{noPort, line(1, 3*s, event.SynSent, E)}, nil, nil, 6 * s, "1 ESTABLISHED 3s 7/nc\n"},
		{"look finds holders", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, [][]event.Event{{socket(1, 4*s, event.SynSent)}}, nil, 5 * s, "1 SYN_SENT 3s 7/nc fd 3\n"},
		{"look is ahead of the lines", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, [][]event.Event{{socket(1, 4*s, E)}}, nil, 5 * s, "1 SYN_SENT 3s 7/nc\n"},
		{"two looks agree against the lines", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, [][]event.Event{{socket(1, 4*s, E)}, {socket(1, 6*s, E)}}, nil, 7 * s, "*1 ESTABLISHED ≥1s 7/nc fd 3\n"},
		{"line after a look that was ahead", []event.Event{line(1, 2*s, event.Close, event.SynSent)}, [][]event.Event{{socket(1, 4*s, E)}}, []event.Event{line(1, 3*s, event.SynSent, E)}, 5 * s, "1 ESTABLISHED 2s 7/nc\n"},
		{"look misses a socket", []event.Event{older(1, 2*s, E)}, [][]event.Event{{}}, nil, 5 * s, "1 ESTABLISHED ≥3s 7/nc fd 3\n"},
		{"two looks miss a socket", []event.Event{older(1, 2*s, E)}, [][]event.Event{{}, {}}, nil, 5 * s, ""},
		{"two looks miss a socket, but not in a row", []event.Event{older(1, 2*s, E)}, [][]event.Event{{}, {socket(1, 4*s, E)}, {}}, nil, 5 * s, "1 ESTABLISHED ≥3s 7/nc fd 3\n"},
		{"loss: look misses a socket", []event.Event{older(1, 2*s, E), lost}, [][]event.Event{{}}, nil, 6 * s, ""},
		{"loss: look finds another state", []event.Event{older(1, 2*s, E), lost}, [][]event.Event{{socket(1, 6*s, event.CloseWait)}}, nil, 9 * s, "1 CLOSE_WAIT ≥3s 7/nc fd 3\n"},
		{"loss: look finds another socket", []event.Event{lost}, [][]event.Event{{socket(1, 6*s, E)}}, nil, 9 * s, "1 ESTABLISHED ≥3s 7/nc fd 3\n"},
		{"loss: look finds another socket with the same tuple", []event.Event{older(1, 2*s, E), lost}, [][]event.Event{{other}}, nil, 9 * s, "1 ESTABLISHED ≥3s 7/nc fd 3\n"},
		{"loss: lines of another socket", []event.Event{lost}, [][]event.Event{{socket(1, 6*s, E)}}, []event.Event{line(17, 7*s, E, event.CloseWait)}, 8 * s, "1 ESTABLISHED ≥2s 7/nc fd 3\n+17 CLOSE_WAIT 1s 7/nc\n"},
		{"loss: lines of a socket that a look found", []event.Event{lost}, [][]event.Event{{socket(1, 6*s, E)}}, []event.Event{line(1, 7*s, E, event.CloseWait)}, 8 * s, "*1 CLOSE_WAIT 1s 7/nc fd 3\n"},
		{"loss: end of a socket that a look found", []event.Event{lost}, [][]event.Event{{socket(1, 6*s, E)}}, []event.Event{line(1, 7*s, E, event.Close)}, 8 * s, "-1 ESTABLISHED ≥1s 7/nc fd 3\n"},
		{"one look finds a socket without lines", nil, [][]event.Event{{socket(1, 4*s, E)}}, nil, 5 * s, ""},
		{"two looks find a socket without lines", nil, [][]event.Event{{socket(1, 4*s, E)}, {socket(1, 6*s, E)}}, nil, 7 * s, "1 ESTABLISHED ≥1s 7/nc fd 3\n"},
		{"TIME_WAIT has no holder", []event.Event{older(1, 2*s, event.FinWait2), line(1, 4*s, event.FinWait2, event.TimeWait)}, nil, nil, 7 * s, "1 TIME_WAIT 3s -\n"},
		{"TIME_WAIT is found by its tuple", []event.Event{line(1, 4*s, event.FinWait2, event.TimeWait)}, [][]event.Event{{timeWait}, {timeWait}}, nil, 7 * s, "1 TIME_WAIT 3s -\n"},
	}
}

func TestTable(t *testing.T) {
	for _, test := range tableTests() {
		t.Run(test.name, func(t *testing.T) {
			table := newTable()
			for i := range test.lines {
				table.take(&test.lines[i])
			}
			for _, look := range test.looks {
				table.look(look, all)
			}
			for i := range test.more {
				table.take(&test.more[i])
			}
			if got := rows(table, test.now); got != test.want {
				t.Errorf("got:\n%swant:\n%s", got, test.want)
			}
			if len(table.rows) != len(table.ids) {
				t.Errorf("%d rows and %d identities", len(table.rows), len(table.ids))
			}
		})
	}
}

// The timer of TIME_WAIT continues between looks.
func TestLeft(t *testing.T) {
	table := newTable()
	e := line(1, second, event.FinWait2, event.TimeWait)
	table.take(&e)
	s := socket(1, 3*second, event.TimeWait)
	s.Status.Mini, s.Status.Left = true, 58*second
	table.look([]event.Event{s}, all)
	before := table.rows[1]
	if got := before.at(10 * second); got.Status.Left != 51*second || got.Dur != 9*second {
		t.Errorf("%d ns are left after %d", got.Status.Left, got.Dur)
	}
	if got := before.at(90 * second); got.Status.Left != 0 {
		t.Errorf("%d ns are left", got.Status.Left)
	}
	later := s
	later.Mono, later.Status = 5*second, status()
	later.Status.RecvQueue, later.Status.SendQueue, later.Status.Holders, later.Status.Left = 0, 0, s.Status.Holders, 56*second
	if table.look([]event.Event{later}, all); table.rows[1] != before {
		t.Error("a look that finds nothing new created a row")
	}
}

// Filters on connections decide which sockets a look adds to the table. Filters on lines are
// applied to each snapshot.
func TestWanted(t *testing.T) {
	table := newTable()
	lost := event.Event{Type: event.Lost, RingFull: 1}
	table.take(&lost)
	table.look([]event.Event{socket(1, second, event.Established), socket(2, second, event.Established)}, func(e *event.Event) bool { return e.Cookie == 2 })
	if got := rows(table, 2*second); got != "2 ESTABLISHED ≥1s 7/nc fd 3\n" {
		t.Error(got)
	}
	forAMinute := func(e *event.Event) bool { return max(e.Dur, e.Status.AtLeast) >= 60*second }
	if s := table.snapshot(60*second, forAMinute); len(s.rows) != 0 || s.sums.String() != "0 sockets" {
		t.Errorf("%d rows, %q", len(s.rows), &s.sums)
	}
	if s := table.snapshot(61*second, forAMinute); len(s.rows) != 1 || s.sums.String() != "1 socket: ESTABLISHED 1" || s.wall != 161*second {
		t.Errorf("%d rows, %q at %d", len(s.rows), &s.sums, s.wall)
	}
}

// A socket that no longer matches the filter is shown as gone.
func TestLeavesTheFilter(t *testing.T) {
	table := newTable()
	for _, e := range []event.Event{older(1, second, event.CloseWait), line(1, 3*second, event.CloseWait, event.LastAck)} {
		table.take(&e)
	}
	closeWait := func(e *event.Event) bool { return e.New == event.CloseWait }
	s := table.snapshot(4*second, closeWait)
	if len(s.rows) != 1 || s.rows[0].mark != gone || s.rows[0].New != event.CloseWait || s.exist != 0 {
		t.Errorf("%d rows: %+v", len(s.rows), s.rows)
	}
	if s := table.snapshot(5*second, closeWait); len(s.rows) != 0 {
		t.Errorf("%d rows later", len(s.rows))
	}
	if table.look([]event.Event{socket(1, 6*second, event.LastAck)}, all); table.rows[1].before != nil {
		t.Error("the row before is kept")
	}
}

// Closed sockets do not accumulate, however fast sockets close.
func TestGoneIsBounded(t *testing.T) {
	table := newTable()
	for id := uint64(1); id < 5000; id++ {
		born, end := line(id, second, event.Close, event.SynSent), line(id, second, event.SynSent, event.Close)
		table.take(&born)
		table.take(&end)
	}
	if s := table.snapshot(second, all); len(s.rows) != maxGone || s.exist != 0 || len(table.rows) != 0 || len(table.ids) != 0 {
		t.Errorf("%d rows, %d exist", len(s.rows), s.exist)
	}
	if s := table.snapshot(4*second, all); len(s.rows) != 0 || len(table.gone) != 0 {
		t.Errorf("%d rows later", len(s.rows))
	}
}
