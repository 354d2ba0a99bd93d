package pair

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sstrace/internal/event"
)

// Many connections have the same addresses in as many networks. They are paired by their ISNs.
func TestOverlappingNetworks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	const connections = 200
	client, server := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:80")
	var all [][]event.Event
	for i := range uint32(connections) {
		one := talk(uint64(2*i+1), 1000+i, client, server)
		for j := range one {
			if one[j].Role == event.Client {
				one[j].NetNS = 1 + i
			}
			if j == int(i%2)*2 || j == 1+int(i%4/2)*2 { // at once, or on the end's next line
				one[j].ISN = 1<<32 - 1 - i
			}
		}
		all = append(all, one)
	}
	var table Table
	ends := make(map[*End]bool)
	for mono := int64(1e9); len(all) > 0; mono += 1000 {
		e := next(r, &all)
		e.Mono = mono
		for _, end := range table.Take(&e) {
			ends[end] = true
		}
	}
	for e := range ends {
		if e.Peer == nil || e.Pairing != ByISN || (e.ID-1)/2 != (e.Peer.ID-1)/2 {
			t.Fatalf("%d is paired with %+v by %q", e.ID, e.Peer, e.Pairing)
		}
	}
	if len(ends) != 2*connections || kept(&table) != 0 {
		t.Errorf("got %d ends, want %d; the table holds %d", len(ends), 2*connections, kept(&table))
	}
}

// Many interleaved connections with few addresses are paired correctly, and the table is empty
// afterwards.
func TestManyInterleaved(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { interleave(t, seed) })
	}
}

func interleave(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	const connections = 1000
	loopback := netip.MustParseAddr("127.0.0.1")
	var all [][]event.Event
	for i := range connections {
		client, server := netip.AddrPortFrom(loopback, uint16(1000+i/4)), netip.AddrPortFrom(loopback, uint16(80+i%2))
		all = append(all, talk(uint64(2*i+1), uint32(1+i/2%2), client, server))
	}
	var table Table
	ends := make(map[*End]bool)
	for mono := int64(1e9); len(all) > 0; mono += 1000 {
		e := next(r, &all)
		e.Mono = mono
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
			t.Fatalf("%d is paired with %+v, want %d", e.ID, e.Peer, want)
		}
	}
	if len(ends) != 2*connections || kept(&table) != 0 {
		t.Errorf("got %d ends, want %d; the table holds %d", len(ends), 2*connections, kept(&table))
	}
}

// Whichever lines are missing, and whether or not they are reported as lost, peers always have each
// other's addresses. The size of the table is bounded by the number of sockets that can exist at a
// time.
func TestLosses(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { lose(t, seed) })
	}
}

func lose(t *testing.T, seed uint64) {
	const (
		open  = 20  // connections at a time
		socks = 200 // socket addresses
	)
	r := rand.New(rand.NewPCG(seed, 2))
	loopback := netip.MustParseAddr("127.0.0.1")
	var table Table
	var running [][]event.Event
	id := uint64(1)
	for mono := int64(1e9); id < 2000 || len(running) > 0; mono += 1000 {
		if len(running) < open && id < 2000 {
			client, server := netip.AddrPortFrom(loopback, uint16(1000+r.IntN(30))), netip.AddrPortFrom(loopback, 80)
			running = append(running, talk(id, 1, client, server))
			id += 2
		}
		e := next(r, &running)
		e.Mono, e.Sk = mono, 0xffff0000+e.ID%socks
		if r.IntN(10) == 0 {
			table.Take(&event.Event{Type: event.Lost, Mono: mono, RingFull: 1})
			continue
		}
		for _, end := range table.Take(&e) {
			if p := end.Peer; p != nil && (p.Peer != end || translated(end, p)) {
				t.Fatalf("%+v is paired with %+v", end, p)
			}
		}
		if len(table.ends) > socks+2*open {
			t.Fatalf("got %d ends in the table, want at most %d", len(table.ends), socks+2*open)
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
