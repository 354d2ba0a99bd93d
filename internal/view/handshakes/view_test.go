package handshakes

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/rollup"
)

// A leg that needs both ends is null if it is uncertain that they belong to one connection.
func TestNDJSON(t *testing.T) {
	byISN := between("10.0.0.1:40602", "10.0.0.1:7781")
	byISN[0].ISN, byISN[1].ISN = 7, 7
	hosts := with(whole(), func(_ int, e *event.Event) { e.IfIndex, e.IfName = 3, "eth0" })
	hosts[4].OwnerPID = 8471 | event.HostPID
	const legs = `"syn_ns":1000000,"synack_ns":2000000,"ack_ns":3000000,"accept_ns":4000000,` +
		`"connect_ns":3000000,"server_ns":5000000`
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  []string
	}{
		{"by tuple", whole(), []string{`"pairing":"tuple",` + legs + `,"defer_ns":null,"no_syn":false,`}},
		{"by ISN", byISN, []string{`"pairing":"isn",` + legs + `,"defer_ns":null,"no_syn":false,`}},
		{"perhaps", between("10.0.0.1:40602", "10.0.0.1:7781"), []string{
			`"pairing":"perhaps","syn_ns":null,"synack_ns":null,"ack_ns":null,"accept_ns":4000000,` +
				`"connect_ns":3000000,"server_ns":5000000,`,
		}},
		{"deferred", deferredHandshake(), []string{
			`"pairing":"tuple",` + legs + `,"defer_ns":2180000000,`, `"defer":{"count":1,"min_ns":2180000000,`,
		}},
		{"host PID", hosts, []string{
			`"ifindex":3,"ifname":"eth0","syn_retrans":0,"owner_pid":null,"owner_host_pid":8471,"owner_comm":"worker"`,
		}},
		{"open", whole()[1:2], []string{`"state":"open","pairing":null,`, `"client":null,`}},
		{"no SYN", []event.Event{unreachable()}, []string{
			`"state":"failed","pairing":null,"syn_ns":null,"synack_ns":null,"ack_ns":null,"accept_ns":null,` +
				`"connect_ns":null,"server_ns":null,"defer_ns":null,"no_syn":true,` +
				`"reason":"unreachable","err":113,"failed_end":"client"`,
			`"laddr":null,"lport":null,"raddr":"127.0.0.1","rport":7781`,
			`"failed":1,"open":0,"lost":0,"reasons":{"unreachable":1}`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			contains(t, run(t, "ndjson", Options{}, append(test.lines, endAt(3000*ms))...), test.want...)
		})
	}
}

func TestGroups(t *testing.T) {
	refused := ended(3, 12*ms, event.SynSent, 2*ms, event.ReasonRefused, 0)
	lines := append(whole(), change(3, 11*ms, event.Close, event.SynSent, event.Unknown), refused, endAt(20*ms))
	for by, want := range map[string]string{
		"port": "\nport 7781: 2 handshakes (1 accepted, 1 failed)\n", "remote": "\nremote 127.0.0.1: 2 handshakes",
		"process": "\nprocess worker: 1 handshake (1 accepted)\n", "container": "\ncontainer -: 2 handshakes",
	} {
		t.Run(by, func(t *testing.T) {
			got := run(t, "text", Options{Summary: true, By: by}, lines...)
			if !strings.HasPrefix(got, "14:16:40  2 handshakes (1 accepted, 1 failed) in 20ms, the whole run\n") {
				t.Errorf("got:\n%s", got)
			}
			contains(t, got, want,
				"SYN                    1   1.00ms   1.00ms", "SYN-ACK                1   2.00ms",
				"ACK                    1   3.00ms", "ACCEPT                 1   4.00ms",
				"SYN + SYN-ACK          1   3.00ms", "SYN-ACK + ACK          1   5.00ms", "refused                1\n")
		})
	}
}

func TestScopedGroup(t *testing.T) {
	e := whole()[1]
	e.Remote, e.IfIndex, e.IfName = netip.MustParseAddrPort("[fe80::9]:40602"), 3, "eth0"
	got := run(t, "text", Options{Summary: true, By: "remote"}, e, endAt(ms))
	contains(t, got, "\nremote fe80::9%eth0: 1 handshake (1 open)\n")
}

// Groups beyond the limit are reported together as one.
func TestGroupsAreBounded(t *testing.T) {
	var lines []event.Event
	for i := range rollup.Max + 50 {
		e := ended(uint64(2*i+1), int64(i), event.SynSent, event.Unknown, event.ReasonRefused, 0)
		e.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		lines = append(lines, e)
	}
	lines = append(lines, endAt(ms))
	o := Options{Summary: true, By: "remote"}
	got := run(t, "ndjson", o, lines...)
	if n := strings.Count(got, `"type":"handshakes"`); n != rollup.Max+1 {
		t.Errorf("got %d lines, want %d", n, rollup.Max+1)
	}
	contains(t, got, `"group":null,"others":true,"accepted":0,"established":0,"failed":50,`)
	contains(t, run(t, "text", o, lines...),
		fmt.Sprintf("all others: %d handshakes", rollup.Max+50-maxShown),
		"--- more than 1000 groups: later ones are only in the last table ---\n")
}

// Lost changes are reported where they are missing, or otherwise in the tables.
func TestLost(t *testing.T) {
	lost := event.Event{Type: event.Lost, Mono: zero + 11*ms, Wall: noon + zero + 11*ms, RingFull: 3}
	lines := append(whole(), lost, endAt(20*ms))
	contains(t, run(t, "text", Options{}, lines...), " 3 changes lost here, ", "\n--- 3 changes lost in this period, ")
	got := run(t, "text", Options{Summary: true}, lines...)
	contains(t, got, "\n--- 3 changes lost in this period, ")
	if strings.Contains(got, "lost here") {
		t.Errorf("reported twice:\n%s", got)
	}
}

// A period without traffic has no intervals.
func TestIntervals(t *testing.T) {
	later := with(whole(), func(_ int, e *event.Event) {
		e.Mono, e.Wall, e.ID = e.Mono+3600*1000*ms, e.Wall+3600*1000*ms, e.ID+2
	})
	lines := append(append(whole(), later...), endAt(3601*1000*ms))
	got := run(t, "ndjson", Options{Summary: true, Interval: time.Second}, lines...)
	var spans []string
	for _, m := range regexp.MustCompile(`"interval_ns":(\d+)`).FindAllStringSubmatch(got, -1) {
		spans = append(spans, m[1])
	}
	if want := "1000000000 1000000000 3601000000000"; strings.Join(spans, " ") != want {
		t.Errorf("got intervals %v, want %s:\n%s", spans, want, got)
	}
}

func TestStart(t *testing.T) {
	for _, test := range []struct {
		name string
		o    Options
		want string
	}{
		{"lines", Options{}, "TIME  "},
		{"summary", Options{Summary: true},
			"Timing handshakes: the table appears at the end; --interval 10s also prints one every 10 s\n"},
		{"intervals", Options{Summary: true, Interval: time.Minute},
			"Timing handshakes: a table every 1m0s, and one for the whole run at the end\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			if err := New(&out, "text", false, test.o).Idle(zero); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(out.String(), test.want) {
				t.Errorf("got %q, want %q", out.String(), test.want)
			}
		})
	}
}
