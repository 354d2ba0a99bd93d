package pair

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
)

// pairs returns the final pairs. "1-2" is a client and a server paired by tuple, "1=2" is a pair by
// ISN, and "1~2" is a possible pair. "3" is an end without a peer. "!" follows an end that is Gone.
func pairs(all []event.Event) (got []string) {
	var t Table
	var ends []*End
	for i := range all {
		for _, e := range t.Take(&all[i]) {
			if !slices.Contains(ends, e) {
				ends = append(ends, e)
			}
		}
	}
	name := func(e *End) string {
		if e.Gone {
			return fmt.Sprint(e.ID, "!")
		}
		return fmt.Sprint(e.ID)
	}
	for _, e := range ends {
		c := e.Conn()
		switch {
		case e.Peer != nil && (e.Peer.Peer != e || e.Pairing != e.Peer.Pairing),
			(e.Peer == nil) != (e.Pairing == Unpaired):
			got = append(got, "broken "+name(e))
		case c.Client != nil && c.Server != nil:
			if e == c.Client {
				sign := map[Pairing]string{Perhaps: "~", ByTuple: "-", ByISN: "="}[e.Pairing]
				got = append(got, name(e)+sign+name(c.Server))
			}
		default:
			got = append(got, name(e))
		}
	}
	slices.Sort(got)
	return got
}

func TestPairing(t *testing.T) {
	for _, test := range pairings {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(pairs(lines(test.lines)), " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

var pairings = []struct{ name, lines, want string }{
	{"loopback", `
		9 1 listener 127.0.0.1:80 - CLOSE LISTEN
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 SYN_SENT ESTABLISHED
		2 SYN_RECV ESTABLISHED`, "1-2"},
	{"both peers on other hosts", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		2 1 server 10.0.0.1:80 10.0.0.3:4000 LISTEN SYN_RECV`, "1 2"},
	{"loopback in another namespace is another host", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
	{"two namespaces", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		2 2 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1~2"},
	{"same addresses in two namespaces, both ends in each", `
		1 1 client 10.0.0.1:4000 10.0.0.1:80 CLOSE SYN_SENT
		2 2 client 10.0.0.1:4000 10.0.0.1:80 CLOSE SYN_SENT
		3 1 server 10.0.0.1:80 10.0.0.1:4000 LISTEN SYN_RECV
		4 2 server 10.0.0.1:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1-3 2-4"},
	{"same addresses in two namespaces, ambiguous server in a third", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		2 2 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		3 3 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2 3"},
	{"loopback in two namespaces at once", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 2 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		3 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		4 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-4 2-3"},
	{"DNAT", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
		1 SYN_SENT ESTABLISHED
		2 SYN_RECV ESTABLISHED`, "1~2"},
	{"DNAT by ISN", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=2"},
	{"DNAT with another ISN", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=8
		1 SYN_SENT CLOSE`, "1 2"},
	{"DNAT of one of two by ISN, port of a third unknown", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
		2 1 client 10.0.0.1:4000 10.0.0.3:8080 CLOSE SYN_SENT isn=8
		4 1 client 10.0.0.1:- 172.17.0.2:80 CLOSE SYN_SENT
		3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=3 2 4"},
	{"DNAT, the client failed and the server did not", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED
		1 SYN_SENT CLOSE`, "1 2"},
	{"overlapping networks, client unanswered, server's client on another host", `
		1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
		2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=8
		1 SYN_SENT CLOSE`, "1 2"},
	{"overlapping networks, ISN learned late", `
		1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
		2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED isn=8
		3 3 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=7`, "1=3 2"},
	{"perhaps, until the real server appears", `
		1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
		2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
		3 3 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=7`, "1=3 2"},
	{"perhaps, until the ISN is known", `
		1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
		2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED isn=7`, "1=2"},
	{"two namespaces, the client failed and the server did not", `
		1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
		2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED
		1 SYN_SENT CLOSE`, "1 2"},
	{"same addresses in two namespaces, two servers elsewhere, by ISN", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=7
		2 2 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=8
		3 3 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=8
		4 4 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=4 2=3"},
	{"same ISN on loopback of two namespaces", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
		2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1 2"},
	{"different ISNs in one namespace", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=8`, "1 2"},
	{"same addresses on two links, both ends of each here", `
		1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3 isn=7
		2 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=4 isn=8
		3 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=6 isn=8
		4 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=5 isn=7`, "1=4 2=3"},
	{"same addresses on two links, ISNs unknown", `
		1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3
		2 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=4
		3 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=4`, "1 2 3"},
	{"loopback, bound to different devices", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT dev=3
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2"},
	{"loss, same tuple on another device stays", `
		1 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=3
		lost
		2 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=4`, "1 2"},
	{"loss, socket bound to another device", `
		1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3
		lost
		1 1 client [fe80::2]:4000 [fe80::1]:80 SYN_SENT ESTABLISHED dev=4`, "1 1!"},
	{"loss, socket has another connection with the same tuple", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=7
		lost
		1 1 client 10.0.0.1:4000 10.0.0.2:80 SYN_SENT ESTABLISHED isn=8`, "1 1!"},
	{"SYN cookies, ISN comes with the ACK", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
		1 SYN_SENT ESTABLISHED
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED isn=7`, "1=2"},
	{"client's ISN learned late", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=7
		1 SYN_SENT ESTABLISHED isn=7`, "1=2"},
	{"DNAT within loopback", `
		1 1 client 127.0.0.1:4000 127.0.0.1:8080 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1~2"},
	{"no DNAT from loopback to another namespace", `
		1 1 client 127.0.0.1:4000 127.0.0.1:8080 CLOSE SYN_SENT
		2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
	{"DNAT with two candidates", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
		2 1 client 10.0.0.1:4000 10.0.0.3:8080 CLOSE SYN_SENT
		3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2 3"},
	{"DNAT with a candidate whose port is unknown", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
		2 1 client 10.0.0.1:- 172.17.0.2:80 CLOSE SYN_SENT
		3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
		2 1 client 10.0.0.1:4000 172.17.0.2:80 SYN_SENT ESTABLISHED`, "1 2~3"},
	{"no DNAT, the exact client exists", `
		1 1 client 10.0.0.1:4000 10.0.0.9:80 CLOSE SYN_SENT
		2 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		3 2 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2~3"},
	{"no DNAT, the exact server appears later", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
		3 3 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1~3 2"},
	{"no DNAT, the client failed and the server did not", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
		2 SYN_RECV ESTABLISHED
		1 SYN_SENT CLOSE`, "1 2"},
	{"no DNAT after a loss", `
		1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
		lost
		2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
	{"port reused", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT CLOSE
		2 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		3 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		2 SYN_SENT ESTABLISHED
		3 SYN_RECV ESTABLISHED
		2 ESTABLISHED CLOSE
		3 ESTABLISHED CLOSE
		4 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		5 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1 2-3 4-5"},
	{"tuple reused during TIME_WAIT", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 SYN_SENT ESTABLISHED
		1 FIN_WAIT2 TIME_WAIT
		2 LAST_ACK CLOSE
		3 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 TIME_WAIT CLOSE
		4 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2 3-4"},
	{"socket connects again", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT CLOSE
		1 1 client 127.0.0.1:4001 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4001 LISTEN SYN_RECV`, "1 1-2"},
	{"port learned late", `
		1 1 client 127.0.0.1:- 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1-2"},
	{"port learned late, unpaired server older than the SYN", `
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 1 client 127.0.0.1:- 127.0.0.1:80 CLOSE SYN_SENT
		1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1 2"},
	{"server's remote address learned late", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 - LISTEN SYN_RECV
		2 1 server 127.0.0.1:80 127.0.0.1:4000 SYN_RECV ESTABLISHED`, "1-2"},
	{"SYN cookies", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT ESTABLISHED
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2"},
	{"server appears long after the client was ESTABLISHED", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
		1 SYN_SENT ESTABLISHED
		wait
		2 2 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
	{"connected to itself", `
		1 1 client 127.0.0.1:4000 127.0.0.1:4000 CLOSE SYN_SENT
		1 SYN_SENT SYN_RECV
		1 SYN_RECV ESTABLISHED
		1 ESTABLISHED FIN_WAIT1`, "1"},
	{"both older than the trace", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 ESTABLISHED FIN_WAIT1
		2 1 server 127.0.0.1:80 127.0.0.1:4000 ESTABLISHED CLOSE_WAIT`, "1-2"},
	{"both older, one role unknown", `
		1 1 - 127.0.0.1:4000 127.0.0.1:80 ESTABLISHED FIN_WAIT1
		2 1 server 127.0.0.1:80 127.0.0.1:4000 ESTABLISHED CLOSE_WAIT`, "1-2"},
	{"both older, in two namespaces", `
		1 1 client 10.0.0.1:4000 10.0.0.2:80 ESTABLISHED FIN_WAIT1
		2 2 server 10.0.0.2:80 10.0.0.1:4000 ESTABLISHED CLOSE_WAIT`, "1 2"},
	{"client's SYN before the trace", `
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1-2"},
	{"client's end lost, port reused", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		lost
		2 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		3 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1! 2-3"},
	{"client's end lost, port reused, beginning of the next lost", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		lost
		3 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		2 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1! 2-3"},
	{"lines of a connection lost", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		lost
		1 FIN_WAIT2 TIME_WAIT
		2 LAST_ACK CLOSE`, "1-2"},
	{"loss, socket back in an earlier state", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT ESTABLISHED
		lost
		1 SYN_SENT ESTABLISHED`, "1 1!"},
	{"loss, socket has another tuple", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		lost
		1 1 client 127.0.0.1:4001 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1 1!"},
	{"MPTCP sockets beside their subflow", `
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		51 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		52 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN ESTABLISHED`, "1-2 51-52"},
	{"IPv6", `
		1 1 client [::1]:4000 [::1]:80 CLOSE SYN_SENT
		2 1 server [::1]:80 [::1]:4000 LISTEN SYN_RECV`, "1-2"},
	{"accept() of an end that is over", `
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		2 SYN_RECV CLOSE
		accept 2`, "2"},
}

// The remote address of an accepted MPTCP socket first appears in its accept line.
func TestPairingByAccept(t *testing.T) {
	all := lines("1 1 client 127.0.0.1:40000 127.0.0.1:80 CLOSE SYN_SENT\n2 1 server 127.0.0.1:80 127.0.0.1:40000 LISTEN ESTABLISHED\n" +
		"1 SYN_SENT ESTABLISHED\naccept 2\n")
	all[1].Remote = netip.AddrPort{}
	if got := strings.Join(pairs(all), " "); got != "1-2" {
		t.Errorf("got %s, want 1-2", got)
	}
}
