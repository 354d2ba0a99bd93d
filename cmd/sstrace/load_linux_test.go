package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// mixedPorts are the ports of mixed.
var mixedPorts = []uint16{17001, 17002, 17003, 17004, 17005}

// mixed makes connections to mixedPorts, all at the same time, and the same number to each port.
// Each port gets a different kind of connection.
func (h *host) mixed(each int) {
	kinds := []func(c, s sock){
		func(c, s sock) {
			c.close()
			s.close()
		},
		func(c, s sock) {
			s.close()
			c.close()
		},
		func(c, s sock) {
			c.reset()
			c.close()
			s.close()
		},
		func(c, s sock) {
			c.write("nobody reads this")
			c.shutdown(unix.SHUT_WR)
			s.close()
			c.close()
		},
		nil, // nobody listens on this port
	}
	var all sync.WaitGroup
	for i, kind := range kinds {
		all.Go(func() {
			addr := fmt.Sprintf("127.0.0.1:%d", mixedPorts[i])
			if kind == nil {
				for range each {
					s := h.socket(unix.AF_INET)
					_ = unix.Connect(s.fd, mustSockaddr(addr))
					s.close()
				}
				return
			}
			l := h.listen(addr, 64)
			for range each {
				kind(h.established(l, addr))
			}
			l.close()
		})
	}
	all.Wait()
	// If both ends closed, the last ACK may still be in transit.
	h.quiet()
}

// Each change of 10,000 connections is reported exactly once, in the order of its socket's changes
// in the kernel's own trace.
func TestEqualsTracefs(t *testing.T) {
	const each = 2000
	w := newWitness(t)
	h := newHost(t)
	r := trace(t, []string{"--netns", h.netns()}, func() { h.mixed(each) })
	w.compare(r, mixedPorts)
	if got := len(firstChanges(r.changes)); got < 5*each {
		t.Errorf("got %d sockets, want at least %d", got, 5*each)
	}
}

// At random instants, the sockets and states that the lines imply are those that the kernel lists,
// including half-open connections and TIME_WAIT. The test makes 10,000 connections, and more with
// distant peers that answer late.
func TestEqualsListing(t *testing.T) {
	h := newHost(t)
	w := h.newWire()
	file := h.procNet("tcp")
	var samples []sample
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			mixed := make(chan struct{})
			go func() {
				h.mixed(2000)
				close(mixed)
			}()
			w.distant("10.0.0.1:17006", mixed)
			h.quiet()
		}()
		for traffic := true; traffic; {
			select {
			case <-done:
				traffic = false
			case <-time.After(time.Duration(rand.IntN(50)) * time.Millisecond):
			}
			samples = append(samples, h.sample(file))
		}
	})
	all := historyOf(t, r.changes)
	listed := make(map[event.State]int)
	for _, s := range samples {
		for at, state := range s.states {
			listed[state]++
			all.checkListed(t, &s, at, state)
		}
	}
	all.checkAbsent(t, samples)
	t.Logf("%d listings: %v; %+v", len(samples), listed, *r.end)
	if listed[event.TimeWait] == 0 || listed[event.SynRecv] == 0 {
		t.Errorf("got %v listed: without TIME_WAIT and SYN_RECV this tests little", listed)
	}
}

// period is a time spent in a state. If to is 0, the socket is still in the state.
type period struct {
	from, to int64
	state    event.State
}

// history contains the states that sockets were in, by local and remote address.
type history map[[2]netip.AddrPort][]period

// historyOf returns the history that changes imply.
func historyOf(t *testing.T, changes []event.Event) history {
	all := make(history)
	known := make(map[uint64][2]netip.AddrPort)
	for _, e := range changes {
		at := [2]netip.AddrPort{e.Local, e.Remote}
		if !e.Remote.Addr().IsValid() {
			at[1] = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
		if before, ok := known[e.ID]; ok && before != at {
			if before[0].Port() != 0 {
				t.Errorf("connection %d: got addresses %v, want %v as before", e.ID, at, before)
			}
			// connect() took so long that the first line was printed without the port.
			all[at] = append(all[at], all[before]...)
			delete(all, before)
		}
		known[e.ID] = at
		if n := len(all[at]); n > 0 && all[at][n-1].to == 0 {
			all[at][n-1].to = e.Mono
		}
		if e.New != event.Close {
			all[at] = append(all[at], period{e.Mono, 0, e.New})
		}
	}
	return all
}

// checkListed checks that the socket at was in state. A listing takes a while, so any state that
// the socket had during that time is accepted.
func (all history) checkListed(t *testing.T, s *sample, at [2]netip.AddrPort, state event.State) {
	const moment = 1e6 // a record may be made slightly before or after the state is visible
	if !slices.ContainsFunc(all[at], func(p period) bool {
		return p.state == state && p.from < s.to+moment && (p.to == 0 || p.to > s.from-moment)
	}) {
		t.Errorf("%v is listed in %v between %d and %d: got %v", at, state, s.from, s.to, all[at])
	}
}

// checkAbsent checks that every socket is listed while it exists. The kernel finds the next part of
// a listing by counting sockets, so it may omit a socket once, but not twice in a row.
func (all history) checkAbsent(t *testing.T, samples []sample) {
	absent := make(map[[2]netip.AddrPort]int)
	for _, s := range samples {
		for at, periods := range all {
			if _, ok := s.states[at]; ok {
				absent[at] = 0
				continue
			}
			throughout := func(p period) bool { return p.from < s.from && (p.to == 0 || p.to > s.to) }
			if i := slices.IndexFunc(periods, throughout); i >= 0 {
				if absent[at]++; absent[at] == 2 {
					t.Errorf("%v was always in %v, but is missing from two listings", at, periods[i].state)
				}
			}
		}
	}
}

// With many processes and a new connection for each request, softirqs interrupt the BPF program and
// change states themselves. The kernel then skips the program. Still, no change is missing and none
// is reported twice. This would be rare, so interrupts send packets to the softirq of any CPU
// (RPS), and traffic continues until it has happened.
func TestNestedSoftirqs(t *testing.T) {
	w := newWitness(t)
	h := newHost(t)
	h.spreadPackets()
	const rounds = 50
	const port, addr = uint16(17006), "127.0.0.1:17006"
	r := trace(t, []string{"--netns", h.netns(), "-p", fmt.Sprint(port)}, func() {
		l := h.listen(addr, 1024)
		var servers sync.WaitGroup
		for range 2 {
			servers.Go(l.pong)
		}
		skipped := 0
		for round := 0; round < rounds && skipped < 3; round++ {
			h.connectFromProcesses(addr)
			skipped = skippedPrograms(t)
		}
		t.Logf("the kernel skipped a program %d times", skipped)
		if skipped == 0 {
			t.Error("the kernel skipped no program, so this tests nothing")
		}
		h.must("shutdown", unix.Shutdown(l.fd, unix.SHUT_RD)) // makes accept() return
		servers.Wait()
		l.close()
		h.quiet()
	})
	w.compare(r, []uint16{port})
	if r.end.Missed != 0 {
		t.Errorf("got %d missed, want 0", r.end.Missed)
	}
}

// pong answers requests until the listener is shut down. It closes a connection after the client
// has.
func (s sock) pong() {
	buf := make([]byte, 16)
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_, _ = unix.Read(fd, buf)
		_, _ = unix.Write(fd, []byte("+PONG\r\n"))
		_, _ = unix.Read(fd, buf)
		_ = unix.Close(fd)
	}
}

// connectFromProcesses makes 8,000 connections from eight processes at the same time.
func (h *host) connectFromProcesses(addr string) {
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			if err := h.wait(self("connect", addr, strconv.Itoa(1000))); err != nil {
				h.t.Errorf("client: %v", err)
			}
		})
	}
	clients.Wait()
}
