// Package eventtest helps tests with Events: it builds them, compares output with golden files and
// checks it against the schema.
package eventtest

import (
	"net/netip"

	"sstrace/internal/event"
)

// Wall is the time of every Event that this package builds: 2026-11-22T14:02:11.123456789Z.
const Wall = 1795356131123456789

// New returns a line of type t that decodes to itself. It has what a line of this type must have;
// everything else is unknown.
func New(t event.Type) *event.Event {
	e := &event.Event{Type: t, Seq: 1, Wall: Wall, Mono: 5e9, Dur: event.Unknown}
	switch t {
	case event.Lost:
		e.RingFull = 1
		return e
	case event.End:
		e.Balance = new(event.Balance)
		return e
	case event.Change:
		e.ID, e.Old, e.New, e.Origin = 1, event.SynSent, event.Established, event.Tracepoint
	case event.Accept:
		e.ID, e.Role, e.OwnerPID, e.OwnerVia = 1, event.Server, 30, event.ViaAccept
	case event.ConnectFailed:
		e.ID, e.Role = 1, event.Client
	case event.Socket:
		e.New = event.Established
		e.Status = &event.Status{
			RecvQueue: event.Unknown, SendQueue: event.Unknown, AtLeast: event.Unknown, Left: event.Unknown,
		}
	}
	e.Family, e.Proto, e.UID, e.SynRetrans = event.IPv4, event.TCP, event.NoUID, event.Unknown
	return e
}

// Ends sets the addresses of e, each address:port or "" for unknown, and returns e.
func Ends(e *event.Event, local, remote string) *event.Event {
	e.Local, e.Remote = parse(local), parse(remote)
	return e
}

func parse(addr string) netip.AddrPort {
	if addr == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(addr)
}

// Change returns a change of the connection between local and remote.
func Change(local, remote string, from, to event.State) *event.Event {
	e := Ends(New(event.Change), local, remote)
	e.Old, e.New = from, to
	return e
}
