package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/probe"
	"sstrace/internal/record"
	"sstrace/internal/stack"
	"sstrace/internal/track"
	"sstrace/internal/view/leaks"

	"golang.org/x/sys/unix"
)

// trace traces until a signal, -n, --for or the end of the command.
func (t *trip) trace(o *options, argv []string) error {
	size, err := ringSize(o.buffer)
	if err != nil {
		return usageError{err}
	}
	if len(argv) > 0 {
		if err := findCommand(argv[0]); err != nil {
			return err
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	p, err := probe.Open(t.filter, size, o.states == "rfc", o.stacks)
	if errors.Is(err, probe.ErrNoCgroup) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Blind(); err != nil {
		fmt.Fprintf(os.Stderr, "sstrace: half-open connections and those in TIME_WAIT are not seen: %v (`sstrace check` tells what to do)\n", err)
	}
	notePIDNamespace()
	t.filter.CgroupsDecided = true
	var namer stack.Namer
	ask := live{
		sockets: p.Sockets, listeners: p.Listeners, program: stack.Program, process: leaks.Process, stop: p.Stop,
		stack: func(pid, id uint32) []string { return namer.Names(pid, p.Stack(id)) },
	}
	if !probe.ProcIsOurs() { // a process that we know by its number is another one there
		ask.stack = func(_, id uint32) []string { return namer.Names(0, p.Stack(id)) }
		ask.program, ask.process = func(uint32) string { return "" }, nil
	}
	closeOutput, err := t.open(o, ask)
	if err != nil {
		return quiet(err)
	}
	var c *command
	if len(argv) > 0 {
		if c, err = startCommand(argv, signals, p.Stop); err != nil {
			return errors.Join(err, closeOutput())
		}
	} else {
		go func() {
			<-signals
			signal.Stop(signals) // a second one ends us at once
			p.Stop()
		}()
	}
	if err := p.Deaf(); err != nil {
		fmt.Fprintf(os.Stderr, "sstrace: accept() and connect() are not seen: %v (until it closes, a connection belongs to the process that listens, and a connect() that sends no SYN has no line)\n", err)
	}
	if o.write != "" {
		fmt.Fprintf(os.Stderr, "sstrace: tracing, to %s\n", o.write)
	}
	if o.duration > 0 {
		time.AfterFunc(time.Duration(o.duration), p.Stop)
	}

	err = t.follow(o, p)
	if o.write == "" {
		err = quietPipe(err)
	}
	err = errors.Join(quiet(err), closeOutput())
	if c != nil {
		return c.wait(err)
	}
	return err
}

// follow takes what p tells, to its end.
func (t *trip) follow(o *options, p *probe.Probe) error {
	var tracker track.Tracker = new(track.Kernel)
	if o.states == "rfc" {
		rfc := &track.RFC{TimersUnavailable: p.Blind() != nil, CallsUnavailable: p.Deaf() != nil}
		if probe.ProcIsOurs() {
			rfc.Heirs = p.Heirs
		}
		tracker = rfc
	}
	idle := func(mono int64) (bool, error) {
		if err := tracker.Settle(mono, t.pass); err != nil {
			return false, err
		}
		if t.enough() {
			return false, errEnough
		}
		return tracker.Waiting() > 0, t.view.Flush(mono)
	}
	listened := func(mono int64) (bool, error) {
		if o.write == "" && readerGone() {
			return false, errPipe // nothing may have to be written for long
		}
		return idle(mono)
	}
	err := t.tracked(p.Records(listened), tracker.Take)
	if err == nil {
		err = tracker.Settle(math.MaxInt64, t.pass) // nothing comes any more
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	b, err := p.Balance(tracker.Duplicates())
	if err != nil {
		return err
	}
	b.Merged = tracker.Merged()
	b.Unread += tracker.Waiting()
	wall, mono := p.Now()
	if b.RingFull > t.lost { // behind what -n asked for
		if err := t.view.Take(&event.Event{Type: event.Lost, Wall: wall, Mono: mono, RingFull: b.RingFull - t.lost}); err != nil {
			return err
		}
	}
	return t.finish(o, wall, mono, b)
}

// tracked passes on the lines that take makes of the records.
func (t *trip) tracked(records iter.Seq2[*record.Record, error], take func(*record.Record, func(*event.Event) error) error) error {
	for r, err := range records {
		if err == nil {
			err = take(r, t.pass)
		}
		if err != nil {
			return err
		}
		if t.enough() {
			return errEnough
		}
	}
	return nil
}

// readerGone reports whether stdout is a pipe or a socket that nobody reads any more (poll(2): POLLERR).
func readerGone() bool {
	fds := []unix.PollFd{{Fd: int32(os.Stdout.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0
}

// hurry makes ready for what takes a moment. Garbage is collected as usual once the heap has grown to 64 MB: most is over by then. And four threads may run,
// for some of them sit in system calls, and the runtime counts them as running.
func hurry() {
	if os.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(1600) // of 4 MB, the least that is
		runtime.AddCleanup(new([64]byte), func(int) { debug.SetGCPercent(usual) }, 0)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0)))
	}
}

// list takes the sockets that exist, as a source that ends at once.
func (t *trip) list(o *options) error {
	hurry()
	l, err := probe.List(t.filter, o.bound)
	if errors.Is(err, probe.ErrNoCgroup) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer l.Close()
	closeOutput := func() error { return nil }
	notePIDNamespace()
	var ask live
	if probe.ProcIsOurs() {
		ask.process = leaks.Process
	}
	ready := func() error {
		opened, err := t.open(o, ask)
		if err == nil {
			closeOutput = opened
		}
		return err
	}
	if err = t.travel(l.All(ready)); err == nil {
		wall, mono := l.Now()
		err = t.finish(o, wall, mono, &event.Balance{Seen: l.Seen()})
	}
	if l.Closed() > 0 {
		err = errors.Join(err, fmt.Errorf("sockets are missing, of network namespaces that may not be entered (%d): `sstrace check` tells what to do", l.Closed()))
	}
	if o.write == "" {
		err = quietPipe(err)
	}
	return errors.Join(quiet(err), closeOutput())
}

// notePIDNamespace warns about what a PID namespace other than the host's hides from sstrace.
func notePIDNamespace() {
	if probe.InPIDNamespace() {
		fmt.Fprintln(os.Stderr, "sstrace: running in a PID namespace other than the host's: PIDs are those of that namespace, and processes outside it are not seen (`sstrace check` says what to do)")
	}
}

// check prints what tracing needs, and whether it is there.
func check(w io.Writer) error {
	var unmet unmetError
	for _, n := range probe.Check() {
		verdict := "yes"
		switch {
		case n.Unknown:
			verdict = "?"
		case !n.OK && n.Soft:
			verdict = "less"
		case !n.OK:
			verdict = "NO"
			unmet++
		}
		fmt.Fprintf(w, "%-4s  %-24s  %s\n", verdict, n.Name, n.Found)
		if !n.OK {
			fmt.Fprintf(w, "      %-24s  → %s\n", "", n.Hint)
		}
	}
	if unmet > 0 {
		return unmet
	}
	return nil
}
