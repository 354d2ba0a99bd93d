package conns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

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

// A ladder is at most 100 columns wide for any lines, unless an address alone is wider.
func TestIncompleteLadder(t *testing.T) {
	long := between(whole(), "2001:db8:1111:2222:3333:4444:5555:6666")
	for i := range long {
		long[i].OwnerComm = "\x1b[31m\x1b[31m\x1b[3"
	}
	loss := []event.Event{{Type: event.Lost, Mono: zero + 7*ms, Wall: noon + zero + 7*ms, RingFull: 4}}
	lost := slices.Concat(whole()[:4], loss, whole()[8:])
	gone := slices.Concat(whole()[:3], loss, whole()[:1]) // the client's socket connects again
	cookies := whole()
	cookies[1], cookies[2] = cookies[2], cookies[1]
	cookies[2].Mono, cookies[2].Origin = zero+4*ms, event.Tracepoint
	redirected := between(whole(), "10.0.0.1")
	for i := range redirected {
		if e := &redirected[i]; e.ID == 2 {
			e.Local = netip.MustParseAddrPort("10.0.0.7:80")
		}
	}
	retransmitted := whole()
	retransmitted[8].Totals = event.Totals{Known: true, Retrans: 1}
	retransmitted[9].Totals = event.Totals{Known: true, Retrans: 2}
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  []string
	}{
		{"long addresses", long, []string{"6666]:40602 →\n[2001:", `17/\x1b[31m`}},
		{"older than the trace", whole()[4:], []string{
			"               -        (ESTABLISHED)\n",
			"              │                                           (ESTABLISHED)\n" +
				"              0s          FIN_WAIT1                                             │\n",
			"client: closed first\nserver: normal\n",
		}},
		{"loss", lost, []string{"4 changes lost here", "(FIN_WAIT2)", "lines may be missing"}},
		{"loss of the end", gone, []string{"client: its last change was lost, lines may be missing\n"}},
		{"open", whole()[:3], []string{
			"client: still in ESTABLISHED, for 59.998s so far\nserver: still in SYN_RECV, for 1m0s so far\n",
		}},
		{"one end", whole()[:1],
			[]string{"0s          SYN_SENT  ────────── SYN ─────────▶\nclient: still in SYN_SENT"}},
		{"SYN cookies", cookies, []string{"              │                                             SYN_RECV\n"}},
		{"DNAT", redirected, []string{"10.0.0.1:40602 → 10.0.0.1:7781, arrived at 10.0.0.7:80\n"}},
		{"retransmissions", retransmitted, []string{" 1 segment retransmitted,", " 2 segments retransmitted,"}},
		{"no lines", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := run(t, "text", true, test.lines...)
			contains(t, got, test.want...)
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(line) - 1; n > width && !strings.Contains(line, "lost here") {
					t.Errorf("got %d columns, want at most %d: %s", n, width, line)
				}
			}
		})
	}
}

// If the listener waits for data, the ladder shows the dropped ACK at the time of its arrival.
// Something else then ends SYN_RECV.
func TestDeferredLadder(t *testing.T) {
	retransmitted := deferred()
	retransmitted[3].SynRetrans = 1
	closed := deferred() // the client sends its FIN instead of data
	closed[3], closed[4] = closed[4], closed[3]
	closed[3].Mono, closed[4].Mono = closed[4].Mono, closed[3].Mono
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  []string
	}{
		{"data", deferred(), []string{
			"            +3ms              │ ──────────────── ACK ────────────────▶ (waiting for data)\n" +
				"             +2s              │ ───────────────── data ─────────────────▶  ESTABLISHED\n",
			"server: normal, waited 2.00s for data (TCP_DEFER_ACCEPT), lived 2.014s",
		}},
		{"SYN-ACK retransmitted", retransmitted, []string{"──── ACK ───", "─ ACK or data ─"}},
		{"FIN", closed, []string{"──── ACK ───", "─ data or FIN ─"}},
		{"server only", []event.Event{deferred()[1], deferred()[3]}, []string{"◀──── data or FIN ", "◀────── ACK ───"}},
	} {
		t.Run(test.name, func(t *testing.T) { contains(t, run(t, "text", true, test.lines...), test.want...) })
	}
}

// Two ends that may belong to different connections are drawn side by side, without arrows between
// them.
func TestPairing(t *testing.T) {
	lines := between(whole(), "10.0.0.1")
	for i := range lines {
		lines[i].NetNS = uint32(lines[i].ID)
	}
	for _, test := range []struct {
		name           string
		client, server uint32 // ISNs
		arrows         int
		ladders        int
		pairing        string
		peers          int
	}{
		{"perhaps", 0, 0, 0, 1, `"perhaps"`, 2},
		{"by ISN", 7, 7, 4, 1, `"isn"`, 2},
		{"different ISNs", 7, 8, 3, 2, `null`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines[0].ISN, lines[1].ISN = test.client, test.server
			text := run(t, "text", true, lines...)
			if got := strings.Count(text, "→"); got != test.ladders {
				t.Errorf("got %d ladders, want %d:\n%s", got, test.ladders, text)
			}
			if got := strings.Count(text, "▶"); got != test.arrows {
				t.Errorf("got %d arrows to the right, want %d:\n%s", got, test.arrows, text)
			}
			if test.arrows == 0 && strings.ContainsAny(text, "◀─") {
				t.Errorf("got arrows, want none:\n%s", text)
			}
			remark := "these may be two connections"
			if got, want := strings.Contains(text, remark), test.name == "perhaps"; got != want {
				t.Errorf("%q: got %v, want %v:\n%s", remark, got, want, text)
			}
			json := run(t, "ndjson", false, lines...)
			if got := strings.Count(json, `"pairing":`+test.pairing); got != 2 {
				t.Errorf("pairing: got %d times %s, want 2:\n%s", got, test.pairing, json)
			}
			if got := 2 - strings.Count(json, `"peer_id":null`); got != test.peers {
				t.Errorf("got %d peers, want %d:\n%s", got, test.peers, json)
			}
		})
	}
}

// A RST is drawn only if the reason involves one, and in the direction in which it was sent.
func TestReset(t *testing.T) {
	received := []event.Reason{event.ReasonRefused, event.ReasonResetByPeer}
	sent := []event.Reason{
		event.ReasonResetSentUnread, event.ReasonResetSentLinger, event.ReasonResetSentLinger2,
		event.ReasonResetSentLateData, event.ReasonResetSentSyn, event.ReasonTooManyOrphans,
	}
	for r := event.ReasonNormal; r.String() != strconv.Itoa(int(r)); r++ {
		t.Run(r.String(), func(t *testing.T) {
			reset := change(1, 9*ms, event.Established, event.Close, 6*ms)
			reset.Reason = r
			want := ""
			switch {
			case slices.Contains(received, r):
				want = "◀"
			case slices.Contains(sent, r):
				want = "▶"
			}
			got := ""
			for line := range strings.Lines(run(t, "text", true, whole()[0], whole()[2], reset)) {
				if strings.Contains(line, " RST ") {
					got += strings.Trim(line, "0123456789 +-.smCLOSERT─\n")
				}
			}
			if got != want {
				t.Errorf("arrow of the RST: got %q, want %q", got, want)
			}
		})
	}
}
