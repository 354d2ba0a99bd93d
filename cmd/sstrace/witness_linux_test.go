package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// witness is the kernel's own record of the same tracepoint, from a tracefs instance.
type witness struct {
	t   *testing.T
	dir string
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tracefs", root, "tracefs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	w := &witness{t, filepath.Join(root, "instances", fmt.Sprintf("sstrace-test-%d", os.Getpid()))}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(w.dir) })
	w.set("trace_clock", "mono")
	w.set("buffer_size_kb", "65536")
	if err := os.WriteFile(filepath.Join(w.dir, "options/fields"), []byte("1"), 0); err != nil {
		t.Skipf("before Linux 6.4 tracefs does not print the address of a sock: %v", err)
	}
	w.set("events/sock/inet_sock_set_state/enable", "1")
	t.Cleanup(func() { w.set("events/sock/inet_sock_set_state/enable", "0") })
	return w
}

func (w *witness) set(file, value string) {
	if err := os.WriteFile(filepath.Join(w.dir, file), []byte(value), 0); err != nil {
		w.t.Fatal(err)
	}
}

// seen contains the parts of a change that both the witness and sstrace report.
type seen struct {
	old, new     event.State
	lport, rport uint16
}

// hidden returns the threads of process 1. A hardened kernel may run no BPF program while the
// current task is a process that the kernel protects. This was seen on 6.18: tracefs records the
// softirqs that interrupt such a process, BPF programs of any kind do not run, and nothing counts
// that.
func hidden() map[string]bool {
	threads := make(map[string]bool)
	tasks, _ := os.ReadDir("/proc/1/task") // process 1 always exists
	for _, task := range tasks {
		threads[task.Name()] = true
	}
	return threads
}

// task matches the thread in a tracefs line: COMM-TID [CPU].
var task = regexp.MustCompile(`^.{16,}-([0-9]+) +\[[0-9]+\] `)

// checkComplete fails the test if the witness itself has lost events.
func (w *witness) checkComplete() {
	for cpu := 0; ; cpu++ {
		stats, err := os.ReadFile(filepath.Join(w.dir, fmt.Sprintf("per_cpu/cpu%d/stats", cpu)))
		if err != nil {
			break
		}
		if !bytes.Contains(stats, []byte("\noverrun: 0\n")) {
			w.t.Fatalf("the witness itself lost events: %s", stats)
		}
	}
}

// perSocket returns the changes of connections whose server port is in ports, by sock address. It
// skips changes that happened while a thread in skip was the current task.
func (w *witness) perSocket(ports []uint16, skip map[string]bool) (all map[uint64][]seen, skipped int) {
	text, err := os.ReadFile(filepath.Join(w.dir, "trace"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkComplete()
	all = make(map[uint64][]seen)
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, " inet_sock_set_state: ") {
			continue
		}
		field := func(name string) uint64 {
			_, value, _ := strings.Cut(line, " "+name+"=0x")
			value, _, _ = strings.Cut(value, " ")
			n, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				w.t.Fatalf("%s: %v: %s", name, err, line)
			}
			return n
		}
		s := seen{
			old: event.State(field("oldstate")), new: event.State(field("newstate")),
			lport: uint16(field("sport")), rport: uint16(field("dport")),
		}
		ours := slices.Contains(ports, s.lport) || slices.Contains(ports, s.rport)
		if field("protocol") != unix.IPPROTO_TCP || !ours {
			continue
		}
		tid := task.FindStringSubmatch(line)
		if tid == nil {
			w.t.Fatalf("no task in %s", line)
		}
		if skip[tid[1]] {
			skipped++
			continue
		}
		sk := field("skaddr")
		all[sk] = append(all[sk], s)
	}
	return all, skipped
}

// compare checks that sstrace reported each of the witness's changes exactly once, that it reported
// no other changes, and that the changes of each socket are in the same order.
func (w *witness) compare(r recordedRun, ports []uint16) {
	w.t.Helper()
	got := make(map[uint64][]seen)
	skip := hidden()
	for _, e := range r.changes {
		got[e.Sk] = append(got[e.Sk], seen{e.Old, e.New, e.Local.Port(), e.Remote.Port()})
		if e.TaskPID == 1 {
			skip = nil // nothing is hidden from BPF here
		}
	}
	want, skipped := w.perSocket(ports, skip)
	total, wrong := 0, 0
	for sk, changes := range want {
		total += len(changes)
		if !slices.Equal(got[sk], changes) {
			if wrong++; wrong < 5 {
				at := 0
				for at < len(changes) && at < len(got[sk]) && changes[at] == got[sk][at] {
					at++
				}
				w.t.Errorf("sock %#x from change %d on: got %v, want %v",
					sk, at, nearby(got[sk], at), nearby(changes, at))
			}
		}
	}
	if len(r.changes) != total {
		w.t.Errorf("got %d changes, want %d", len(r.changes), total)
	}
	w.t.Logf("%d changes of %d socks, the same as the kernel's (%d were hidden from BPF); balance %+v",
		total, len(want), skipped, *r.end)
}

// nearby returns the changes around index at.
func nearby(all []seen, at int) []seen {
	return all[min(max(at-2, 0), len(all)):min(at+6, len(all))]
}

// skippedPrograms returns how often the kernel skipped one of our children's BPF programs because
// it was already running.
func skippedPrograms(t *testing.T) (skipped int) {
	t.Helper()
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range children {
		text, _ := os.ReadFile(file) // the thread may have exited
		for _, pid := range strings.Fields(string(text)) {
			infos, _ := filepath.Glob("/proc/" + pid + "/fdinfo/*")
			for _, info := range infos {
				text, _ := os.ReadFile(info)
				_, rest, _ := strings.Cut(string(text), "\nrecursion_misses:\t")
				line, _, _ := strings.Cut(rest, "\n")
				n, _ := strconv.Atoi(line)
				skipped += n
			}
		}
	}
	return skipped
}
