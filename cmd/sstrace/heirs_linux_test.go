package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

func init() {
	roles["daemon"] = func() {
		l := mustListen(os.Args[1])
		child := self("waiter")
		child.Stdin = os.Stdin
		child.ExtraFiles = []*os.File{os.NewFile(uintptr(l), "listener")}
		if err := child.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(child.Process.Pid)
	}
	roles["waiter"] = func() { // accepts forever, after one byte on stdin
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
			return
		}
		acceptAll(3)
	}
	roles["reuseport"] = func() {
		l := mustListen(os.Args[1])
		fmt.Println("listens")
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
			return
		}
		go acceptAll(l)
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}

func mustListen(addr string) int {
	a := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(family(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(a, family(a)))
	}
	if err == nil {
		err = unix.Listen(fd, 8)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return fd
}

// acceptAll accepts connections, and closes each one after its peer has closed.
func acceptAll(l int) {
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_, _ = unix.Read(fd, make([]byte, 1))
		_ = unix.Close(fd)
	}
}

// process is a process that the test controls through stdin. It continues at each byte and exits at
// the end of its input.
type process struct {
	h     *host
	cmd   *exec.Cmd
	stdin *os.File
	lines *bufio.Reader
}

func (h *host) process(role string, args ...string) *process {
	h.t.Helper()
	p := &process{h: h, cmd: self(role, args...)}
	r, w, err := os.Pipe()
	h.must("pipe", err)
	p.cmd.Stdin, p.stdin = r, w
	stdout, err := p.cmd.StdoutPipe()
	h.must("pipe", err)
	p.lines = bufio.NewReader(stdout)
	h.do(func() { h.must("start", p.cmd.Start()) })
	r.Close()
	h.t.Cleanup(func() {
		p.end()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) line() string {
	line, err := p.lines.ReadString('\n')
	p.h.must("read a line", err)
	return strings.TrimSpace(line)
}

func (p *process) goOn() {
	_, err := p.stdin.Write([]byte{'\n'})
	p.h.must("go on", err)
}

func (p *process) end() { _ = p.stdin.Close() }

// After the process that called listen() exits, a daemon's listener belongs to the process that
// still holds it. So do connections that have not been accepted yet.
func TestDaemon(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		for _, older := range []bool{false, true} {
			t.Run(fmt.Sprint(at, " older than the trace: ", older), func(t *testing.T) {
				h := newHost(t)
				var p *process
				var daemon uint32
				start := func() {
					p = h.process("daemon", at)
					_, err := fmt.Sscan(p.line(), &daemon)
					h.must("read who the daemon is", err)
					t.Cleanup(func() { _ = unix.Kill(int(daemon), unix.SIGKILL) })
					h.must("wait for its start", p.cmd.Wait())
				}
				traffic := func() {
					c := h.dial(at)
					await(t, "the queue", func() bool { return h.inStates(unix.BPF_TCP_ESTABLISHED) == 2 })
					checkQueued(t, h, at, c.local(), daemon)
					p.goOn()
					c.close()
					await(t, "TIME_WAIT", func() bool { return h.inStates(unix.BPF_TCP_TIME_WAIT) == 1 })
				}
				file := filepath.Join(t.TempDir(), "trace.ndjson")
				args := []string{"-o", "ndjson", "-w", file, "--netns", h.netns()}
				if older {
					start()
					around(t, append(args, "--pid", fmt.Sprint(daemon)), traffic)
				} else {
					around(t, args, func() {
						start()
						traffic()
					})
				}
				r := readRecording(t, file)
				checkPaths(t, &r)
				if !older { // with a line filter, ls and leaks show nothing
					checkViews(t, file)
				}
				server := 0
				for _, e := range append(r.changes, r.accepts...) {
					switch {
					case e.Role == event.Server:
						server++
						if e.OwnerPID != daemon {
							t.Errorf("got owner %d, want %d: %+v", e.OwnerPID, daemon, e)
						}
					case e.New == event.Listen && e.OwnerPID != uint32(p.cmd.Process.Pid):
						t.Errorf("listen() was called by %d: %+v", p.cmd.Process.Pid, e)
					}
				}
				const lines = 6 // LISTEN → SYN_RECV → ESTABLISHED, accept, → CLOSE_WAIT → LAST_ACK → CLOSE
				if server != lines {
					t.Errorf("got %d lines about the server's end, want %d", server, lines)
				}
				replayed := sstrace(t, "", "-r", file, "--pid", fmt.Sprint(daemon), "--lport", "7781", "--where", "role == 'server'", "-o", "csv").stdout
				if got := strings.Count(replayed, "\n") - 1; got != lines {
					t.Errorf("--pid finds %d of them in the recording, want %d:\n%s", got, lines, replayed)
				}
			})
		}
	}
}

// checkQueued checks that ls shows pid as the owner of the listener at this address, and that no
// process holds the connection to peer.
func checkQueued(t *testing.T, h *host, at, peer string, pid uint32) {
	t.Helper()
	all := h.list(t)
	l := find(t, all, event.TCP, at, netip.AddrPort{}.String())
	if held := l.Status.Holders; len(held) != 1 || held[0].PID != pid {
		t.Errorf("got listener holders %+v, want %d", held, pid)
	}
	c := find(t, all, event.TCP, at, peer)
	if want := map[event.State]event.Attached{event.SynRecv: event.AttachedNothing, event.Established: event.AttachedQueue}[c.New]; len(c.Status.Holders) > 0 || c.Status.Attached != want {
		t.Errorf("in %v: got holders %+v, attached to %v", c.New, c.Status.Holders, c.Status.Attached)
	}
	if some := h.list(t, "--pid", fmt.Sprint(pid)); len(some) != 1 || some[0].New != event.Listen {
		t.Errorf("owned by %d: %+v", pid, some)
	}
}

// If its listener is closed, a connection moves to another listener in the group
// (net.ipv4.tcp_migrate_req). It remains the same connection, but has the other owner.
func TestMigratedListener(t *testing.T) {
	if kernelBefore(t, 5, 14) {
		t.Skip("before Linux 5.14 connections do not move")
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		for _, how := range []string{"the ACK comes after the SYN-ACK was sent again", "the ACK comes at once", "in the accept queue"} {
			t.Run(how+" "+family, func(t *testing.T) {
				p := newEndpoint(t, family)
				p.h.sysctl("tcp_migrate_req", "1")
				p.h.sysctl("tcp_synack_retries", "5")
				file := filepath.Join(t.TempDir(), "trace.ndjson")
				var heir *process
				around(t, []string{"-o", "ndjson", "-w", file, "--netns", p.h.netns()}, func() {
					old := p.h.process("reuseport", p.host.String())
					old.line()
					p.do("SYN in")
					acknowledge := func() {
						p.do("ACK in")
						p.await(unix.BPF_TCP_ESTABLISHED)
					}
					if how == "in the accept queue" {
						acknowledge()
					}
					heir = p.h.process("reuseport", p.host.String())
					heir.line()
					old.end()
					h := p.h
					await(t, "one listener", func() bool { return h.inStates(unix.BPF_TCP_LISTEN) == 1 })
					checkQueued(t, h, p.host.String(), p.peer.String(), uint32(heir.cmd.Process.Pid))
					switch how {
					case "the ACK comes at once":
						acknowledge()
					case "the ACK comes after the SYN-ACK was sent again":
						p.receive(syn | ack)
						acknowledge()
					}
					heir.goOn()
					p.send(fin|ack, 0)
					p.receive(fin)
					p.do("ACK in")
					p.awaitEnd()
				})
				r := readRecording(t, file)
				checkPaths(t, &r)
				checkViews(t, file)
				ids := make(map[uint64]bool)
				pid := uint32(heir.cmd.Process.Pid)
				for _, e := range append(r.changes, r.accepts...) {
					if e.Role == event.Listener {
						continue
					}
					ids[e.ID] = true
					if e.Type == event.Change && e.Old != event.Listen && e.Dur == event.Unknown {
						t.Errorf("an unknown time: %+v", e)
					}
					late := e.Old != event.Listen && (e.Old != event.SynRecv || how != "in the accept queue")
					if late && e.OwnerPID != pid {
						t.Errorf("got owner %d, want %d: %+v", e.OwnerPID, pid, e)
					}
				}
				if len(ids) != 1 || len(r.accepts) != 1 {
					t.Errorf("%d connections, %d accepted:\n%s", len(ids), len(r.accepts), strings.Join(r.paths(), "\n"))
				}
				reported := answers[reportedHandshake](t, "handshake", "handshakes", "-r", file)
				if len(reported) != 1 || reported[0].State != "accepted" {
					t.Errorf("got %+v", reported)
				}
			})
		}
	}
}
