package main

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Every command tells the same of a connection over IPv4, over IPv6, and over IPv4 with IPv6 sockets, whose addresses are shown as IPv4.
func TestAnswersInEachFamily(t *testing.T) {
	for _, family := range []struct {
		name, listen, dial, shown string
	}{
		{"ipv4", "127.0.0.1:7781", "127.0.0.1:7781", "127.0.0.1"},
		{"ipv6", "[::1]:7781", "[::1]:7781", "::1"},
		{"ipv4-mapped", "[::]:7781", "[::ffff:127.0.0.1]:7781", "127.0.0.1"},
	} {
		t.Run(family.name, func(t *testing.T) {
			h := newHost(t)
			file := filepath.Join(t.TempDir(), "trace.ndjson")
			var listed, stuck string
			var client netip.AddrPort
			around(t, []string{"-o", "ndjson", "-w", file, "--netns", h.netns()}, func() {
				l, c, s := h.connection(family.listen, family.dial)
				name, err := unix.Getsockname(c.fd)
				h.must("getsockname", err)
				switch a := name.(type) {
				case *unix.SockaddrInet4:
					client = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
				case *unix.SockaddrInet6:
					client = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
				}
				c.shutdown(unix.SHUT_WR)
				s.reach(unix.BPF_TCP_CLOSE_WAIT)
				c.reach(unix.BPF_TCP_FIN_WAIT2)
				listed = sstrace(t, "", "ls", "-o", "ndjson", "--netns", h.netns()).stdout
				await(t, "a leak", func() bool { // its age is known to a jiffy
					stuck = sstrace(t, "", "leaks", "--once", "--older", "CLOSE_WAIT=1ms", "--state", "close-wait", "-o", "ndjson", "--netns", h.netns()).stdout
					return strings.Contains(stuck, `"leak"`)
				})
				s.close()
				c.reach(unix.BPF_TCP_CLOSE)
				c.close()
				l.close()
			})
			lines := func(text string) (all []map[string]any) {
				for line := range strings.Lines(text) {
					var l map[string]any
					if err := json.Unmarshal([]byte(line), &l); err != nil {
						t.Fatalf("%v: %s", err, line)
					}
					all = append(all, l)
				}
				return all
			}
			find := func(command, text string, want map[string]any) {
				t.Helper()
				for _, l := range lines(text) {
					if !slices.ContainsFunc(keysOf(want), func(k string) bool { return l[k] != want[k] }) {
						return
					}
				}
				t.Errorf("%s: no line with %v in:\n%s", command, want, text)
			}
			answer := func(args ...string) string {
				t.Helper()
				r := sstrace(t, "", append(args, "-r", file, "-o", "ndjson")...)
				if r.code != 0 {
					t.Errorf("%v: exit code %d: %s", args, r.code, r.stderr)
				}
				return r.stdout
			}
			port := float64(client.Port())
			find("ls", listed, map[string]any{"state": "FIN_WAIT2", "family": family.name, "laddr": family.shown, "lport": port, "raddr": family.shown, "rport": 7781.0, "role": "client"})
			find("ls", listed, map[string]any{"state": "CLOSE_WAIT", "family": family.name, "laddr": family.shown, "lport": 7781.0, "raddr": family.shown, "rport": port, "role": "server"})
			find("leaks", stuck, map[string]any{"type": "leak", "state": "CLOSE_WAIT", "family": family.name, "laddr": family.shown, "lport": 7781.0, "raddr": family.shown, "rport": port})
			find("handshakes", answer("handshakes"), map[string]any{"type": "handshake", "state": "accepted"})
			find("conns", answer("conns"), map[string]any{"type": "conn", "role": "client", "family": family.name, "laddr": family.shown, "lport": port, "raddr": family.shown, "rport": 7781.0})
			find("conns", answer("conns"), map[string]any{"type": "conn", "role": "server", "family": family.name, "laddr": family.shown, "lport": 7781.0, "raddr": family.shown, "rport": port})
			find("stats", answer("stats", "--by", "remote"), map[string]any{"type": "stats", "group": family.shown, "old": "SYN_SENT", "new": "ESTABLISHED", "count": 1.0})
			find("diagram", answer("diagram"), map[string]any{"type": "edge", "old": "CLOSE_WAIT", "new": "LAST_ACK", "role": "server", "count": 1.0})
			for _, l := range lines(answer("handshakes")) {
				if l["type"] != "handshake" {
					continue
				}
				for _, leg := range []string{"syn_ns", "synack_ns", "ack_ns"} {
					if ns, ok := l[leg].(float64); !ok || ns <= 0 {
						t.Errorf("%s is %v: the two ends were not paired: %v", leg, l[leg], l)
					}
				}
			}
		})
	}
}

func keysOf(m map[string]any) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
