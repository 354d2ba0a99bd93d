package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// feed is a running sstrace that traces all network namespaces. Many tests share it, and each test
// looks only at its own lines. feed omits sockets that do not have feedPort at either end.
type feed struct {
	t     testing.TB
	marks atomic.Uint32
	mutex sync.Mutex
	lines map[uint32][]event.Event
}

const feedPort = 7781

// startFeed starts sstrace, which runs until t is over. Then startFeed checks the balance, and the
// views of all lines.
func startFeed(t *testing.T, args ...string) *feed {
	t.Helper()
	needRoot(t)
	f := &feed{t: t, lines: make(map[uint32][]event.Event)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := self("sstrace", append(args, "-p", fmt.Sprint(feedPort), "-o", "ndjson", "-w", "/proc/self/fd/3", "--", "sh", "-c", "echo attached; read _")...)
	cmd.ExtraFiles = []*os.File{w}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	file := filepath.Join(t.TempDir(), "feed.ndjson")
	recording, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan *event.Balance)
	go func() {
		defer close(read)
		for in := bufio.NewReader(io.TeeReader(r, recording)); ; {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			var e event.Event
			if err := e.DecodeJSON(line); err != nil {
				t.Errorf("%v: %s", err, line)
			}
			switch e.Type {
			case event.Lost:
				t.Errorf("changes were lost: %s", line)
			case event.End:
				read <- e.Balance
			default:
				f.mutex.Lock()
				f.lines[e.NetNS] = append(f.lines[e.NetNS], e)
				f.mutex.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		balance := <-read
		_ = cmd.Wait() // `read` fails at end of file
		if balance == nil || !balance.Balanced() || balance.Missed != 0 || balance.RingFull != 0 {
			t.Errorf("the balance does not add up: %+v: %s", balance, &stderr)
		}
		recording.Close()
		checkViews(t, file)
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "attached\n" {
		t.Fatalf("sstrace %q did not attach: %q, %v: %s", args, line, err, &stderr)
	}
	return f
}

// of returns the lines so far from the network namespace of h. An earlier namespace may have had
// the same number. Its lines are about another port, and are left out.
func (f *feed) of(h *host, wanted func(e *event.Event) bool) (all []event.Event) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, e := range f.lines[uint32(h.inode)] {
		if wanted(&e) {
			all = append(all, e)
		}
	}
	return all
}

// settle waits until everything that has happened so far has been reported. Lines are in the order
// of the events that they report, so settle causes one more event and waits for its line.
func (f *feed) settle(h *host) {
	n := f.marks.Add(1)
	mark := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), feedPort)
	h.listen(mark.String(), 1).close()
	await(h.t, "lines", func() bool {
		return len(f.of(h, func(e *event.Event) bool { return e.Local == mark && e.New == event.Close })) > 0
	})
}

// endpoint is a socket in the namespace whose peer is behind the wire.
type endpoint struct {
	sock
	w          *wire
	l          sock // its listener, if any
	host, peer netip.AddrPort
	seq, ack   uint32  // the peer's next sequence number, and what the peer has acknowledged
	last       segment // from the host
	open       bool
	awaitEnd   func()
	owner      int // the process that ends it, if not this one
}

// peerPorts counts the peers' ports. Each peer has a different one.
var peerPorts atomic.Uint32

// newEndpoint makes an endpoint with its namespace and wire. Timeouts are as short as the kernel
// allows.
func newEndpoint(t testing.TB, family string) *endpoint {
	h := newHost(t)
	for name, value := range map[string]string{"tcp_syn_retries": "1", "tcp_synack_retries": "0", "tcp_orphan_retries": "1"} {
		h.sysctl(name, value)
	}
	p := &endpoint{sock: sock{h: h}, w: h.newWire(), seq: 5000}
	host, peer := "10.0.0.1", "10.1.2.3"
	if family == "IPv6" {
		host, peer = "fd00::1", "fd00::2"
		p.w.addIPv6(netip.MustParseAddr(host))
	}
	p.host = netip.AddrPortFrom(netip.MustParseAddr(host), feedPort)
	p.peer = netip.AddrPortFrom(netip.MustParseAddr(peer), uint16(20000+peerPorts.Add(1)))
	p.awaitEnd = func() {
		await(t, "the end", func() bool {
			return h.inStates(unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_SYN_SENT, unix.BPF_TCP_SYN_RECV, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2,
				unix.BPF_TCP_TIME_WAIT, unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING) == 0
		})
	}
	return p
}

// addIPv6 gives the host an additional IPv6 address.
func (w *wire) addIPv6(addr netip.Addr) {
	w.h.run(nil, "ip", "-6", "addr", "add", addr.String()+"/64", "dev", "wire", "nodad")
	b := addr.As16()
	await(w.h.t, "the address", func() bool { // until it has a route, packets are dropped
		routes, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/net/ipv6_route", os.Getpid(), w.h.tid()))
		w.h.must("look at routes", err)
		return bytes.Contains(routes, fmt.Appendf(nil, "%x 80 ", b))
	})
}

func (p *endpoint) send(flags byte, data int) {
	p.w.send(segment{from: p.peer, to: p.host, flags: flags, seq: p.seq, ack: p.ack, data: data})
	p.seq += uint32(data)
	if flags&(syn|fin) != 0 {
		p.seq++
	}
}

func (p *endpoint) receive(flags byte) { p.last = p.w.receive(flags) }

// acknowledge makes the peer acknowledge the last segment in everything that it sends from now on.
func (p *endpoint) acknowledge() { p.ack = p.last.reply(ack).ack }

func (p *endpoint) option(level, name, value int) {
	p.h.must("option", unix.SetsockoptInt(p.fd, level, name, value))
}

func (p *endpoint) await(state uint8) {
	await(p.h.t, "state of a socket", func() bool { return p.h.inStates(state) == 1 })
}

// do performs the steps in all, which are separated by commas.
func (p *endpoint) do(all string) {
	for step := range strings.SplitSeq(all, ", ") {
		do, ok := steps[step]
		if !ok {
			p.h.t.Fatalf("%q is not a step", step)
		}
		do(p)
	}
}

// ways maps each state to the steps that lead to it.
var ways = map[string]string{
	"SYN_SENT":              "connect",
	"SYN_RECV":              "connect, SYN in",
	"SYN_RECV of a request": "listen, SYN in",
	"ESTABLISHED":           "connect, SYN-ACK in",
	"FIN_WAIT1":             "connect, SYN-ACK in, shutdown(WR)",
	"FIN_WAIT2":             "connect, SYN-ACK in, shutdown(WR), ACK in",
	"CLOSING":               "connect, SYN-ACK in, shutdown(WR), FIN in",
	"CLOSE_WAIT":            "connect, SYN-ACK in, FIN in",
	"LAST_ACK":              "connect, SYN-ACK in, FIN in, shutdown(WR)",
	"TIME_WAIT":             "connect, SYN-ACK in, shutdown(WR), ACK in, close, FIN in",
}

const tcpRepair, tcpLinger2 = 19, 8 // include/uapi/linux/tcp.h

// steps are what a process, the peer or the network can do to a connection. Each step returns once
// the kernel has processed it.
var steps = map[string]func(p *endpoint){
	"connect": func(p *endpoint) {
		p.sock = p.h.socket(family(p.host))
		p.open = true
		p.h.must("nonblock", unix.SetNonblock(p.fd, true))
		local := sockaddr(p.host, family(p.host))
		p.h.must("bind", unix.Bind(p.fd, local))
		if err := unix.Connect(p.fd, sockaddr(p.peer, family(p.peer))); err != unix.EINPROGRESS {
			p.h.t.Errorf("connect: %v", err)
		}
		p.receive(syn)
	},
	"listen": func(p *endpoint) { p.l = p.h.listen(p.host.String(), 0) },
	"SYN in": func(p *endpoint) {
		p.send(syn, 0)
		p.receive(syn | ack)
	},
	"another SYN in": func(p *endpoint) {
		p.seq += 100
		p.send(syn, 0)
		p.receive(rst)
	},
	"SYN-ACK in": func(p *endpoint) {
		p.acknowledge()
		p.send(syn|ack, 0)
		p.receive(ack)
		p.reach(unix.BPF_TCP_ESTABLISHED)
	},
	"ACK in": func(p *endpoint) {
		p.acknowledge()
		p.send(ack, 0)
		if p.last.flags&fin != 0 {
			await(p.h.t, "FIN_WAIT2", func() bool { return p.h.inStates(unix.BPF_TCP_FIN_WAIT1) == 0 })
		}
	},
	"FIN in": func(p *endpoint) {
		p.send(fin|ack, 0)
		p.receive(ack)
	},
	"RST in": func(p *endpoint) {
		flags := byte(rst)
		if p.last.flags&ack == 0 { // required in SYN_SENT (RFC 9293 section 3.10.7.3)
			p.acknowledge()
			flags |= ack
		}
		p.send(flags, 0)
	},
	// Data of which the process has not read a single byte.
	"data in": func(p *endpoint) {
		p.send(ack, 4)
		await(p.h.t, "data", func() bool {
			n, err := unix.IoctlGetInt(p.fd, unix.SIOCINQ)
			return err != nil || n > 0
		})
	},
	"data in too late": func(p *endpoint) { p.send(ack, 4) },
	"data and ACK in too late": func(p *endpoint) {
		p.acknowledge()
		p.send(ack, 4)
	},
	"data out": func(p *endpoint) {
		p.write("data")
		p.receive(psh)
	},
	"zero window": func(p *endpoint) {
		p.w.send(segment{from: p.peer, to: p.host, flags: ack, seq: p.seq, ack: p.ack, zeroWindow: true})
		await(p.h.t, "a zero window", func() bool {
			info, err := unix.GetsockoptTCPInfo(p.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			return err != nil || info.Snd_wnd == 0
		})
		p.write("data")
	},
	"ICMP host unreachable": func(p *endpoint) {
		if p.peer.Addr().Is6() {
			p.w.icmp(p.last, 1, 3)
		} else {
			p.w.icmp(p.last, 3, 1)
		}
	},
	// A half-open connection accepts an ICMP error only if there is nothing better to expect.
	"ICMP of no return": func(p *endpoint) {
		if p.peer.Addr().Is6() {
			p.w.icmp(p.last, 1, 1)
		} else {
			p.w.icmp(p.last, 3, 1)
		}
	},
	"ICMP port unreachable": func(p *endpoint) {
		if p.peer.Addr().Is6() {
			p.w.icmp(p.last, 1, 4)
		} else {
			p.w.icmp(p.last, 3, 3)
		}
	},
	"IP_RECVERR": func(p *endpoint) {
		if p.peer.Addr().Is6() {
			p.option(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		} else {
			p.option(unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		}
	},
	"close": func(p *endpoint) {
		p.closeLast()
		p.open = false
	},
	// Like close, but by ending the last process that has the socket.
	"SIGKILL": func(p *endpoint) {
		child := self("holder")
		stdin, err := child.StdinPipe()
		p.h.must("pipe", err)
		defer stdin.Close()
		inode := p.inode()
		file := os.NewFile(uintptr(p.fd), "socket")
		child.ExtraFiles = []*os.File{file}
		p.h.must("start", child.Start())
		file.Close()
		p.open, p.owner = false, child.Process.Pid
		p.h.must("kill", child.Process.Kill())
		_ = child.Wait()
		p.h.orphaned(inode)
	},
	"shutdown(RD)": func(p *endpoint) { p.shutdown(unix.SHUT_RD) },
	"shutdown(WR)": func(p *endpoint) {
		p.shutdown(unix.SHUT_WR)
		if state := p.state(); state == unix.BPF_TCP_FIN_WAIT1 || state == unix.BPF_TCP_LAST_ACK {
			p.receive(fin)
		}
	},
	"shutdown(WR) behind data": func(p *endpoint) { p.shutdown(unix.SHUT_WR) },
	"shutdown(RDWR)":           func(p *endpoint) { p.shutdown(unix.SHUT_RDWR) },
	"disconnect":               func(p *endpoint) { p.h.must("disconnect", connectUnspec(p.fd)) },
	"SO_LINGER 0":              func(p *endpoint) { p.reset() },
	"SO_KEEPALIVE":             func(p *endpoint) { p.option(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1) },
	"keep-alive": func(p *endpoint) {
		p.option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
		p.option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
		p.option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
		p.option(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	},
	"TCP_USER_TIMEOUT":   func(p *endpoint) { p.option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 100) },
	"TCP_LINGER2 -1":     func(p *endpoint) { p.option(unix.IPPROTO_TCP, tcpLinger2, -1) },
	"TCP_LINGER2 61":     func(p *endpoint) { p.option(unix.IPPROTO_TCP, tcpLinger2, 61) },
	"TCP_LINGER2 1":      func(p *endpoint) { p.option(unix.IPPROTO_TCP, tcpLinger2, 1) },
	"TCP_REPAIR":         func(p *endpoint) { p.option(unix.IPPROTO_TCP, tcpRepair, 1) },
	"ss -K":              func(p *endpoint) { p.h.destroy("all", "dst", p.peer.String()) },
	"close the listener": func(p *endpoint) { p.l.close(); p.l = sock{} },
	"SYN-ACK unanswered": func(*endpoint) {},
	"abort on overflow":  func(p *endpoint) { p.h.sysctl("tcp_abort_on_overflow", "1") },
	"TCP_DEFER_ACCEPT": func(p *endpoint) {
		p.h.must("option", unix.SetsockoptInt(p.l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60))
	},
	"too many TIME_WAITs": func(p *endpoint) { p.h.sysctl("tcp_max_tw_buckets", "0") },
	"accept queue full": func(p *endpoint) {
		other := segment{from: netip.AddrPortFrom(p.peer.Addr(), 19999), to: p.host, flags: syn, seq: 1000}
		p.w.send(other)
		p.w.send(p.w.receive(syn | ack).reply(ack))
		p.await(unix.BPF_TCP_ESTABLISHED)
		p.awaitEnd = func() {
			await(p.h.t, "the end", func() bool { return p.h.inStates(unix.BPF_TCP_SYN_RECV) == 0 })
		}
	},
	"network namespace removed": func(p *endpoint) {
		p.h.leave()
		_ = unix.Close(p.w.fd)
		p.w.fd = -1
		p.awaitEnd = nil
	},
}

func (s sock) inode() string {
	var stat unix.Stat_t
	s.h.must("stat", unix.Fstat(s.fd, &stat))
	return strconv.FormatUint(stat.Ino, 10)
}

// closeLast closes the socket and waits until no process has it any more.
func (s sock) closeLast() {
	inode := s.inode()
	s.close()
	s.h.orphaned(inode)
}

// orphaned waits until no process has the socket any more. A process that another test has just
// forked may still have it, until it executes its program.
func (h *host) orphaned(inode string) {
	tid := h.tid()
	await(h.t, "the last close()", func() bool {
		for _, file := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/net/%s", os.Getpid(), tid, file))
			h.must("look at sockets", err)
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) > 9 && f[9] == inode {
					return false
				}
			}
		}
		return true
	})
}

// state returns the kernel's state of an open socket.
func (p *endpoint) state() uint8 {
	info, err := unix.GetsockoptTCPInfo(p.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	p.h.must("state", err)
	return info.State
}

// witnesses are the kernel's own counters for the ends of connections
// (Documentation/networking/snmp_counter.rst).
var witnesses = []string{
	"TCPAbortOnData", "TCPAbortOnClose", "TCPAbortOnLinger", "TCPAbortOnTimeout", "TCPAbortOnMemory", "TCPAbortFailed",
	"OutRsts", "EstabResets", "AttemptFails", "EmbryonicRsts", "ListenOverflows", "TCPKeepAlive",
}

// counters returns all of the namespace's counters.
func (h *host) counters() map[string]int {
	all := make(map[string]int)
	for _, file := range []string{"snmp", "netstat"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/net/%s", os.Getpid(), h.tid(), file))
		h.must("read counters", err)
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			values := strings.Fields(lines[i+1])
			for at, name := range strings.Fields(lines[i]) {
				if n, err := strconv.Atoi(values[at]); err == nil && (strings.HasPrefix(lines[i], "Tcp")) {
					all[name] = n
				}
			}
		}
	}
	return all
}

// moved returns which witnesses have changed, in order: "OutRsts 1, EstabResets 1".
func moved(before, after map[string]int) string {
	var all []string
	for _, name := range witnesses {
		if n := after[name] - before[name]; n != 0 {
			all = append(all, fmt.Sprint(name, " ", n))
		}
	}
	return strings.Join(all, ", ")
}

// together runs all functions concurrently, at most n at a time, and waits for them.
func together(n int, all []func()) {
	var running sync.WaitGroup
	slots := make(chan struct{}, n)
	for _, f := range all {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			f()
		})
	}
	running.Wait()
}
