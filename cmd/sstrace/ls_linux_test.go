package main

import (
	"fmt"
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

// socketKeys are the keys of a line of ls, in order.
var socketKeys = keyNames(event.InSocket)

func keyNames(in event.Kinds) (names []string) {
	for _, k := range in.Keys() {
		names = append(names, k.Name)
	}
	return names
}

// list runs sstrace ls in the namespace, checks its lines and returns its sockets.
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
			t.Errorf("got seq %d, want %d", e.Seq, seq)
		}
		if e.Type == event.Socket {
			all = append(all, e)
		} else if e.Type != event.End || e.Balance.Printed != uint64(len(all)) || !e.Balance.Balanced() {
			t.Errorf("got %s, want a balanced end that counts %d sockets", line, len(all))
		}
	}
	return all
}

// everyKind opens sockets in most states and in all families: 4 listeners and many connections. Of
// the connections, 4 end in TIME_WAIT and 8 in FIN_WAIT2, half of which are orphaned. One is
// half-open after a SYN, and one waits for its SYN-ACK.
func (h *host) everyKind() {
	w := h.newWire()
	l4 := h.listen(loopbackAddr, 3)
	any6 := h.listen("[::]:7782", 8)
	l6 := h.listen("[::1]:7783", 8)
	h.listen("10.0.0.1:7784", 8)
	w.send(synTo(peerAddr, "10.0.0.1:7784"))
	w.receive(syn | ack)
	w.connectTo("10.1.2.3:9")
	for _, l := range []struct {
		sock
		addr string
	}{{l4, loopbackAddr}, {any6, "127.0.0.1:7782"}, {any6, "[::1]:7782"}, {l6, "[::1]:7783"}} {
		h.established(l.sock, l.addr)
		c, s := h.established(l.sock, l.addr)
		c.write("hello")
		s.write("hi")
		c, _ = h.established(l.sock, l.addr)
		c.shutdown(unix.SHUT_WR)
		c, s = h.established(l.sock, l.addr)
		c.close() // FIN_WAIT2 without a process, and CLOSE_WAIT
		s.reach(unix.BPF_TCP_CLOSE_WAIT)
		closeBoth(h.established(l.sock, l.addr))
	}
	h.awaitStates(4, unix.BPF_TCP_TIME_WAIT)
	h.awaitStates(8, unix.BPF_TCP_FIN_WAIT2)
	h.awaitStates(1, unix.BPF_TCP_SYN_RECV)
}

// ls lists what the kernel lists, including half-open connections and orphans.
func TestListing(t *testing.T) {
	h := newHost(t)
	h.everyKind()
	want := h.inProc()
	var got []string
	all := h.list(t)
	for _, e := range all {
		got = append(got, socketText(e.Local, e.Remote, e.New))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	families := make(map[event.Family]int)
	for _, e := range all {
		families[e.Family]++
		checkListed(t, &e)
	}
	if families[event.Mapped] < 4 || families[event.IPv6] < 18 || families[event.IPv4] < 14 {
		t.Errorf("got families %v", families)
	}
	text := sstrace(t, "", "ls", "--netns", h.netns()).stdout
	sum := fmt.Sprintf("\n%d sockets: LISTEN 4, SYN_SENT 1, SYN_RECV 1, ESTABLISHED ", len(all))
	if got, want := strings.Count(text, "\n"), len(all)+3; got != want || !strings.Contains(text, sum) {
		t.Errorf("text: got %d lines, want %d with %q\n%s", got, want, sum, text)
	}
	if some := h.list(t, "--state", "close-wait", "-6"); len(some) != 4 {
		t.Errorf("got %d IPv6 sockets in CLOSE_WAIT, want 4", len(some))
	}
	// hello, hi, and a FIN, which counts as 1.
	if some := h.list(t, "--where", "recv_q > 0 && any(holders, .fd > 2)", "-p", "7781"); len(some) != 4 {
		t.Errorf("got %d sockets with something to read, want 4: %+v", len(some), some)
	}
}

// checkListed checks what is true of every socket of everyKind.
func checkListed(t *testing.T, e *event.Event) {
	t.Helper()
	orphan := e.New == event.TimeWait || e.New == event.SynRecv ||
		e.New == event.FinWait2 && e.Status.Left != event.Unknown
	timeWait := e.Status.Left > 0 && e.Status.Left <= 60e9 && e.Status.AtLeast+e.Status.Left <= 60e9
	text := socketText(e.Local, e.Remote, e.New)
	switch {
	case orphan != (len(e.Status.Holders) == 0):
		t.Errorf("%v: got holders %v", text, e.Status.Holders)
	case (e.New == event.Listen) != (e.Role == event.Listener):
		t.Errorf("%v: got role %v", text, e.Role)
	case e.New == event.TimeWait && !timeWait:
		t.Errorf("%v: got %d ns, and %d ns left, want at most a minute", text, e.Status.AtLeast, e.Status.Left)
	case e.New == event.SynRecv && e.Dur <= 0:
		t.Errorf("%v: got %d ns", text, e.Dur)
	}
}

// holders returns the holders of the socket with these addresses, as pid/fd.
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

// A socket that a child inherited has two holders. After its creator has closed it, it has one.
func TestListingOfInheritedSocket(t *testing.T) {
	h := newHost(t)
	l := h.listen(loopbackAddr, 8)
	_, s := h.established(l, loopbackAddr)
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
	_, remote, _ := s.ends()
	want := sorted([]string{ours, theirs})
	if got := holders(h.list(t), loopbackAddr, remote.String()); !slices.Equal(got, want) {
		t.Errorf("got holders %v, want %v", got, want)
	}
	got := h.list(t, "--pid", fmt.Sprint(child.Process.Pid), "--comm", "cat")
	if len(got) != 1 || got[0].OwnerPID != 0 {
		t.Errorf("got %+v, want one socket without an owner", got)
	}
	s.close()
	if got := holders(h.list(t), loopbackAddr, remote.String()); !slices.Equal(got, []string{theirs}) {
		t.Errorf("got holders %v, want %v", got, theirs)
	}
}

// For a listener, ls shows how many connections are in the accept queue, and its limit.
func TestListingOfQueues(t *testing.T) {
	h := newHost(t)
	if none := h.list(t); len(none) != 0 {
		t.Errorf("got %+v, want no sockets", none)
	}
	l := h.listen(loopbackAddr, 5)
	for waiting := range int64(3) {
		h.awaitStates(2*int(waiting), unix.BPF_TCP_ESTABLISHED)
		all := h.list(t, "--state", "listen")
		if len(all) != 1 || all[0].Status.RecvQueue != waiting || all[0].Status.SendQueue != 5 {
			t.Fatalf("got %+v, want %d waiting of 5", all, waiting)
		}
		want := []string{fmt.Sprintf("%d/%d", os.Getpid(), l.fd)}
		if got := holders(all, loopbackAddr, ""); !slices.Equal(got, want) {
			t.Errorf("got holders %v, want %v", got, want)
		}
		h.dial(loopbackAddr)
	}
	s := l.accept()
	if got := h.list(t, "--where", "accept_q == 2 && accept_max == 5"); len(got) != 1 {
		t.Errorf("after accept(): got %+v, want 2 waiting of 5", got)
	}
	s.write("hello")
	if got := h.list(t, "--where", "recv_q == 5 && send_q == 0"); len(got) != 1 || got[0].Role != event.Client {
		t.Errorf("got %+v, want the client with 5 bytes unread", got)
	}
}

// -w writes a listing to a file, and -r prints the file again.
func TestListingToAFile(t *testing.T) {
	h := newHost(t)
	h.connection(loopbackAddr, loopbackAddr)
	file := filepath.Join(t.TempDir(), "listing")
	args := []string{"ls", "--netns", h.netns(), "-o", "ndjson"}
	if r := sstrace(t, "", append(args, "-w", file)...); r.code != 0 || r.stdout != "" {
		t.Errorf("got %+v, want exit code 0 and no stdout", r)
	}
	r := sstrace(t, "", append(args, "-w", "/nonexistent/listing")...)
	if r.code != exitFailure || !strings.Contains(r.stderr, "no such file") || r.stdout != "" {
		t.Errorf("got %+v, want exit code %d and no such file", r, exitFailure)
	}
	want := read(t, file)
	got := sstrace(t, "", "ls", "-r", file, "-o", "ndjson").stdout
	// The end line counts what the filters dropped. Dropped sockets are not in the file, so the
	// counts differ after a replay.
	end := strings.Index(got, `{"v":1,"type":"end"`)
	if end <= 0 || len(want) < end || got[:end] != want[:end] {
		t.Errorf("got %q, want %q", got, want)
	}
}

// hurry stops garbage collection at first. Later, garbage collection works as usual.
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
		t.Errorf("got GOMAXPROCS %d, want at least 4", n)
	}
	if p := percent(); p != 1600 {
		t.Errorf("got GOGC %d, want 1600", p)
	}
	await(t, "the usual GOGC", func() bool {
		runtime.GC()
		return percent() == usual
	})
}
