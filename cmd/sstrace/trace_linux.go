package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"sstrace/internal/linux"
	"sstrace/internal/listing"
	"sstrace/internal/probe"
	"sstrace/internal/session"
	"sstrace/internal/stack"
	"sstrace/internal/track"
	"sstrace/internal/view/leaks"
)

// trace uses the kernel as the source, until a signal, -n, --for, or the end of the command.
func (j *job) trace(argv []string) error {
	size, err := ringSize(j.buffer)
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

	rfc := j.states == "rfc"
	p, err := probe.Open(j.filter, size, rfc, j.stacks)
	if errors.Is(err, linux.ErrNoCgroup) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer p.Close()
	j.warn(p)
	j.filter.CgroupsDecided = true
	out, v, err := j.view(kernelOf(p))
	if err != nil {
		return err
	}
	var c *command
	if len(argv) > 0 {
		if c, err = startCommand(argv, signals, p.Stop); err != nil {
			return errors.Join(err, out.Close())
		}
	} else {
		go func() {
			<-signals
			signal.Stop(signals) // a second signal kills us
			p.Stop()
		}()
	}
	switch {
	case j.write != "":
		fmt.Fprintf(os.Stderr, "sstrace: tracing, to %s\n", j.write)
	case c == nil && j.format == "text" && !j.answers && out.Terminal():
		// An idle host may have nothing to print for a long time.
		fmt.Fprintln(os.Stderr, "sstrace: tracing; Ctrl-C ends it")
	}
	if j.duration > 0 {
		time.AfterFunc(time.Duration(j.duration), p.Stop)
	}
	err = j.drive(session.NewTrace(p, tracker(p, rfc)), out, v)
	if c != nil {
		return c.wait(err)
	}
	return err
}

// kernelOf returns what a view may ask p.
func kernelOf(p *probe.Probe) kernel {
	var namer stack.Namer
	k := kernel{
		sockets: p.Sockets, listeners: p.Listeners, program: stack.Program, process: leaks.Process, stop: p.Stop,
		stack: func(pid, id uint32) []string { return namer.Names(pid, p.Stack(id)) },
	}
	if !linux.ProcShowsOwnPIDs() { // in /proc, the PIDs that the kernel reports belong to other processes
		k.stack = func(_, id uint32) []string { return namer.Names(0, p.Stack(id)) }
		k.program, k.process = func(uint32) string { return "" }, nil
	}
	return k
}

// tracker returns the tracker for the vocabulary that was asked for.
func tracker(p *probe.Probe, rfc bool) track.Tracker {
	if !rfc {
		return new(track.Kernel)
	}
	m := &track.RFC{TimersUnavailable: p.TimersUnavailable() != nil, CallsUnavailable: p.CallsUnavailable() != nil}
	if linux.ProcShowsOwnPIDs() {
		m.Heirs = p.Heirs
	}
	return m
}

// warn reports what this trace cannot show on this machine.
func (j *job) warn(p *probe.Probe) {
	if err := p.TimersUnavailable(); err != nil {
		fmt.Fprintf(os.Stderr,
			"sstrace: half-open and TIME_WAIT connections are not traced: %v (`sstrace check` says what to do)\n", err)
	}
	if err := p.CallsUnavailable(); err != nil {
		fmt.Fprintf(os.Stderr, "sstrace: accept() and connect() are not traced: %v (until a connection closes, "+
			"its owner is the process that listens, and a connect() that sends no SYN has no line)\n", err)
	}
	warnPIDNamespace()
}

// warnPIDNamespace reports what a PID namespace other than the host's hides from sstrace.
func warnPIDNamespace() {
	if _, own := linux.PIDNamespace(); own {
		fmt.Fprintln(os.Stderr, "sstrace: running in a PID namespace other than the host's: PIDs are those of that "+
			"namespace, and processes outside it are not seen (`sstrace check` says what to do)")
	}
}

// hurry tunes the runtime for a short run. Garbage collection starts at a heap of 64 MB instead of
// 4 MB; most runs end before that. At least four threads may run Go code, since the runtime also
// counts threads in system calls as running.
func hurry() {
	if os.Getenv("GOGC") == "" {
		usual := debug.SetGCPercent(1600) // of 4 MB, the minimum
		runtime.AddCleanup(new([64]byte), func(int) { debug.SetGCPercent(usual) }, 0)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, runtime.GOMAXPROCS(0)))
	}
}

// list uses the existing sockets as the source.
func (j *job) list() error {
	hurry()
	l, err := listing.Open(j.filter, j.bound)
	if errors.Is(err, linux.ErrNoCgroup) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer l.Close()
	warnPIDNamespace()
	var k kernel
	if linux.ProcShowsOwnPIDs() {
		k.process = leaks.Process
	}
	out, v, err := j.view(k)
	if err != nil {
		return err
	}
	return j.drive(l, out, v)
}
