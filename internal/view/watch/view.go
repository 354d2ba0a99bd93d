// Package watch shows, on a terminal, a live listing of the sockets that exist.
package watch

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"sstrace/internal/event"

	tea "charm.land/bubbletea/v2"
)

const (
	// showInterval is how often the screen shows changes, in ns. ageInterval is how often it
	// updates the ages.
	showInterval = 200e6
	ageInterval  = 1e9
	// lookInterval is how often queues and holders are checked, in ns.
	lookInterval = 2e9
	// pause sets how long to wait after a slow operation: this many times as long as the operation
	// took.
	pause = 10
)

// Options configure a View.
type Options struct {
	Out         io.Writer // a terminal
	Host        string
	Wide, Color bool
	Wanted      func(*event.Event) bool       // reports whether to follow a socket
	Listed      func(*event.Event) bool       // reports whether to show a socket in its current state
	Sockets     func() ([]event.Event, error) // returns all sockets that exist
	Stop        func()                        // ends the trace
}

// View shows a trace on a terminal. It takes lines in the goroutine of the trace. The terminal has
// its own goroutine, which fetches the latest snapshot. So neither waits for the other.
type View struct {
	Options
	table    *table
	changed  bool // the table has changed since the last snapshot
	latest   atomic.Pointer[snapshot]
	nextShow int64
	nextAge  int64
	nextLook int64

	terminal *tea.Program // nil before the first Idle
	ended    chan struct{}
	err      error // the error of the terminal, valid once ended is closed
}

// New returns a View. The View takes over the terminal when it is first idle. End and Close restore
// the terminal.
func New(o Options) *View {
	return &View{Options: o, table: newTable(), ended: make(chan struct{})}
}

// Begin does nothing: the sockets that exist are taken first.
func (v *View) Begin() error { return nil }

// Take takes one line.
func (v *View) Take(e *event.Event) error {
	v.table.take(e)
	v.changed = true
	if v.terminal != nil { // under load, the next Idle may be far off
		v.show(e.Mono)
	}
	return nil
}

// End restores the terminal.
func (v *View) End(*event.Event) error {
	v.Close()
	return nil
}

// Idle shows the sockets as of now.
func (v *View) Idle(now int64) error {
	if v.terminal == nil {
		v.nextLook = now + lookInterval // the sockets that are older than the trace have just been listed
		v.open()
	}
	select {
	case <-v.ended: // the user has quit, and the trace will end soon
		return v.err
	default:
	}
	if now >= v.nextLook {
		took, err := v.look()
		if err != nil {
			return err
		}
		v.nextLook = now + max(lookInterval, pause*took)
		now += took
	}
	v.show(now)
	return nil
}

// look updates the table with the sockets that exist.
func (v *View) look() (took int64, err error) {
	begin := time.Now()
	all, err := v.Sockets()
	if err != nil {
		return 0, err
	}
	v.table.look(all, v.Wanted)
	v.changed = true
	return time.Since(begin).Nanoseconds(), nil
}

// show stores a snapshot for the terminal if one is due.
func (v *View) show(now int64) {
	if now < v.nextShow || !v.changed && now < v.nextAge {
		return
	}
	begin := time.Now()
	v.latest.Store(v.table.snapshot(now, v.Listed))
	v.changed = false
	v.nextShow = now + max(showInterval, pause*time.Since(begin).Nanoseconds())
	v.nextAge = now + ageInterval
}

// open starts the program on the terminal.
func (v *View) open() {
	// Signals end the program immediately. The trace may take a while to end, and a second signal
	// kills the process.
	v.terminal = tea.NewProgram(
		&program{screen: newScreen(v.Host, v.Wide, v.Color), latest: &v.latest}, tea.WithOutput(v.Out), tea.WithFPS(20),
	)
	go func() {
		_, err := v.terminal.Run()
		if err != nil && !errors.Is(err, tea.ErrInterrupted) {
			v.err = fmt.Errorf("terminal: %w", err)
		}
		close(v.ended)
		v.Stop()
	}()
}

// Close restores the terminal, unless that has already been done.
func (v *View) Close() {
	if v.terminal != nil {
		v.terminal.Quit()
		<-v.ended
	}
}
