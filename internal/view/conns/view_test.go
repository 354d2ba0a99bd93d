package conns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sstrace/internal/event"
)

func TestText(t *testing.T) {
	lines := whole()
	lines[8].Totals = event.Totals{Known: true, BytesAcked: 1234567, BytesReceived: 12, SRTT: 57, Retrans: 3}
	got := strings.Split(run(t, "text", false, lines...), "\n")
	want := "14:16:40.000000000           14ms client 127.0.0.1:40602       127.0.0.1:7781        17/nc              " +
		" 1.23 MB     12 B    57µs here  TIME_WAIT                " +
		"SYN_SENT 3.00ms, ESTABLISHED 7.00ms, FIN_WAIT1 3.00ms, FIN_WAIT2 1.00ms, 3 retransmitted"
	if got[1] != want {
		t.Errorf("got:\n%s\nwant:\n%s", got[1], want)
	}
	if len(got) != 4 || strings.Contains(got[2], " open ") { // header, two ends, empty string
		t.Errorf("got %q", got)
	}
}

func TestOpenText(t *testing.T) {
	contains(t, run(t, "text", false, whole()[:3]...),
		" open                     SYN_SENT 3.00ms, ESTABLISHED 1m00s so far\n",
		" open                     SYN_RECV 1m00s so far\n")
}

// The round-trip time that the text shows is the one from ESTABLISHED, without the delayed ACK of
// the FIN.
func TestRoundTripTime(t *testing.T) {
	lines := whole()
	lines[8].Totals = event.Totals{Known: true, SRTT: 2500, SRTTOpen: 57}
	contains(t, run(t, "text", false, lines...), "    57µs here ")
	contains(t, run(t, "text", true, lines...), ", RTT 57µs,")
	contains(t, run(t, "ndjson", false, lines...), `"srtt_us":2500,"srtt_open_us":57,`)
}

// If the trace does not include the beginning of an end, the values that depend on it are null.
func TestOlder(t *testing.T) {
	contains(t, run(t, "ndjson", false, whole()[4:]...),
		`"opened":null,"opened_mono_ns":null,"life_ns":null,`+
			`"states":{"ESTABLISHED":7000000,"FIN_WAIT1":3000000,"FIN_WAIT2":1000000,"TIME_WAIT":null}`,
		`"peer_id":2`)
}

func TestDeferred(t *testing.T) {
	contains(t, run(t, "text", false, deferred()...), " SYN_RECV 2.00s (waited 2.00s for data), ESTABLISHED ")
	got := run(t, "ndjson", false, deferred()...)
	if strings.Count(got, `"defer_ns":null`) != 1 || strings.Count(got, `"defer_ns":2000000000`) != 1 {
		t.Errorf("defer_ns: want null at the client's end and 2 s at the server's:\n%s", got)
	}
}

// The end of a connect() that sent no SYN was never in any state.
func TestConnectFailed(t *testing.T) {
	e := change(1, 0, 0, 0, event.Unknown)
	e.Type, e.Local, e.Reason, e.Err = event.ConnectFailed, netip.AddrPort{}, event.ReasonUnreachable, 113
	e.IfIndex, e.IfName = 7, "vrf-red"
	got := strings.Join(strings.Fields(strings.Split(run(t, "text", false, e), "\n")[1]), " ")
	want := "- - client - 127.0.0.1:7781 17/nc - - - - unreachable EHOSTUNREACH no SYN was sent"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	contains(t, run(t, "ndjson", false, e),
		`"lport":null,"raddr":"127.0.0.1","rport":7781,"ifindex":7,"ifname":"vrf-red",`+
			`"role":"client","state":"CLOSE","state_ns":null,"open":false,"lost":false,`+
			`"opened":null,"opened_mono_ns":null,"life_ns":null,"states":{},`+
			`"queue_ns":null,"defer_ns":null,"no_syn":true,`,
		`"reason":"unreachable","err":113,`)
	contains(t, run(t, "text", true, e),
		"  - → 127.0.0.1:7781\n                           client\n                            17/nc\n"+
			"              0s          (failed)\nclient: unreachable EHOSTUNREACH, no SYN was sent\n")
}

// If one line is wanted, both ends are wanted, even if one of them is already closed.
func TestWanted(t *testing.T) {
	for wanted, want := range map[int]int{-1: 0, 0: 2, 4: 2, 6: 2, 8: 2, 9: 2} { // line 9 closes the client's end
		t.Run(fmt.Sprint("line ", wanted), func(t *testing.T) {
			lines := whole()
			for i := range lines {
				lines[i].Unwanted = i != wanted
			}
			if got := strings.Count(run(t, "ndjson", false, lines...), `"type":"conn"`); got != want {
				t.Errorf("got %d ends, want %d", got, want)
			}
			if got := strings.Count(run(t, "text", true, lines...), "client:"); got != want/2 {
				t.Errorf("got %d ladders, want %d", got, want/2)
			}
		})
	}
}
