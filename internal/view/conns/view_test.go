package conns

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

const (
	zero = int64(1000e9)
	noon = 1795356000 * int64(time.Second) // 2026-11-22 14:00 UTC, at mono 0
	ms   = int64(time.Millisecond)
)

// change makes a line of the client (id 1) or the server (id 2), after ns.
func change(id uint64, after int64, old, new event.State, dur int64) event.Event {
	e := event.Event{
		Type: event.Change, Wall: noon + zero + after, Mono: zero + after, ID: id, Sk: id, NetNS: 1, Family: event.IPv4, Proto: event.TCP, Old: old, New: new, Dur: dur,
		Local: netip.MustParseAddrPort("127.0.0.1:40602"), Remote: netip.MustParseAddrPort("127.0.0.1:7781"),
		Origin: event.Tracepoint, Role: event.Client, OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaConnect, SynRetrans: event.Unknown,
	}
	if id == 2 {
		e.Local, e.Remote, e.Role, e.OwnerPID, e.OwnerComm, e.OwnerVia = e.Remote, e.Local, event.Server, 18, "clerk", event.ViaListener
		if old == event.Listen {
			e.Origin = event.FromTimer
		}
	}
	return e
}

// whole is a connection; its client closes first.
func whole() []event.Event {
	all := []event.Event{
		change(1, 0, event.Close, event.SynSent, event.Unknown), change(2, ms, event.Listen, event.SynRecv, event.Unknown),
		change(1, 3*ms, event.SynSent, event.Established, 3*ms), change(2, 6*ms, event.SynRecv, event.Established, 5*ms),
		change(1, 10*ms, event.Established, event.FinWait1, 7*ms), change(2, 11*ms, event.Established, event.CloseWait, 5*ms),
		change(2, 12*ms, event.CloseWait, event.LastAck, ms), change(1, 13*ms, event.FinWait1, event.FinWait2, 3*ms),
		change(1, 14*ms, event.FinWait2, event.TimeWait, ms), change(2, 15*ms, event.LastAck, event.Close, 3*ms), change(1, 60000*ms, event.TimeWait, event.Close, 59985*ms),
	}
	all[8].Closer = event.WeClosed
	all[9].Closer, all[9].Reason = event.TheyClosed, event.ReasonNormal
	return all
}

func run(t *testing.T, format string, timeline bool, lines ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	c := New(&out, format, false, timeline)
	lines = append(lines, event.Event{Type: event.End, Mono: zero + 60001*ms, Wall: noon + zero + 60001*ms, Balance: &event.Balance{}})
	for i := range lines {
		if err := c.Take(&lines[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(1); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLadder(t *testing.T) {
	want := `14:16:40.000000000  127.0.0.1:40602 → 127.0.0.1:7781
                           client                                            server
                            17/nc                                           18/clerk
              0s          SYN_SENT
            +1ms              │ ─────────────────── SYN ──────────────────▶ SYN_RECV
            +2ms         ESTABLISHED  ◀─────────────── SYN-ACK ──────────────── │
            +3ms              │ ────────────────── ACK ─────────────────▶  ESTABLISHED
            +4ms          FIN_WAIT1                                             │
            +1ms              │ ────────────────── FIN ──────────────────▶ CLOSE_WAIT
            +1ms              │                                             LAST_ACK
            +1ms          FIN_WAIT2  ◀───────────────── ACK ─────────────────── │
            +1ms          TIME_WAIT  ◀───────────────── FIN ─────────────────── │
            +1ms              ┊ ─────────────────── ACK ───────────────────▶  CLOSE
client: closed first, lived 14ms
server: normal, lived 14ms
`
	if got := run(t, "text", true, whole()...); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// Whatever the lines are, the ladder has 100 columns, unless an address alone has more.
func TestLadderOfWhatIsNotWhole(t *testing.T) {
	long := whole()
	for i := range long {
		a := netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
		long[i].Local, long[i].Remote = netip.AddrPortFrom(a, long[i].Local.Port()), netip.AddrPortFrom(a, long[i].Remote.Port())
		long[i].OwnerComm = "\x1b[31m\x1b[31m\x1b[3"
	}
	lost := whole()[:4:4]
	lost = append(lost, event.Event{Type: event.Lost, Mono: zero + 7*ms, Wall: noon + zero + 7*ms, RingFull: 4})
	lost = append(lost, whole()[8:]...)
	cookies := whole()
	cookies[1], cookies[2] = cookies[2], cookies[1]
	cookies[2].Mono, cookies[2].Origin = zero+4*ms, event.Tracepoint
	for name, test := range map[string]struct {
		lines []event.Event
		want  []string
	}{
		"long addresses": {long, []string{"6666]:40602 →\n[2001:", `17/\x1b[31m`}},
		"older": {whole()[4:], []string{
			"               -        (ESTABLISHED)\n", "              │                                           (ESTABLISHED)\n              0s          FIN_WAIT1                                             │\n", "client: closed first\nserver: normal\n",
		}},
		"lost":     {lost, []string{"4 changes lost here", "(FIN_WAIT2)", "lines may be missing"}},
		"open":     {whole()[:3], []string{"client: still in ESTABLISHED, for 59.998s\nserver: still in SYN_RECV, for 1m0s\n"}},
		"one end":  {whole()[:1], []string{"0s          SYN_SENT  ────────── SYN ─────────▶\nclient: still in SYN_SENT"}},
		"cookies":  {cookies, []string{"              │                                             SYN_RECV\n"}},
		"no lines": {nil, nil},
	} {
		got := run(t, "text", true, test.lines...)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
		for line := range strings.Lines(got) {
			if n := len([]rune(line)); n > width+1 && !strings.Contains(line, "lost here") {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

// The ACK that was dropped because the listener waits for data came when it came, and what ended SYN_RECV is something else.
func TestLadderOfDeferred(t *testing.T) {
	waits := whole()
	for i := range waits[3:] {
		waits[3+i].Mono += 2000 * ms
	}
	waits[3].Deferred, waits[3].Dur, waits[3].SynRetrans = 2000*ms, 2005*ms, 0
	again := slices.Clone(waits)
	again[3].SynRetrans = 1
	closed := slices.Clone(waits) // the client's FIN comes instead of data
	closed[3], closed[4] = closed[4], closed[3]
	closed[3].Mono, closed[4].Mono = closed[4].Mono, closed[3].Mono
	for _, test := range []struct {
		lines []event.Event
		want  []string
	}{
		{waits, []string{
			"            +3ms              │ ───────────────── ACK ────────────────▶ (waits for data)\n             +2s              │ ───────────────── data ─────────────────▶  ESTABLISHED\n",
			"server: normal, waited 2.00s for data (TCP_DEFER_ACCEPT), lived 2.014s",
		}},
		{again, []string{"──── ACK ───", "─ ACK or data ─"}},
		{closed, []string{"──── ACK ───", "─ data or FIN ─"}},
		{[]event.Event{waits[1], waits[3]}, []string{"◀──── data or FIN ", "◀─────── ACK ───"}},
	} {
		got := run(t, "text", true, test.lines...)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
	if got := run(t, "text", false, waits...); !strings.Contains(got, " SYN_RECV 2.00s (waited 2.00s for data), ESTABLISHED ") {
		t.Errorf("got %s", got)
	}
	if got := run(t, "ndjson", false, waits...); strings.Count(got, `"defer_ns":null`) != 1 || strings.Count(got, `"defer_ns":2000000000`) != 1 {
		t.Errorf("got %s", got)
	}
}

// Ends that are perhaps of two connections stand beside each other, and no arrow joins them.
func TestPerhaps(t *testing.T) {
	lines := whole()
	for i := range lines {
		e := &lines[i]
		e.NetNS = uint32(e.ID)
		for _, a := range []*netip.AddrPort{&e.Local, &e.Remote} {
			*a = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), a.Port())
		}
	}
	got := run(t, "text", true, lines...)
	if strings.ContainsAny(got, "▶◀─") || strings.Count(got, "client:") != 1 || !strings.Contains(got, "SYN_RECV") || !strings.Contains(got, "perhaps these are two connections") {
		t.Errorf("got\n%s", got)
	}
	if got := run(t, "ndjson", false, lines...); strings.Count(got, `"pairing":"perhaps"`) != 2 || strings.Count(got, `"peer_id":null`) != 0 {
		t.Errorf("got %s", got)
	}
	lines[0].ISN, lines[1].ISN = 7, 7
	if got := run(t, "text", true, lines...); strings.Count(got, "▶") != 4 || strings.Contains(got, "perhaps") {
		t.Errorf("got\n%s", got)
	}
	if got := run(t, "ndjson", false, lines...); strings.Count(got, `"pairing":"isn"`) != 2 {
		t.Errorf("got %s", got)
	}
	lines[1].ISN = 8
	if got := run(t, "text", true, lines...); strings.Count(got, "lived") != 2 || strings.Count(got, "\n\n") != 1 {
		t.Errorf("each alone, got\n%s", got)
	}
	if got := run(t, "ndjson", false, lines...); strings.Count(got, `"pairing":null`) != 2 || strings.Count(got, `"peer_id":null`) != 2 {
		t.Errorf("got %s", got)
	}
}

// Of the reasons, only those that are about an RST have one drawn, and one that was sent goes the other way.
func TestReset(t *testing.T) {
	for r := event.ReasonNormal; r.String() != strconv.Itoa(int(r)); r++ {
		lines := whole()[:5]
		lines[4] = change(1, 9*ms, event.Established, event.Close, 6*ms)
		lines[4].Reason = r
		alone := []event.Event{lines[0], lines[2], lines[4]}
		want := ""
		switch r {
		case event.ReasonRefused, event.ReasonResetByPeer:
			want = "◀"
		case event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2, event.ReasonResetSentLateData, event.ReasonResetSentSyn,
			event.ReasonTooManyOrphans:
			want = "▶"
		}
		got := ""
		for line := range strings.Lines(run(t, "text", true, alone...)) {
			if strings.Contains(line, " RST ") {
				got += strings.Trim(line, "0123456789 +-.smCLOSERT─\n")
			}
		}
		if got != want {
			t.Errorf("%v: RST is drawn %q, want %q", r, got, want)
		}
	}
}

// A connect() that sent no SYN: an end that was in no state.
func TestNoSyn(t *testing.T) {
	e := change(1, 0, 0, 0, event.Unknown)
	e.Type, e.Local, e.Reason, e.Err, e.IfIndex, e.IfName = event.ConnectFailed, netip.AddrPort{}, event.ReasonUnreachable, 113, 7, "vrf-red"
	text := strings.Split(run(t, "text", false, e), "\n")
	if got, want := strings.Join(strings.Fields(text[1]), " "), "- - client - 127.0.0.1:7781 17/nc - - - - unreachable EHOSTUNREACH no SYN was sent"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got := run(t, "ndjson", false, e)
	for _, want := range []string{
		`"lport":null,"raddr":"127.0.0.1","rport":7781,"ifindex":7,"ifname":"vrf-red","role":"client","state":"CLOSE","state_ns":null,"open":false,"lost":false,` +
			`"opened":null,"opened_mono_ns":null,"life_ns":null,"states":{},"queue_ns":null,"defer_ns":null,"no_syn":true,`, `"reason":"unreachable","err":113,`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	want := "  - → 127.0.0.1:7781\n                           client\n                            17/nc\n              0s          (failed)\nclient: unreachable EHOSTUNREACH, no SYN was sent\n"
	if got := run(t, "text", true, e); !strings.HasSuffix(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// A line that is wanted makes both ends wanted, also when one of them is over.
func TestWanted(t *testing.T) {
	for at, want := range map[int]int{0: 2, 4: 2, 6: 2, 8: 2, 9: 2, -1: 0} { // the last line but one comes when the client's end is over
		lines := whole()
		for i := range lines {
			lines[i].Unwanted = i != at
		}
		if got := strings.Count(run(t, "ndjson", false, lines...), `"type":"conn"`); got != want {
			t.Errorf("line %d is wanted: %d ends are told, want %d", at, got, want)
		}
		if got := strings.Count(run(t, "text", true, lines...), "client:"); got != want/2 {
			t.Errorf("line %d is wanted: %d are drawn, want %d", at, got, want/2)
		}
	}
}

func TestText(t *testing.T) {
	lines := whole()
	lines[8].Totals = event.Totals{Known: true, BytesAcked: 1234567, BytesReceived: 12, SRTT: 57, Retrans: 3}
	got := strings.Split(run(t, "text", false, lines...), "\n")
	if want := "14:16:40.000000000           14ms client 127.0.0.1:40602       127.0.0.1:7781        17/nc               1.23 MB     12 B    57µs here  TIME_WAIT                " +
		"SYN_SENT 3.00ms, ESTABLISHED 7.00ms, FIN_WAIT1 3.00ms, FIN_WAIT2 1.00ms, 3 sent again"; got[1] != want {
		t.Errorf("got:\n%s\nwant:\n%s", got[1], want)
	}
	lines[8].Totals.SRTT, lines[8].Totals.SRTTOpen = 2500, 57 // with the delayed ACK of the FIN, and before it
	if text := run(t, "text", false, lines...); !strings.Contains(text, "    57µs here ") {
		t.Errorf("the round-trip time is not that of ESTABLISHED:\n%s", text)
	}
	if text := run(t, "text", true, lines...); !strings.Contains(text, ", RTT 57µs,") {
		t.Errorf("the round-trip time is not that of ESTABLISHED:\n%s", text)
	}
	if text := run(t, "ndjson", false, lines...); !strings.Contains(text, `"srtt_us":2500,"srtt_open_us":57,`) {
		t.Errorf("got %s", text)
	}
	if want := "-        - -     open "; len(got) != 4 || strings.Contains(got[2], want) {
		t.Errorf("got %q", got)
	}
}

// An end older than the trace: what is not known is null.
func TestOlder(t *testing.T) {
	got := run(t, "ndjson", false, whole()[4:]...)
	for _, want := range []string{`"opened":null,"opened_mono_ns":null,"life_ns":null,"states":{"ESTABLISHED":7000000,"FIN_WAIT1":3000000,"FIN_WAIT2":1000000,"TIME_WAIT":null}`, `"peer_id":2`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}
