package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// socketKeys are those of a line of a listing, in order.
var socketKeys = []string{
	"v", "type", "seq", "ts", "mono_ns", "cookie", "sk", "netns", "family", "proto", "laddr", "lport", "raddr", "rport", "state", "age_ns", "age_min_ns", "left_ns",
	"recv_q", "send_q", "accept_q", "accept_max", "syn_retrans", "role", "owner_pid", "owner_comm", "owner_via", "holders", "uid", "cgroup", "cgroup_id", "container", "unit",
	"ifindex", "ifname", "v6only", "attached",
}

// list runs sstrace ls in the namespace h, checks its lines as such, and gives its sockets.
func (h *host) list(t *testing.T, args ...string) (all []event.Event) {
	t.Helper()
	r := sstrace(t, "", append([]string{"ls", "-o", "ndjson", "--netns", h.netns()}, args...)...)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("exit code %d, %s", r.code, r.stderr)
	}
	schema := ndjsonSchema(t)
	seq := uint64(0)
	for line := range strings.Lines(r.stdout) {
		checkLine(t, schema, []byte(line))
		var e event.Event
		if err := e.DecodeJSON([]byte(line)); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if seq++; e.Seq != seq {
			t.Errorf("seq %d where %d is next", e.Seq, seq)
		}
		if e.Type == event.Socket {
			all = append(all, e)
		} else if e.Type != event.End || e.Balance.Printed != uint64(len(all)) || !e.Balance.Balanced() {
			t.Errorf("%s", line)
		}
	}
	return all
}

// inProc writes what /proc/net/tcp and tcp6 of the namespace list: both ends, and the state.
func (h *host) inProc() (all []string) {
	tid := h.tid()
	for _, file := range []string{"tcp", "tcp6"} {
		s := h.sample(fmt.Sprintf("/proc/%d/task/%d/net/%s", os.Getpid(), tid, file))
		for ends, state := range s.states {
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

// established opens a connection to l at addr.
func (h *host) established(l sock, addr string) (c, s sock) {
	c = h.dial(addr)
	return c, l.accept()
}

// What exists is what the kernel lists, half-open connections and those that no process has included.
func TestListing(t *testing.T) {
	h := newHost(t)
	w := h.newWire()
	l4 := h.listen("127.0.0.1:7781", 3)
	any6 := h.listen("[::]:7782", 8)
	l6 := h.listen("[::1]:7783", 8)
	h.listen("10.0.0.1:7784", 8)
	w.send(segment{from: netip.MustParseAddrPort("10.1.2.3:40602"), to: netip.MustParseAddrPort("10.0.0.1:7784"), flags: syn, seq: 1000})
	w.receive(syn | ack) // a half-open one
	sent := h.socket(unix.AF_INET)
	h.must("nonblock", unix.SetNonblock(sent.fd, true))
	_ = unix.Connect(sent.fd, sockaddr(netip.MustParseAddrPort("10.1.2.3:9"), unix.AF_INET))
	for _, l := range []struct {
		sock
		addr string
	}{{l4, "127.0.0.1:7781"}, {any6, "127.0.0.1:7782"}, {any6, "[::1]:7782"}, {l6, "[::1]:7783"}} {
		h.established(l.sock, l.addr)
		c, s := h.established(l.sock, l.addr)
		c.write("hello")
		s.write("hi")
		c, _ = h.established(l.sock, l.addr)
		c.shutdown(unix.SHUT_WR)
		c, s = h.established(l.sock, l.addr)
		c.close() // FIN_WAIT2 without a process, and CLOSE_WAIT
		s.reach(unix.BPF_TCP_CLOSE_WAIT)
		c, s = h.established(l.sock, l.addr)
		closeBoth(c, s)
	}
	await(t, "four in TIME_WAIT, eight in FIN_WAIT2", func() bool {
		return h.inStates(unix.BPF_TCP_TIME_WAIT) == 4 && h.inStates(unix.BPF_TCP_FIN_WAIT2) == 8 && h.inStates(unix.BPF_TCP_SYN_RECV) == 1
	})

	want := h.inProc()
	var got []string
	all := h.list(t)
	for _, e := range all {
		got = append(got, socketText(e.Local, e.Remote, e.New))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nthe kernel has:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	families := make(map[event.Family]int)
	for _, e := range all {
		families[e.Family]++
		orphan := e.New == event.TimeWait || e.New == event.SynRecv || e.New == event.FinWait2 && e.Status.Left != event.Unknown
		switch {
		case orphan != (len(e.Status.Holders) == 0):
			t.Errorf("%v is held by %v", socketText(e.Local, e.Remote, e.New), e.Status.Holders)
		case (e.New == event.Listen) != (e.Role == event.Listener):
			t.Errorf("%v is a %v", socketText(e.Local, e.Remote, e.New), e.Role)
		case e.New == event.TimeWait && (e.Status.Left <= 0 || e.Status.Left > 60e9 || e.Status.AtLeast+e.Status.Left > 60e9):
			t.Errorf("TIME_WAIT for %d ns, and %d ns are left", e.Status.AtLeast, e.Status.Left)
		case e.New == event.SynRecv && e.Dur <= 0:
			t.Errorf("SYN_RECV for %d ns", e.Dur)
		}
	}
	if families[event.Mapped] < 4 || families[event.IPv6] < 18 || families[event.IPv4] < 14 {
		t.Errorf("families: %v", families)
	}
	text := sstrace(t, "", "ls", "--netns", h.netns()).stdout
	if got := strings.Count(text, "\n"); got != len(all)+3 || !strings.Contains(text, fmt.Sprintf("\n%d sockets: LISTEN 4, SYN_SENT 1, SYN_RECV 1, ESTABLISHED ", len(all))) {
		t.Errorf("as text: %d lines\n%s", got, text)
	}
	if some := h.list(t, "--state", "close-wait", "-6"); len(some) != 4 {
		t.Errorf("%d of IPv6 are in CLOSE_WAIT", len(some))
	}
	if some := h.list(t, "--where", "recv_q > 0 && any(holders, .fd > 2)", "-p", "7781"); len(some) != 4 { // hello, hi; and a FIN counts 1
		t.Errorf("%d have something to be read: %+v", len(some), some)
	}
}

// holders of the socket with these ends, as pid/fd.
func holders(all []event.Event, local, remote string) (found []string) {
	for _, e := range all {
		if e.Local.String() == local && (remote == "" || e.Remote.String() == remote) {
			for _, h := range e.Status.Holders {
				found = append(found, fmt.Sprintf("%d/%d", h.PID, h.FD))
			}
		}
	}
	slices.Sort(found)
	return found
}

// A socket that a child has inherited has two processes, and still one when the one that made it has closed it.
func TestListingOfInheritedSocket(t *testing.T) {
	h := newHost(t)
	l := h.listen("127.0.0.1:7781", 8)
	_, s := h.established(l, "127.0.0.1:7781")
	child := exec.Command("cat")
	f := s.file()
	child.ExtraFiles = []*os.File{f}
	stdin, err := child.StdinPipe()
	h.must("pipe", err)
	h.must("start a child", child.Start())
	f.Close()
	t.Cleanup(func() {
		stdin.Close()
		_ = child.Wait()
	})
	ours, theirs := fmt.Sprintf("%d/%d", os.Getpid(), s.fd), fmt.Sprintf("%d/3", child.Process.Pid)
	remote, err := unix.Getpeername(s.fd)
	h.must("ask for the peer", err)
	peer := fmt.Sprintf("127.0.0.1:%d", remote.(*unix.SockaddrInet4).Port)
	want := []string{ours, theirs}
	slices.SortFunc(want, cmp.Compare[string])
	if got := holders(h.list(t), "127.0.0.1:7781", peer); !slices.Equal(got, want) {
		t.Errorf("held by %v, want %v", got, want)
	}
	if got := h.list(t, "--pid", fmt.Sprint(child.Process.Pid), "--comm", "cat"); len(got) != 1 || got[0].OwnerPID != 0 {
		t.Errorf("of the child: %+v", got)
	}
	s.close()
	if got := holders(h.list(t), "127.0.0.1:7781", peer); !slices.Equal(got, []string{theirs}) {
		t.Errorf("held by %v, want %v", got, theirs)
	}
}

// A listener's queue: how many wait, and how many may.
func TestListingOfQueues(t *testing.T) {
	h := newHost(t)
	if none := h.list(t); len(none) != 0 {
		t.Errorf("before there are any: %+v", none)
	}
	l := h.listen("127.0.0.1:7781", 5)
	for waiting := range int64(3) {
		await(t, "the queue", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 2*int(waiting) })
		all := h.list(t, "--state", "listen")
		if len(all) != 1 || all[0].Status.RecvQueue != waiting || all[0].Status.SendQueue != 5 {
			t.Fatalf("%d wait: %+v", waiting, all)
		}
		if got := holders(all, "127.0.0.1:7781", ""); !slices.Equal(got, []string{fmt.Sprintf("%d/%d", os.Getpid(), l.fd)}) {
			t.Errorf("held by %v", got)
		}
		h.dial("127.0.0.1:7781")
	}
	s := l.accept()
	if got := h.list(t, "--where", "accept_q == 2 && accept_max == 5"); len(got) != 1 {
		t.Errorf("after accept: %+v", got)
	}
	s.write("hello")
	if got := h.list(t, "--where", "recv_q == 5 && send_q == 0"); len(got) != 1 || got[0].Role != event.Client {
		t.Errorf("with data unread: %+v", got)
	}
	// -w takes the listing, and -r gives it again.
	file := filepath.Join(t.TempDir(), "listing")
	if r := sstrace(t, "", "ls", "--netns", h.netns(), "-o", "ndjson", "-w", file); r.code != 0 || r.stdout != "" {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	if r := sstrace(t, "", "ls", "--netns", h.netns(), "-w", "/nonexistent/listing"); r.code != exitFailure || !strings.Contains(r.stderr, "no such file") || r.stdout != "" {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	text, err := os.ReadFile(file)
	h.must("read the listing", err)
	r := sstrace(t, "", "ls", "-r", file, "-o", "ndjson")
	end := strings.Index(r.stdout, `{"v":1,"type":"end"`) // counts what the filters dropped, and here there are none
	if end <= 0 || len(text) < end || r.stdout[:end] != string(text[:end]) {
		t.Errorf("a listing read again is not itself: %q, %q", r.stderr, r.stdout)
	}
}

// Who hurries collects no garbage at first, and then as usual.
func TestHurry(t *testing.T) {
	percent := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMAXPROCS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	usual := percent()
	defer debug.SetGCPercent(int(usual))
	runtime.GC()
	hurry()
	if n := runtime.GOMAXPROCS(0); n < 4 {
		t.Errorf("%d threads may run", n)
	}
	if p := percent(); p != 1600 {
		t.Errorf("garbage is collected at %d %%", p)
	}
	await(t, "garbage to be collected as usual", func() bool {
		runtime.GC()
		return percent() == usual
	})
}
