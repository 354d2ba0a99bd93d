package handshakes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sstrace/internal/event"
)

// rows returns the handshake lines in text. Each starts with its times and has single spaces.
func rows(text string) (rows []string) {
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if f[0] != "TIME" && !strings.Contains(line, "lost here") && !strings.Contains(line, " in ") {
			rows = append(rows, strings.Join(f[1:], " "))
		}
	}
	return rows
}

func TestText(t *testing.T) {
	for _, test := range handshakes() {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(rows(run(t, "text", Options{}, append(test.lines, endAt(3000*ms))...)), "\n")
			if got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

type handshake struct {
	name  string
	lines []event.Event
	want  string
}

const (
	bothEnds   = "127.0.0.1:40602 17/nc 127.0.0.1:7781 18/worker "
	unaccepted = "127.0.0.1:40602 17/nc 127.0.0.1:7781 17/clerk "
	clientOnly = "127.0.0.1:40602 17/nc 127.0.0.1:7781 - "
	serverOnly = "127.0.0.1:40602 - 127.0.0.1:7781 18/worker "
)

func handshakes() []handshake {
	return slices.Concat(complete(), incomplete(), failures(), deferrals(), namespaces())
}

func complete() []handshake {
	hostile := whole()
	hostile[4].OwnerComm = "\x1b[31m\n"
	linkLocal := with(between("[fe80::2]:40602", "[fe80::1]:7781"), func(_ int, e *event.Event) {
		e.NetNS, e.IfIndex, e.IfName = 1, 4, "eth1"
	})
	linkLocal[4].OwnerPID |= event.HostPID
	itself := with([]event.Event{
		whole()[0],
		change(1, ms, event.SynSent, event.SynRecv, ms),
		change(1, 2*ms, event.SynRecv, event.Established, ms),
	}, func(_ int, e *event.Event) { e.Remote = e.Local })
	return []handshake{
		{"both ends", whole(), "1ms 2ms 3ms 4ms " + bothEnds + "accepted"},
		{"retransmissions", with(whole(), func(i int, e *event.Event) {
			if i == 2 || i == 3 {
				e.SynRetrans = int32(i - 1)
			}
		}), "1ms 2ms 3ms 4ms " + bothEnds + "accepted, SYN retransmitted 1×, SYN-ACK retransmitted 2×"},
		{"to itself", itself,
			"├───────── 2ms ─────────┤ - - 127.0.0.1:40602 17/nc 127.0.0.1:40602 - established, connected to itself"},
		{"hostile name", hostile, `1ms 2ms 3ms 4ms 127.0.0.1:40602 17/nc 127.0.0.1:7781 18/\x1b[31m\n accepted`},
		{"link-local", linkLocal,
			"1ms 2ms 3ms 4ms [fe80::2%eth1]:40602 17/nc [fe80::1%eth1]:7781 host:18/worker accepted"},
		{"no line wanted", with(whole(), func(_ int, e *event.Event) { e.Unwanted = true }), ""},
		{"one line wanted", with(whole(), func(i int, e *event.Event) { e.Unwanted = i != 1 }),
			"1ms 2ms 3ms 4ms " + bothEnds + "accepted"},
	}
}

func incomplete() []handshake {
	cookies := []event.Event{
		whole()[0], whole()[2], change(2, 5*ms, event.Listen, event.SynRecv, event.Unknown),
		change(2, 6*ms, event.SynRecv, event.Established, ms), whole()[4],
	}
	cookies[2].Origin = event.Tracepoint
	early := whole() // the clock of the server's CPU is behind the clock of the client's CPU
	early[3].Mono = zero + 2*ms
	lost := event.Event{Type: event.Lost, Mono: zero + 2*ms, Wall: noon + zero + 2*ms, RingFull: 3}
	loss := with(slices.Insert(whole(), 2, lost), func(i int, e *event.Event) {
		if i > 2 {
			e.Dur = event.Unknown
		}
	})
	return []handshake{
		{"SYN cookies", cookies, "├───────── 3ms ─────────┤ 3ms 4ms " + bothEnds + "accepted"},
		{"effect before cause", early, "1ms 2ms - 4ms " + bothEnds + "accepted"},
		{"loss", loss, "1ms - 3ms - " + bothEnds + "accepted, lines lost"},
		{"not accepted", whole()[:4], "1ms 2ms 3ms - " + unaccepted + "established, no accept() seen"},
		{"open", whole()[:1], "- - - - " + clientOnly + "open"},
		{"no answer yet", whole()[:2], "1ms - - - " + unaccepted + "open"},
		{"client only", []event.Event{whole()[0], whole()[2]},
			"├───────── 3ms ─────────┤ - - " + clientOnly + "established"},
		{"server only", []event.Event{whole()[1], whole()[3], whole()[4]},
			"- ├───────── 5ms ─────────┤ 4ms " + serverOnly + "accepted"},
		{"older than the trace", []event.Event{change(1, 0, event.Established, event.FinWait1, event.Unknown)}, ""},
		{"SYN before the trace", []event.Event{change(1, 0, event.SynSent, event.Established, event.Unknown)},
			"- - - - " + clientOnly + "established"},
	}
}

func failures() []handshake {
	noPort := with([]event.Event{
		whole()[0], ended(1, 5000, event.SynSent, 5000, event.ReasonNoPort, 99),
	}, func(_ int, e *event.Event) { e.Local = netip.AddrPortFrom(e.Local.Addr(), 0) })
	refused := ended(1, 2*ms, event.SynSent, 2*ms, event.ReasonRefused, 111)
	timeout := ended(1, 1400*ms, event.SynSent, 1400*ms, event.ReasonTimedOut, 110)
	abandoned := ended(2, 9*ms, event.SynRecv, 8*ms, event.ReasonHandshakeAbandoned, 0)
	return []handshake{
		{"refused", []event.Event{whole()[0], refused},
			"- - - - " + clientOnly + "failed after 2.00ms: refused ECONNREFUSED"},
		{"timeout", append(whole()[:2], timeout), "1ms - - - " + unaccepted + "failed after 1.40s: timeout ETIMEDOUT"},
		{"abandoned", append(whole()[:3], abandoned),
			"1ms 2ms - - " + unaccepted + "failed after 8.00ms: handshake_abandoned (server's end)"},
		{"abandoned, server only", []event.Event{whole()[1], abandoned},
			"- - - - 127.0.0.1:40602 - 127.0.0.1:7781 17/clerk failed after 8.00ms: handshake_abandoned"},
		{"no port", noPort,
			"- - - - 127.0.0.1:- 17/nc 127.0.0.1:7781 - failed after 5.00µs: no_port EADDRNOTAVAIL, no SYN was sent"},
		{"no SYN", []event.Event{unreachable()},
			"- - - - - 17/nc 127.0.0.1:7781 - failed: unreachable EHOSTUNREACH, no SYN was sent"},
	}
}

func deferrals() []handshake {
	all := deferredHandshake()
	noData := ended(2, 2186*ms, event.SynRecv, 2185*ms, event.ReasonHandshakeAbandoned, 0)
	noData.Deferred = 2180 * ms
	const waited = ", waited 2.18s for data (TCP_DEFER_ACCEPT)"
	return []handshake{
		{"deferred", all, "1ms 2ms 3ms 4ms " + bothEnds + "accepted" + waited},
		{"deferred, server only", []event.Event{all[1], all[3], all[4]},
			"- ├───────── 5ms ─────────┤ 4ms " + serverOnly + "accepted" + waited},
		{"deferred without data", append(all[:3:3], noData),
			"1ms 2ms 3ms - " + unaccepted + "failed after 2.19s: handshake_abandoned (server's end)" + waited},
		{"deferred without data, server only", []event.Event{all[1], noData},
			"- ├───────── 5ms ─────────┤ - 127.0.0.1:40602 - 127.0.0.1:7781 17/clerk " +
				"failed after 2.19s: handshake_abandoned" + waited},
	}
}

func namespaces() []handshake {
	const client, server = "10.0.0.1:40602", "10.0.0.2:7781"
	byISN, apart := between(client, server), between(client, server)
	byISN[0].ISN, byISN[1].ISN = 7, 7
	apart[0].ISN, apart[3].ISN = 7, 8 // known late
	redirected := with(between(client, server), func(_ int, e *event.Event) {
		if e.ISN = 7; e.Role == event.Server {
			e.Local = netip.MustParseAddrPort("172.17.0.2:80")
		}
	})
	return []handshake{
		{"two namespaces", between(client, server),
			"├───────── 3ms ─────────┤ - 4ms 10.0.0.1:40602 17/nc 10.0.0.2:7781 18/worker " +
				"accepted, perhaps two connections"},
		{"two namespaces, by ISN", byISN, "1ms 2ms 3ms 4ms 10.0.0.1:40602 17/nc 10.0.0.2:7781 18/worker accepted"},
		{"two namespaces, different ISNs", apart,
			"- ├───────── 5ms ─────────┤ 4ms 10.0.0.1:40602 - 10.0.0.2:7781 18/worker accepted\n" +
				"├───────── 3ms ─────────┤ - - 10.0.0.1:40602 17/nc 10.0.0.2:7781 - established"},
		{"DNAT", redirected,
			"1ms 2ms 3ms 4ms 10.0.0.1:40602 17/nc 10.0.0.2:7781 18/worker accepted, arrived at 172.17.0.2:80"},
	}
}

func TestColumnsStayAligned(t *testing.T) {
	const long = "[2001:db8:1111:2222:3333:4444:5555:6666]"
	lines := slices.Concat(whole(), with(between(long+":40602", long+":7781"), func(_ int, e *event.Event) {
		e.ID, e.Sk, e.NetNS = e.ID+2, e.Sk+2, 1
	}), with(whole(), func(_ int, e *event.Event) { e.ID, e.Sk = e.ID+4, e.Sk+4 }))
	text := strings.Split(run(t, "text", Options{}, lines...), "\n")
	column := func(line, what string) int {
		before, _, _ := strings.Cut(line, what)
		return utf8.RuneCountInString(before)
	}
	if a, b := column(text[2], "18/worker"), column(text[3], "18/worker"); a != b {
		t.Errorf("after a long address the owner is in columns %d and %d:\n%s", a, b, strings.Join(text, "\n"))
	}
	if column(text[0], "CLIENT ") != column(text[1], "127.0.0.1:40602") {
		t.Errorf("the header is not aligned:\n%s", strings.Join(text[:2], "\n"))
	}
}

// An unpaired client is reported once its server's end can no longer appear. Later lines show this,
// or the clock in a live trace.
func TestPending(t *testing.T) {
	for name, live := range map[string]bool{"recording": false, "live": true} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			v := New(&out, "text", false, Options{})
			take := func(e event.Event) {
				if err := v.Take(&e); err != nil {
					t.Fatal(err)
				}
			}
			reportedAfter := func(ns int64) bool {
				now := int64(1)
				if live {
					now = zero + ns + patience
				} else {
					take(change(3, ns, event.Established, event.CloseWait, event.Unknown))
				}
				if err := v.Idle(now); err != nil {
					t.Fatal(err)
				}
				return strings.Contains(out.String(), "established")
			}
			take(whole()[0])
			take(whole()[2])
			if reportedAfter(102 * ms) {
				t.Error("reported too early")
			}
			if !reportedAfter(104 * ms) {
				t.Error("not reported")
			}
		})
	}
}
