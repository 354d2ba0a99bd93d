package main

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
)

// scenario is one way in which connections can behave, and the paths that their sockets take in
// each vocabulary.
type scenario struct {
	name          string
	since, before kernelVersion // the kernels to which it applies
	family        event.Family  // IPv4 if it is 0

	// traffic makes the connections. If some of this must happen before the trace starts, older is
	// set instead. older does that part and returns the rest.
	traffic func(h *host)
	older   func(h *host) (traffic func())

	want paths
	// anyNumber is set if the kernel decides how many sockets take a path.
	anyNumber bool
}

// paths are the paths of all sockets in a scenario, in any order, as recordedRun.paths returns
// them.
type paths struct {
	rfc, kernel []string
}

// The addresses in scenarios, with and without a wire.
const (
	loopbackAddr  = "127.0.0.1:7781"
	loopbackAddr6 = "[::1]:7781"
	hostAddr      = "10.0.0.1:7781"
	peerAddr      = "10.1.2.3:40602"
)

// Paths of sockets in the kernel's vocabulary. clientReset and serverReset end with a reset.
const (
	ordinaryListener = "listener CLOSE LISTEN CLOSE"
	activeClient     = "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
	passiveClient    = "client CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
	activeServer     = "server LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
	passiveServer    = "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
	clientReset      = "client CLOSE SYN_SENT ESTABLISHED CLOSE"
	serverReset      = "server LISTEN SYN_RECV ESTABLISHED CLOSE"
)

// Paths of sockets in the RFC 9293 vocabulary.
const (
	rfcListener      = ordinaryListener + " (normal)"
	rfcActiveClient  = "client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
	rfcPassiveClient = passiveClient + " (normal)"
	rfcActiveServer  = "server LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"
	rfcPassiveServer = passiveServer + " (normal)"
)

// What the most common scenarios expect.
var (
	clientClosesFirst = paths{
		rfc:    []string{rfcListener, rfcActiveClient, rfcPassiveServer},
		kernel: []string{ordinaryListener, activeClient, passiveServer},
	}
	serverClosesFirst = paths{
		rfc:    []string{rfcListener, rfcPassiveClient, rfcActiveServer},
		kernel: []string{ordinaryListener, passiveClient, activeServer},
	}
)

// resets returns the paths of a connection that ends in ESTABLISHED for these reasons.
func resets(client, server event.Reason) paths {
	return paths{
		rfc: []string{
			rfcListener, clientReset + " (" + client.String() + ")", serverReset + " (" + server.String() + ")",
		},
		kernel: []string{ordinaryListener, clientReset, serverReset},
	}
}

// clientOnly returns the paths of a client whose server is not in the namespace. The vocabularies
// differ only in the reason.
func clientOnly(states string, why event.Reason) paths {
	path := "client CLOSE SYN_SENT " + states
	return paths{rfc: []string{path + " (" + why.String() + ")"}, kernel: []string{path}}
}

// serverOnly returns the paths of a listener and of a server whose peer is behind the wire.
// Otherwise it is like clientOnly.
func serverOnly(states string, why event.Reason) paths {
	path := "server LISTEN SYN_RECV " + states
	return paths{
		rfc:    []string{rfcListener, path + " (" + why.String() + ")"},
		kernel: []string{ordinaryListener, path},
	}
}

// halfOpenOnly returns the paths of a handshake that fails for this reason. The kernel's vocabulary
// has no half-open connections.
func halfOpenOnly(why event.Reason) paths {
	return paths{
		rfc:    []string{rfcListener, "server LISTEN SYN_RECV CLOSE (" + why.String() + ")"},
		kernel: []string{ordinaryListener},
	}
}

// The test covers every way in which a connection can behave, in both vocabularies at once: two
// traces see the same traffic.
func TestStateMachine(t *testing.T) {
	all := slices.Concat(orderlyScenarios, connectScenarios, resetScenarios, abortScenarios, timeWaitScenarios,
		handshakeScenarios, timeoutScenarios)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.check(t)
		})
	}
}

// check runs s and compares the paths. A timer interrupts whatever process its CPU is running. If
// the kernel hides that process from BPF (see hidden), nothing can report what the timer did. So
// check repeats a run once if its paths differ.
func (s *scenario) check(t *testing.T) {
	if s.since != (kernelVersion{}) && kernelBefore(t, s.since.major, s.since.minor) {
		t.Skipf("needs Linux %d.%d", s.since.major, s.since.minor)
	}
	if s.before != (kernelVersion{}) && !kernelBefore(t, s.before.major, s.before.minor) {
		t.Skipf("needs Linux before %d.%d", s.before.major, s.before.minor)
	}
	for _, report := range []func(string, ...any){t.Logf, t.Errorf} {
		rfc, kernel := s.run(t)
		if slices.Equal(rfc, sorted(s.want.rfc)) && slices.Equal(kernel, sorted(s.want.kernel)) {
			return
		}
		report("rfc: got:\n%s\nwant:\n%s\nkernel: got:\n%s\nwant:\n%s",
			strings.Join(rfc, "\n"), strings.Join(sorted(s.want.rfc), "\n"),
			strings.Join(kernel, "\n"), strings.Join(sorted(s.want.kernel), "\n"))
	}
}

// run runs the scenario and returns the paths that the sockets took, sorted.
func (s *scenario) run(t *testing.T) (rfc, kernel []string) {
	h := newHost(t)
	traffic := func() { s.traffic(h) }
	if s.older != nil {
		traffic = s.older(h)
	}
	paths := func(r recordedRun) []string {
		s.checkChanges(t, h, r.changes)
		got := sorted(r.paths())
		if s.anyNumber {
			got = slices.Compact(got)
		}
		return got
	}
	inRFC, inKernel := traceBoth(t, []string{"--netns", h.netns()}, traffic)
	return paths(inRFC), paths(inKernel)
}

// traceBoth traces the same traffic in both vocabularies at once.
func traceBoth(t *testing.T, args []string, traffic func()) (rfc, kernel recordedRun) {
	t.Helper()
	in := func(vocabulary string) []string { return append(slices.Clone(args), "--states", vocabulary) }
	rfc = trace(t, in("rfc"), func() { kernel = trace(t, in("kernel"), traffic) })
	return rfc, kernel
}

// checkChanges checks what is true in every scenario.
func (s *scenario) checkChanges(t *testing.T, h *host, changes []event.Event) {
	t.Helper()
	family := cmp.Or(s.family, event.IPv4)
	known := make(map[uint64]bool) // sockets
	for _, e := range changes {
		uid := e.UID == 0 || e.UID == event.NoUID && s.older != nil // unknown for an orphan
		if e.Family != family || e.NetNS != uint32(h.inode) || !uid || e.Proto != event.TCP {
			t.Errorf("got family %v, netns %d, uid %d, proto %v, want %v, %d, 0, tcp: %+v",
				e.Family, e.NetNS, e.UID, e.Proto, family, h.inode, e)
		}
		if first := !known[e.ID]; first != (e.Dur == event.Unknown) {
			t.Errorf("got duration %d, want unknown only before the first change of a socket: %+v", e.Dur, e)
		}
		known[e.ID] = true
	}
}

func sorted(all []string) []string { return slices.Sorted(slices.Values(all)) }

// onWire returns traffic for a host whose peer is behind a wire.
func onWire(traffic func(w *wire)) func(h *host) {
	return func(h *host) { traffic(h.newWire()) }
}
