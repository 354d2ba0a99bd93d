package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// procNet returns the path of a file in the namespace's /proc/net.
func (h *host) procNet(name string) string {
	return fmt.Sprintf("/proc/%d/task/%d/net/%s", os.Getpid(), h.tid(), name)
}

// count returns how many sockets in a /proc/net file are in a wanted state.
func (h *host) count(file string, wanted func(event.State) bool) (n int) {
	text, err := os.ReadFile(h.procNet(file))
	h.must("read sockets", err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) <= 3 || f[0] == "sl" {
			continue
		}
		state, err := strconv.ParseUint(f[3], 16, 8)
		h.must("parse a state", err)
		if wanted(event.State(state)) {
			n++
		}
	}
	return n
}

// inStates returns how many sockets in the namespace are in these states, including request and
// timewait socks.
func (h *host) inStates(states ...uint8) int {
	wanted := func(s event.State) bool { return slices.Contains(states, uint8(s)) }
	return h.count("tcp", wanted) + h.count("tcp6", wanted)
}

// awaitStates waits until n sockets in the namespace are in these states.
func (h *host) awaitStates(n int, states ...uint8) {
	h.t.Helper()
	var names []string
	for _, s := range states {
		names = append(names, event.State(s).String())
	}
	await(h.t, fmt.Sprint(n, " in ", strings.Join(names, ", ")), func() bool { return h.inStates(states...) == n })
}

// quiet waits until no IPv4 socket in the namespace is about to change without outside help: only
// listeners and TIME_WAIT remain.
func (h *host) quiet() {
	busy := func(s event.State) bool { return s != event.Listen && s != event.TimeWait }
	await(h.t, "quiet", func() bool { return h.count("tcp", busy) == 0 })
}

// sample is one listing by the kernel, made at some time between from and to.
type sample struct {
	from, to int64 // CLOCK_MONOTONIC, ns
	states   map[[2]netip.AddrPort]event.State
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// sample reads /proc/net/tcp or tcp6, which include request and timewait socks.
func (h *host) sample(file string) (s sample) {
	s.from = monotonic()
	text, err := os.ReadFile(file)
	s.to = monotonic()
	h.must("read sockets", err)
	end := func(hex string) netip.AddrPort {
		words, portHex, _ := strings.Cut(hex, ":")
		var addr []byte
		for ; len(words) >= 8; words = words[8:] {
			word, err := strconv.ParseUint(words[:8], 16, 32)
			h.must("parse an address", err)
			addr = binary.NativeEndian.AppendUint32(addr, uint32(word))
		}
		port, err := strconv.ParseUint(portHex, 16, 16)
		h.must("parse a port", err)
		ip, _ := netip.AddrFromSlice(addr)
		return netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	s.states = make(map[[2]netip.AddrPort]event.State)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "sl" {
			continue
		}
		state, err := strconv.ParseUint(f[3], 16, 8)
		h.must("parse a state", err)
		s.states[[2]netip.AddrPort{end(f[1]), end(f[2])}] = event.State(state)
	}
	return s
}

// inProc returns the sockets in the namespace's /proc/net/tcp and tcp6, as socketText formats them.
func (h *host) inProc() (all []string) {
	for _, file := range []string{"tcp", "tcp6"} {
		for ends, state := range h.sample(h.procNet(file)).states {
			all = append(all, socketText(ends[0], ends[1], state))
		}
	}
	slices.Sort(all)
	return all
}

func socketText(local, remote netip.AddrPort, state event.State) string {
	if state == event.Listen {
		return fmt.Sprint(local, state)
	}
	return fmt.Sprint(local, remote, state)
}

// netstat returns one of the namespace's TCP counters.
func (h *host) netstat(name string) int {
	n, ok := h.counters()[name]
	if !ok {
		h.t.Errorf("no counter %s", name)
	}
	return n
}
