package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// local returns the socket's local address.
func (s sock) local() string {
	name, err := unix.Getsockname(s.fd)
	s.h.must("getsockname", err)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

// find returns the only socket in all with these addresses and this protocol.
func find(t *testing.T, all []event.Event, proto event.Proto, local, remote string) (found event.Event) {
	t.Helper()
	n := 0
	for _, e := range all {
		if e.Proto == proto && e.Local.String() == local && (remote == "" || e.Remote.String() == remote) {
			found = e
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d %v sockets with ends %s, %s: %+v", n, proto, local, remote, all)
	}
	return found
}

func (h *host) heldBy(fd int) []event.Holder {
	comm, err := os.ReadFile("/proc/self/comm")
	h.must("read our name", err)
	return []event.Holder{{PID: uint32(os.Getpid()), FD: uint32(fd), Comm: strings.TrimSpace(string(comm))}}
}

// registerFiles registers these descriptors as the ring's own table. -1 is an empty slot.
func (r *uring) registerFiles(fds []int32) {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), ioringRegisterFiles, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0)
	if errno != 0 {
		r.h.t.Fatalf("register a table of files: %v", errno)
	}
}

// A socket that is only in an io_uring's own table is held by the processes that have the ring,
// however large the table is.
func TestListingOfDirectDescriptors(t *testing.T) {
	if kernelBefore(t, 5, 15) {
		t.Skip("before Linux 5.15")
	}
	for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(addr, func(t *testing.T) {
			h := newHost(t)
			l := h.listen(addr, 8)
			c1, s1 := h.established(l, addr)
			c2, s2 := h.established(l, addr)
			null, err := os.Open(os.DevNull)
			h.must("open", err)
			t.Cleanup(func() { null.Close() })
			ring, other := h.newUring(), h.newUring()
			slots := slices.Repeat([]int32{-1}, 1000)
			slots[3], slots[997], slots[500] = int32(s1.fd), int32(s2.fd), int32(null.Fd())
			ring.registerFiles(slots)
			other.registerFiles([]int32{int32(s1.fd)})
			s1.close()
			s2.close()
			child := self("holder")
			child.ExtraFiles = []*os.File{sock{h, ring.fd}.file()}
			stdin, err := child.StdinPipe()
			h.must("pipe", err)
			h.must("start a child", child.Start())
			child.ExtraFiles[0].Close()
			t.Cleanup(func() {
				stdin.Close()
				_ = child.Wait()
			})
			bySlot := func(ring int, slot uint32) event.Holder {
				held := h.heldBy(ring)[0]
				held.How, held.Slot = event.BySlot, slot
				return held
			}
			inChild := bySlot(3, 3)
			inChild.PID = uint32(child.Process.Pid)
			want := []event.Holder{bySlot(ring.fd, 3), bySlot(other.fd, 0), inChild}
			all := h.list(t)
			got := find(t, all, event.TCP, addr, c1.local()).Status.Holders
			for _, w := range want {
				if !slices.Contains(got, w) || len(got) != len(want) {
					t.Errorf("got holders %+v, want %+v", got, want)
				}
			}
			got = find(t, all, event.TCP, addr, c2.local()).Status.Holders
			if inChild.Slot = 997; !slices.Contains(got, bySlot(ring.fd, 997)) || !slices.Contains(got, inChild) || len(got) != 2 {
				t.Errorf("held by %+v", got)
			}
			if some := h.list(t, "--pid", fmt.Sprint(child.Process.Pid)); len(some) != 2 {
				t.Errorf("of the child: %+v", some)
			}
			c2.shutdown(unix.SHUT_WR)
			await(t, "the FIN", func() bool { return h.inStates(unix.BPF_TCP_CLOSE_WAIT) == 1 })
			once := sstrace(t, "", "leaks", "--once", "--older", "CLOSE_WAIT=1ms", "--netns", h.netns())
			if text := fmt.Sprintf("io_uring fd %d slot 997", ring.fd); once.code != exitFound || !strings.Contains(once.stdout, text) {
				t.Errorf("exit code %d, %s%s", once.code, once.stdout, once.stderr)
			}
			once = sstrace(t, "", "leaks", "--once", "--older", "CLOSE_WAIT=1ms", "--netns", h.netns(), "-o", "ndjson")
			checkSchema(t, []byte(once.stdout))
		})
	}
}

// If a socket has no known holder, sstrace reports that the kernel will end it only if that is
// true.
func TestListingOfWhatNobodyHolds(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(addr, func(t *testing.T) {
			h := newHost(t)
			l := h.listen(addr, 8)
			c, s := h.established(l, addr)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			h.must("socketpair", err)
			for _, end := range pair {
				t.Cleanup(func() { _ = unix.Close(end) })
			}
			h.must("send a descriptor", unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(s.fd), nil, 0))
			s.close()
			orphan, rest := h.established(l, addr)
			orphan.close()
			rest.reach(unix.BPF_TCP_CLOSE_WAIT)
			waiting := h.dial(addr)
			all := h.list(t)
			for local, want := range map[string]event.Attached{orphan.local(): event.AttachedNothing, c.local(): event.AttachedDescriptor, waiting.local(): event.AttachedQueue} {
				ends := [2]string{addr, local}
				if want == event.AttachedNothing {
					ends = [2]string{local, addr}
				}
				if got := find(t, all, event.TCP, ends[0], ends[1]).Status; got.Attached != want || len(got.Holders) != 0 {
					t.Errorf("%v: held by %v, attached to %v; want %v", ends, got.Holders, got.Attached, want)
				}
			}
			c.shutdown(unix.SHUT_WR)
			waiting.shutdown(unix.SHUT_WR)
			await(t, "their FINs", func() bool { return h.inStates(unix.BPF_TCP_CLOSE_WAIT) == 3 })
			once := sstrace(t, "", "leaks", "--once", "--older", "CLOSE_WAIT=1ns", "--netns", h.netns()).stdout
			for _, want := range []string{"    holder not found: the descriptor may be in flight", "    held by no process: not accepted yet", "no process found: 2 sockets in CLOSE_WAIT"} {
				if strings.Count(once, want) != 1 {
					t.Errorf("no %q in\n%s", want, once)
				}
			}
			text := sstrace(t, "", "ls", "--netns", h.netns()).stdout
			for _, want := range []string{" (not found)\n", " (accept queue)\n", " -\n"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
		})
	}
}

func init() {
	// pid-namespace is process 1 of a PID namespace. It has a connection to the address in its
	// first argument, which the peer has closed. It runs sstrace once with each of the other
	// arguments.
	roles["pid-namespace"] = func() {
		at := netip.MustParseAddrPort(os.Args[1])
		l, err := unix.Socket(family(at), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		c, _ := unix.Socket(family(at), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		a := sockaddr(at, family(at))
		err = errors.Join(err, unix.Bind(l, a), unix.Listen(l, 8), unix.Connect(c, a))
		_, _, acceptErr := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err = errors.Join(err, acceptErr, unix.Close(c)); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("pid", os.Getpid())
		for _, args := range os.Args[2:] {
			cmd := self("sstrace", strings.Fields(args)...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
			_ = cmd.Run()
		}
	}
}

// In a PID namespace, sstrace reports the PIDs of that namespace and says so. It never names a
// program by a PID that belongs to another process.
func TestInPIDNamespace(t *testing.T) {
	for _, at := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(at+" its own /proc", func(t *testing.T) {
			inPIDNamespace(t, at, true, []string{"held by 1/", " fd ", "\n1/", "a PID namespace of its own (", "  " + os.Args[0]}, "")
		})
		t.Run(at+" the /proc outside", func(t *testing.T) {
			inPIDNamespace(t, at, false, []string{"held by 1/", "\n1/", "a PID namespace of its own ("}, "  /")
		})
	}
}

// inPIDNamespace checks that the output of sstrace there contains wants, and that no line about
// holders contains what it should not. own is set if the namespace has its own /proc.
func inPIDNamespace(t *testing.T, at string, own bool, wants []string, not string) {
	h := newHost(t)
	dial := filepath.Join(t.TempDir(), "dial")
	a := netip.MustParseAddrPort(at)
	h.must("write", os.WriteFile(dial, fmt.Appendf(nil, "#!/bin/bash\necho dialling as $$\nexec 3<>/dev/tcp/%v/%d\n", a.Addr(), a.Port()), 0o755))
	traces := []string{"-n 1 --edge CLOSE:SYN_SENT -p 7781 --comm dial", "conns -p 7781 --comm dial", "handshakes -p 7781 --comm dial"}
	args := []string{at, "ls --pid 1", "leaks --once --older CLOSE_WAIT=1ns --state close-wait", "check"}
	for _, trace := range traces {
		args = append(args, trace+" -o ndjson -- "+dial)
	}
	cmd := self("pid-namespace", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if own {
		script := `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" "$@"`
		shell := exec.Command("sh", append([]string{"-c", script, cmd.Path}, cmd.Args[1:]...)...)
		shell.Env, shell.SysProcAttr = cmd.Env, cmd.SysProcAttr
		cmd = shell
	}
	out, err := cmd.StdoutPipe()
	h.must("pipe", err)
	h.do(func() { h.must("start", cmd.Start()) })
	text, err := io.ReadAll(out)
	h.must("read", err)
	h.must("wait", cmd.Wait())
	listing, rest, _ := strings.Cut(string(text), "sockets:")
	if !strings.HasPrefix(listing, "pid 1\n") || strings.Count(listing, " 1/") != 2 {
		t.Errorf("of process 1:\n%s", text)
	}
	for _, want := range wants {
		if !strings.Contains(rest, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	parts := strings.Split(rest, "dialling as ")
	if len(parts) != len(traces)+1 {
		t.Fatalf("%d of %d traces:\n%s", len(parts)-1, len(traces), text)
	}
	for i, part := range parts[1:] {
		pid, line, _ := strings.Cut(part, "\n")
		if !strings.Contains(line, `"owner_pid":`+pid+`,"owner_`) || !strings.Contains(line, `"owner_host_pid":null`) || !strings.Contains(line, `"owner_comm":"dial"`) {
			t.Errorf("%s: of process %s:\n%s", traces[i], pid, line)
		}
	}
	if n := strings.Count(string(text), "sstrace: running in a PID namespace other than the host's"); n != 2+len(traces) {
		t.Errorf("got the note %d times:\n%s", n, text)
	}
	for line := range strings.Lines(rest) {
		if strings.Contains(line, "held by") && not != "" && strings.Contains(line, not) {
			t.Errorf("a program of another process is named: %s", line)
		}
	}
}

// If two sockets in one namespace have the same addresses, on two links, each is listed with its
// device.
func TestListingOfLinkLocal(t *testing.T) {
	h := newHost(t)
	for _, dev := range []string{"d0", "d1"} {
		h.run(nil, "ip", "link", "add", dev, "type", "veth", "peer", "name", "peer"+dev)
		h.run(nil, "ip", "link", "set", dev, "addrgenmode", "none")
		h.run(nil, "ip", "link", "set", dev, "up")
		h.run(nil, "ip", "addr", "add", "fe80::1/64", "dev", dev, "nodad")
	}
	h.listen("[::]:7781", 8)
	index := func(dev string) (i int) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/net/if_inet6", os.Getpid(), h.tid()))
		h.must("read addresses", err)
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); f[len(f)-1] == dev {
				_, err := fmt.Sscanf(f[1], "%x", &i)
				h.must("read an index", err)
			}
		}
		return i
	}
	want := make(map[string]int)
	for _, dev := range []string{"d0", "d1"} {
		i := index(dev)
		c := h.socket(unix.AF_INET6)
		addr := netip.MustParseAddr("fe80::1").As16()
		h.must("bind", unix.Bind(c.fd, &unix.SockaddrInet6{Port: 40000, ZoneId: uint32(i), Addr: addr}))
		h.must("connect", unix.Connect(c.fd, &unix.SockaddrInet6{Port: 7781, ZoneId: uint32(i), Addr: addr}))
		want[dev] = i
	}
	lo := h.socket(unix.AF_INET)
	h.must("bind to lo", unix.BindToDevice(lo.fd, "lo"))
	lo.listenAt("127.0.0.1:7783", 8)
	var ss bytes.Buffer
	h.run(&ss, "ss", "-HtanO")
	all := h.list(t)
	for dev, i := range want {
		n := 0
		for _, e := range all {
			if e.IfName == dev && e.IfIndex == uint32(i) {
				n++
			}
		}
		if n != 2 || strings.Count(ss.String(), "%"+dev+":") != 2 {
			t.Errorf("%d sockets on %s, %d: %+v\n%s", n, dev, i, all, &ss)
		}
	}
	text := sstrace(t, "", "ls", "--netns", h.netns()).stdout
	for _, want := range []string{"*:7781 ", " [fe80::1%d0]:7781  [fe80::1%d0]:40000 ", " [fe80::1%d1]:40000 [fe80::1%d1]:7781 ", " 127.0.0.1:7783 "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if wide := sstrace(t, "", "ls", "-o", "wide", "--netns", h.netns()).stdout; !strings.Contains(wide, " 127.0.0.1%lo:7783 ") {
		t.Errorf("%s", wide)
	}
	if some := h.list(t, "--where", "ifname == 'd1' && role == 'server'"); len(some) != 1 {
		t.Errorf("of d1: %+v", some)
	}
}

// Sockets that are only bound can make bind() fail. They are listed only with --bound.
func TestListingOfBound(t *testing.T) {
	h := newHost(t)
	bind := func(s sock, addr string) sock {
		a := netip.MustParseAddrPort(addr)
		h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
		return s
	}
	four := bind(h.socket(unix.AF_INET), "127.0.0.1:7781")
	dup := four.file()
	six := h.socket(unix.AF_INET6)
	h.must("v6only", unix.SetsockoptInt(six.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	bind(six, "[::]:7782")
	bind(h.socket(unix.AF_INET6), "[::]:7783")
	h.socket(unix.AF_INET) // not bound
	l := h.listen("127.0.0.1:7784", 8)
	if err := unix.Bind(h.socket(unix.AF_INET).fd, sockaddr(netip.MustParseAddrPort("127.0.0.1:7781"), unix.AF_INET)); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("bind: %v", err)
	}
	if all := h.list(t); len(all) != 1 {
		t.Errorf("without --bound: %+v", all)
	}
	all := h.list(t, "--bound")
	if len(all) != 4 {
		t.Errorf("%+v", all)
	}
	none := netip.AddrPort{}.String()
	e := find(t, all, event.TCP, "127.0.0.1:7781", none)
	if want := []event.Holder{h.heldBy(four.fd)[0], h.heldBy(int(dup.Fd()))[0]}; e.New != event.Close || !sameHolders(e.Status.Holders, want) || e.Status.V6Only != 0 {
		t.Errorf("%+v, %+v", e, e.Status)
	}
	if e := find(t, all, event.TCP, "[::]:7782", none); e.Status.V6Only != event.Yes || !slices.Equal(e.Status.Holders, h.heldBy(six.fd)) {
		t.Errorf("%+v, %+v", e, e.Status)
	}
	if e := find(t, all, event.TCP, "[::]:7783", none); e.Status.V6Only != event.No {
		t.Errorf("%+v, %+v", e, e.Status)
	}
	if e := find(t, all, event.TCP, "127.0.0.1:7784", none); !slices.Equal(e.Status.Holders, h.heldBy(l.fd)) {
		t.Errorf("%+v, %+v", e, e.Status)
	}
	text := sstrace(t, "", "ls", "--bound", "--state", "close", "--netns", h.netns()).stdout
	for _, want := range []string{"127.0.0.1:7781 ", " *:7783 ", " [::]:7782 ", "3 sockets: CLOSE 3"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func sameHolders(a, b []event.Holder) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(h event.Holder) bool { return !slices.Contains(b, h) })
}

// An orphan in FIN_WAIT2 that may wait for more than a minute is first a full socket and then a
// timewait sock. The time left covers both phases.
func TestListingOfLongFinWait2(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
		t.Run(addr, func(t *testing.T) {
			h := newHost(t)
			h.do(func() { h.must("set a timeout", os.WriteFile("/proc/sys/net/ipv4/tcp_fin_timeout", []byte("62"), 0)) })
			l := h.listen(addr, 8)
			c, _ := h.established(l, addr)
			c.close()
			await(t, "FIN_WAIT2", func() bool { return h.inStates(unix.BPF_TCP_FIN_WAIT2) == 1 })
			var ends [2]int64 // the expected end, as each phase reports it
			await(t, "both phases", func() bool {
				all := h.list(t, "--state", "fin-wait-2")
				if len(all) == 1 && all[0].Status.Left != event.Unknown {
					phase := 0
					if all[0].Status.RecvQueue == event.Unknown { // a mini-sock
						phase = 1
					}
					ends[phase] = all[0].Mono + all[0].Status.Left
				}
				return len(all) == 0
			})
			// A timer of 2 s may run 32 ms late (kernel/time/timer.c). If the second phase were
			// counted twice or not at all, the difference would be 2 s.
			if ends[0] == 0 || ends[1] == 0 || ends[1]-ends[0] > 1e9 || ends[0]-ends[1] > 1e9 {
				t.Errorf("got ends at %d ns and %d ns, want the same", ends[0], ends[1])
			}
		})
	}
}

// A command that shows only the present says so in its usage errors.
func TestListingUsage(t *testing.T) {
	for _, args := range [][]string{
		{"ls", "--bound", "-r", "x"}, {"ls", "--bound", "--watch"}, {"ls", "--proto", "sctp"}, {"leaks", "--proto", "tcp,sctp"},
	} {
		if r := sstrace(t, "", args...); r.code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.stderr)
		}
	}
}
