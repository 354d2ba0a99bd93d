package main

import (
	"fmt"
	"math/rand"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// crowd opens sockets in all states, with and without a process, in several network namespaces: 12
// times units in each.
func crowd(t testing.TB, namespaces, units int) (hosts []*host) {
	needRoot(t)
	files := uint64(9*namespaces*units + 1000)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	higher := unix.Rlimit{Cur: max(files, limit.Cur), Max: max(files, limit.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &higher); err != nil {
		t.Fatalf("allow %d open files: %v", files, err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	var open []sock
	t.Cleanup(func() {
		for _, s := range open {
			s.close()
		}
	})
	for range namespaces {
		h := newHost(t)
		hosts = append(hosts, h)
		open = append(open, h.newWire().deserted(units)...)
	}
	for _, h := range hosts {
		open = append(open, h.pairs(units)...)
	}
	for _, h := range hosts { // last, since these last only a minute
		open = append(open, h.leaving(units)...)
	}
	if t.Failed() {
		t.FailNow()
	}
	return hosts
}

// listeners opens a listener for each family, and returns the listeners and the addresses to
// connect to.
func (h *host) listeners(port uint16) (all []sock, at []string) {
	for i, on := range []string{"127.0.0.1", "[::1]", "[::]"} {
		all = append(all, h.listen(fmt.Sprintf("%s:%d", on, port+uint16(i)), 8))
		at = append(at, fmt.Sprintf("%s:%d", []string{"127.0.0.1", "[::1]", "127.0.0.1"}[i], port+uint16(i)))
	}
	return all, at
}

// pairs opens units connections and units half-closed connections. It returns both ends of each.
func (h *host) pairs(units int) []sock {
	open, at := h.listeners(7781)
	for i := range units {
		l, to := open[i%3], at[i%3]
		c, s := h.established(l, to)
		open = append(open, c, s)
		c, s = h.established(l, to)
		c.shutdown(unix.SHUT_WR)
		open = append(open, c, s)
	}
	return open
}

// leaving opens units sockets in TIME_WAIT and units half-closed connections. The end that closed
// first is an orphan.
func (h *host) leaving(units int) []sock {
	open, at := h.listeners(7791)
	for i := range units {
		l, to := open[i%3], at[i%3]
		closeBoth(h.established(l, to))
		c, s := h.established(l, to)
		c.close()
		open = append(open, s)
	}
	return open
}

// deserted opens connections in FIN_WAIT1, CLOSING, LAST_ACK, SYN_RECV and SYN_SENT, units of each,
// whose peers have fallen silent. It returns the sockets that are still open.
func (w *wire) deserted(units int) (open []sock) {
	const addr = "10.0.0.1:7801"
	w.h.sysctl("tcp_syncookies", "0")
	w.h.sysctl("tcp_max_syn_backlog", fmt.Sprint(2*units))
	for _, retries := range []string{"tcp_syn_retries", "tcp_synack_retries", "tcp_orphan_retries"} {
		w.h.sysctl(retries, "50")
	}
	l := w.h.listen(addr, 2*units)
	open = append(open, l)
	port := uint16(20000)
	call := func() { // a SYN, each time from another port
		port++
		w.send(synTo(peerAddr, addr).fromPort(port))
	}
	var accepted []sock
	var answers []segment
	for range 3 * units {
		call()
		answer := w.receive(syn | ack)
		w.send(answer.reply(ack))
		answers, accepted = append(answers, answer), append(accepted, l.accept())
	}
	w.h.t.Cleanup(func() { // otherwise they and their namespace would exist for hours
		for i, answer := range answers {
			reset := answer.reply(rst)
			if i%3 != 0 {
				reset.seq++ // it follows a FIN
			}
			w.send(reset)
		}
	})
	for i, s := range accepted { // last: FINs are retransmitted, and the queue is short
		answer := answers[i]
		if i%3 == 2 { // the peer closes first: LAST_ACK remains
			w.send(answer.reply(fin | ack))
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
		}
		if i%8 == 0 { // few, since tcp_max_orphans may be low
			s.close()
		} else {
			s.shutdown(unix.SHUT_WR)
			open = append(open, s)
		}
		if i%3 == 1 { // the peer closes before it receives our FIN: CLOSING
			w.send(answer.reply(fin | ack))
		}
	}
	for range units {
		call()
		open = append(open, w.connectTo("10.1.2.3:9"))
	}
	return open
}

// ssStates maps ss's names of states to states.
var ssStates = map[string]event.State{
	"LISTEN": event.Listen, "SYN-SENT": event.SynSent, "SYN-RECV": event.SynRecv, "ESTAB": event.Established,
	"FIN-WAIT-1": event.FinWait1, "FIN-WAIT-2": event.FinWait2, "CLOSE-WAIT": event.CloseWait,
	"CLOSING": event.Closing, "LAST-ACK": event.LastAck, "TIME-WAIT": event.TimeWait,
}

// inSS returns the sockets that ss -tan lists, as socketText formats them.
func (h *host) inSS() (all []string) {
	var out strings.Builder
	h.run(&out, "ss", "-tanH")
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		state, ok := ssStates[f[0]]
		if !ok || len(f) < 5 {
			h.t.Fatalf("ss: %s", line)
		}
		var remote netip.AddrPort
		if state != event.Listen {
			remote = unmap(f[4])
		}
		all = append(all, socketText(unmap(strings.Replace(f[3], "*:", "[::]:", 1)), remote, state))
	}
	slices.Sort(all)
	return all
}

// unmap parses an address of ss. IPv4 addresses of IPv6 sockets become IPv4.
func unmap(text string) netip.AddrPort {
	at := netip.MustParseAddrPort(text)
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// ls and ss list the same 20,000 sockets in three network namespaces, in the same states, and no
// others.
func TestListingEqualsSS(t *testing.T) {
	const units = 556
	hosts := crowd(t, 3, units)
	args := []string{"ls", "-o", "ndjson"}
	for _, h := range hosts {
		args = append(args, "--netns", h.netns())
	}
	await(t, "a moment without changes", func() bool {
		var before, got, after [3][]string
		for i, h := range hosts {
			before[i] = h.inSS()
		}
		ls := sstrace(t, "", args...)
		if ls.code != 0 || ls.stderr != "" {
			t.Fatalf("exit code %d: %s", ls.code, ls.stderr)
		}
		for i, h := range hosts {
			if after[i] = h.inSS(); !slices.Equal(before[i], after[i]) {
				return false
			}
		}
		for line := range strings.Lines(ls.stdout) {
			var e event.Event
			if err := e.DecodeJSON([]byte(line)); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if i := slices.IndexFunc(hosts, func(h *host) bool { return h.inode == uint64(e.NetNS) }); i >= 0 {
				got[i] = append(got[i], socketText(e.Local, e.Remote, e.New))
			}
		}
		for i := range hosts {
			if slices.Sort(got[i]); !slices.Equal(got[i], after[i]) {
				t.Errorf("got %d sockets, want %d as in ss; they differ in:\n%s",
					len(got[i]), len(after[i]), strings.Join(difference(got[i], after[i]), "\n"))
			}
			count := make(map[string]int)
			for _, s := range got[i] {
				count[s[strings.LastIndexByte(s, ' ')+1:]]++
			}
			t.Log(len(got[i]), count)
			for _, state := range ssStates {
				if state != event.Listen && count[state.String()] < units {
					t.Errorf("got %d in %v, want at least %d", count[state.String()], state, units)
				}
			}
		}
		return true
	})
}

// difference returns the elements that are in only one of two sorted lists.
func difference(a, b []string) (only []string) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			only, a = append(only, "ls: "+a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			only, b = append(only, "ss: "+b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return only
}

// built builds sstrace as users run it. The test binary is larger and takes longer to start.
func built(b *testing.B) string {
	program := filepath.Join(b.TempDir(), "sstrace")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return program
}

// drain discards everything that it reads from a pipe.
type drain struct{}

func (drain) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkListing measures how long ls and ss take to list the same sockets through a pipe: 20,000
// of them, and a few. The results are medians of runs in random order. ss shows processes only with
// -p. Use -benchtime 20x.
func BenchmarkListing(b *testing.B) {
	program := built(b)
	for _, size := range []struct{ namespaces, units int }{{1, 1668}, {3, 556}, {1, 1}} {
		name := fmt.Sprintf("namespaces=%d/sockets=%d", size.namespaces, 12*size.namespaces*size.units)
		b.Run(name, func(b *testing.B) {
			hosts := crowd(b, size.namespaces, size.units)
			commands := [][]string{
				{"sstrace", "ls"}, {"sstrace", "ls", "-o", "wide"}, {"sstrace", "ls", "-o", "ndjson"},
				{"ss", "-tan"}, {"ss", "-tanp"}, {"ss", "-tanpe"},
			}
			took := make([][]float64, len(commands)) // ms
			for b.Loop() {
				for _, i := range rand.Perm(len(commands)) { // the previous command also matters
					c := commands[i]
					begin := time.Now()
					if c[0] == "sstrace" {
						cmd := exec.Command(program, c[1:]...)
						cmd.Stdout = drain{}
						if err := cmd.Run(); err != nil {
							b.Fatal(err)
						}
					} else {
						for _, h := range hosts {
							h.run(drain{}, c...)
						}
					}
					took[i] = append(took[i], time.Since(begin).Seconds()*1000)
				}
			}
			for i, c := range commands {
				slices.Sort(took[i])
				b.ReportMetric(took[i][len(took[i])/2], strings.Join(c, "")+"-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
