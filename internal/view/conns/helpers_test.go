package conns

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
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

// change returns a line about the client (id 1) or the server (id 2), after ns from the start.
func change(id uint64, after int64, old, new event.State, dur int64) event.Event {
	e := event.Event{
		Type: event.Change, Wall: noon + zero + after, Mono: zero + after, ID: id, Sk: id, NetNS: 1,
		Family: event.IPv4, Proto: event.TCP, Old: old, New: new, Dur: dur,
		Local: netip.MustParseAddrPort("127.0.0.1:40602"), Remote: netip.MustParseAddrPort("127.0.0.1:7781"),
		Origin: event.Tracepoint, Role: event.Client, OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaConnect,
		SynRetrans: event.Unknown,
	}
	if id == 2 {
		e.Local, e.Remote, e.Role = e.Remote, e.Local, event.Server
		e.OwnerPID, e.OwnerComm, e.OwnerVia = 18, "clerk", event.ViaListener
		if old == event.Listen {
			e.Origin = event.FromTimer
		}
	}
	return e
}

// whole returns a complete connection whose client closes first.
func whole() []event.Event {
	all := []event.Event{
		change(1, 0, event.Close, event.SynSent, event.Unknown),
		change(2, ms, event.Listen, event.SynRecv, event.Unknown),
		change(1, 3*ms, event.SynSent, event.Established, 3*ms),
		change(2, 6*ms, event.SynRecv, event.Established, 5*ms),
		change(1, 10*ms, event.Established, event.FinWait1, 7*ms),
		change(2, 11*ms, event.Established, event.CloseWait, 5*ms),
		change(2, 12*ms, event.CloseWait, event.LastAck, ms),
		change(1, 13*ms, event.FinWait1, event.FinWait2, 3*ms),
		change(1, 14*ms, event.FinWait2, event.TimeWait, ms),
		change(2, 15*ms, event.LastAck, event.Close, 3*ms),
		change(1, 60000*ms, event.TimeWait, event.Close, 59985*ms),
	}
	all[8].Closer = event.WeClosed
	all[9].Closer, all[9].Reason = event.TheyClosed, event.ReasonNormal
	return all
}

// deferred returns a complete connection whose server waited 2 s for data (TCP_DEFER_ACCEPT).
func deferred() []event.Event {
	all := whole()
	for i := range all[3:] {
		all[3+i].Mono += 2000 * ms
	}
	all[3].Deferred, all[3].Dur, all[3].SynRetrans = 2000*ms, 2005*ms, 0
	return all
}

// between sets both addresses of a connection and keeps the ports.
func between(all []event.Event, addr string) []event.Event {
	for i := range all {
		for _, a := range []*netip.AddrPort{&all[i].Local, &all[i].Remote} {
			*a = netip.AddrPortFrom(netip.MustParseAddr(addr), a.Port())
		}
	}
	return all
}

func run(t *testing.T, format string, timeline bool, lines ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	end := event.Event{Type: event.End, Mono: zero + 60001*ms, Wall: noon + zero + 60001*ms, Balance: &event.Balance{}}
	eventtest.Feed(t, New(&out, format, false, timeline), append(lines, end)...)
	return out.String()
}

// contains fails the test unless got contains every string in want.
func contains(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, want := range want {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}
