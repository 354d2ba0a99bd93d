package handshakes

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

// change returns a line about a client (odd id) or a server (even id), after ns from the start.
func change(id uint64, after int64, old, new event.State, dur int64) event.Event {
	e := event.Event{
		Type: event.Change, Wall: noon + zero + after, Mono: zero + after, ID: id, Sk: id, NetNS: 1,
		Family: event.IPv4, Proto: event.TCP, Old: old, New: new, Dur: dur,
		Local: netip.MustParseAddrPort("127.0.0.1:40602"), Remote: netip.MustParseAddrPort("127.0.0.1:7781"),
		Origin: event.Tracepoint, Role: event.Client, OwnerPID: 17, OwnerComm: "nc", OwnerVia: event.ViaConnect,
		SynRetrans: event.Unknown,
	}
	if old == event.SynSent || old == event.SynRecv {
		e.SynRetrans = 0
	}
	if id%2 == 0 {
		e.Local, e.Remote, e.Role = e.Remote, e.Local, event.Server
		e.OwnerComm, e.OwnerVia = "clerk", event.ViaListener
		if old == event.Listen {
			e.Origin = event.FromTimer
		}
	}
	return e
}

// ended returns a change to CLOSE with a reason.
func ended(id uint64, after int64, old event.State, dur int64, reason event.Reason, err int32) event.Event {
	e := change(id, after, old, event.Close, dur)
	e.Reason, e.Err = reason, err
	return e
}

func acceptedBy(pid uint32, after, queued int64) event.Event {
	e := change(2, after, 0, 0, queued)
	e.Type, e.OwnerPID, e.OwnerComm, e.OwnerVia = event.Accept, pid, "worker", event.ViaAccept
	return e
}

// unreachable returns a connect() that failed before it sent a SYN.
func unreachable() event.Event {
	e := change(1, 0, 0, 0, event.Unknown)
	e.Type, e.Local, e.Reason, e.Err = event.ConnectFailed, netip.AddrPort{}, event.ReasonUnreachable, 113
	return e
}

func endAt(after int64) event.Event {
	return event.Event{Type: event.End, Wall: noon + zero + after, Mono: zero + after, Balance: &event.Balance{}}
}

// whole returns a handshake in which the SYN takes 1 ms, the SYN-ACK 2, the ACK 3, and accept() 4.
func whole() []event.Event {
	return []event.Event{
		change(1, 0, event.Close, event.SynSent, event.Unknown),
		change(2, ms, event.Listen, event.SynRecv, event.Unknown),
		change(1, 3*ms, event.SynSent, event.Established, 3*ms),
		change(2, 6*ms, event.SynRecv, event.Established, 5*ms),
		acceptedBy(18, 10*ms, 4*ms),
	}
}

// deferredHandshake returns a complete handshake whose server waited 2.18 s for data
// (TCP_DEFER_ACCEPT).
func deferredHandshake() []event.Event {
	all := whole()
	all[3] = change(2, 2186*ms, event.SynRecv, event.Established, 2185*ms)
	all[3].Deferred = 2180 * ms
	all[4] = acceptedBy(18, 2190*ms, 4*ms)
	return all
}

// between returns a complete handshake between two addresses. Each end has its own network
// namespace.
func between(client, server string) []event.Event {
	all := whole()
	for i := range all {
		e := &all[i]
		e.NetNS, e.Local, e.Remote = uint32(e.ID), netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
		if e.Role == event.Server {
			e.Local, e.Remote = e.Remote, e.Local
		}
	}
	return all
}

// with calls set for each line in all, and returns all.
func with(all []event.Event, set func(i int, e *event.Event)) []event.Event {
	for i := range all {
		set(i, &all[i])
	}
	return all
}

func run(t *testing.T, format string, o Options, lines ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	eventtest.Feed(t, New(&out, format, false, o), lines...)
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
