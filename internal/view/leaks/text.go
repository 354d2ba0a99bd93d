package leaks

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/text"
	"sstrace/internal/view/ls"
)

// writer writes the findings of a View.
type writer struct {
	lines  *ndjson.Lines
	json   bool
	kernel Kernel
}

func newWriter(out io.Writer, format string, kernel Kernel) writer {
	return writer{ndjson.NewLines(out), format == "ndjson", kernel}
}

// event writes a Lost or an End, both of which occur in every stream.
func (w *writer) event(e *event.Event) error {
	switch {
	case w.json:
		return w.lines.Event(e)
	case e.Type == event.Lost:
		return w.lines.Text(fmt.Sprintf("%s %d changes were lost here: a socket may have become stuck, or have recovered, unseen\n", clock(e.Wall), e.RingFull))
	}
	return nil
}

// end writes the buffered output. In NDJSON it also writes the line that ends the run.
func (w *writer) end(e *event.Event) error {
	if w.json {
		return w.lines.End(e)
	}
	return w.lines.Flush()
}

// stuck reports that s has been in its state for too long, or that its accept queue is full.
func (w *writer) stuck(s *socket, by opener) error {
	l := newLeak(s, w.kernel.Process)
	l.Opened = w.opened(by)
	if w.json {
		return w.lines.JSON(l)
	}
	var b strings.Builder
	b.WriteString(subject(s))
	if s.New == event.Listen {
		fmt.Fprintf(&b, "  accept queue full: %d waiting, backlog %d", s.Status.RecvQueue, s.Status.SendQueue)
	} else {
		b.WriteString(unread(&s.Event))
	}
	b.WriteByte('\n')
	for _, h := range l.Holders {
		fmt.Fprintf(&b, "    held by %s %s%s\n", text.Process(h.PID, h.Comm), ls.AppendHold(nil, &h.Holder),
			h.program())
	}
	switch {
	case l.Holders == nil && s.OwnerPID != 0:
		fmt.Fprintf(&b, "    owner %s\n", text.Process(s.OwnerPID, s.OwnerComm))
	case l.Holders != nil && len(l.Holders) == 0:
		b.WriteString("    " + noHolder(s.Status.Attached) + "\n")
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
	return w.lines.Text(b.String())
}

// opened returns who opened a connection, with the function names of the stack. The result is nil
// if that is unknown.
func (w *writer) opened(by opener) *opened {
	if by.pid == 0 {
		return nil
	}
	o := &opened{by.via.String(), by.pid, ndjson.Known(uint64(by.tid), 0), by.comm, nil}
	if by.stack != 0 && w.kernel.Stack != nil {
		pid := by.pid
		if w.kernel.Program(pid) != by.program { // the process now runs another program, so its mappings no longer fit
			pid = 0
		}
		o.Stack = w.kernel.Stack(pid, by.stack)
	}
	return o
}

// over reports that the reported socket s has left its state by the change e, or that its accept
// queue has room again.
func (w *writer) over(s *socket, e *event.Event) error {
	s.Mono, s.Wall = e.Mono, e.Wall
	s.setAge(e.Mono)
	s.OwnerPID, s.OwnerComm, s.OwnerVia = e.OwnerPID, e.OwnerComm, e.OwnerVia
	s.Status.Holders, s.Status.Attached = nil, 0
	if s.New != event.Listen {
		s.Status.RecvQueue, s.Status.SendQueue = event.Unknown, event.Unknown
	}
	if w.json {
		l := newLeak(s, w.kernel.Process)
		l.Over = true
		if s.New != event.Listen {
			l.New = ndjson.Known(e.New.String(), "")
		}
		return w.lines.JSON(l)
	}
	what := "over: → " + e.New.String()
	switch {
	case s.New == event.Listen:
		what = "over: the accept queue has room again"
	case e.New == 0:
		what = "over: it left the state while changes were lost"
	}
	if e.OwnerPID != 0 {
		what += "  " + text.Process(e.OwnerPID, e.OwnerComm)
	}
	return w.lines.Text(subject(s) + "  " + what + "\n")
}

// sums writes the sums at the end of the run.
func (w *writer) sums(stuck, agesUnknown []*socket, end *event.Event) error {
	all := sumUp(stuck, agesUnknown, end)
	if w.json {
		for _, n := range all {
			if err := w.lines.JSON(n); err != nil {
				return err
			}
		}
		return nil
	}
	var b strings.Builder
	switch {
	case len(all) == 0:
		b.WriteString("Nothing is stuck.\n")
	case all[0].ageUnknown():
		b.WriteString("Nothing is known to be stuck.\n")
	default:
		b.WriteByte('\n')
	}
	for _, n := range all {
		b.WriteString(n.text(end) + "\n")
	}
	return w.lines.Text(b.String())
}

// text returns a sum as a line of text.
func (n *sum) text(end *event.Event) string {
	who := "no process found"
	if n.PID != nil {
		who = text.Process(uint32(*n.PID), *n.Comm)
	}
	kind, them := "socket", "it"
	if n.Proto == event.MPTCP.String() {
		kind = "MPTCP socket"
	}
	if n.Count > 1 {
		kind, them = kind+"s", "them"
	}
	line := who + ": " + strconv.Itoa(n.Count) + " " + kind
	switch {
	case n.State == event.Listen.String():
		return line + " with a full accept queue"
	case n.ageUnknown():
		return line + " in " + n.State + " for an unknown time: sstrace leaks can watch " + them
	case n.Age == nil:
		return line + " in " + n.State + " since before " + clock(end.Wall-deref(n.AtLeast))
	}
	return line + " in " + n.State + " since " + clock(end.Wall-*n.Age)
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func clock(wall int64) string { return time.Unix(0, wall).Format("15:04:05.000") }

// subject returns the start of a line about s: the time, the state, its age, and the socket. For a
// listener, only its own address is shown. For an MPTCP socket, the addresses are those of its
// first subflow, and a mark is added.
func subject(s *socket) string {
	addresses := text.Local(&s.Event)
	if s.New != event.Listen {
		addresses += " ↔ " + text.Remote(&s.Event)
	}
	if s.Proto == event.MPTCP {
		addresses += "  " + s.Proto.String()
	}
	return fmt.Sprintf("%s %-11s %8s %s", clock(s.Wall), s.New, ls.Age(&s.Event), addresses)
}

// noHolder explains why a socket has no known holder, if the socket itself shows the reason.
func noHolder(a event.Attached) string {
	switch a {
	case event.AttachedNothing:
		return "held by no process: the kernel will end it"
	case event.AttachedQueue:
		return "held by no process: not accepted yet, in the accept queue of its listener"
	case event.AttachedKernel:
		return "held by no process: opened by the kernel for itself, as NFS does"
	}
	return "holder not found: the descriptor may be in flight on a UNIX socket, in a hidden PID namespace, or in use by the kernel"
}

// unread returns how much data the program has not read. A FIN makes an end of file, which counts
// as one byte (tcp_recvmsg in net/ipv4/tcp.c).
func unread(e *event.Event) string {
	switch n := e.Status.RecvQueue; {
	case n == event.Unknown || e.New != event.CloseWait || e.Proto == event.MPTCP:
		return ""
	case n == 0:
		return "  end of file read"
	case n == 1:
		return "  end of file unread"
	case n == 2:
		return "  1 byte and the end of file unread"
	default:
		return fmt.Sprintf("  %d bytes and the end of file unread", n-1)
	}
}

// program returns what a holder runs, and its container or systemd unit, as far as these are known.
func (h *holder) program() (line string) {
	if h.Exe != nil {
		line = "  " + text.Visible(*h.Exe)
	}
	switch {
	case h.Container != nil:
		line += "  container " + text.ContainerID(*h.Container)
	case h.Unit != nil:
		line += "  " + text.Visible(*h.Unit)
	}
	return line
}
