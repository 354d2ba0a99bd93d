// Package watch keeps a listing of the sockets that exist on the screen of a terminal, live.
package watch

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"sstrace/internal/event"

	tea "charm.land/bubbletea/v2"
)

const (
	// showEvery is how often the screen gets what is new, in ns; ages go on each ageEvery.
	showEvery = 200e6
	ageEvery  = 1e9
	// lookEvery is how often queues and holders are looked at, in ns.
	lookEvery = 2e9
	// share: what costs time is done again only after so many times what it took.
	share = 10
)

// Options are what a View has around it.
type Options struct {
	Out         io.Writer // a terminal
	Host        string
	Wide, Color bool
	Wanted      func(*event.Event) bool       // whether a socket is to be followed,
	Listed      func(*event.Event) bool       // and whether to be shown as it is now
	Sockets     func() ([]event.Event, error) // a full look
	Stop        func()                        // ends the trace
}

// View is a view of a trace. It takes lines in the trace's goroutine; the terminal has one of its own and takes what is there, so neither waits for the
// other.
type View struct {
	Options
	table    *table
	changed  bool // since the last snapshot
	latest   atomic.Pointer[snapshot]
	nextShow int64
	nextAge  int64
	nextLook int64

	terminal *tea.Program // nil: not yet
	ended    chan struct{}
	err      error // of the terminal, once it has ended
	over     bool
}

// New makes a View. The terminal is left alone until the first Flush, and given back by the End, or Close.
func New(o Options) *View {
	return &View{Options: o, table: newTable(), ended: make(chan struct{})}
}

// Take takes a line; at the End the terminal is as it was.
func (v *View) Take(e *event.Event) error {
	if e.Type == event.End {
		v.Close()
		return nil
	}
	v.table.take(e)
	v.changed = true
	if v.terminal != nil { // under load it may be long until a Flush
		v.show(e.Mono)
	}
	return nil
}

// Flush shows what there is at the moment now.
func (v *View) Flush(now int64) error {
	switch {
	case v.over:
		return nil
	case v.terminal == nil:
		v.nextLook = now + lookEvery // what is older than the trace has just been looked at
		v.open()
	}
	select {
	case <-v.ended: // somebody has quit, and the trace is about to end
		return v.err
	default:
	}
	if now >= v.nextLook {
		took, err := v.look()
		if err != nil {
			return err
		}
		v.nextLook = now + max(lookEvery, share*took)
		now += took
	}
	v.show(now)
	return nil
}

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

// show hands over a snapshot, if it is time.
func (v *View) show(now int64) {
	if now < v.nextShow || !v.changed && now < v.nextAge {
		return
	}
	begin := time.Now()
	v.latest.Store(v.table.snapshot(now, v.Listed))
	v.changed = false
	v.nextShow = now + max(showEvery, share*time.Since(begin).Nanoseconds())
	v.nextAge = now + ageEvery
}

// open starts the terminal program.
func (v *View) open() {
	// Signals end it, too, at once: it may take a while until the trace has ended, and a second signal ends us the hard way.
	v.terminal = tea.NewProgram(&program{screen: newScreen(v.Host, v.Wide, v.Color), latest: &v.latest}, tea.WithOutput(v.Out), tea.WithFPS(20))
	go func() {
		_, err := v.terminal.Run()
		if err != nil && !errors.Is(err, tea.ErrInterrupted) {
			v.err = fmt.Errorf("terminal: %w", err)
		}
		close(v.ended)
		v.Stop()
	}()
}

// Close gives the terminal back, if that has not been done.
func (v *View) Close() {
	v.over = true
	if v.terminal != nil {
		v.terminal.Quit()
		<-v.ended
	}
}

// program is the screen as Bubble Tea has it.
type program struct {
	screen *screen
	latest *atomic.Pointer[snapshot]
	shown  *snapshot
}

type tick struct{}

func next() tea.Cmd {
	return tea.Tick(showEvery/4, func(time.Time) tea.Msg { return tick{} })
}

// Init implements tea.Model.
func (p *program) Init() tea.Cmd { return next() }

// Update implements tea.Model.
func (p *program) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	quit := false
	switch msg := msg.(type) {
	case tick:
		if s := p.latest.Load(); s != p.shown && !p.screen.paused {
			p.screen.set(s)
			p.shown = s
		}
		return p, next()
	case tea.WindowSizeMsg:
		p.screen.resize(msg.Width, msg.Height)
	case tea.KeyPressMsg:
		quit = p.screen.press(msg.String(), msg.Text)
	case tea.PasteMsg:
		quit = p.screen.press("", msg.Content)
	}
	if quit {
		return p, tea.Quit
	}
	return p, nil
}

// View implements tea.Model.
func (p *program) View() tea.View {
	v := tea.NewView(strings.Join(p.screen.lines(), "\n"))
	v.AltScreen = true
	return v
}
