package filter

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
)

// change returns a change with an owner, a user, a cgroup and a network namespace.
func change(id uint64, local, remote string, from, to event.State) event.Event {
	e := *eventtest.Change(local, remote, from, to)
	e.ID, e.Dur, e.NetNS, e.UID, e.Cgroup = id, 2e6, 100, 1000, "/system.slice/redis.service"
	e.OwnerPID, e.OwnerComm, e.Role = 30, "redis-server", event.Client
	return e
}

// filterTest is a filter, an Event, and whether it passes.
type filterTest struct {
	name string
	o    Options
	e    event.Event
	want bool
}

func checkFilters(t *testing.T, tests []filterTest) {
	t.Helper()
	for _, test := range tests {
		f, err := New(&test.o)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		passed := false
		if err := f.Pass(&test.e, func(*event.Event) error { passed = true; return nil }); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if passed != test.want || f.Filtered() != map[bool]uint64{true: 0, false: 1}[test.want] {
			t.Errorf("%s: passed %v, filtered %d; want %v", test.name, passed, f.Filtered(), test.want)
		}
	}
}

// established returns a change that matches most of the filters in this file.
func established() event.Event {
	return change(1, "127.0.0.1:40602", "10.1.2.3:443", event.SynSent, event.Established)
}

// unknown returns the same change with fewer known values.
func unknown() event.Event {
	e := established()
	e.Dur, e.OwnerPID, e.Cgroup = event.Unknown, 0, ""
	return e
}

// ofHost returns the same change with processes in the initial PID namespace.
func ofHost() event.Event {
	e := established()
	e.OwnerPID, e.TaskPID = 8471|event.HostPID, 8472|event.HostPID
	return e
}

func TestConnectionFilters(t *testing.T) {
	e, unknown, mapped := established(), unknown(), established()
	mapped.Family = event.Mapped
	checkFilters(t, []filterTest{
		{"nothing", Options{}, e, true},
		{"remote port by -p", Options{Ports: []string{"443"}}, e, true},
		{"local port by -p", Options{Ports: []string{"1,40600-40610"}}, e, true},
		{"other port", Options{Ports: []string{"442", "444"}}, e, false},
		{"lport", Options{LocalPorts: []string{"443"}}, e, false},
		{"rport", Options{RemotePorts: []string{"443"}}, e, true},
		{"two lists must match", Options{Ports: []string{"443"}, RemotePorts: []string{"80"}}, e, false},
		{"ends of a range", Options{Ports: []string{"1-65535"}}, e, true},
		{"host", Options{Hosts: []string{"10.0.0.0/8"}}, e, true},
		{"one of hosts", Options{Hosts: []string{"::1", "127.0.0.1"}}, e, true},
		{"other host", Options{Hosts: []string{"10.1.2.4"}}, e, false},
		{"mapped prefix", Options{Hosts: []string{"::ffff:10.0.0.0/104"}}, e, true},
		{"-4", Options{IPv4: true}, e, true},
		{"-4 mapped", Options{IPv4: true}, mapped, true},
		{"-6 mapped", Options{IPv6: true}, mapped, false},
		{"-4 -6", Options{IPv4: true, IPv6: true}, e, true},
		{"netns", Options{NetNS: []string{"100"}}, e, true},
		{"other netns", Options{NetNS: []string{"101,102"}}, e, false},
		{"uid", Options{UIDs: []string{"1000"}}, e, true},
		{"root", Options{UIDs: []string{"root"}}, e, false},
		{"cgroup", Options{Cgroups: []string{"/system.slice/redis.service"}}, e, true},
		{"cgroup above", Options{Cgroups: []string{"/system.slice/"}}, e, true},
		{"cgroup root", Options{Cgroups: []string{"/"}}, e, true},
		{"not a cgroup above", Options{Cgroups: []string{"/system.sli"}}, e, false},
		{"cgroup unknown", Options{Cgroups: []string{"/"}}, unknown, false},
		{"proto", Options{Protos: []string{"MPTCP,tcp"}}, e, true},
		{"other proto", Options{Protos: []string{"sctp"}}, e, false},
	})
}

func TestLineFilters(t *testing.T) {
	e, unknown, hosts := established(), unknown(), ofHost()
	checkFilters(t, []filterTest{
		{"old state", Options{States: []string{"syn-sent"}}, e, true},
		{"new state", Options{States: []string{"TCP_ESTABLISHED"}}, e, true},
		{"other state", Options{States: []string{"TIME_WAIT,closewait"}}, e, false},
		{"edge", Options{Edges: []string{"CLOSE:LISTEN,SYN_SENT:ESTABLISHED"}}, e, true},
		{"edge back", Options{Edges: []string{"ESTABLISHED:SYN_SENT"}}, e, false},
		{"long enough", Options{MinDur: 2 * time.Millisecond}, e, true},
		{"too short", Options{MinDur: 3 * time.Millisecond}, e, false},
		{"duration unknown", Options{MinDur: 1}, unknown, false},
		{"pid", Options{PIDs: []string{"30"}}, e, true},
		{"pid unknown", Options{PIDs: []string{"30"}}, unknown, false},
		{"comm", Options{Comms: []string{"nc", "redis-server"}}, e, true},
		{"comm is whole", Options{Comms: []string{"redis"}}, e, false},
		{"pid of the host's", Options{PIDs: []string{"8471"}}, hosts, false},
		{"comm of the host's", Options{Comms: []string{"redis-server"}}, hosts, true},
	})
}

func TestWhere(t *testing.T) {
	e, unknown, hosts, counted := established(), unknown(), ofHost(), established()
	counted.Totals = event.Totals{Known: true, SRTTOpen: 35}
	counted.IfIndex, counted.IfName, counted.ISN, counted.Deferred = 3, "eth0", 1<<32-1, 5
	checkFilters(t, []filterTest{
		{"comparisons", Options{Where: `dur_ns > 1e6 && rport == 443`}, e, true},
		{"null compared", Options{Where: `dur_ns > 1e6 || dur_ns <= 1e6`}, unknown, false},
		{"null computed", Options{Where: `dur_ns / 1000 == 2000`}, unknown, false},
		{"nil compared", Options{Where: `dur_ns == nil && owner_comm == nil`}, unknown, true},
		{"null beside", Options{Where: `dur_ns > 1e6 || new == "ESTABLISHED"`}, unknown, true},
		{"strings", Options{
			Where: `owner_comm startsWith "redis" and cgroup contains "slice" and raddr matches "^10\\."`,
		}, e, true},
		{"an object's null compared", Options{
			Where: `totals.srtt_us < 100 || totals.srtt_us >= 0`,
		}, counted, false},
		{"an object's nil compared", Options{
			Where: `totals.srtt_us == nil && totals.srtt_open_us == 35 && totals.retrans == 0`,
		}, counted, true},
		{"null's member compared", Options{Where: `totals.srtt_us == nil && !(totals.srtt_us != nil)`}, e, true},
		{"a device", Options{
			Where: `ifname == "eth0" && ifindex == 3 && isn == 4294967295 && defer_ns > 4`,
		}, counted, true},
		{"pid of the host's", Options{
			Where: `owner_pid == nil && owner_host_pid == 8471 && task_host_pid == 8472 && task_pid == nil`,
		}, hosts, true},
		{"in", Options{Where: `rport in [80, 443] and role == "client" and uid >= 1000`}, e, true},
	})
}

func TestFilterFailedConnect(t *testing.T) {
	noSyn := change(1, "", "10.1.2.3:443", 0, 0)
	noSyn.Type, noSyn.Dur, noSyn.Origin = event.ConnectFailed, event.Unknown, 0
	noSyn.Reason, noSyn.Err = event.ReasonUnreachable, 113
	checkFilters(t, []filterTest{
		{"its connection", Options{
			RemotePorts: []string{"443"}, Hosts: []string{"10.1.2.3"}, UIDs: []string{"1000"}, NetNS: []string{"100"},
			IPv4: true, PIDs: []string{"30"},
		}, noSyn, true},
		{"other port", Options{Ports: []string{"444"}}, noSyn, false},
		{"a local port that never came", Options{LocalPorts: []string{"40602"}}, noSyn, false},
		{"state", Options{States: []string{"CLOSE", "SYN_SENT"}}, noSyn, false},
		{"edge", Options{Edges: []string{"SYN_SENT:CLOSE"}}, noSyn, false},
		{"long", Options{MinDur: 1}, noSyn, false},
		{"where", Options{
			Where: `old == nil && new == nil && dur_ns == nil && origin == nil && err == 113 && ` +
				`reason == "unreachable"`,
		}, noSyn, true},
	})
}

// A change without a port or an address is held until the next change of its socket. Then it is
// either printed before that change or dropped.
func TestHeld(t *testing.T) {
	first := change(1, "127.0.0.1:0", "127.0.0.1:7781", event.Close, event.SynSent)
	second := change(1, "127.0.0.1:40602", "127.0.0.1:7781", event.SynSent, event.Established)
	child := change(2, "", "", event.Listen, event.SynRecv)
	child.Local = netip.AddrPortFrom(netip.Addr{}, 7781)
	grown := change(2, "127.0.0.1:7781", "127.0.0.1:40602", event.SynRecv, event.Established)
	late := change(3, "127.0.0.1:0", "127.0.0.1:7781", event.Close, event.SynSent)
	for _, test := range []struct {
		name string
		o    Options
		want string
		held uint64
	}{
		{"the port matches", Options{Ports: []string{"40602"}}, "1:SYN_SENT 1:ESTABLISHED 2:SYN_RECV 2:ESTABLISHED", 1},
		{"the local port matches", Options{LocalPorts: []string{"40602"}}, "1:SYN_SENT 1:ESTABLISHED", 3},
		{"the remote port matches", Options{RemotePorts: []string{"40602"}}, "2:SYN_RECV 2:ESTABLISHED", 3},
		{"it does not", Options{Ports: []string{"40603"}}, "", 5},
		{"known at once", Options{RemotePorts: []string{"7781"}}, "1:SYN_SENT 1:ESTABLISHED 3:SYN_SENT", 2},
		{
			"by host", Options{Hosts: []string{"127.0.0.1"}},
			"1:SYN_SENT 1:ESTABLISHED 3:SYN_SENT 2:SYN_RECV 2:ESTABLISHED", 0,
		},
		{
			"a line filter drops it", Options{Ports: []string{"40602"}, States: []string{"ESTABLISHED"}},
			"1:ESTABLISHED 2:ESTABLISHED", 3,
		},
	} {
		f, err := New(&test.o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range []event.Event{first, second, late, child, grown} {
			err := f.Pass(&e, func(e *event.Event) error {
				got = append(got, string(rune('0'+e.ID))+":"+e.New.String())
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if strings.Join(got, " ") != test.want || f.Filtered() != test.held {
			t.Errorf("%s: %q, filtered %d; want %q, %d", test.name, got, f.Filtered(), test.want, test.held)
		}
	}
}

func TestNetNS(t *testing.T) {
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		t.Skip("no network namespaces here")
	}
	byPath, err := parseNetNS("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	byPID, err := parseNetNS("pid:" + "self")
	if err != nil || byPID != byPath || byPath == 0 {
		t.Errorf("by path %d, by pid %d, %v", byPath, byPID, err)
	}
	for _, wrong := range []string{"", "/", "/nowhere", "pid:x", "no-such-name"} {
		if _, err := parseNetNS(wrong); err == nil {
			t.Errorf("%q was accepted as a network namespace", wrong)
		}
	}
}

// On a listing, line filters check the socket and each of its holders.
func TestListed(t *testing.T) {
	e := eventtest.Ends(eventtest.New(event.Socket), "127.0.0.1:80", "10.1.2.3:40602")
	e.New, e.Status.RecvQueue, e.Status.AtLeast = event.CloseWait, 5, 7e9
	e.Status.Holders = []event.Holder{
		{PID: 7, FD: 3, Comm: "nc"},
		{PID: 8, FD: 3, Comm: "sh"},
		{PID: 8, FD: 9, Comm: "sh", How: event.BySlot, Slot: 5},
	}
	for _, test := range []struct {
		o    Options
		want bool
	}{
		{Options{}, true},
		{Options{States: []string{"close-wait"}}, true},
		{Options{States: []string{"listen"}}, false},
		{Options{Ports: []string{"80"}, PIDs: []string{"8"}}, true},
		{Options{PIDs: []string{"9"}}, false},
		{Options{Comms: []string{"sh"}}, true},
		{Options{MinDur: 5 * time.Second}, true},
		{Options{MinDur: 8 * time.Second}, false},
		{Options{Where: "recv_q > 4 && any(holders, .fd == 3)"}, true},
		{Options{Where: "any(holders, .slot == 5 && .ring_fd == 9)"}, true},
		{Options{Where: "any(holders, .fd == 9)"}, false},
		{Options{Where: "count(holders, .fd > 2) == 2"}, true},
		{Options{Where: "all(holders, .fd == nil)"}, false},
		{Options{Where: "v6only == true"}, false},
		{Options{Where: "accept_q > 0"}, false},
	} {
		test.o.Listing = true
		f, err := New(&test.o)
		if err != nil {
			t.Fatal(err)
		}
		got := false
		if err := f.Pass(e, func(*event.Event) error {
			got = true
			return nil
		}); err != nil || got != test.want || f.Trouble() != nil {
			t.Errorf("%+v: %v, %v, %v", test.o, got, err, f.Trouble())
		}
	}
}

// If the holders are unknown, the filters check the owner instead. For a Socket, the kernel does
// not check the cgroup.
func TestListedByOwner(t *testing.T) {
	e := eventtest.New(event.Socket)
	e.OwnerPID, e.OwnerComm, e.Cgroup = 7, "nc", "/a/b"
	for _, test := range []struct {
		o    Options
		want bool
	}{
		{Options{PIDs: []string{"7"}, Comms: []string{"nc"}}, true},
		{Options{PIDs: []string{"8"}}, false},
		{Options{Cgroups: []string{"/a"}}, true},
		{Options{Cgroups: []string{"/b"}}, false},
	} {
		test.o.Listing = true
		f, err := New(&test.o)
		if err != nil {
			t.Fatal(err)
		}
		f.CgroupsDecided = true
		if got := f.Connection(e) && f.Listed(e); got != test.want {
			t.Errorf("%+v: %v", test.o, got)
		}
	}
	e.Status.Holders = []event.Holder{}
	f, err := New(&Options{PIDs: []string{"7"}, Listing: true})
	if err != nil || f.Listed(e) {
		t.Errorf("a socket that nobody holds: %v", err)
	}
}

// If the expression fails on a line, the line is dropped and the error is reported.
func TestWhereFails(t *testing.T) {
	f, err := New(&Options{Where: "1 % cpu == 0"})
	if err != nil {
		t.Fatal(err)
	}
	e := change(1, "127.0.0.1:40602", "10.1.2.3:443", event.SynSent, event.Established)
	for cpu := range uint32(2) {
		e.CPU = cpu
		if err := f.Pass(&e, func(*event.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Trouble(); f.Filtered() != 1 || err == nil || !strings.Contains(err.Error(), "failed on 1 line") {
		t.Errorf("filtered %d, %v", f.Filtered(), err)
	}
}

// Up to Linux 6.12, the first change of a child of a listener on [::] may be IPv6 or mapped.
func TestFamilyOfLateRemoteEnd(t *testing.T) {
	f, err := New(&Options{IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	e := *eventtest.Change("[::]:80", "", event.Listen, event.SynRecv)
	e.Sk, e.Family = 1, event.IPv6
	next := change(1, "127.0.0.1:80", "127.0.0.1:40602", event.SynRecv, event.Established)
	next.Sk, next.Family = 1, event.Mapped
	for _, e := range []event.Event{e, next} {
		err := f.Pass(&e, func(e *event.Event) error {
			t.Errorf("a mapped connection's %v->%v is a line", e.Old, e.New)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkPass(b *testing.B) {
	f, err := New(&Options{Ports: []string{"443"}, States: []string{"ESTABLISHED"}})
	if err != nil {
		b.Fatal(err)
	}
	e := change(1, "127.0.0.1:40602", "10.1.2.3:443", event.SynSent, event.Established)
	emit := func(*event.Event) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Pass(&e, emit); err != nil {
			b.Fatal(err)
		}
	}
}
