package handshakes

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
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

var (
	client = netip.MustParseAddrPort("127.0.0.1:40602")
	server = netip.MustParseAddrPort("127.0.0.1:7781")
)

// change makes one of the client (id 1) or the server (id 2), after ns.
func change(id uint64, after int64, old, new event.State, dur int64) event.Event {
	e := event.Event{
		Type: event.Change, Wall: noon + zero + after, Mono: zero + after, ID: id, Sk: id, NetNS: 1, Family: event.IPv4, Proto: event.TCP, Local: client, Remote: server,
		Old: old, New: new, Dur: dur, Origin: event.Tracepoint, Role: event.Client, OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaConnect, SynRetrans: event.Unknown,
	}
	if old == event.SynSent || old == event.SynRecv {
		e.SynRetrans = 0
	}
	if id%2 == 0 {
		e.Local, e.Remote, e.Role, e.OwnerComm, e.OwnerVia = server, client, event.Server, "clerk", event.ViaListener
		if old == event.Listen {
			e.Origin = event.FromTimer
		}
	}
	return e
}

func accepted2(after, queued int64) event.Event {
	e := change(2, after, 0, 0, queued)
	e.Type, e.OwnerPID, e.OwnerComm, e.OwnerVia = event.Accept, 18, "worker", event.ViaAccept
	return e
}

func ending(after int64) event.Event {
	return event.Event{Type: event.End, Wall: noon + zero + after, Mono: zero + after, Balance: &event.Balance{}}
}

// whole is a handshake: the SYN takes 1 ms, the SYN-ACK 2, the ACK 3, accept() 4.
func whole() []event.Event {
	return []event.Event{
		change(1, 0, event.Close, event.SynSent, event.Unknown), change(2, ms, event.Listen, event.SynRecv, event.Unknown),
		change(1, 3*ms, event.SynSent, event.Established, 3*ms), change(2, 6*ms, event.SynRecv, event.Established, 5*ms), accepted2(10*ms, 4*ms),
	}
}

func run(t *testing.T, format string, o Options, lines ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	h := New(&out, format, false, o)
	for i := range lines {
		if err := h.Take(&lines[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Flush(0); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// rows gives those of the handshakes, in text, each from its times on, blanks squeezed.
func rows(text string) (rows []string) {
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); f[0] != "TIME" {
			rows = append(rows, strings.Join(f[1:], " "))
		}
	}
	return rows
}

func TestLines(t *testing.T) {
	retried := whole()
	retried[2].SynRetrans, retried[3].SynRetrans = 1, 2
	cookies := []event.Event{whole()[0], whole()[2], change(2, 5*ms, event.Listen, event.SynRecv, event.Unknown), change(2, 6*ms, event.SynRecv, event.Established, ms), whole()[4]}
	cookies[2].Origin = event.Tracepoint
	early := whole() // the server's line has an earlier time than its cause, by another CPU's clock
	early[3].Mono = zero + 2*ms
	lost := whole()
	lost = append(lost[:2:2], append([]event.Event{{Type: event.Lost, Mono: zero + 2*ms, Wall: noon + zero + 2*ms, RingFull: 3}}, lost[2:]...)...)
	lost[3].Dur, lost[4].Dur, lost[5].Dur = event.Unknown, event.Unknown, event.Unknown
	refused := change(1, 2*ms, event.SynSent, event.Close, 2*ms)
	refused.Reason, refused.Err = event.ReasonRefused, 111
	abandoned := change(2, 9*ms, event.SynRecv, event.Close, 8*ms)
	abandoned.Reason = event.ReasonHandshakeAbandoned
	timeout := change(1, 1400*ms, event.SynSent, event.Close, 1400*ms)
	timeout.Reason, timeout.Err = event.ReasonTimedOut, 110
	noPort := []event.Event{change(1, 0, event.Close, event.SynSent, event.Unknown), change(1, 5000, event.SynSent, event.Close, 5000)}
	for i := range noPort {
		noPort[i].Local = netip.AddrPortFrom(client.Addr(), 0)
	}
	noPort[1].Reason, noPort[1].Err = event.ReasonNoPort, 99
	noSyn := change(1, 0, 0, 0, event.Unknown)
	noSyn.Type, noSyn.Local, noSyn.Reason, noSyn.Err = event.ConnectFailed, netip.AddrPort{}, event.ReasonUnreachable, 113
	waits := whole() // for data, 2.18 s
	waits[3] = change(2, 2186*ms, event.SynRecv, event.Established, 2185*ms)
	waits[3].Deferred = 2180 * ms
	waits[4] = accepted2(2190*ms, 4*ms)
	noData := change(2, 2186*ms, event.SynRecv, event.Close, 2185*ms)
	noData.Deferred, noData.Reason = 2180*ms, event.ReasonHandshakeAbandoned
	perhaps := whole()
	for i := range perhaps { // in two network namespaces
		e := &perhaps[i]
		e.NetNS, e.Local, e.Remote = uint32(e.ID), netip.MustParseAddrPort("10.0.0.1:40602"), netip.MustParseAddrPort("10.0.0.2:7781")
		if e.ID == 2 {
			e.Local, e.Remote = e.Remote, e.Local
		}
	}
	certain, apart := slices.Clone(perhaps), slices.Clone(perhaps)
	certain[0].ISN, certain[1].ISN = 7, 7
	apart[0].ISN, apart[3].ISN = 7, 8 // known late
	linkLocal := whole()
	for i := range linkLocal {
		e := &linkLocal[i]
		e.IfIndex, e.IfName, e.Local, e.Remote = 4, "eth1", netip.MustParseAddrPort("[fe80::2]:40602"), netip.MustParseAddrPort("[fe80::1]:7781")
		if e.ID == 2 {
			e.Local, e.Remote = e.Remote, e.Local
		}
	}
	linkLocal[4].OwnerPID |= event.HostPID
	hostile := whole()
	hostile[4].OwnerComm = "\x1b[31m\n"
	unwanted := whole()
	for i := range unwanted {
		unwanted[i].Unwanted = true
	}
	one := whole()
	for i := range one {
		one[i].Unwanted = i != 1
	}
	ends := "127.0.0.1:40602 17/nc 127.0.0.1:7781 18/worker "
	for _, test := range []struct {
		name  string
		lines []event.Event
		want  string
	}{
		{"both ends", whole(), "1ms 2ms 3ms 4ms " + ends + "accepted"},
		{"sent again", retried, "1ms 2ms 3ms 4ms " + ends + "accepted, SYN sent again 1×, SYN-ACK sent again 2×"},
		{"SYN cookies", cookies, "├───────── 3ms ─────────┤ 3ms 4ms " + ends + "accepted"},
		{"an effect before its cause", early, "1ms 2ms - 4ms " + ends + "accepted"},
		{"a loss", lost, "1ms - 3ms - " + ends + "accepted, lines lost"},
		{"not accepted", whole()[:4], "1ms 2ms 3ms - 127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk established, no accept() seen"},
		{"open", whole()[:1], "- - - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 - open"},
		{"client alone", []event.Event{whole()[0], whole()[2]}, "├───────── 3ms ─────────┤ - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 - established"},
		{"server alone", []event.Event{whole()[1], whole()[3], whole()[4]}, "- ├───────── 5ms ─────────┤ 4ms 127.0.0.1:40602 - 127.0.0.1:7781 18/worker accepted"},
		{"refused", []event.Event{whole()[0], refused}, "- - - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 - failed after 2.00ms: refused ECONNREFUSED"},
		{"no answer", []event.Event{whole()[0], whole()[1], timeout}, "1ms - - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk failed after 1.40s: timeout ETIMEDOUT"},
		{"no answer yet", whole()[:2], "1ms - - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk open"},
		{"abandoned, the client elsewhere", []event.Event{whole()[1], abandoned}, "- - - - 127.0.0.1:40602 - 127.0.0.1:7781 17/clerk failed after 8.00ms: handshake_abandoned"},
		{"no port", []event.Event{noPort[0], noPort[1]}, "- - - - 127.0.0.1:- 17/nc 127.0.0.1:7781 - failed after 5.00µs: no_port EADDRNOTAVAIL, no SYN was sent"},
		{"no SYN", []event.Event{noSyn}, "- - - - - 17/nc 127.0.0.1:7781 - failed: unreachable EHOSTUNREACH, no SYN was sent"},
		{"deferred", waits, "1ms 2ms 3ms 4ms " + ends + "accepted, waited 2.18s for data (TCP_DEFER_ACCEPT)"},
		{"deferred, the client elsewhere", []event.Event{waits[1], waits[3], waits[4]},
			"- ├───────── 5ms ─────────┤ 4ms 127.0.0.1:40602 - 127.0.0.1:7781 18/worker accepted, waited 2.18s for data (TCP_DEFER_ACCEPT)"},
		{"deferred, and no data came", []event.Event{waits[0], waits[1], waits[2], noData},
			"1ms 2ms 3ms - 127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk failed after 2.19s: handshake_abandoned (server's end), waited 2.18s for data (TCP_DEFER_ACCEPT)"},
		{"deferred, no data came, the client elsewhere", []event.Event{waits[1], noData},
			"- ├───────── 5ms ─────────┤ - 127.0.0.1:40602 - 127.0.0.1:7781 17/clerk failed after 2.19s: handshake_abandoned, waited 2.18s for data (TCP_DEFER_ACCEPT)"},
		{"perhaps", perhaps, "├───────── 3ms ─────────┤ - 4ms 10.0.0.1:40602 17/nc 10.0.0.2:7781 18/worker accepted, perhaps two connections"},
		{"two namespaces, by the numbers", certain, "1ms 2ms 3ms 4ms 10.0.0.1:40602 17/nc 10.0.0.2:7781 18/worker accepted"},
		{"no pair by the numbers", apart,
			"- ├───────── 5ms ─────────┤ 4ms 10.0.0.1:40602 - 10.0.0.2:7781 18/worker accepted\n├───────── 3ms ─────────┤ - - 10.0.0.1:40602 17/nc 10.0.0.2:7781 - established"},
		{"link-local", linkLocal, "1ms 2ms 3ms 4ms [fe80::2%eth1]:40602 17/nc [fe80::1%eth1]:7781 host:18/worker accepted"},
		{"abandoned", []event.Event{whole()[0], whole()[1], whole()[2], abandoned}, "1ms 2ms - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk failed after 8.00ms: handshake_abandoned (server's end)"},
		{"a hostile name", hostile, `1ms 2ms 3ms 4ms 127.0.0.1:40602 17/nc 127.0.0.1:7781 18/\x1b[31m\n accepted`},
		{"no line is wanted", unwanted, ""},
		{"one line is wanted", one, "1ms 2ms 3ms 4ms " + ends + "accepted"},
		{"older than the trace", []event.Event{change(1, 0, event.Established, event.FinWait1, event.Unknown)}, ""},
		{"SYN before the trace", []event.Event{change(1, 0, event.SynSent, event.Established, event.Unknown)}, "- - - - 127.0.0.1:40602 17/nc 127.0.0.1:7781 - established"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, row := range rows(run(t, "text", Options{}, append(test.lines, ending(3000*ms))...)) {
				if !strings.Contains(row, "lost here") && !strings.Contains(row, "handshakes in ") {
					got = append(got, row)
				}
			}
			if strings.Join(got, "\n") != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), test.want)
			}
		})
	}
}

// What NDJSON has of the same: a leg that needs both ends is null where they are only perhaps one connection.
func TestKeys(t *testing.T) {
	waits := whole()
	waits[3].Deferred, waits[3].Dur, waits[3].Mono, waits[3].Wall = 2180*ms, 2185*ms, waits[3].Mono+2180*ms, waits[3].Wall+2180*ms
	perhaps := whole()
	for i := range perhaps {
		perhaps[i].NetNS = uint32(perhaps[i].ID)
		for _, a := range []*netip.AddrPort{&perhaps[i].Local, &perhaps[i].Remote} {
			*a = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), a.Port())
		}
	}
	same := slices.Clone(perhaps)
	same[0].ISN, same[1].ISN = 7, 7
	hosts := whole()
	hosts[4].OwnerPID, hosts[4].IfIndex, hosts[4].IfName = 8471|event.HostPID, 3, "eth0"
	for i := range hosts {
		hosts[i].IfIndex, hosts[i].IfName = 3, "eth0"
	}
	noSyn := change(1, 0, 0, 0, event.Unknown)
	noSyn.Type, noSyn.Local, noSyn.Reason, noSyn.Err = event.ConnectFailed, netip.AddrPort{}, event.ReasonUnreachable, 113
	const ns = `"syn_ns":1000000,"synack_ns":2000000,"ack_ns":3000000,"accept_ns":4000000,"connect_ns":3000000,"server_ns":5000000`
	for _, test := range []struct {
		lines []event.Event
		want  []string
	}{
		{whole(), []string{`"pairing":"tuple",` + ns + `,"defer_ns":null,"no_syn":false,`}},
		{same, []string{`"pairing":"isn",` + ns + `,"defer_ns":null,"no_syn":false,`}},
		{perhaps, []string{`"pairing":"perhaps","syn_ns":null,"synack_ns":null,"ack_ns":null,"accept_ns":4000000,"connect_ns":3000000,"server_ns":5000000,`}},
		{waits, []string{`"pairing":"tuple",` + ns + `,"defer_ns":2180000000,`, `"defer":{"count":1,"min_ns":2180000000,`}},
		{hosts, []string{`"ifindex":3,"ifname":"eth0","syn_retrans":0,"owner_pid":null,"owner_host_pid":8471,"owner_comm":"worker"`}},
		{whole()[1:2], []string{`"state":"open","pairing":null,`, `"client":null,`}},
		{[]event.Event{noSyn}, []string{
			`"state":"failed","pairing":null,"syn_ns":null,"synack_ns":null,"ack_ns":null,"accept_ns":null,"connect_ns":null,"server_ns":null,"defer_ns":null,"no_syn":true,` +
				`"reason":"unreachable","err":113,"failed_end":"client"`,
			`"laddr":null,"lport":null,"raddr":"127.0.0.1","rport":7781`, `"failed":1,"open":0,"lost":0,"reasons":{"unreachable":1}`,
		}},
	} {
		got := run(t, "ndjson", Options{}, append(test.lines, ending(3000*ms))...)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in\n%s", want, got)
			}
		}
	}
	far := slices.Clone(hosts)
	for i := range far {
		far[i].Remote = netip.MustParseAddrPort("[fe80::9]:40602")
	}
	if got := run(t, "text", Options{Summary: true, By: "remote"}, append(far[1:2], ending(ms))...); !strings.Contains(got, "\nremote fe80::9%eth0: 1 handshake (1 open)\n") {
		t.Errorf("got %s", got)
	}
}

// Columns stay below one another, whatever was printed before.
func TestColumnsStayAligned(t *testing.T) {
	lines := whole()
	for _, e := range whole() {
		e.ID += 2
		e.Sk += 2
		e.Local, e.Remote = wide(e.Local), wide(e.Remote)
		lines = append(lines, e)
	}
	for _, e := range whole() {
		e.ID += 4
		e.Sk += 4
		lines = append(lines, e)
	}
	text := strings.Split(run(t, "text", Options{}, lines...), "\n")
	column := func(line, what string) int {
		before, _, _ := strings.Cut(line, what)
		return len([]rune(before))
	}
	if a, b := column(text[2], "18/worker"), column(text[3], "18/worker"); a != b {
		t.Errorf("after a long address the columns are %d and %d:\n%s", a, b, strings.Join(text, "\n"))
	}
	if column(text[0], "CLIENT ") != column(text[1], "127.0.0.1:40602") {
		t.Errorf("the header is not above its columns:\n%s", strings.Join(text[:2], "\n"))
	}
}

func wide(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666"), a.Port())
}

// A client alone is told when no server's end can appear any more: by the lines that follow, and live by the clock.
func TestHeldBack(t *testing.T) {
	for _, live := range []bool{false, true} {
		var out bytes.Buffer
		h := New(&out, "text", false, Options{})
		told := func() bool { return strings.Contains(out.String(), "established") }
		for _, e := range []event.Event{whole()[0], whole()[2]} {
			if err := h.Take(&e); err != nil {
				t.Fatal(err)
			}
		}
		at := func(after int64) {
			if live {
				if err := h.Flush(zero + after + patience); err != nil {
					t.Fatal(err)
				}
				return
			}
			e := change(3, after, event.Established, event.CloseWait, event.Unknown)
			if err := h.Take(&e); err != nil {
				t.Fatal(err)
			}
			_ = h.lines.Flush()
		}
		if at(102 * ms); told() {
			t.Errorf("live %v: told too early", live)
		}
		if at(104 * ms); !told() {
			t.Errorf("live %v: not told", live)
		}
	}
}

func TestPercentiles(t *testing.T) {
	refused := change(3, 12*ms, event.SynSent, event.Close, 2*ms)
	refused.Reason = event.ReasonRefused
	lines := append(whole(), change(3, 11*ms, event.Close, event.SynSent, event.Unknown), refused, ending(20*ms))
	for by, want := range map[string]string{
		"port": "\nport 7781: 2 handshakes (1 accepted, 1 failed)\n", "remote": "\nremote 127.0.0.1: 2 handshakes", "process": "\nprocess worker: 1 handshake (1 accepted)\n",
		"container": "\ncontainer -: 2 handshakes",
	} {
		got := run(t, "text", Options{Summary: true, By: by}, lines...)
		if !strings.Contains(got, want) || !strings.HasPrefix(got, "14:16:40  2 handshakes (1 accepted, 1 failed) in 20ms, the whole run\n") {
			t.Errorf("by %s: no %q in\n%s", by, want, got)
		}
		for _, row := range []string{
			"SYN                    1   1.00ms   1.00ms", "SYN-ACK                1   2.00ms", "ACK                    1   3.00ms", "ACCEPT                 1   4.00ms",
			"SYN + SYN-ACK          1   3.00ms", "SYN-ACK + ACK          1   5.00ms", "refused                1\n",
		} {
			if !strings.Contains(got, row) {
				t.Errorf("by %s: no %q in\n%s", by, row, got)
			}
		}
	}
}

// More groups than are kept: their sum is told.
func TestGroupsAreBounded(t *testing.T) {
	var lines []event.Event
	for i := range most + 50 {
		e := change(uint64(2*i+1), int64(i), event.SynSent, event.Close, event.Unknown)
		e.Reason, e.Remote = event.ReasonRefused, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		lines = append(lines, e)
	}
	got := run(t, "ndjson", Options{Summary: true, By: "remote"}, append(lines, ending(ms))...)
	if n := strings.Count(got, `"type":"handshakes"`); n != most+1 || !strings.Contains(got, `"group":null,"others":true,"accepted":0,"established":0,"failed":50,`) {
		t.Errorf("%d lines:\n%.300s", n, got[strings.LastIndex(got, `{"v":1,"type":"handshakes"`):])
	}
	if got := run(t, "text", Options{Summary: true, By: "remote"}, append(lines, ending(ms))...); !strings.Contains(got, fmt.Sprintf("all others: %d handshakes", most+50-shown)) ||
		!strings.Contains(got, "more than 1000 groups") {
		t.Errorf("got %s", got[len(got)-300:])
	}
}

// With intervals, a time in which nothing happened is passed over.
func TestIntervals(t *testing.T) {
	var lines []event.Event
	lines = append(lines, whole()...)
	for _, e := range whole() {
		e.Mono, e.Wall, e.ID = e.Mono+3600*1000*ms, e.Wall+3600*1000*ms, e.ID+2
		lines = append(lines, e)
	}
	got := run(t, "ndjson", Options{Summary: true, Interval: time.Second}, append(lines, ending(3601*1000*ms))...)
	var spans []string
	for line := range strings.Lines(got) {
		for _, part := range strings.Split(line, ",") {
			if strings.HasPrefix(part, `"interval_ns"`) {
				spans = append(spans, strings.TrimPrefix(part, `"interval_ns":`))
			}
		}
	}
	if want := "1000000000 1000000000 3601000000000"; strings.Join(spans, " ") != want {
		t.Errorf("got %v, want %s:\n%s", spans, want, got)
	}
}
