package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// witness is the kernel's own record of the same tracepoint: an instance of tracefs.
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

// seen is what both the witness and sstrace tell of a change.
type seen struct {
	old, new     event.State
	lport, rport uint16
}

// hidden are the threads of process 1. A hardened kernel may run no BPF program while a process that it protects is the current task
// (seen on 6.18: tracefs has the softirqs that interrupted it, BPF programs of any kind do not, and nothing counts that).
func hidden() map[string]bool {
	threads := make(map[string]bool)
	tasks, _ := os.ReadDir("/proc/1/task") // process 1 is there
	for _, task := range tasks {
		threads[task.Name()] = true
	}
	return threads
}

// task finds the thread in a line of tracefs: COMM-TID [CPU].
var task = regexp.MustCompile(`^.{16,}-([0-9]+) +\[[0-9]+\] `)

// perSocket gives the changes of connections with a server port in ports, by the address of their socks, but those that happened while
// one of the threads skip was the current task.
func (w *witness) perSocket(ports []uint16, skip map[string]bool) (all map[uint64][]seen, skipped int) {
	text, err := os.ReadFile(filepath.Join(w.dir, "trace"))
	if err != nil {
		w.t.Fatal(err)
	}
	for cpu := 0; ; cpu++ {
		stats, err := os.ReadFile(filepath.Join(w.dir, fmt.Sprintf("per_cpu/cpu%d/stats", cpu)))
		if err != nil {
			break
		}
		if !bytes.Contains(stats, []byte("\noverrun: 0\n")) {
			w.t.Fatalf("the witness itself lost events: %s", stats)
		}
	}
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
		s := seen{event.State(field("oldstate")), event.State(field("newstate")), uint16(field("sport")), uint16(field("dport"))}
		if field("protocol") == unix.IPPROTO_TCP && (slices.Contains(ports, s.lport) || slices.Contains(ports, s.rport)) {
			tid := task.FindStringSubmatch(line)
			if tid == nil {
				w.t.Fatalf("no task in %s", line)
			}
			if skip[tid[1]] {
				skipped++
				continue
			}
			all[field("skaddr")] = append(all[field("skaddr")], s)
		}
	}
	return all, skipped
}

// compare checks that sstrace tells each of the witness's changes once, no others, and those of each socket in their order.
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
				w.t.Errorf("sock %#x from change %d on: got %v, the kernel has %v", sk, at, few(got[sk], at), few(changes, at))
			}
		}
	}
	if len(r.changes) != total {
		w.t.Errorf("%d changes, the kernel has %d", len(r.changes), total)
	}
	w.t.Logf("%d changes of %d socks, as the kernel has them (%d were hidden from BPF); balance %+v", total, len(want), skipped, *r.end)
}

// few are the changes around the one at.
func few(all []seen, at int) []seen {
	return all[min(max(at-2, 0), len(all)):min(at+6, len(all))]
}

func cpus() int {
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	return set.Count()
}

// 10,000 connections of five kinds, some at a time: every change is told, once, in its socket's order, as the kernel's own trace has
// it.
func TestEqualsTracefs(t *testing.T) {
	const each = 2000
	w := newWitness(t)
	h := newHost(t)
	ports := []uint16{17001, 17002, 17003, 17004, 17005}
	r := trace(t, []string{"--netns", h.netns()}, func() { h.mixed(ports, each) })
	w.compare(r, ports)
	if got := len(firstChanges(r.changes)); got < 5*each {
		t.Errorf("%d sockets, want at least %d", got, 5*each)
	}
}

// mixed makes 5 times each connections, of five kinds at a time, to one of ports each.
func (h *host) mixed(ports []uint16, each int) {
	var all sync.WaitGroup
	for i, port := range ports {
		all.Go(func() {
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			if i == 4 {
				to := sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET)
				for range each { // nobody listens there
					s := h.socket(unix.AF_INET)
					_ = unix.Connect(s.fd, to)
					s.close()
				}
				return
			}
			l := h.listen(addr, 64)
			for range each {
				c := h.dial(addr)
				s := l.accept()
				switch i {
				case 0:
					c.close()
					s.close()
				case 1:
					s.close()
					c.close()
				case 2:
					c.reset()
					c.close()
					s.close()
				case 3:
					c.write("nobody reads this")
					c.shutdown(unix.SHUT_WR)
					s.close()
					c.close()
				}
			}
			l.close()
		})
	}
	all.Wait()
	// Where both closed, the last ACK may still be on its way.
	h.quiet()
}

// quiet waits until nothing in the namespace is about to change by itself: /proc/net/tcp has listeners and TIME_WAIT only.
func (h *host) quiet() {
	path := fmt.Sprintf("/proc/%d/task/%d/net/tcp", os.Getpid(), h.tid())
	await(h.t, "quiet", func() bool {
		text, err := os.ReadFile(path)
		h.must("look at sockets", err)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 3 && f[0] != "sl" && f[3] != "0A" && f[3] != "06" {
				return false
			}
		}
		return true
	})
}

func init() { roles["connect"] = connectMany }

// connectMany is a process that connects to its first argument as often as its second says, anew for each request.
func connectMany() {
	to := sockaddr(netip.MustParseAddrPort(os.Args[1]), unix.AF_INET)
	n, _ := strconv.Atoi(os.Args[2])
	buf := make([]byte, 16)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Connect(fd, to)
		}
		if err == nil {
			_, err = unix.Write(fd, []byte("PING\r\n"))
		}
		if err == nil {
			_, err = unix.Read(fd, buf)
		}
		if err == nil {
			err = unix.Close(fd)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// Many processes with a new connection for each request: softirqs interrupt the program and change states themselves, and the kernel
// then skips it. Nothing is missing, and nothing there twice. Packets go to the softirq of any CPU (RPS), by an interrupt, lest
// that is rare; and more are sent until it has happened.
func TestNestedSoftirqs(t *testing.T) {
	w := newWitness(t)
	h := newHost(t)
	h.spreadPackets()
	const processes, each, rounds = 8, 1000, 50
	port := uint16(17006)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	// Lest the ports run out: TIME_WAIT is the server's, who closes last.
	r := trace(t, []string{"--netns", h.netns(), "-p", fmt.Sprint(port)}, func() {
		l := h.listen(addr, 1024)
		var servers, clients sync.WaitGroup
		for range 2 {
			servers.Go(func() {
				buf := make([]byte, 16)
				for {
					fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
					if err != nil {
						return
					}
					_, _ = unix.Read(fd, buf)
					_, _ = unix.Write(fd, []byte("+PONG\r\n"))
					_, _ = unix.Read(fd, buf)
					_ = unix.Close(fd)
				}
			})
		}
		skipped := 0
		for round := 0; round < rounds && skipped < 3; round++ {
			for range processes {
				clients.Go(func() {
					cmd := self("connect", addr, strconv.Itoa(each))
					var out bytes.Buffer
					cmd.Stderr = &out
					var err error
					h.do(func() { err = cmd.Start() })
					if err == nil {
						err = cmd.Wait()
					}
					if err != nil {
						t.Errorf("client: %v: %s", err, &out)
					}
				})
			}
			clients.Wait()
			skipped = skippedPrograms(t)
		}
		t.Logf("the kernel skipped a program %d times", skipped)
		if skipped == 0 {
			t.Error("the kernel skipped no program: this tests nothing")
		}
		h.must("shutdown", unix.Shutdown(l.fd, unix.SHUT_RD)) // ends accept()
		servers.Wait()
		l.close()
		h.quiet()
	})
	w.compare(r, []uint16{port})
	if r.end.Missed != 0 {
		t.Errorf("missed %d", r.end.Missed)
	}
}

// spreadPackets lets packets on lo be received by all CPUs: RPS, Documentation/networking/scaling.rst.
func (h *host) spreadPackets() {
	dir := h.t.TempDir()
	h.do(func() {
		// What sysfs shows of the network is the namespace's of who mounts it.
		h.must("mount", unix.Mount("sysfs", dir, "sysfs", 0, ""))
		h.must("RPS", os.WriteFile(filepath.Join(dir, "class/net/lo/queues/rx-0/rps_cpus"), []byte(fmt.Sprintf("%x", 1<<cpus()-1)), 0))
		h.must("unmount", unix.Unmount(dir, unix.MNT_DETACH))
	})
}

// skippedPrograms is how often the kernel skipped a program of our children, because it was running already.
func skippedPrograms(t *testing.T) (skipped int) {
	t.Helper()
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range children {
		text, _ := os.ReadFile(file) // the thread may have ended
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

// The smallest ring, and nobody reads it for a while: changes are lost, and it is told how many, where, and which durations that
// leaves unknown.
func TestOverflow(t *testing.T) {
	for _, states := range []string{"kernel", "rfc"} {
		t.Run(states, func(t *testing.T) { testOverflow(t, states) })
	}
}

func testOverflow(t *testing.T, states string) {
	h := newHost(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	// The lines go to a pipe that nobody reads, so sstrace soon sleeps in write().
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	cmd := self("sstrace", "-o", "ndjson", "--netns", h.netns(), "--buffer", "4K", "--states", states)
	cmd.Stdout = writer
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	h.awaitAttached(reader)
	const addr = "127.0.0.1:7781"
	l, old, s := h.connection(addr, addr)
	for range 2000 {
		c := h.dial(addr)
		c.reset()
		c.close()
		l.accept().close()
	}
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan error)
	go func() {
		_, err := out.ReadFrom(reader)
		copied <- err
	}()
	await(t, "sstrace has caught up", func() bool {
		h.listen("127.0.0.1:2", 1).close()
		text, err := os.ReadFile(file)
		h.must("read", err)
		return bytes.Contains(text, []byte(`"lport":2,`))
	})
	closeBoth(old, s)
	l.close()
	h.must("signal", cmd.Process.Signal(unix.SIGTERM))
	h.must("wait", cmd.Wait())
	h.must("copy", <-copied)

	r := readRecording(t, file)
	var lost uint64
	for _, e := range r.lost {
		lost += e.RingFull
	}
	if lost == 0 || lost != r.end.RingFull {
		t.Errorf("%d changes are told to be lost where they were, %d at the end", lost, r.end.RingFull)
	}
	// From before a loss to after it no duration is known.
	losses := make([]int, 0, len(r.lost))
	for _, e := range r.lost {
		losses = append(losses, int(e.Seq))
	}
	last := make(map[uint64]int)
	affected := 0
	for _, e := range r.changes {
		socket := e.Sk // whatever sstrace takes for one socket
		if states == "rfc" {
			socket = e.ID // several, one after the other
		}
		before, ok := last[socket]
		last[socket] = int(e.Seq)
		crossed := slices.ContainsFunc(losses, func(at int) bool { return ok && before < at && at < int(e.Seq) })
		if crossed {
			affected++
			if e.Dur != event.Unknown {
				t.Errorf("changes were lost between line %d and %d, and a duration of %d ns is claimed", before, e.Seq, e.Dur)
			}
		}
	}
	t.Logf("%d changes, %d lost in %d places, %d affected; %s", len(r.changes), lost, len(r.lost), affected, &stderr)
	cookies := slices.ContainsFunc(r.changes, func(e event.Event) bool { return e.Cookie != 0 }) // without, a loss makes another socket of it
	if affected == 0 && cookies {
		t.Error("no socket has changes on both sides of a loss: this tests nothing")
	}
	if !strings.Contains(stderr.String(), "--buffer") {
		t.Errorf("stderr does not tell what to do: %s", &stderr)
	}
}

// awaitAttached opens and closes listeners until the first line comes, which it leaves in the pipe.
func (h *host) awaitAttached(reader *os.File) {
	conn, err := reader.SyscallConn()
	h.must("pipe", err)
	await(h.t, "sstrace attaches", func() bool {
		h.listen("127.0.0.1:1", 1).close()
		ready := false
		h.must("poll", conn.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(fds, 10)
			ready = n == 1
		}))
		return ready
	})
}
