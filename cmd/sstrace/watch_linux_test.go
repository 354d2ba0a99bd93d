package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a tmux for one test. It runs a shell script.
type terminal struct {
	h      *host
	socket string
}

// newTerminal runs sstrace with args in a terminal of 140 columns and 20 lines, and returns the
// sstrace process. After sstrace has exited, the terminal shows the exit code and the terminal
// modes.
func newTerminal(h *host, env string, args ...string) (t terminal, process *os.Process) {
	h.t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		h.t.Fatal("install tmux: `make test` does")
	}
	dir := h.t.TempDir()
	exe, err := os.Executable()
	h.must("find the test binary", err)
	script := filepath.Join(dir, "script")
	h.must("write a script", os.WriteFile(script, []byte(fmt.Sprintf(`echo before
sh -c 'echo $$ >%[1]s/pid.new; mv %[1]s/pid.new %[1]s/pid; exec env %[2]s %[3]s=sstrace "$0" "$@"' %[4]s %[5]s
echo "exit code $?"
stty -a | grep -ow -e '-\?icanon' -e '-\?echo'
exec cat
`, dir, env, roleVariable, exe, strings.Join(args, " "))), 0o600))
	t = terminal{h, filepath.Join(dir, "tmux")}
	t.tmux("-f", "/dev/null", "new-session", "-d", "-x", "140", "-y", "20", "sh "+script)
	h.t.Cleanup(func() { t.tmux("kill-server") })
	var pid int
	await(h.t, "sstrace in its terminal", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	process, err = os.FindProcess(pid)
	h.must("find sstrace", err)
	return t, process
}

func (t terminal) tmux(args ...string) string {
	cmd := exec.Command("tmux", append([]string{"-u", "-S", t.socket}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.h.t.Helper()
		t.h.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (t terminal) press(keys ...string) {
	t.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until the screen contains all texts, and returns the screen.
func (t terminal) shows(texts ...string) (screen string) {
	t.h.t.Helper()
	defer func() {
		if t.h.t.Failed() {
			t.h.t.Logf("the screen:\n%s", screen)
		}
	}()
	for _, text := range texts {
		await(t.h.t, fmt.Sprintf("%q on the screen", text), func() bool {
			screen = t.tmux("capture-pane", "-p")
			return strings.Contains(screen, text)
		})
	}
	return screen
}

// restored waits until sstrace has exited, and checks that the terminal is in its original state.
func (t terminal) restored() {
	t.h.t.Helper()
	screen := t.shows("before", "exit code 0", "icanon", "echo")
	if !strings.Contains(screen, " seen: ") {
		t.h.t.Errorf("after its end: no balance in\n%s", screen)
	}
	for _, unwanted := range []string{"-icanon", "-echo", "LISTEN"} {
		if strings.Contains(screen, unwanted) {
			t.h.t.Errorf("after its end: got %s in\n%s", unwanted, screen)
		}
	}
	got := t.tmux("display-message", "-p", "alternate #{alternate_on}, cursor #{cursor_flag}")
	if want := "alternate 0, cursor 1\n"; got != want {
		t.h.t.Errorf("after its end: got %q, want %q", got, want)
	}
}

// rowOf returns the first line of the screen that contains all texts, or "".
func rowOf(screen string, texts ...string) string {
	for line := range strings.Lines(screen) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			return line
		}
	}
	return ""
}

func TestWatch(t *testing.T) {
	h := newHost(t)
	term, _ := newTerminal(h, "NO_COLOR=1", "ls", "--watch", "--netns", h.netns())
	term.shows("0 sockets", "none", "STATE▲", "q quit")

	l := h.listen(loopbackAddr, 8)
	term.shows("1 socket: LISTEN 1", "+ LISTEN")
	c := h.dial(loopbackAddr)
	term.shows("3 sockets: LISTEN 1, ESTABLISHED 2")
	// The queue and the descriptors appear after the next listing.
	await(t, "a connection in the queue", func() bool {
		row := rowOf(term.shows(""), "  LISTEN", fmt.Sprintf(" %d/", os.Getpid()), fmt.Sprintf("fd %d", l.fd))
		f := strings.Fields(row)
		return len(f) > 2 && f[1] == "1" && f[2] == "8"
	})
	s := l.accept()
	await(t, "the descriptor of the accepted socket", func() bool {
		return rowOf(term.shows(""), "ESTABLISHED", "127.0.0.1:7781 ", fmt.Sprintf("fd %d", s.fd)) != ""
	})
	c.close()
	term.shows("3 sockets: LISTEN 1, FIN_WAIT2 1, CLOSE_WAIT 1", "* CLOSE_WAIT")
	await(t, "no mark", func() bool { return rowOf(term.shows(""), "  CLOSE_WAIT") != "" })
	raw := term.tmux("capture-pane", "-p", "-e")
	if strings.Contains(raw, "\x1b[34m") || strings.Contains(raw, "\x1b[32m") {
		t.Errorf("got %q, want no colours with NO_COLOR", raw)
	}

	term.press("s")
	term.shows("RECV-Q▼")
	term.press("r")
	term.shows("RECV-Q▲")
	term.press("<")
	term.shows("STATE▼")
	term.press("/", "close_wait", "Enter")
	if screen := term.shows(`1-1 of 1 with "close_wait", 3 in all`); rowOf(screen, "  LISTEN") != "" {
		t.Errorf("filtered: got LISTEN in\n%s", screen)
	}
	term.press("?")
	term.shows("reverse the order", "press any key to go back")
	term.press("x")
	term.press("p")
	term.shows("paused")
	l.close()
	term.press("p")
	term.shows("2 sockets: FIN_WAIT2 1, CLOSE_WAIT 1")
	term.tmux("resize-window", "-x", "40", "-y", "10")
	term.shows("? help  q quit  / filter  s sort")
	term.tmux("resize-window", "-x", "120", "-y", "30")
	term.shows("p pause  ? help")
	term.press("q")
	term.restored()
}

// A signal ends watch like any other trace, and the terminal is restored.
func TestWatchEndsBySignal(t *testing.T) {
	h := newHost(t)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		term, process := newTerminal(h, "NO_COLOR=", "ls", "--watch", "-o", "wide", "--netns", h.netns())
		term.shows("0 sockets", "NETNS")
		l := h.listen(loopbackAddr, 1)
		term.shows("+ LISTEN")
		if raw := term.tmux("capture-pane", "-p", "-e"); !strings.Contains(raw, "32m") {
			t.Errorf("got %q, want colours", raw)
		}
		l.close()
		term.shows("0 sockets")
		h.must("signal", process.Signal(signal))
		term.restored()
	}
}

// The screen shows that changes were lost, and the next listing corrects it.
func TestWatchAfterLoss(t *testing.T) {
	h := newHost(t)
	term, process := newTerminal(h, "A=1", "ls", "--watch", "--buffer", "4K", "--netns", h.netns())
	term.shows("0 sockets")
	old := h.listen(loopbackAddr, 8)
	term.shows("1 socket: LISTEN 1")
	h.must("stop sstrace", process.Signal(unix.SIGSTOP)) // nobody reads the ring now
	l := h.listen("127.0.0.1:7782", 1)
	for range 200 {
		c := h.dial("127.0.0.1:7782")
		s := l.accept()
		s.reset()
		s.close()
		c.reach(unix.BPF_TCP_CLOSE)
		c.close()
	}
	old.close() // until the ring is full
	last := h.listen("127.0.0.1:7783", 1)
	h.must("let sstrace go on", process.Signal(unix.SIGCONT))
	term.shows("changes lost", "2 sockets: LISTEN 2", "127.0.0.1:7782", "127.0.0.1:7783")
	await(t, "the end of the row of a closed socket", func() bool {
		return !strings.Contains(term.shows(""), loopbackAddr)
	})
	last.close()
	term.shows("1 socket: LISTEN 1")
	l.close()
	term.shows("0 sockets")
	term.press("Escape")
	term.restored()
}
