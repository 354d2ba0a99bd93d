package main

import (
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inFamily is a half-closed connection as the commands show it.
type inFamily struct {
	name, shown   string // family, and the address of both ends
	file          string // a recording's file name
	listed, stuck string // the output of ls and leaks
	client        netip.AddrPort
}

// Every command shows a connection in the same way over IPv4, over IPv6, and over IPv4 with IPv6
// sockets. The addresses of the last kind are shown as IPv4.
func TestAnswersInEachFamily(t *testing.T) {
	for _, family := range []struct {
		name, listen, dial, shown string
	}{
		{"ipv4", loopbackAddr, loopbackAddr, "127.0.0.1"},
		{"ipv6", loopbackAddr6, loopbackAddr6, "::1"},
		{"ipv4-mapped", "[::]:7781", "[::ffff:127.0.0.1]:7781", "127.0.0.1"},
	} {
		t.Run(family.name, func(t *testing.T) {
			run := recordHalfClosed(t, family.listen, family.dial)
			run.name, run.shown = family.name, family.shown
			run.check(t)
		})
	}
}

// recordHalfClosed traces a connection, and runs ls and leaks while the connection is half-closed.
func recordHalfClosed(t *testing.T, listen, dial string) (run inFamily) {
	h := newHost(t)
	run.file = filepath.Join(t.TempDir(), "trace.ndjson")
	around(t, []string{"-o", "ndjson", "-w", run.file, "--netns", h.netns()}, func() {
		l, c, s := h.connection(listen, dial)
		run.client, _, _ = c.ends()
		c.shutdown(unix.SHUT_WR)
		s.reach(unix.BPF_TCP_CLOSE_WAIT)
		c.reach(unix.BPF_TCP_FIN_WAIT2)
		run.listed = sstrace(t, "", "ls", "-o", "ndjson", "--netns", h.netns()).stdout
		leaks := []string{"leaks", "--once", "--older", "CLOSE_WAIT=1ms", "--state", "close-wait", "-o", "ndjson"}
		await(t, "a leak", func() bool { // an age is only as exact as a jiffy
			run.stuck = sstrace(t, "", append(leaks, "--netns", h.netns())...).stdout
			return strings.Contains(run.stuck, `"leak"`)
		})
		s.close()
		c.reach(unix.BPF_TCP_CLOSE)
		c.close()
		l.close()
	})
	return run
}

func (run *inFamily) check(t *testing.T) {
	answer := func(args ...string) string {
		t.Helper()
		r := sstrace(t, "", append(args, "-r", run.file, "-o", "ndjson")...)
		if r.code != 0 {
			t.Errorf("%v: exit code %d: %s", args, r.code, r.stderr)
		}
		return r.stdout
	}
	client := line{"family": run.name, "laddr": run.shown, "lport": float64(run.client.Port()),
		"raddr": run.shown, "rport": 7781.0}
	server := line{"family": run.name, "laddr": run.shown, "lport": 7781.0,
		"raddr": run.shown, "rport": float64(run.client.Port())}
	handshakes, conns := answer("handshakes"), answer("conns")
	for _, want := range []struct {
		command, output, kind string
		end, keys             line
	}{
		{"ls", run.listed, "socket", client, line{"state": "FIN_WAIT2", "role": "client"}},
		{"ls", run.listed, "socket", server, line{"state": "CLOSE_WAIT", "role": "server"}},
		{"leaks", run.stuck, "leak", server, line{"state": "CLOSE_WAIT"}},
		{"handshakes", handshakes, "handshake", nil, line{"state": "accepted"}},
		{"conns", conns, "conn", client, line{"role": "client"}},
		{"conns", conns, "conn", server, line{"role": "server"}},
		{"stats", answer("stats", "--by", "remote"), "stats", nil, line{
			"group": run.shown, "old": "SYN_SENT", "new": "ESTABLISHED", "count": 1.0,
		}},
		{"diagram", answer("diagram"), "edge", nil, line{
			"old": "CLOSE_WAIT", "new": "LAST_ACK", "role": "server", "count": 1.0,
		}},
	} {
		maps.Copy(want.keys, want.end)
		all := linesOf[line](t, want.kind, want.output)
		if !slices.ContainsFunc(all, func(l line) bool { return includes(l, want.keys) }) {
			t.Errorf("%s: no %s with %v in:\n%s", want.command, want.kind, want.keys, want.output)
		}
	}
	for _, l := range linesOf[line](t, "handshake", handshakes) {
		for _, leg := range []string{"syn_ns", "synack_ns", "ack_ns"} {
			if ns, ok := l[leg].(float64); !ok || ns <= 0 {
				t.Errorf("got %s %v, want the ends paired: %v", leg, l[leg], l)
			}
		}
	}
}

// includes reports whether l has all keys in want, with the same values.
func includes(l, want line) bool {
	for key, value := range want {
		if l[key] != value {
			return false
		}
	}
	return true
}
