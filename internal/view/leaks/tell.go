package leaks

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/text"
	"sstrace/internal/view/ls"
)

// teller writes what a View has to say.
type teller struct {
	lines  *ndjson.Lines
	json   bool
	kernel Kernel
}

func newTeller(out io.Writer, format string, kernel Kernel) teller {
	return teller{ndjson.NewLines(out), format == "ndjson", kernel}
}

// leak is a line about one socket: it is stuck, or that is over.
type leak struct {
	ndjson.Head
	Over      bool     `json:"over"`
	State     string   `json:"state"`
	New       *string  `json:"new"`
	Age       *int64   `json:"age_ns"`
	AtLeast   *int64   `json:"age_min_ns"`
	ID        *uint64  `json:"id"`
	Cookie    *uint64  `json:"cookie"`
	NetNS     *uint64  `json:"netns"`
	Family    string   `json:"family"`
	LAddr     *string  `json:"laddr"`
	LPort     *uint64  `json:"lport"`
	RAddr     *string  `json:"raddr"`
	RPort     *uint64  `json:"rport"`
	RecvQueue *int64   `json:"recv_q"`
	SendQueue *int64   `json:"send_q"`
	Waiting   *int64   `json:"accept_q"`
	MayWait   *int64   `json:"accept_max"`
	OwnerPID  *uint64  `json:"owner_pid"`
	OwnerComm *string  `json:"owner_comm"`
	OwnerVia  *string  `json:"owner_via"`
	Opened    *opened  `json:"opened"`
	Holders   []holder `json:"holders"`
	IfIndex   *uint64  `json:"ifindex"`
	IfName    *string  `json:"ifname"`
	Attached  *string  `json:"attached"`
	Proto     string   `json:"proto"`
}

type opened struct {
	Via   string   `json:"via"`
	PID   uint32   `json:"pid"`
	TID   *uint64  `json:"tid"`
	Comm  string   `json:"comm"`
	Stack []string `json:"stack"`
}

type holder struct {
	PID       uint32  `json:"pid"`
	Comm      string  `json:"comm"`
	FD        *uint32 `json:"fd"`
	Exe       *string `json:"exe"`
	Container *string `json:"container"`
	Unit      *string `json:"unit"`
	Slot      *uint32 `json:"slot"`
	RingFD    *uint32 `json:"ring_fd"`

	event.Holder `json:"-"`
}

// newHolder makes it of h, with what process knows about its process; process may be nil.
func newHolder(h *event.Holder, process func(pid uint32) (exe, cgroup string)) holder {
	v := holder{PID: h.PID, Comm: h.Comm, FD: &h.FD, Holder: *h}
	if h.How == event.BySlot {
		v.FD, v.Slot, v.RingFD = nil, &h.Slot, &h.FD
	}
	if process != nil {
		exe, cgroup := process(h.PID)
		of := event.Event{Cgroup: cgroup}
		v.Exe, v.Container, v.Unit = ndjson.Known(exe, ""), ndjson.Known(of.Container(), ""), ndjson.Known(of.Unit(), "")
	}
	return v
}

func newLeak(s *sock, process func(pid uint32) (exe, cgroup string)) *leak {
	l := &leak{
		Head: ndjson.NewHead("leak", s.Wall, s.Mono), State: s.New.String(), Age: ndjson.Known(s.Dur, event.Unknown), AtLeast: ndjson.Known(s.Status.AtLeast, event.Unknown), ID: ndjson.Known(s.ID, 0),
		Cookie: ndjson.Known(s.Cookie, 0), NetNS: ndjson.Known(uint64(s.NetNS), 0), Family: s.Family.String(), LPort: ndjson.Known(uint64(s.Local.Port()), 0), RPort: ndjson.Known(uint64(s.Remote.Port()), 0),
		OwnerPID: ndjson.Known(uint64(s.OwnerPID), 0), OwnerVia: ndjson.Known(s.OwnerVia.String(), ""),
		IfIndex: ndjson.Known(uint64(s.IfIndex), 0), IfName: ndjson.Known(s.IfName, ""), Attached: ndjson.Known(s.Status.Attached.String(), ""), Proto: s.Proto.String(),
	}
	if a := s.Local.Addr(); a.IsValid() {
		l.LAddr = ndjson.Known(a.String(), "")
	}
	if a := s.Remote.Addr(); a.IsValid() {
		l.RAddr = ndjson.Known(a.String(), "")
	}
	if s.OwnerPID != 0 {
		l.OwnerComm = &s.OwnerComm
	}
	if s.New == event.Listen {
		l.Waiting, l.MayWait = ndjson.Known(s.Status.RecvQueue, event.Unknown), ndjson.Known(s.Status.SendQueue, event.Unknown)
	} else {
		l.RecvQueue, l.SendQueue = ndjson.Known(s.Status.RecvQueue, event.Unknown), ndjson.Known(s.Status.SendQueue, event.Unknown)
	}
	if s.Status.Holders != nil {
		l.Holders = make([]holder, 0, len(s.Status.Holders))
	}
	for i := range s.Status.Holders {
		l.Holders = append(l.Holders, newHolder(&s.Status.Holders[i], process))
	}
	return l
}

// Process returns the executable and the cgroup of a process of this host by its number in /proc; empty if
// it is gone.
func Process(pid uint32) (exe, cgroup string) {
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	exe, _ = os.Readlink(dir + "/exe") // "" then
	text, _ := os.ReadFile(dir + "/cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok { // cgroup v2; cgroups(7)
			cgroup = path
		}
	}
	return exe, cgroup
}

// event passes on what every stream has.
func (t *teller) event(e *event.Event) error {
	switch {
	case t.json:
		return t.lines.Event(e)
	case e.Type == event.Lost:
		return t.lines.Text(fmt.Sprintf("%s %d changes were lost here: a socket may have been stuck, or may have gone on, unseen\n", clock(e.Wall), e.RingFull))
	}
	return nil
}

// stuck tells that s has been in its state for too long, or that its accept queue is full.
func (t *teller) stuck(s *sock, by opener) error {
	l := newLeak(s, t.kernel.Process)
	if by.pid != 0 {
		l.Opened = &opened{by.via.String(), by.pid, ndjson.Known(uint64(by.tid), 0), by.comm, nil}
		if by.stack != 0 && t.kernel.Stack != nil {
			pid := by.pid
			if t.kernel.Program(pid) != by.program { // it runs another one by now: what is mapped there tells nothing
				pid = 0
			}
			l.Opened.Stack = t.kernel.Stack(pid, by.stack)
		}
	}
	if t.json {
		return t.lines.JSON(l)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-11s %s %s", clock(s.Wall), s.New, whichAge(s), between(&s.Event))
	b.WriteString(protocol(s.Proto))
	if s.New == event.Listen {
		fmt.Fprintf(&b, "  accept queue full: %d wait, %d may", s.Status.RecvQueue, s.Status.SendQueue)
	} else {
		b.WriteString(unread(&s.Event))
	}
	b.WriteByte('\n')
	for _, h := range l.Holders {
		fmt.Fprintf(&b, "    held by %s %s%s\n", text.Process(h.PID, h.Comm), ls.AppendHold(nil, &h.Holder), more(&h))
	}
	switch {
	case l.Holders == nil && s.OwnerPID != 0:
		fmt.Fprintf(&b, "    of %s\n", text.Process(s.OwnerPID, s.OwnerComm))
	case l.Holders != nil && len(l.Holders) == 0:
		b.WriteString("    " + unheld(s.Status.Attached) + "\n")
	}
	if o := l.Opened; o != nil {
		verb := "connected"
		if by.via == event.ViaAccept {
			verb = "accepted"
		}
		fmt.Fprintf(&b, "    %s by thread %s of process %d\n", verb, text.Process(by.tid, o.Comm), o.PID)
		for _, f := range o.Stack {
			fmt.Fprintf(&b, "        %s\n", text.Visible(f))
		}
	}
	return t.lines.Text(b.String())
}

// unheld explains why no holder of a socket was found, as far as the socket itself says.
func unheld(a event.Attached) string {
	switch a {
	case event.AttachedNothing:
		return "held by no process: the kernel ends it"
	case event.AttachedQueue:
		return "not accepted yet: it waits in its listener's queue"
	case event.AttachedKernel:
		return "held by no process: the kernel opened it for itself (NFS and the like)"
	}
	return "no process's descriptor was found: it may be in flight over a UNIX socket, in a PID namespace that is not seen, or in the kernel's use"
}

// unread tells what the program has not read of what has come. The end of file, which a FIN makes, counts as a byte (tcp_recvmsg in net/ipv4/tcp.c).
func unread(e *event.Event) string {
	switch n := e.Status.RecvQueue; {
	case n == event.Unknown || e.New != event.CloseWait || e.Proto == event.MPTCP:
		return ""
	case n == 0:
		return "  end of file was read"
	case n == 1:
		return "  end of file unread"
	case n == 2:
		return "  1 byte and the end of file unread"
	default:
		return fmt.Sprintf("  %d bytes and the end of file unread", n-1)
	}
}

// over tells that s, of which was told, has left its state with e, or that its accept queue has room again.
func (t *teller) over(s *sock, e *event.Event) error {
	s.Mono, s.Wall = e.Mono, e.Wall
	status(s, e.Mono)
	s.OwnerPID, s.OwnerComm, s.OwnerVia = e.OwnerPID, e.OwnerComm, e.OwnerVia
	s.Status.Holders, s.Status.Attached = nil, 0
	if s.New != event.Listen {
		s.Status.RecvQueue, s.Status.SendQueue = event.Unknown, event.Unknown
	}
	if t.json {
		l := newLeak(s, t.kernel.Process)
		l.Over = true
		if s.New != event.Listen {
			l.New = ndjson.Known(e.New.String(), "")
		}
		return t.lines.JSON(l)
	}
	what := "over: → " + e.New.String()
	switch {
	case s.New == event.Listen:
		what = "over: the accept queue has room"
	case e.New == 0:
		what = "over: it went on while changes were lost"
	}
	if e.OwnerPID != 0 {
		what += "  " + text.Process(e.OwnerPID, e.OwnerComm)
	}
	return t.lines.Text(fmt.Sprintf(
		"%s %-11s %s %s%s  %s\n", clock(e.Wall), s.New, whichAge(s), between(&s.Event), protocol(s.Proto), what,
	))
}

// sum is a line at the end: how many sockets of a process are stuck in a state, or are in it for an unknown time.
type sum struct {
	ndjson.Head
	PID     *uint64 `json:"pid"`
	Comm    *string `json:"comm"`
	State   string  `json:"state"`
	Count   int     `json:"count"`
	Age     *int64  `json:"age_ns"`
	AtLeast *int64  `json:"age_min_ns"`
	Proto   string  `json:"proto"`
}

// sums reports how many of each process are stuck when all is over, and how many may be: the ageless ones.
func (t *teller) sums(stuck, ageless []*sock, end *event.Event) error {
	type key struct {
		ageless bool
		pid     uint32
		state   event.State
		proto   event.Proto
	}
	var order []key
	byKey := make(map[key]*sum)
	for i, s := range slices.Concat(stuck, ageless) { // the oldest first
		kind, mayBe := "leaks", i >= len(stuck)
		if mayBe {
			kind = "unknown_age"
		} else {
			status(s, end.Mono)
		}
		holders := s.Status.Holders
		if holders == nil {
			holders = []event.Holder{{PID: s.OwnerPID, Comm: s.OwnerComm}}
		} else if len(holders) == 0 {
			holders = []event.Holder{{}}
		}
		for i, h := range holders {
			k := key{mayBe, h.PID, s.New, s.Proto}
			if slices.ContainsFunc(holders[:i], func(before event.Holder) bool { return before.PID == h.PID }) {
				continue
			}
			n := byKey[k]
			if n == nil {
				n = &sum{
					Head: ndjson.NewHead(kind, end.Wall, end.Mono), PID: ndjson.Known(uint64(h.PID), 0), State: s.New.String(), Age: ndjson.Known(s.Dur, event.Unknown), AtLeast: ndjson.Known(s.Status.AtLeast, event.Unknown),
					Proto: s.Proto.String(),
				}
				if h.PID != 0 {
					n.Comm = &h.Comm
				}
				byKey[k] = n
				order = append(order, k)
			}
			n.Count++
		}
	}
	slices.SortStableFunc(order, func(a, b key) int {
		switch {
		case a.ageless && !b.ageless:
			return 1
		case b.ageless && !a.ageless:
			return -1
		}
		return cmp.Compare(byKey[b].Count, byKey[a].Count)
	})
	if !t.json && (len(order) == 0 || order[0].ageless) {
		nothing := "Nothing is stuck.\n"
		if len(order) > 0 {
			nothing = "Nothing is known to be stuck.\n"
		}
		if err := t.lines.Text(nothing); err != nil {
			return err
		}
	}
	for i, k := range order {
		n := byKey[k]
		if t.json {
			if err := t.lines.JSON(n); err != nil {
				return err
			}
			continue
		}
		if i == 0 && !k.ageless {
			if err := t.lines.Text("\n"); err != nil {
				return err
			}
		}
		who := "no process found"
		if n.PID != nil {
			who = text.Process(k.pid, *n.Comm)
		}
		kind, them := "socket", "it"
		if k.proto == event.MPTCP {
			kind = "MPTCP socket"
		}
		if n.Count > 1 {
			kind, them = kind+"s", "them"
		}
		number := strconv.Itoa(n.Count) + " " + kind
		since := "since " + clock(end.Wall-deref(n.Age))
		if n.Age == nil {
			since = "since before " + clock(end.Wall-deref(n.AtLeast))
		}
		what := "in " + n.State
		if k.state == event.Listen {
			what, since = "whose accept queue is full", ""
		}
		if k.ageless {
			what, since = what+",", "for an unknown time: sstrace leaks watches "+them
		}
		if err := t.lines.Text(strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", who, number, what, since)) + "\n"); err != nil {
			return err
		}
	}
	return nil
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func clock(wall int64) string { return time.Unix(0, wall).Format("15:04:05.000") }

// whichAge writes how long s has been in its state, and whether that is all.
func whichAge(s *sock) string { return fmt.Sprintf("%8s", ls.Age(&s.Event)) }

// between writes both ends; of a listener its own.
func between(e *event.Event) string {
	local := text.Local(e)
	if e.New == event.Listen {
		return local
	}
	return local + " ↔ " + text.Remote(e)
}

// protocol writes that of an MPTCP socket, which has the same ends as its first subflow.
func protocol(p event.Proto) string {
	if p == event.MPTCP {
		return "  " + p.String()
	}
	return ""
}

// more writes what a holder runs, and whose it is, as far as that is known.
func more(h *holder) (line string) {
	if h.Exe != nil {
		line = "  " + text.Visible(*h.Exe)
	}
	switch {
	case h.Container != nil:
		line += "  container " + (*h.Container)[:12]
	case h.Unit != nil:
		line += "  " + text.Visible(*h.Unit)
	}
	return line
}
