package pair

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
)

var states = func() map[string]event.State {
	m := make(map[string]event.State)
	for _, s := range event.States() {
		m[s.String()] = s
	}
	return m
}()

func addr(text string) (a netip.AddrPort) {
	if text == "-" {
		return a
	}
	if rest, ok := strings.CutSuffix(text, ":-"); ok {
		return netip.AddrPortFrom(netip.MustParseAddr(rest), 0)
	}
	return netip.MustParseAddrPort(text)
}

// lines reads a sequence of them, 1 µs apart: "ID NETNS ROLE LOCAL REMOTE OLD NEW", "lost", "accept ID" and "wait" for a second. What is like the line before
// of the same ID may be left out, from the right: "ID OLD NEW". A line may end with the device "dev=3" and the number "isn=4".
func lines(text string) (all []event.Event) {
	last := make(map[string]event.Event)
	mono := int64(1e9)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		mono += 1000
		var e event.Event
		var isn, dev uint32
		for ; strings.Contains(f[len(f)-1], "="); f = f[:len(f)-1] {
			fmt.Sscanf(f[len(f)-1], "isn=%d", &isn)
			fmt.Sscanf(f[len(f)-1], "dev=%d", &dev)
		}
		switch f[0] {
		case "lost":
			e = event.Event{Type: event.Lost, RingFull: 1}
		case "wait":
			mono += 1e9
			continue
		case "accept":
			e = last[f[1]]
			e.Type, e.Dur = event.Accept, 1000
			e.OwnerPID, e.OwnerComm, e.OwnerVia = 77, "worker", event.ViaAccept
		default:
			e = last[f[0]]
			if len(f) > 3 {
				e = event.Event{Role: map[string]event.Role{"client": event.Client, "server": event.Server, "listener": event.Listener}[f[2]], Local: addr(f[3]), Remote: addr(f[4])}
				fmt.Sscan(f[0], &e.ID)
				fmt.Sscan(f[1], &e.NetNS)
				if e.Proto = event.TCP; e.ID == 51 || e.ID == 52 {
					e.Proto = event.MPTCP
				}
				e.Sk, e.Family, e.Origin, e.SynRetrans = 0xffff0000+e.ID, event.IPv4, event.Tracepoint, event.Unknown
			}
			e.Old, e.New = states[f[len(f)-2]], states[f[len(f)-1]]
			if e.Old == event.Listen && e.New == event.SynRecv {
				e.Origin = event.FromTimer
			}
			e.ISN = isn
			if dev != 0 {
				e.IfIndex = dev
			}
			e.Dur = event.Unknown
			if b, ok := last[f[0]]; ok && b.New == e.Old {
				e.Dur = mono - b.Mono
			}
		}
		e.Mono, e.Wall = mono, mono
		if e.Type == event.Change {
			last[fmt.Sprint(e.ID)] = e
		}
		all = append(all, e)
	}
	return all
}

// pairs gives who was paired with whom at last: "1-2" client and server, "1=2" by their numbers, "1~2" perhaps, "3" alone; "!" after what was lost.
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
		case e.Peer != nil && (e.Peer.Peer != e || e.Pairing != e.Peer.Pairing), (e.Peer == nil) != (e.Pairing == Unpaired):
			got = append(got, "broken "+name(e))
		case c.Client != nil && c.Server != nil:
			if e == c.Client {
				got = append(got, name(e)+map[Pairing]string{Perhaps: "~", ByTuple: "-", ByISN: "="}[e.Pairing]+name(c.Server))
			}
		default:
			got = append(got, name(e))
		}
	}
	slices.Sort(got)
	return got
}

func TestPairing(t *testing.T) {
	for _, test := range []struct{ name, lines, want string }{
		{"loopback", `
			9 1 listener 127.0.0.1:80 - CLOSE LISTEN
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			1 SYN_SENT ESTABLISHED
			2 SYN_RECV ESTABLISHED`, "1-2"},
		{"the server elsewhere, the client elsewhere", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
			2 1 server 10.0.0.1:80 10.0.0.3:4000 LISTEN SYN_RECV`, "1 2"},
		{"loopback of another namespace is another host's", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
		{"two namespaces", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
			2 2 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1~2"},
		{"two namespaces with the same addresses, each with both ends", `
			1 1 client 10.0.0.1:4000 10.0.0.1:80 CLOSE SYN_SENT
			2 2 client 10.0.0.1:4000 10.0.0.1:80 CLOSE SYN_SENT
			3 1 server 10.0.0.1:80 10.0.0.1:4000 LISTEN SYN_RECV
			4 2 server 10.0.0.1:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1-3 2-4"},
		{"two namespaces with the same addresses, and the server in a third: it may be either's", `
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
		{"DNAT, by the numbers", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=2"},
		{"DNAT, and the number of the server is of another's", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=8
			1 SYN_SENT CLOSE`, "1 2"},
		{"DNAT of one of two, by the numbers, while the port of a third is not known", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT isn=7
			2 1 client 10.0.0.1:4000 10.0.0.3:8080 CLOSE SYN_SENT isn=8
			4 1 client 10.0.0.1:- 172.17.0.2:80 CLOSE SYN_SENT
			3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=3 2 4"},
		{"DNAT, and the failed client is not its", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED
			1 SYN_SENT CLOSE`, "1 2"},
		{"overlapping networks: a client without an answer, and a server with the same addresses whose client is on another host", `
			1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
			2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=8
			1 SYN_SENT CLOSE`, "1 2"},
		{"the same, and the numbers are known late", `
			1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
			2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED isn=8
			3 3 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=7`, "1=3 2"},
		{"perhaps, until the one that is comes", `
			1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
			2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
			3 3 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV isn=7`, "1=3 2"},
		{"perhaps, until the number is known", `
			1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
			2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED isn=7`, "1=2"},
		{"the failed client of two namespaces is not the server's", `
			1 1 client 10.8.0.2:40000 10.8.0.1:8080 CLOSE SYN_SENT isn=7
			2 2 server 10.8.0.1:8080 10.8.0.2:40000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED
			1 SYN_SENT CLOSE`, "1 2"},
		{"two namespaces with the same addresses, and two servers elsewhere, by the numbers", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=7
			2 2 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=8
			3 3 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=8
			4 4 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1=4 2=3"},
		{"the same numbers on loopback of two namespaces", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
			2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=7`, "1 2"},
		{"another number in one namespace: lines are missing", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=8`, "1 2"},
		{"two links with the same addresses, and both ends of each here", `
			1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3 isn=7
			2 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=4 isn=8
			3 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=6 isn=8
			4 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=5 isn=7`, "1=4 2=3"},
		{"two links with the same addresses, and the numbers are not known", `
			1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3
			2 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=4
			3 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=4`, "1 2 3"},
		{"loopback, bound to different devices", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT dev=3
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2"},
		{"after a loss, another device's has not gone", `
			1 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=3
			lost
			2 1 server [fe80::1]:80 [fe80::2]:4000 LISTEN SYN_RECV dev=4`, "1 2"},
		{"after a loss, the socket is bound to another device", `
			1 1 client [fe80::2]:4000 [fe80::1]:80 CLOSE SYN_SENT dev=3
			lost
			1 1 client [fe80::2]:4000 [fe80::1]:80 SYN_SENT ESTABLISHED dev=4`, "1 1!"},
		{"after a loss, the socket has another connection with the same ends", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT isn=7
			lost
			1 1 client 10.0.0.1:4000 10.0.0.2:80 SYN_SENT ESTABLISHED isn=8`, "1 1!"},
		{"SYN cookies: the number comes with the ACK", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT isn=7
			1 SYN_SENT ESTABLISHED
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED isn=7`, "1=2"},
		{"the client's number is known late", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV isn=7
			1 SYN_SENT ESTABLISHED isn=7`, "1=2"},
		{"DNAT within loopback", `
			1 1 client 127.0.0.1:4000 127.0.0.1:8080 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1~2"},
		{"loopback has no DNAT to another namespace", `
			1 1 client 127.0.0.1:4000 127.0.0.1:8080 CLOSE SYN_SENT
			2 2 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
		{"DNAT that may be of one of two", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
			2 1 client 10.0.0.1:4000 10.0.0.3:8080 CLOSE SYN_SENT
			3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2 3"},
		{"DNAT that may be of one whose port is not known yet", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
			2 1 client 10.0.0.1:- 172.17.0.2:80 CLOSE SYN_SENT
			3 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
			2 1 client 10.0.0.1:4000 172.17.0.2:80 SYN_SENT ESTABLISHED`, "1 2~3"},
		{"no DNAT: the very client is there", `
			1 1 client 10.0.0.1:4000 10.0.0.9:80 CLOSE SYN_SENT
			2 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
			3 2 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2~3"},
		{"no DNAT: the very server comes later", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
			3 3 server 10.0.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1~3 2"},
		{"no DNAT: the client failed, and the server's handshake did not", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 CLOSE SYN_SENT
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV
			2 SYN_RECV ESTABLISHED
			1 SYN_SENT CLOSE`, "1 2"},
		{"no DNAT after a loss", `
			1 1 client 10.0.0.1:4000 10.0.0.2:8080 CLOSE SYN_SENT
			lost
			2 2 server 172.17.0.2:80 10.0.0.1:4000 LISTEN SYN_RECV`, "1 2"},
		{"a port that is used again", `
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
		{"in place of one in TIME_WAIT, which ends after that", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			1 SYN_SENT ESTABLISHED
			1 FIN_WAIT2 TIME_WAIT
			2 LAST_ACK CLOSE
			3 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			1 TIME_WAIT CLOSE
			4 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2 3-4"},
		{"the same socket connects again", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			1 SYN_SENT CLOSE
			1 1 client 127.0.0.1:4001 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4001 LISTEN SYN_RECV`, "1 1-2"},
		{"the port is learned late", `
			1 1 client 127.0.0.1:- 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1-2"},
		{"the port is learned late, and a server that waits alone is older than the SYN", `
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			1 1 client 127.0.0.1:- 127.0.0.1:80 CLOSE SYN_SENT
			1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1 2"},
		{"the server's remote end is learned late", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 - LISTEN SYN_RECV
			2 1 server 127.0.0.1:80 127.0.0.1:4000 SYN_RECV ESTABLISHED`, "1-2"},
		{"SYN cookies", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			1 SYN_SENT ESTABLISHED
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1-2"},
		{"long after the client was ESTABLISHED", `
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
		{"both older, one's role not known", `
			1 1 - 127.0.0.1:4000 127.0.0.1:80 ESTABLISHED FIN_WAIT1
			2 1 server 127.0.0.1:80 127.0.0.1:4000 ESTABLISHED CLOSE_WAIT`, "1-2"},
		{"older, in two namespaces: not certain", `
			1 1 client 10.0.0.1:4000 10.0.0.2:80 ESTABLISHED FIN_WAIT1
			2 2 server 10.0.0.2:80 10.0.0.1:4000 ESTABLISHED CLOSE_WAIT`, "1 2"},
		{"the client's SYN was before the trace", `
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			1 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1-2"},
		{"a client whose end was lost, and another that took its port", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			lost
			2 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			3 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV`, "1! 2-3"},
		{"the same, and the beginning of the other was lost, too", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			lost
			3 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			2 1 client 127.0.0.1:4000 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1! 2-3"},
		{"lines of a connection were lost", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			lost
			1 FIN_WAIT2 TIME_WAIT
			2 LAST_ACK CLOSE`, "1-2"},
		{"the socket came back to where it was", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			1 SYN_SENT ESTABLISHED
			lost
			1 SYN_SENT ESTABLISHED`, "1 1!"},
		{"the socket has other ends", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			lost
			1 1 client 127.0.0.1:4001 127.0.0.1:80 SYN_SENT ESTABLISHED`, "1 1!"},
		{"MPTCP's sockets beside those of their subflow", `
			1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			51 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			52 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN ESTABLISHED`, "1-2 51-52"},
		{"IPv6", `
			1 1 client [::1]:4000 [::1]:80 CLOSE SYN_SENT
			2 1 server [::1]:80 [::1]:4000 LISTEN SYN_RECV`, "1-2"},
		{"accepted when it was over, or was older: no end of its own", `
			2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
			2 SYN_RECV CLOSE
			accept 2`, "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(pairs(lines(test.lines)), " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// What an end tells of itself.
func TestEnd(t *testing.T) {
	var table Table
	var client, server *End
	all := lines(`
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		1 SYN_SENT ESTABLISHED
		2 SYN_RECV ESTABLISHED
		accept 2
		lost
		2 CLOSE_WAIT LAST_ACK
		1 FIN_WAIT2 TIME_WAIT
		2 LAST_ACK CLOSE
		lost`)
	for i := range all {
		for _, e := range table.Take(&all[i]) {
			if e.Role == event.Client {
				client = e
			} else {
				server = e
			}
		}
	}
	path := func(e *End) (text string) {
		for _, s := range e.Path {
			text += fmt.Sprint(s.State, " ", s.Dur, " ")
		}
		return text
	}
	if got, want := path(client), "SYN_SENT 2000 ESTABLISHED -1 FIN_WAIT2 -1 TIME_WAIT -1 "; got != want {
		t.Errorf("the client's path is %q, want %q", got, want)
	}
	if got, want := path(server), "SYN_RECV 2000 ESTABLISHED -1 CLOSE_WAIT -1 LAST_ACK 2000 "; got != want {
		t.Errorf("the server's path is %q, want %q", got, want)
	}
	if !client.Over || !server.Over || client.Gone || client.Older || !client.Lost() || client.State() != event.TimeWait || server.State() != event.Close {
		t.Errorf("%+v %+v", client, server)
	}
	if server.Accepted != (Process{77, "worker", event.ViaAccept}) || server.Queued != 1000 || server.Owner != server.Accepted {
		t.Errorf("accepted by %+v after %d", server.Accepted, server.Queued)
	}
	if got := Between(client.Step(event.SynSent), server.SynArrived()); got != 1000 {
		t.Errorf("the SYN took %d", got)
	}
	if got := Between(server.Step(event.SynRecv), server.Step(event.LastAck)); got != event.Unknown {
		t.Errorf("across a loss: %d", got)
	}
	if got := Between(server.SynArrived(), client.Step(event.SynSent)); got != event.Unknown {
		t.Errorf("back in time: %d", got)
	}
	if len(table.Open()) != 0 || len(table.byEnds) != 0 || len(table.at) != 0 || len(table.dialing) != 0 {
		t.Errorf("something is kept: %+v", table)
	}
}

// The ACK that came before the data, and an end whose connect() failed before it sent a SYN.
func TestDeferredAndNoSyn(t *testing.T) {
	var table Table
	all := lines(`
		2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV
		wait
		2 SYN_RECV ESTABLISHED
		2 ESTABLISHED CLOSE_WAIT`)
	all[1].Deferred = 1e9
	var server *End
	for i := range all {
		server = table.Take(&all[i])[0]
	}
	if got := Between(server.SynArrived(), server.AckArrived()); got != 2000 || server.Deferred != 1e9 {
		t.Errorf("the ACK came %d after the SYN, the data %d after that", got, server.Deferred)
	}
	failed := event.Event{
		Type: event.ConnectFailed, Mono: 5e9, Wall: 5e9, ID: 2, Sk: all[0].Sk, NetNS: 1, Proto: event.TCP, Family: event.IPv4, Remote: netip.MustParseAddrPort("10.0.0.1:80"),
		Role: event.Client, Reason: event.ReasonUnreachable, Err: 113, OwnerPID: 7, OwnerComm: "nc", OwnerVia: event.ViaConnect, Unwanted: true,
	}
	for _, e := range table.Take(&failed) {
		if mono, _ := e.Began(); !e.NoSyn || !e.Over || e.Wanted || e.Lost() || e.Reason != event.ReasonUnreachable || e.Err != 113 || e.Owner.PID != 7 || mono != 5e9 || len(e.Path) != 0 {
			t.Errorf("got %+v", e)
		}
	}
	if open := table.Open(); len(open) != 1 || open[0] != server {
		t.Errorf("the connection of the same socket has gone: %v", open)
	}
}

// Many connections with the same addresses in as many networks: the numbers tell them apart.
func TestOverlappingNetworks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	const connections = 200
	var all [][]event.Event
	for i := range uint32(connections) {
		one := talk(uint64(2*i+1), 1000+i, netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:80"))
		for j := range one {
			if one[j].Role == event.Client {
				one[j].NetNS = 1 + i
			}
			if j == int(i%2)*2 || j == 1+int(i%4/2)*2 { // known at once, or on the next line of the end
				one[j].ISN = 1<<32 - 1 - i
			}
		}
		all = append(all, one)
	}
	var table Table
	ends := make(map[*End]bool)
	for mono := int64(1e9); len(all) > 0; mono += 1000 {
		i := r.IntN(len(all))
		e := all[i][0]
		e.Mono = mono
		if all[i] = all[i][1:]; len(all[i]) == 0 {
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		for _, end := range table.Take(&e) {
			ends[end] = true
		}
	}
	for e := range ends {
		if e.Peer == nil || e.Pairing != ByISN || (e.ID-1)/2 != (e.Peer.ID-1)/2 {
			t.Fatalf("%d is paired with %+v by %q", e.ID, e.Peer, e.Pairing)
		}
	}
	if len(ends) != 2*connections || len(table.ends)+len(table.at)+len(table.byEnds)+len(table.dialing)+table.portless != 0 {
		t.Errorf("%d ends, and something is kept: %+v", len(ends), table)
	}
}

// SYN_RECV of a tracepoint is when the ACK came, unless the client shows that it cannot have.
func TestSynArrived(t *testing.T) {
	for text, want := range map[string]bool{
		"1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT\n 2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV\n 1 SYN_SENT ESTABLISHED\n 2 SYN_RECV ESTABLISHED": true,  // Fast Open
		"1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT\n 1 SYN_SENT ESTABLISHED\n 2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV\n 2 SYN_RECV ESTABLISHED": false, // SYN cookies
		"2 1 server 127.0.0.1:80 127.0.0.1:4000 LISTEN SYN_RECV\n 2 SYN_RECV ESTABLISHED":                                                                                  false,
	} {
		var table Table
		var server *End
		all := lines(text)
		for i := range all {
			all[i].Origin = event.Tracepoint
			for _, e := range table.Take(&all[i]) {
				if e.Role == event.Server {
					server = e
				}
			}
		}
		if got := server.SynArrived() != nil; got != want {
			t.Errorf("the SYN's arrival was seen: %v, want %v:\n%s", got, want, text)
		}
	}
}

// In the kernel vocabulary a state may be left for itself: the time in it is one.
func TestSelfChange(t *testing.T) {
	var table Table
	var end *End
	all := lines(`
		1 1 client 127.0.0.1:4000 127.0.0.1:80 CLOSE SYN_SENT
		1 SYN_SENT ESTABLISHED
		1 ESTABLISHED FIN_WAIT1
		1 FIN_WAIT1 FIN_WAIT1
		1 FIN_WAIT1 FIN_WAIT2`)
	for i := range all {
		end = table.Take(&all[i])[0]
	}
	if got := end.Step(event.FinWait1).Dur; got != 2000 || len(end.Path) != 4 {
		t.Errorf("FIN_WAIT1 lasted %d, path %v", got, end.Path)
	}
}

// talk makes the lines of one connection; what comes with it is decided by r.
func talk(id uint64, netns uint32, client, server netip.AddrPort) []event.Event {
	ns := netns
	return lines(fmt.Sprintf(`
		%[1]d %[5]d client %[3]v %[4]v CLOSE SYN_SENT
		%[2]d %[5]d server %[4]v %[3]v LISTEN SYN_RECV
		%[1]d SYN_SENT ESTABLISHED
		%[2]d SYN_RECV ESTABLISHED
		accept %[2]d
		%[1]d ESTABLISHED FIN_WAIT1
		%[2]d ESTABLISHED CLOSE_WAIT
		%[2]d CLOSE_WAIT LAST_ACK
		%[1]d FIN_WAIT1 FIN_WAIT2
		%[1]d FIN_WAIT2 TIME_WAIT
		%[2]d LAST_ACK CLOSE`, id, id+1, client, server, ns))
}

// Many connections at once, with few addresses: none is mistaken for another, and nothing is kept.
func TestManyInterleaved(t *testing.T) {
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 1))
		const connections = 1000
		var all [][]event.Event
		for i := range connections {
			client := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(1000+i/4))
			server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(80+i%2))
			all = append(all, talk(uint64(2*i+1), uint32(1+i/2%2), client, server))
		}
		var table Table
		ends := make(map[*End]bool)
		for mono := int64(1e9); len(all) > 0; mono += 1000 {
			i := r.IntN(len(all))
			e := all[i][0]
			e.Mono = mono
			if all[i] = all[i][1:]; len(all[i]) == 0 {
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			}
			for _, end := range table.Take(&e) {
				ends[end] = true
			}
		}
		for e := range ends {
			want := e.ID + 1
			if e.Role == event.Server {
				want = e.ID - 1
			}
			if e.Peer == nil || e.Peer.ID != want || e.Gone || !e.Over {
				t.Fatalf("seed %d: %d is paired with %+v, want %d", seed, e.ID, e.Peer, want)
			}
		}
		if len(ends) != 2*connections || len(table.ends)+len(table.at)+len(table.byEnds)+len(table.dialing)+table.portless != 0 {
			t.Errorf("seed %d: %d ends, kept %d, %d, %d, %d, %d", seed, len(ends), len(table.ends), len(table.at), len(table.byEnds), len(table.dialing), table.portless)
		}
	}
}

// With any lines missing, each with or without being told, nothing breaks; who is paired is paired with one that has its addresses; and what is kept is
// bounded by the sockets that there can be.
func TestLosses(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		var table Table
		const socks = 40
		var running [][]event.Event
		id := uint64(1)
		for mono := int64(1e9); id < 2000 || len(running) > 0; mono += 1000 {
			if len(running) < socks/2 && id < 2000 {
				port := uint16(1000 + r.IntN(30))
				all := talk(id, 1, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), netip.MustParseAddrPort("127.0.0.1:80"))
				id += 2
				running = append(running, all)
			}
			i := r.IntN(len(running))
			e := running[i][0]
			if running[i] = running[i][1:]; len(running[i]) == 0 {
				running[i] = running[len(running)-1]
				running = running[:len(running)-1]
			}
			e.Mono, e.Sk = mono, 0xffff0000+e.ID%200
			if r.IntN(10) == 0 {
				lost := event.Event{Type: event.Lost, Mono: mono, RingFull: 1}
				table.Take(&lost)
				continue
			}
			for _, end := range table.Take(&e) {
				if p := end.Peer; p != nil && (p.Peer != end || p.Local != end.Remote || p.Remote != end.Local) {
					t.Fatalf("seed %d: %+v is paired with %+v", seed, end, p)
				}
			}
			if len(table.ends) > 200+socks {
				t.Fatalf("seed %d: %d ends are kept", seed, len(table.ends))
			}
		}
	}
}

func BenchmarkTake(b *testing.B) {
	all := talk(1, 1, netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:80"))
	var table Table
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Take(&all[i%len(all)])
	}
}
