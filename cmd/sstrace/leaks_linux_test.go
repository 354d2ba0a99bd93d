package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forgetful closes the socket that it inherited, as its siblings should. Then it waits until its
// stdin is closed.
func init() {
	roles["tidy"] = func() {
		_ = unix.Close(3)
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}

// leakLine has the fields of a leaks line that the tests check.
type leakLine struct {
	Type    string
	Over    bool
	State   string
	New     string
	Age     *int64 `json:"age_ns"`
	AtLeast *int64 `json:"age_min_ns"`
	LPort   uint16 `json:"lport"`
	Proto   string
	Waiting *int64 `json:"accept_q"`
	MayWait *int64 `json:"accept_max"`
	Unread  *int64 `json:"recv_q"`
	Opened  *struct {
		Via   string
		PID   int
		Stack []string
	}
	Holders []struct {
		PID  int
		FD   int
		Comm string
		Exe  string
	}
	PID   int
	Count int
}

// leakRun is a running sstrace leaks -o ndjson.
type leakRun struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Reader
	early [][]byte // lines that came before the command's own line
	all   []byte
}

// leaks starts sstrace leaks and waits until its command reports that sstrace is attached. The run
// ends when its stdin is closed.
func (h *host) leaks(t *testing.T, args ...string) *leakRun {
	t.Helper()
	args = append([]string{"leaks", "-o", "ndjson", "--netns", h.netns()}, args...)
	r := &leakRun{t: t, cmd: self("sstrace", append(args, "--", "sh", "-c", "echo attached; read _; true")...)}
	stdin, err := r.cmd.StdinPipe()
	h.must("pipe", err)
	r.stdin = stdin
	out, err := r.cmd.StdoutPipe()
	h.must("pipe", err)
	r.cmd.Stderr = os.Stderr
	h.must("start", r.cmd.Start())
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	r.lines = bufio.NewReader(out)
	for {
		line, err := r.lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("leaks did not attach: %v", err)
		}
		if string(line) == "attached\n" {
			return r
		}
		r.early = append(r.early, line)
	}
}

func (r *leakRun) next() (l leakLine) {
	r.t.Helper()
	silent := time.AfterFunc(time.Minute, func() { // prints what it waits for, and ends the command
		_ = r.cmd.Process.Signal(unix.SIGQUIT)
		_ = r.stdin.Close()
	})
	defer silent.Stop()
	var text []byte
	var err error
	if len(r.early) > 0 {
		text, r.early = r.early[0], r.early[1:]
	} else if text, err = r.lines.ReadBytes('\n'); err != nil {
		r.t.Fatalf("no more lines: %v", err)
	}
	r.all = append(r.all, text...)
	if err := json.Unmarshal(text, &l); err != nil {
		r.t.Fatalf("%v: %s", err, text)
	}
	return l
}

// checkSchema checks that lines match the schema and that their sequence numbers have no gaps.
func checkSchema(t *testing.T, text []byte) {
	t.Helper()
	schema := ndjsonSchema(t)
	seq := 0
	for line := range bytes.Lines(text) {
		checkLine(t, schema, line)
		var l struct{ Seq int }
		if err := json.Unmarshal(line, &l); err != nil || l.Seq != seq+1 {
			t.Errorf("seq %d where %d is next, %v", l.Seq, seq+1, err)
		}
		seq = l.Seq
	}
}

// Three children inherit an accepted socket. All but one of them close it, and so does the parent.
// After the peer has closed, leaks finds that child and no other process.
func TestLeaksFindsTheForgottenCopy(t *testing.T) {
	h := newHost(t)
	run := h.leaks(t, "--older", "CLOSE_WAIT=1s", "--stacks")
	const addr = "127.0.0.1:7781"
	l := h.listen(addr, 8)
	var children []*exec.Cmd
	var client sock
	give := func(s sock) {
		for _, role := range []string{"tidy", "holder", "tidy"} {
			cmd := self(role)
			cmd.ExtraFiles = []*os.File{s.file()}
			stdin, err := cmd.StdinPipe()
			h.must("pipe", err)
			t.Cleanup(func() { stdin.Close() })
			h.must("start a child", cmd.Start())
			h.must("close our copy", cmd.ExtraFiles[0].Close())
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			children = append(children, cmd)
		}
	}
	client = h.dial(addr)
	s := l.accept()
	give(s)
	client.write("bye")
	client.close()
	s.close()
	guilty := children[1].Process.Pid

	found := run.next()
	// A well-behaved child may not have closed its copy yet, but only for a moment. The age limit
	// is a second.
	if found.Over || found.State != "CLOSE_WAIT" || found.LPort != 7781 || *found.Unread != 4 { // a FIN counts 1
		t.Errorf("%+v", found)
	}
	if len(found.Holders) != 1 || found.Holders[0].PID != guilty || found.Holders[0].FD != 3 || found.Holders[0].Exe != children[1].Path {
		t.Errorf("got holders %+v, want only %d with descriptor 3", found.Holders, guilty)
	}
	if o := found.Opened; o == nil || o.Via != "accept" || o.PID != os.Getpid() || !slices.ContainsFunc(o.Stack, func(f string) bool { return strings.Contains(f, "sock.accept+") }) {
		t.Errorf("opened by %+v", found.Opened)
	}

	once := sstrace(t, "", "leaks", "--once", "--older", "CLOSE_WAIT=1ms", "-o", "ndjson", "--netns", h.netns())
	if once.code != exitFound || !strings.Contains(once.stdout, `"type":"leak",`) || strings.Count(once.stdout, `"exe"`) != 1 || once.stderr != "" {
		t.Errorf("exit code %d, %s%s", once.code, once.stdout, once.stderr)
	}
	checkSchema(t, []byte(once.stdout))

	h.must("end the child", children[1].Process.Kill())
	over := run.next()
	if !over.Over || over.State != "CLOSE_WAIT" || (over.New != "LAST_ACK" && over.New != "CLOSE") || over.Age == nil && over.AtLeast == nil {
		t.Errorf("%+v", over)
	}
	l.close()
	h.must("end", run.stdin.Close())
	if end := run.next(); end.Type != "end" {
		t.Errorf("%+v", end)
	}
	checkSchema(t, run.all)
	if r := sstrace(t, "", "leaks", "--once", "--netns", h.netns()); r.code != 0 || r.stdout != "Nothing is stuck.\n" {
		t.Errorf("exit code %d, %s", r.code, r.stdout)
	}
}

// A listener with an overfull queue is reported. It is reported again once its connections have
// been accepted.
func TestLeaksFindsFullQueues(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(addr, func(t *testing.T) { leaksFindsFullQueues(t, addr) })
	}
}

func leaksFindsFullQueues(t *testing.T, addr string) {
	h := newHost(t)
	l := h.listen(addr, 1)
	run := h.leaks(t)
	for range 2 {
		h.dial(addr)
	}
	found := run.next()
	if found.State != "LISTEN" || found.Over || *found.Waiting != 2 || *found.MayWait != 1 || len(found.Holders) != 1 || found.Holders[0].PID != os.Getpid() {
		t.Errorf("%+v", found)
	}
	once := sstrace(t, "", "leaks", "--once", "--netns", h.netns())
	if once.code != exitFound || !strings.Contains(once.stdout, "accept queue full: 2 waiting, backlog 1") {
		t.Errorf("exit code %d, %s%s", once.code, once.stdout, once.stderr)
	}
	l.accept()
	if over := run.next(); !over.Over || over.State != "LISTEN" {
		t.Errorf("%+v", over)
	}
	checkSchema(t, run.all)
}

// Sockets that are stuck when the trace begins are also reported, with a lower bound of their age.
// So is a connect() that gets no answer.
func TestLeaksOlderThanTheTrace(t *testing.T) {
	h := newHost(t)
	w := h.newWire()
	const addr = "127.0.0.1:7781"
	l, c, s := h.connection(addr, addr)
	c.shutdown(unix.SHUT_WR)
	s.reach(unix.BPF_TCP_CLOSE_WAIT)
	run := h.leaks(t, "--older", "CLOSE_WAIT=1s,SYN_SENT=1s", "--state", "close-wait,syn-sent")
	first := run.next()
	if first.State != "CLOSE_WAIT" || first.Age != nil || *first.AtLeast < 1e9 {
		t.Errorf("%+v", first)
	}
	hole := h.socket(unix.AF_INET)
	h.must("nonblock", unix.SetNonblock(hole.fd, true))
	_ = unix.Connect(hole.fd, sockaddr(netip.MustParseAddrPort("10.1.2.3:80"), unix.AF_INET))
	w.receive(syn)
	second := run.next()
	if second.State != "SYN_SENT" || second.Age == nil || *second.Age < 1e9 || len(second.Holders) != 1 {
		t.Errorf("%+v", second)
	}
	h.must("end", run.stdin.Close())
	sums := make(map[string]int)
	for line := run.next(); line.Type != "end"; line = run.next() {
		if line.Type != "leaks" || line.PID != os.Getpid() {
			t.Errorf("%+v", line)
		}
		sums[line.State] = line.Count
	}
	if sums["CLOSE_WAIT"] != 1 || sums["SYN_SENT"] != 1 || len(sums) != 2 {
		t.Errorf("sums %v", sums)
	}
	checkSchema(t, run.all)
	hole.close()
	c.close()
	s.close()
	l.close()
}
