package watch

import (
	"strings"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
)

// program implements tea.Model for a screen.
type program struct {
	screen *screen
	latest *atomic.Pointer[snapshot]
	shown  *snapshot
}

type tick struct{}

func next() tea.Cmd {
	return tea.Tick(showInterval/4, func(time.Time) tea.Msg { return tick{} })
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
