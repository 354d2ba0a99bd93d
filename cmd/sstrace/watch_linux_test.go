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

// terminal is a tmux of the test's own, with a shell script in it.
type terminal struct {
	h      *host
	socket string
}

// newTerminal runs sstrace with args in a terminal of 140 columns and 20 lines, and then tells how
// it ended and what it left of the terminal. It gives the process.
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

// shows waits until all of texts are on the screen, and gives it.
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

// restored waits for the end, and looks at what is left.
func (t terminal) restored() {
	t.h.t.Helper()
	screen := t.shows("before", "exit code 0", "icanon", "echo")
	if strings.Contains(screen, "-icanon") || strings.Contains(screen, "-echo") || strings.Contains(screen, "LISTEN") || !strings.Contains(screen, " seen: ") {
		t.h.t.Errorf("after its end:\n%s", screen)
	}
	if got := strings.TrimSpace(t.tmux("display-message", "-p", "alternate #{alternate_on}, cursor #{cursor_flag}")); got != "alternate 0, cursor 1" {
		t.h.t.Errorf("after its end: %s", got)
	}
}

// rowOf gives the line of the screen in which all of texts are, without what is not the socket's.
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

	l := h.listen("127.0.0.1:7781", 8)
	term.shows("1 socket: LISTEN 1", "+ LISTEN")
	c := h.dial("127.0.0.1:7781")
	term.shows("3 sockets: LISTEN 1, ESTABLISHED 2")
	// The queue and the descriptors come with the next look.
	await(t, "a connection in the queue", func() bool {
		f := strings.Fields(rowOf(term.shows(""), "  LISTEN", fmt.Sprintf(" %d/", os.Getpid()), fmt.Sprintf("fd %d", l.fd)))
		return len(f) > 2 && f[1] == "1" && f[2] == "8"
	})
	s := l.accept()
	await(t, "the descriptor of what was accepted", func() bool {
		return rowOf(term.shows(""), "ESTABLISHED", "127.0.0.1:7781 ", fmt.Sprintf("fd %d", s.fd)) != ""
	})
	c.close()
	term.shows("3 sockets: LISTEN 1, FIN_WAIT2 1, CLOSE_WAIT 1", "* CLOSE_WAIT")
	await(t, "no mark", func() bool { return rowOf(term.shows(""), "  CLOSE_WAIT") != "" })
	if raw := term.tmux("capture-pane", "-p", "-e"); strings.Contains(raw, "\x1b[34m") || strings.Contains(raw, "\x1b[32m") {
		t.Errorf("colours although NO_COLOR is set: %q", raw)
	}

	term.press("s")
	term.shows("RECV-Q▼")
	term.press("r")
	term.shows("RECV-Q▲")
	term.press("<")
	term.shows("STATE▼")
	term.press("/", "close_wait", "Enter")
	if screen := term.shows(`1-1 of 1 with "close_wait", 3 in all`); rowOf(screen, "  LISTEN") != "" {
		t.Errorf("a filter leaves:\n%s", screen)
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

// A signal ends it as any trace, and gives the terminal back.
func TestWatchEndsBySignal(t *testing.T) {
	h := newHost(t)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		term, process := newTerminal(h, "NO_COLOR=", "ls", "--watch", "-o", "wide", "--netns", h.netns())
		term.shows("0 sockets", "NETNS")
		l := h.listen("127.0.0.1:7781", 1)
		term.shows("+ LISTEN")
		if raw := term.tmux("capture-pane", "-p", "-e"); !strings.Contains(raw, "32m") {
			t.Errorf("no colours: %q", raw)
		}
		l.close()
		term.shows("0 sockets")
		h.must("signal", process.Signal(signal))
		term.restored()
	}
}

// Changes that are lost are said to be, and the next look puts right what was.
func TestWatchAfterLoss(t *testing.T) {
	h := newHost(t)
	term, process := newTerminal(h, "A=1", "ls", "--watch", "--buffer", "4K", "--netns", h.netns())
	term.shows("0 sockets")
	old := h.listen("127.0.0.1:7781", 8)
	term.shows("1 socket: LISTEN 1")
	h.must("stop sstrace", process.Signal(unix.SIGSTOP)) // nobody reads the ring
	l := h.listen("127.0.0.1:7782", 1)
	for range 200 {
		c := h.dial("127.0.0.1:7782")
		s := l.accept()
		s.reset()
		s.close()
		c.reach(unix.BPF_TCP_CLOSE)
		c.close()
	}
	old.close() // the ring is full
	last := h.listen("127.0.0.1:7783", 1)
	h.must("let sstrace go on", process.Signal(unix.SIGCONT))
	term.shows("changes lost", "2 sockets: LISTEN 2", "127.0.0.1:7782", "127.0.0.1:7783")
	await(t, "no socket that is no more", func() bool { return !strings.Contains(term.shows(""), "127.0.0.1:7781") })
	last.close()
	term.shows("1 socket: LISTEN 1")
	l.close()
	term.shows("0 sockets")
	term.press("Escape")
	term.restored()
}
