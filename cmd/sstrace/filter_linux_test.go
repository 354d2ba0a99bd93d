package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// filters lists command lines and the paths that each selects from the traffic of TestFilters.
// Every path begins with the server's port.
var filters = []struct {
	args string // with $NETNS, $PID and $PPID: our own, and our parent's PID
	want []string
}{
	{"", slices.Concat(pathsOf("7781"), pathsOf("7782"), pathsOf("7783"), otherUser)},
	{"-p 7781", pathsOf("7781")},
	{"-p 7780-7781,7783", slices.Concat(pathsOf("7781"), pathsOf("7783"))},
	{"--lport 7781", []string{"7781 " + ordinaryListener, "7781 " + passiveServer}},
	{"--rport 7781", []string{"7781 " + activeClient}},
	{"-p 7781 --rport 7782", nil},
	// A client has no port yet at its first change.
	{"--lport 32768-60999 --rport 7781", []string{"7781 " + activeClient}},
	{"-p 32768-60999 --host 127.0.0.2", []string{"7782 " + activeClient, "7782 " + passiveServer}},
	{"--host 127.0.0.2", pathsOf("7782")},
	{"--host 127.0.0.2/31,::/64", slices.Concat(pathsOf("7782"), pathsOf("7783"))},
	{"--host ::ffff:127.0.0.2", pathsOf("7782")},
	{"-4", slices.Concat(pathsOf("7781"), pathsOf("7782"), otherUser)},
	{"-6", pathsOf("7783")},
	{"--uid 1234", otherUser},
	{"--uid root -p 7781,7784", pathsOf("7781")},
	{"--netns $NETNS -p 7781", pathsOf("7781")},
	{"--netns pid:$PPID -p 7781", nil}, // which is in another namespace
	{"--pid 1 -p 7781", nil},
	{"--comm nobody -p 7781", nil},
	{"--pid $PID -p 7781", pathsOf("7781")},
	{"--edge SYN_SENT:ESTABLISHED -p 7781", []string{"7781 client SYN_SENT ESTABLISHED"}},
	{"--state syn-recv -p 7781", []string{"7781 server LISTEN SYN_RECV ESTABLISHED"}},
	{"--min-dur 1h", nil},
	{"--where role=='listener'&&dur_ns>0 -p 7781", []string{"7781 listener LISTEN CLOSE"}},
}

// pathsOf returns the paths of a listener and of a connection that the client closes first.
func pathsOf(port string) []string {
	return []string{port + " " + ordinaryListener, port + " " + activeClient, port + " " + passiveServer}
}

// otherUser is the path of the listener that the other user opens.
var otherUser = []string{"7784 " + ordinaryListener}

// Each filter selects exactly what it names. There are three connections and a listener, with four
// ports, two addresses, both families and two users.
func TestFilters(t *testing.T) {
	h := newHost(t)
	traffic := func() {
		for _, end := range []string{"127.0.0.1:7781", "127.0.0.2:7782", "[::1]:7783"} {
			l, c, s := h.connection(end, end)
			closeBoth(c, s)
			l.close()
		}
		h.do(func() { unix.Setfsuid(1234) })
		h.listen("127.0.0.1:7784", 1).close()
		h.do(func() { unix.Setfsuid(0) })
	}
	vars := map[string]string{
		"NETNS": fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), h.tid()),
		"PID":   strconv.Itoa(os.Getpid()),
		"PPID":  strconv.Itoa(os.Getppid()),
	}
	for _, test := range filters {
		t.Run(cmp.Or(test.args, "no filter"), func(t *testing.T) {
			args := strings.Fields(os.Expand(test.args, func(name string) string { return vars[name] }))
			if !slices.Contains(args, "--netns") {
				args = append(args, "--netns", h.netns())
			}
			rfc, kernel := traceBoth(t, args, traffic)
			inRFC := make([]string, len(test.want))
			for i, path := range test.want {
				inRFC[i] = toRFC.Replace(path)
			}
			checkPathsByPort(t, "rfc", rfc, inRFC)
			checkPathsByPort(t, "kernel", kernel, test.want)
		})
	}
}

// checkPathsByPort compares the paths of all sockets. Every path begins with the server's port.
func checkPathsByPort(t *testing.T, vocabulary string, r recordedRun, want []string) {
	t.Helper()
	var got []string
	paths := r.paths()
	for i, e := range firstChanges(r.changes) {
		port := min(e.Local.Port(), e.Remote.Port())
		if port == 0 {
			port = max(e.Local.Port(), e.Remote.Port())
		}
		got = append(got, fmt.Sprint(port, " ", paths[i]))
	}
	if got, want := sorted(got), sorted(want); !slices.Equal(got, want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s", vocabulary, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// toRFC translates a path from the kernel's vocabulary to the RFC 9293 vocabulary.
var toRFC = strings.NewReplacer(
	ordinaryListener, rfcListener,
	activeClient, rfcActiveClient,
	passiveServer, rfcPassiveServer,
	"listener LISTEN CLOSE", "listener LISTEN CLOSE (normal)",
)

// firstChanges returns the first change of each socket.
func firstChanges(changes []event.Event) (first []event.Event) {
	seen := make(map[uint64]bool)
	for _, e := range changes {
		if !seen[e.ID] {
			seen[e.ID] = true
			first = append(first, e)
		}
	}
	return first
}

// A client has no port at its first change, because the kernel chooses the port later. A filter for
// that port still shows the first change of this client, and not that of a client that gets another
// port.
func TestFilterByThePortOfAClient(t *testing.T) {
	h := newHost(t)
	l := h.listen("127.0.0.1:7781", 8)
	defer l.close()
	const wanted, other = 40602, 40603
	r := trace(t, []string{"--netns", h.netns(), "-p", fmt.Sprint(wanted)}, func() {
		for _, port := range []int{other, wanted, other} {
			c := h.socket(unix.AF_INET)
			// The test sets the range of the namespace, because IP_LOCAL_PORT_RANGE requires Linux
			// 6.3.
			h.sysctl("ip_local_port_range", fmt.Sprint(port, port))
			h.must("connect", unix.Connect(c.fd, mustSockaddr(loopbackAddr)))
			c.reset()
			c.close()
		}
	})
	want := []string{clientReset, serverReset}
	if got := r.paths(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(r.changes) > 0 && r.changes[0].Local.Port() != 0 {
		t.Errorf("got %+v, want a client without a port", r.changes[0])
	}
}

// --cgroup selects a cgroup and everything below it. Lines show the path of the cgroup.
func TestFilterByCgroup(t *testing.T) {
	h := newHost(t)
	root := cgroupTree(t)
	name := fmt.Sprintf("/sstrace-test-%d", os.Getpid())
	for _, dir := range []string{name, name + "/below", name + "-other"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(root + dir) })
	}
	// A connection outside these cgroups is not shown, not even in TIME_WAIT, which has no cgroup.
	r := trace(t, []string{"--netns", h.netns(), "--cgroup", name, "--states", "rfc"}, func() {
		l, c, s := h.connection("127.0.0.1:7789", "127.0.0.1:7789")
		closeBoth(c, s)
		l.close()
		for i, dir := range []string{name, name + "/below", name + "-other"} {
			fd, err := os.Open(root + dir)
			if err != nil {
				t.Fatal(err)
			}
			cmd := self("listen", fmt.Sprintf("127.0.0.1:%d", 7781+i))
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
			h.do(func() { h.must("listen in "+dir, cmd.Run()) })
			fd.Close()
		}
	})
	var got []string
	for _, e := range r.changes {
		got = append(got, e.Cgroup+" "+e.New.String())
	}
	want := []string{name + " LISTEN", name + " CLOSE", name + "/below LISTEN", name + "/below CLOSE"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// MPTCP sockets change state on the same tracepoint. They are shown if --proto asks for them. Their
// subflows are TCP.
func TestProtocols(t *testing.T) {
	h := newHost(t)
	open := func() (err error) {
		h.do(func() {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err == nil {
				h.must("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: 7781, Addr: [4]byte{127, 0, 0, 1}}))
				h.must("listen", unix.Listen(fd, 1))
				h.must("close", unix.Close(fd))
			}
		})
		return err
	}
	if err := open(); err != nil {
		t.Skipf("this kernel has no MPTCP: %v", err)
	}
	for args, want := range map[string][]event.Proto{
		"--proto tcp":       {event.TCP},
		"--proto mptcp":     {event.MPTCP},
		"--proto tcp,mptcp": {event.TCP, event.MPTCP},
		"--proto sctp":      nil,
	} {
		t.Run(args, func(t *testing.T) {
			r := trace(t, append(strings.Fields(args), "--netns", h.netns()), func() { h.must("mptcp", open()) })
			var got []event.Proto
			for _, e := range r.changes {
				got = append(got, e.Proto)
			}
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// A network namespace can be selected by name. The name is a file in /run/netns, as ip netns
// creates it.
func TestFilterByNetNSName(t *testing.T) {
	h := newHost(t)
	name := fmt.Sprintf("sstrace-test-%d", os.Getpid())
	path := filepath.Join("/run/netns", name)
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	h.do(func() { h.must("mount", unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")) })
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	r := trace(t, []string{"--netns", name}, func() { h.listen("127.0.0.1:7781", 1).close() })
	if got := r.paths(); !slices.Equal(got, []string{ordinaryListener}) {
		t.Errorf("got %q, want %q", got, ordinaryListener)
	}
}
