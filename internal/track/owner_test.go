package track

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

func TestRoleAndOwner(t *testing.T) {
	older := existing(ownedBy(50, change(9, 9, 0, 0, event.Established)))
	older.Role = event.Server
	tests := []struct {
		name string
		r    record.Record
		role event.Role
		pid  uint32
		via  event.Via
	}{
		{"listen()", ownedBy(30, change(1, 1, 10, event.Close, event.Listen)), event.Listener, 30, event.ViaListen},
		{"child of a listener", change(2, 2, 20, event.Listen, event.SynRecv), event.Server, 30, event.ViaListener},
		{"handshake of a child",
			change(2, 2, 30, event.SynRecv, event.Established), event.Server, 30, event.ViaListener},
		{"close()", ownedBy(31, change(2, 2, 40, event.Established, event.FinWait1)), event.Server, 31, event.ViaClose},
		{"after close()", change(2, 2, 50, event.FinWait1, event.FinWait2), event.Server, 31, event.ViaClose},
		{"connect()", ownedBy(40, change(3, 3, 60, event.Close, event.SynSent)), event.Client, 40, event.ViaConnect},
		{"simultaneous open", change(3, 3, 70, event.SynSent, event.SynRecv), event.Client, 40, event.ViaConnect},
		{"older than the trace",
			change(9, 9, 80, event.Established, event.CloseWait), event.Server, 50, event.ViaSnapshot},
		{"unknown client", change(5, 5, 90, event.SynSent, event.Close), event.Client, 0, 0},
		{"unknown connection", change(6, 6, 90, event.Established, event.Close), 0, 0, 0},
		{"close() of a listener",
			ownedBy(30, change(1, 1, 99, event.Listen, event.Close)), event.Listener, 30, event.ViaClose},
		{"child of a listener that is gone", change(7, 7, 99, event.Listen, event.SynRecv), event.Server, 0, 0},
	}
	records := []record.Record{older}
	for _, test := range tests {
		records = append(records, test.r)
	}
	inBoth(t, func(t *testing.T, tr Tracker) {
		lines := track(t, tr, records...)
		if len(lines) != len(tests) {
			t.Fatalf("got %d lines, want %d", len(lines), len(tests))
		}
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				if e := lines[i]; e.Role != test.role || e.OwnerPID != test.pid || e.OwnerVia != test.via {
					t.Errorf("role %v, owner %d via %v; want %v, %d via %v",
						e.Role, e.OwnerPID, e.OwnerVia, test.role, test.pid, test.via)
				}
			})
		}
	})
}

// If several listeners share a port, a child belongs to the one that the kernel would look up. If
// this leaves two processes, the child belongs to neither.
func TestListeners(t *testing.T) {
	listener := func(sk uint64, addr string, family event.Family, pid, netns uint32) record.Record {
		r := ownedBy(pid, change(sk, sk, int64(sk), event.Close, event.Listen))
		r.Local, r.Remote = netip.MustParseAddrPort(addr), netip.AddrPort{}
		r.Family, r.NetNS = family, netns
		return r
	}
	localhost := netip.MustParseAddr("127.0.0.1")
	for _, test := range []struct {
		name      string
		listeners []record.Record
		family    event.Family
		addr      netip.Addr
		want      uint32
	}{
		{"one", []record.Record{listener(1, "0.0.0.0:7781", event.IPv4, 30, 0)}, event.IPv4, localhost, 30},
		{"exact address first", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "127.0.0.1:7781", event.IPv4, 31, 0),
			listener(3, "0.0.0.0:7781", event.IPv4, 32, 0),
		}, event.IPv4, localhost, 31},
		{"another address",
			[]record.Record{listener(1, "127.0.0.2:7781", event.IPv4, 30, 0)}, event.IPv4, localhost, 0},
		{"two processes", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0),
			listener(3, "0.0.0.0:7781", event.IPv4, 30, 0),
		}, event.IPv4, localhost, 0},
		{"one process twice", []record.Record{
			listener(1, "0.0.0.0:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 30, 0),
		}, event.IPv4, localhost, 30},
		{"dual stack", []record.Record{
			listener(1, "[::]:7781", event.IPv6, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0),
		}, event.Mapped, localhost, 30},
		{"another namespace",
			[]record.Record{listener(1, "0.0.0.0:7781", event.IPv4, 30, 5)}, event.IPv4, localhost, 0},
		{"child without an address", []record.Record{
			listener(1, "127.0.0.1:7781", event.IPv4, 30, 0), listener(2, "0.0.0.0:7781", event.IPv4, 31, 0),
		}, event.IPv4, netip.Addr{}, 31},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, tr Tracker) {
				child := change(100, 0, 100, event.Listen, event.SynRecv)
				child.Family, child.Local = test.family, netip.AddrPortFrom(test.addr, 7781)
				lines := track(t, tr, append(slices.Clone(test.listeners), child)...)
				if got := lines[len(lines)-1].OwnerPID; got != test.want {
					t.Errorf("got owner %d, want %d", got, test.want)
				}
			})
		})
	}
}

// If its listener closes, a handshake continues on another listener, as the same connection. The
// handshake and the connections in the accept queue get the owner of the new listener.
func TestMigration(t *testing.T) {
	listens := func(sk uint64, pid uint32) record.Record {
		r := ownedBy(pid, change(sk, sk, 1, event.Close, event.Listen))
		r.Remote = netip.AddrPort{}
		return r
	}
	closes := listens(1, 100)
	closes.Old, closes.New, closes.Mono = event.Listen, event.Close, 50
	at := func(listener uint64, r record.Record) record.Record {
		r.Listener, r.ISN = listener, 77
		return r
	}
	queued := func(r record.Record) record.Record { // another connection
		r.Remote = netip.MustParseAddrPort("127.0.0.1:5")
		return r
	}
	var got []string
	for _, e := range track(t, new(RFC),
		listens(1, 100), listens(2, 200),
		at(1, request(10, 20, record.RequestStarted)),
		queued(at(1, request(20, 30, record.RequestStarted))),
		queued(change(21, 5, 31, event.Listen, event.SynRecv)),
		queued(at(1, request(20, 32, record.RequestCancelled))),
		queued(change(21, 5, 33, event.SynRecv, event.Established)),
		closes,
		at(1, request(10, 60, record.RequestCancelled)),
		at(1, request(10, 61, record.RequestExpired)),
		at(2, retransmitted(request(12, 62, record.RequestStarted))),
		change(11, 7, 80, event.Listen, event.SynRecv),
		at(2, retransmitted(request(12, 81, record.RequestCancelled))),
		change(11, 7, 82, event.SynRecv, event.Established),
		queued(change(21, 5, 90, event.Established, event.CloseWait)),
	) {
		got = append(got, fmt.Sprint(e.ID, " ", e.Old, " ", e.New, " ", e.Dur, " ", e.OwnerPID))
	}
	want := []string{
		"1 CLOSE LISTEN -1 100", "2 CLOSE LISTEN -1 200", "3 LISTEN SYN_RECV -1 100", "4 LISTEN SYN_RECV -1 100",
		"4 SYN_RECV ESTABLISHED 3 100", "1 LISTEN CLOSE 49 100", "3 SYN_RECV ESTABLISHED 62 200",
		"4 ESTABLISHED CLOSE_WAIT 57 200",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// If the process that called listen() exits and another process holds the listener, that process
// becomes the owner. It also becomes the owner of the connections that wait for accept().
func TestHeirs(t *testing.T) {
	m := RFC{Heirs: func(sks []uint64, exited uint32) map[uint64]event.Holder {
		if !slices.Equal(sks, []uint64{1}) || exited != 100 {
			t.Errorf("got a request for the heirs of %d after the exit of %d", sks, exited)
		}
		return map[uint64]event.Holder{1: {PID: 101, Comm: "daemon"}}
	}}
	listen := change(1, 1, 1, event.Close, event.Listen)
	listen.Remote, listen.OwnerPID, listen.OwnerComm = netip.AddrPort{}, 100, "start"
	syn := request(10, 10, record.RequestStarted)
	syn.Listener = 1
	exit := record.Record{Kind: record.ProcessExited, Event: event.Event{OwnerPID: 100, Mono: 20}}
	var got []string
	for _, e := range track(t, &m,
		listen, syn, exit,
		change(11, 7, 30, event.Listen, event.SynRecv),
		request(10, 31, record.RequestCancelled),
		change(11, 7, 32, event.SynRecv, event.Established),
		change(1, 1, 40, event.Listen, event.Close),
	) {
		got = append(got, fmt.Sprint(e.New, " ", e.OwnerPID, " ", e.OwnerComm, " ", e.OwnerVia))
	}
	want := []string{
		"LISTEN 100 start listen", "SYN_RECV 100 start listener", "ESTABLISHED 101 daemon listener",
		"CLOSE 101 daemon snapshot",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Each accept() is reported once. If the kernel side is unsure about an accept(), it counts only if
// the connection was waiting for accept().
func TestAccept(t *testing.T) {
	accept := func(cookie uint64, kind record.Kind) record.Record {
		r := ownedBy(7, change(11, cookie, 300, event.Established, event.Established))
		r.Type, r.Kind = event.Accept, kind
		return r
	}
	server := []record.Record{
		change(11, 7, 100, event.Listen, event.SynRecv), change(11, 7, 110, event.SynRecv, event.Established),
	}
	client := []record.Record{
		change(11, 7, 100, event.Close, event.SynSent), change(11, 7, 110, event.SynSent, event.Established),
	}
	older := existing(change(11, 7, 110, 0, event.Established))
	older.Role = event.Server
	for _, test := range []struct {
		name    string
		before  []record.Record
		accepts []record.Record
		want    int
	}{
		{"sure", server, []record.Record{accept(7, record.Accepted)}, 1},
		{"unsure", server, []record.Record{accept(7, record.AcceptedPerhaps)}, 1},
		{"unsure, then sure",
			server, []record.Record{accept(7, record.AcceptedPerhaps), accept(7, record.Accepted)}, 1},
		{"sure, then unsure",
			server, []record.Record{accept(7, record.Accepted), accept(7, record.AcceptedPerhaps)}, 1},
		{"unsure, a client", client, []record.Record{accept(7, record.AcceptedPerhaps)}, 0},
		{"unsure, another socket at its address", server, []record.Record{accept(8, record.AcceptedPerhaps)}, 0},
		{"unsure, older than the trace", []record.Record{older}, []record.Record{accept(7, record.AcceptedPerhaps)}, 0},
		{"unsure, unknown", nil, []record.Record{accept(7, record.AcceptedPerhaps)}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := change(11, 7, 400, event.Established, event.CloseWait)
			lines := track(t, new(RFC), slices.Concat(test.before, test.accepts, []record.Record{after})...)
			got := 0
			for _, e := range lines {
				if e.Type == event.Accept {
					got++
				}
				if e.ID != lines[0].ID {
					t.Errorf("socket %d became %d", lines[0].ID, e.ID)
				}
			}
			if got != test.want {
				t.Errorf("got %d accept lines, want %d", got, test.want)
			}
		})
	}
}
