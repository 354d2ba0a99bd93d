package pair

import (
	"fmt"
	"net/netip"
	"testing"

	"sstrace/internal/event"
)

// take passes all to table, and returns the last client end and the last server end.
func take(table *Table, all []event.Event) (client, server *End) {
	for i := range all {
		for _, e := range table.Take(&all[i]) {
			if e.Role == event.Client {
				client = e
			} else {
				server = e
			}
		}
	}
	return client, server
}

// kept returns how many items a Table still holds.
func kept(t *Table) int {
	return len(t.ends) + len(t.socks) + len(t.byTuple) + len(t.connecting) + t.portless
}

func TestEnd(t *testing.T) {
	var table Table
	client, server := take(&table, lines(`
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 SYN_SENT ESTABLISHED
		2 SYN_RECV ESTABLISHED
		accept 2
		lost
		2 CLOSE_WAIT LAST_ACK
		1 FIN_WAIT2 TIME_WAIT
		2 LAST_ACK CLOSE
		lost`))
	path := func(e *End) (text string) {
		for _, s := range e.Path {
			text += fmt.Sprint(s.State, " ", s.Dur, " ")
		}
		return text
	}
	if got, want := path(client), "SYN_SENT 2000 ESTABLISHED -1 FIN_WAIT2 -1 TIME_WAIT -1 "; got != want {
		t.Errorf("path of the client: got %q, want %q", got, want)
	}
	if got, want := path(server), "SYN_RECV 2000 ESTABLISHED -1 CLOSE_WAIT -1 LAST_ACK 2000 "; got != want {
		t.Errorf("path of the server: got %q, want %q", got, want)
	}
	if !client.Over || client.Gone || client.Older || !client.Lost() || client.State() != event.TimeWait {
		t.Errorf("client: %+v", client)
	}
	if !server.Over || server.State() != event.Close {
		t.Errorf("server: %+v", server)
	}
	accepted := Process{77, "worker", event.ViaAccept}
	if server.Accepted != accepted || server.Queued != 1000 || server.Owner != accepted {
		t.Errorf("accepted by %+v after %d ns, owned by %+v", server.Accepted, server.Queued, server.Owner)
	}
	for _, test := range []struct {
		name string
		a, b *Step
		want int64
	}{
		{"the SYN", client.Step(event.SynSent), server.SynArrived(), 1000},
		{"across a loss", server.Step(event.SynRecv), server.Step(event.LastAck), event.Unknown},
		{"backwards", server.SynArrived(), client.Step(event.SynSent), event.Unknown},
	} {
		if got := Between(test.a, test.b); got != test.want {
			t.Errorf("Between, %s: got %d ns, want %d", test.name, got, test.want)
		}
	}
	if kept(&table) != 0 {
		t.Errorf("the table is not empty: %+v", table)
	}
}

// The ACK of a deferred handshake arrived before the data.
func TestDeferred(t *testing.T) {
	var table Table
	all := lines(`
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		wait
		2 SYN_RECV ESTABLISHED
		2 ESTABLISHED CLOSE_WAIT`)
	all[1].Deferred = 1e9
	_, server := take(&table, all)
	if got := Between(server.SynArrived(), server.AckArrived()); got != 2000 || server.Deferred != 1e9 {
		t.Errorf("the ACK took %d ns and the data %d; want 2000 and 1000000000", got, server.Deferred)
	}
}

// A connect() that fails before it sends a SYN has its own end, separate from the open connection
// of the same socket.
func TestConnectFailed(t *testing.T) {
	var table Table
	all := lines("2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV")
	_, server := take(&table, all)
	failed, _ := take(&table, []event.Event{{
		Type: event.ConnectFailed, Mono: 5e9, Wall: 5e9, ID: 2, Sk: all[0].Sk, NetNS: 1,
		Proto: event.TCP, Family: event.IPv4, Remote: netip.MustParseAddrPort("10.0.0.1:80"), Role: event.Client,
		Reason: event.ReasonUnreachable, Err: 113, OwnerPID: 7, OwnerComm: "nc", OwnerVia: event.ViaConnect,
		Unwanted: true,
	}})
	if failed == nil {
		t.Fatal("no end")
	}
	if !failed.NoSyn() || !failed.Over || failed.Wanted || failed.Lost() || len(failed.Path) != 0 ||
		failed.Reason != event.ReasonUnreachable || failed.Err != 113 || failed.Owner.PID != 7 {
		t.Errorf("got %+v", failed)
	}
	if mono, _ := failed.Began(); mono != 5e9 {
		t.Errorf("got begin %d, want 5000000000", mono)
	}
	if open := table.Open(); len(open) != 1 || open[0] != server {
		t.Errorf("open ends: got %v, want only %v", open, server)
	}
}

// SYN_RECV from a tracepoint marks when the ACK arrived, unless the client proves otherwise.
func TestSynArrived(t *testing.T) {
	const (
		synSent     = "1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT\n"
		established = "1 SYN_SENT ESTABLISHED\n"
		synRecv     = "2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV\n"
		acked       = "2 SYN_RECV ESTABLISHED\n"
	)
	for _, test := range []struct {
		name, lines string
		want        bool
	}{
		{"Fast Open", synSent + synRecv + established + acked, true},
		{"SYN cookies", synSent + established + synRecv + acked, false},
		{"server only", synRecv + acked, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := lines(test.lines)
			for i := range all {
				all[i].Origin = event.Tracepoint
			}
			_, server := take(new(Table), all)
			if got := server.SynArrived() != nil; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// In the kernel vocabulary, a state may change to itself. The time spent in the state is still
// counted as one period.
func TestSelfChange(t *testing.T) {
	client, _ := take(new(Table), lines(`
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT ESTABLISHED
		1 ESTABLISHED FIN_WAIT1
		1 FIN_WAIT1 FIN_WAIT1
		1 FIN_WAIT1 FIN_WAIT2`))
	if got := client.Step(event.FinWait1).Dur; got != 2000 || len(client.Path) != 4 {
		t.Errorf("FIN_WAIT1 took %d ns, want 2000; path %v", got, client.Path)
	}
}
