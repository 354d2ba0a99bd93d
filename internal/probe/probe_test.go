//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/record"
	"sstrace/internal/track"
	"sstrace/internal/view/lines"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

func object(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// The Go structs are those of the object, member by member.
func TestStructsAreTheObjects(t *testing.T) {
	spec := object(t)
	for name, goType := range map[string]reflect.Type{
		"event": reflect.TypeFor[bpfEvent](), "sock_found": reflect.TypeFor[bpfSockFound](), "holder_found": reflect.TypeFor[bpfHolderFound](), "cpu": reflect.TypeFor[bpfCpu](), "host_key": reflect.TypeFor[bpfHostKey](),
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Fatal(err)
		}
		if uintptr(c.Size) != goType.Size() {
			t.Errorf("struct %s has %d bytes, in Go %d", name, c.Size, goType.Size())
		}
		for _, m := range c.Members {
			want := strings.ReplaceAll(m.Name, "_", "")
			field, ok := goType.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, want) })
			if !ok || uint32(field.Offset) != m.Offset.Bytes() {
				t.Errorf("struct %s, member %s: at %d, in Go %v at %d", name, m.Name, m.Offset.Bytes(), ok, field.Offset)
			}
		}
	}
}

// What a listing prints of enum attached has the object's numbers. The other enumerations are generated.
func TestAttachedIsTheObjects(t *testing.T) {
	var attached *btf.Enum
	if err := object(t).Types.TypeByName("attached", &attached); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]event.Attached)
	for _, v := range attached.Values {
		got[v.Name] = event.Attached(v.Value)
	}
	want := map[string]event.Attached{
		"ATTACHED_UNKNOWN": 0, "ATTACHED_NOTHING": event.AttachedNothing, "ATTACHED_QUEUE": event.AttachedQueue,
		"ATTACHED_KERNEL": event.AttachedKernel, "ATTACHED_DESCRIPTOR": event.AttachedDescriptor,
	}
	if !maps.Equal(got, want) {
		t.Errorf("enum attached is %v, want %v", got, want)
	}
}

// It needs tracepoints and iterators only: kprobes, fentry and LSM programs are refused on hardened machines.
func TestProgramTypes(t *testing.T) {
	list, err := loadList()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range slices.AppendSeq(slices.Collect(maps.Values(object(t).Programs)), maps.Values(list.Programs)) {
		got = append(got, p.SectionName)
		if p.Type == ebpf.TracePoint {
			continue
		}
		if p.Type != ebpf.Tracing || p.AttachType != ebpf.AttachTraceRawTp && p.AttachType != ebpf.AttachTraceIter {
			t.Errorf("%s is a %v program, attached as %v", p.Name, p.Type, p.AttachType)
		}
	}
	slices.Sort(got)
	if want := []string{"iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file", "iter/tcp", "iter/tcp", "tp_btf/inet_sock_set_state", "tp_btf/inet_sock_set_state", "tp_btf/inet_sock_set_state", "tp_btf/inet_sock_set_state", "tp_btf/io_uring_complete", "tp_btf/kfree_skb", "tp_btf/sched_process_exit", "tp_btf/tcp_send_reset", "tp_btf/timer_cancel",
		"tp_btf/timer_expire_entry", "tp_btf/timer_start",
		"tracepoint/syscalls/sys_enter_connect", "tracepoint/syscalls/sys_exit_accept", "tracepoint/syscalls/sys_exit_accept4", "tracepoint/syscalls/sys_exit_connect"}; !slices.Equal(got, want) {
		t.Errorf("programs %q, want %q", got, want)
	}
}

func TestConfigure(t *testing.T) {
	spec := object(t)
	f, err := filter.New(&filter.Options{Ports: []string{"80"}, RemotePorts: []string{"80,443"}, Protos: []string{"tcp,sctp"}, IPv6: true, UIDs: []string{"0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := configure(spec, f); err != nil {
		t.Fatal(err)
	}
	var ports [65536]byte
	if err := spec.Variables[bpfVarPorts].Get(&ports); err != nil {
		t.Fatal(err)
	}
	if ports[80] != 5 || ports[443] != 4 || ports[81] != 0 {
		t.Errorf("ports 80, 443, 81: %d, %d, %d", ports[80], ports[443], ports[81])
	}
	for name, want := range map[string]uint8{
		bpfVarFilterPorts: 5, bpfVarWantTcp: 1, bpfVarWantMptcp: 0, bpfVarWantSctp: 1, bpfVarWantIpv4: 0, bpfVarWantIpv6: 1, bpfVarFilterUid: 1,
		bpfVarFilterHosts: 0, bpfVarFilterNetns: 0, bpfVarFilterCgroup: 0,
	} {
		var got uint8
		if err := spec.Variables[name].Get(&got); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", name, got, err, want)
		}
	}
}

func sample() bpfEvent {
	r := bpfEvent{
		MonoNs: 1223321354948, Sk: 0xffff8881012e5340, Cookie: 4711, CgroupId: 0, Netns: 4026531840, Uid: 1000, Cpu: 1, TaskPid: 17837, Family: 2, Proto: 6,
		Lport: 40602, Rport: 7781, OldState: 2, NewState: 1,
		Laddr: netip.MustParseAddr("::ffff:127.0.0.1").As16(), Raddr: netip.MustParseAddr("::ffff:127.0.0.1").As16(),
	}
	copy(r.TaskComm[:], "nc")
	return r
}

func bytesOf(r *bpfEvent) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(r)), recordSize))
}

func TestDecode(t *testing.T) {
	r := sample()
	raw := bytesOf(&r)
	if _, err := decode(raw[:recordSize-1]); err == nil {
		t.Error("a short record is taken")
	}
	got, err := decode(append(raw, 1, 2, 3, 4, 5, 6, 7, 8)) // a later object may have more
	if err != nil || *got != r {
		t.Errorf("%v: %+v", err, got)
	}
}

// The error of a record is that of its kind: the socket's, or what connect() returned.
func TestErrorOfARecord(t *testing.T) {
	r := sample()
	r.SkErr, r.ConnectErr = 104, 113
	names := newNamer()
	for kind, want := range map[record.Kind]int32{record.Change: 104, record.SecondChange: 104, record.NoSyn: 113, record.ConnectReturned: 113} {
		r.Kind = uint8(kind)
		if got := names.record(&r).Err; got != want {
			t.Errorf("kind %d: got %d, want %d", kind, got, want)
		}
	}
}

// The cast reads what encoding/binary reads.
func FuzzDecode(f *testing.F) {
	r := sample()
	f.Add(bytesOf(&r))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decode(raw)
		var want bpfEvent
		if _, wantErr := binary.Decode(raw, binary.NativeEndian, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("%v where encoding/binary says %v", err, wantErr)
		}
		if err == nil && *got != want {
			t.Fatalf("%+v, encoding/binary reads %+v", *got, want)
		}
	})
}

func TestEnds(t *testing.T) {
	v4, v6, any4, any6 := "::ffff:127.0.0.1", "2001:db8::1", "::ffff:0.0.0.0", "::"
	for _, test := range []struct {
		name          string
		family        uint16
		laddr, raddr  string
		lport, rport  uint16
		wildcard      bool
		want          event.Family
		local, remote string
	}{
		{"IPv4", 2, v4, v4, 1, 2, false, event.IPv4, "127.0.0.1:1", "127.0.0.1:2"},
		{"IPv6", 10, v6, v6, 1, 2, false, event.IPv6, "[2001:db8::1]:1", "[2001:db8::1]:2"},
		{"mapped", 10, v4, v4, 1, 2, false, event.Mapped, "127.0.0.1:1", "127.0.0.1:2"},
		{"unbound client", 2, v4, v4, 0, 2, false, event.IPv4, "127.0.0.1:0", "127.0.0.1:2"},
		{"listener", 2, any4, any4, 1, 0, true, event.IPv4, "0.0.0.0:1", "invalid AddrPort"},
		{"listener on ::", 10, any6, any6, 1, 0, true, event.IPv6, "[::]:1", "invalid AddrPort"},
		{"a child that knows nothing yet", 10, any6, any6, 1, 0, false, event.IPv6, "invalid AddrPort", "invalid AddrPort"},
	} {
		laddr, raddr := netip.MustParseAddr(test.laddr).As16(), netip.MustParseAddr(test.raddr).As16()
		f, l, r := ends(test.family, &laddr, &raddr, test.lport, test.rport, test.wildcard)
		if f != test.want || l.String() != test.local || r.String() != test.remote {
			t.Errorf("%s: %v %v %v", test.name, f, l, r)
		}
		if l.Port() != test.lport || r.Port() != test.rport {
			t.Errorf("%s: ports %d and %d", test.name, l.Port(), r.Port())
		}
	}
}

// Wall time follows the clock when that is set, and else differs as exactly as monotonic time does.
func TestClock(t *testing.T) {
	var c clock
	now := monotonic()
	first := c.wall(now)
	offset := c.offset
	if got := c.wall(now+5) - first; got != 5 {
		t.Errorf("5 ns later is %d ns later", got)
	}
	c.looked = 1 // long ago
	c.wall(now)
	if c.offset != offset && c.offset-offset < 1000 && offset-c.offset < 1000 {
		t.Errorf("the offset moved by %d ns without need", c.offset-offset)
	}
	c.offset += 1e9 // somebody set the clock
	c.looked = 1
	if got := c.wall(now) - first; got > 5e8 || got < -5e8 {
		t.Errorf("after the clock was set wall time is %d ns off", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBinaryDecode(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := binary.Decode(raw, binary.NativeEndian, &r); err != nil {
			b.Fatal(err)
		}
	}
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkRecordToLine is the whole way of a change on our side: a record as the ring has it, a line as stdout gets it.
func BenchmarkRecordToLine(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	names := newNamer()
	var tracker track.Kernel
	var clock clock
	var f filter.Filter
	p := lines.New(nowhere{}, "ndjson", "wall", false)
	pass := func(e *event.Event) error { return f.Pass(e, p.Take) }
	var e record.Record
	b.ReportAllocs()
	for b.Loop() {
		r, err := decode(raw)
		if err != nil {
			b.Fatal(err)
		}
		e = names.record(r)
		e.Wall = clock.wall(e.Mono)
		if err := tracker.Take(&e, pass); err != nil {
			b.Fatal(err)
		}
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
}

// The programs also load where a kernel's types are others than this one's, in versions that are not to be had: relocated by what this kernel
// has, changed as told, they pass its verifier.
func TestLoadsByOtherTypes(t *testing.T) {
	needsRoot(t)
	_ = rlimit.RemoveMemlock()
	for name, change := range map[string]func(*testing.T, *btf.Spec){
		"as here": func(*testing.T, *btf.Spec) {},
		"tcp_death_row is a pointer": func(t *testing.T, kernel *btf.Spec) { // 5.18 to 6.0
			m := member(t, kernel, "netns_ipv4", "tcp_death_row")
			m.Type = &btf.Pointer{Target: m.Type}
		},
		"an unknown count of TIME_WAIT": func(t *testing.T, kernel *btf.Spec) {
			member(t, kernel, "inet_timewait_death_row", "tw_refcount", "tw_count").Name = "tw_other"
		},
	} {
		t.Run(name, func(t *testing.T) {
			kernel, err := btf.LoadKernelSpec()
			if err != nil {
				t.Fatal(err)
			}
			change(t, kernel)
			spec := object(t)
			maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
				return name != bpfProgChange && name != bpfProgChangeMissed && name != bpfProgSockets && name != bpfProgUnlisted
			})
			if err := configureLook(spec, extras{mptcp: true, bound: true}); err != nil {
				t.Fatal(err)
			}
			err = loadHere(spec, func() error {
				c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}})
				if err == nil {
					c.Close()
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// member is the member of a struct that has one of these names.
func member(t *testing.T, kernel *btf.Spec, of string, names ...string) *btf.Member {
	t.Helper()
	var s *btf.Struct
	if err := kernel.TypeByName(of, &s); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Members, func(m btf.Member) bool { return slices.Contains(names, m.Name) })
	if i < 0 {
		t.Fatalf("struct %s has none of %q", of, names)
	}
	return &s.Members[i]
}

// A reader that sleeps is woken by the next change, not by its own clock.
func TestWakeUp(t *testing.T) {
	needsRoot(t)
	defer func(before time.Duration) { doze = before }(doze)
	doze = time.Hour
	p, err := Open(new(filter.Filter), 1<<20, false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ports := make(chan uint16)
	go func() {
		defer close(ports)
		for e, err := range p.Records(func(int64) (bool, error) { return false, nil }) {
			if err != nil {
				t.Errorf("read: %v", err)
				return
			}
			if e.New == event.Listen && e.TaskPID == uint32(os.Getpid()) && e.Type == event.Change {
				ports <- e.Local.Port()
			}
		}
	}()
	for range 10 {
		for asleep := uint32(0); asleep == 0; time.Sleep(time.Millisecond) {
			if err := p.vars.ReaderWaiting.Get(&asleep); err != nil {
				t.Fatal(err)
			}
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-ports:
			if want := l.Addr().(*net.TCPAddr).Port; int(got) != want {
				t.Errorf("port %d, want %d", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("the reader was not woken")
		}
		l.Close()
	}
	p.Stop()
	for range ports { // until Events has ended
	}
}

// A namespace counts as closed if no way leads into it; each is entered once.
func TestVisits(t *testing.T) {
	v := visits{fates: make(map[uint64]fate)}
	v.refuse(1)
	v.refuse(1)
	v.refuse(2)
	if !v.enter(2) || v.enter(2) || v.open(2) {
		t.Error("2 is to be entered once, after it was refused by another way")
	}
	v.refuse(2) // slowly
	if v.closed() != 1 || !v.open(1) {
		t.Errorf("%d are closed, and 1 is open: %v", v.closed(), v.open(1))
	}
	if !v.enter(3) {
		t.Error("3 is open")
	}
	v.leave(3)
	v.refuse(3)
	if v.closed() != 2 {
		t.Errorf("%d are closed", v.closed())
	}
	v.wanted = []uint32{5}
	if v.enter(4) || !v.enter(5) {
		t.Error("5 alone is wanted")
	}
}

// What an orphan in FIN_WAIT2 has left: its timer's time, and if it may wait for more than a minute, as a timewait sock what is more once again.
func TestFinWait2Left(t *testing.T) {
	const jiffy = 4e6
	const second = 250
	for _, test := range []struct {
		name string
		f    bpfSockFound
		want int64
	}{
		{"by the sysctl, a minute", bpfSockFound{Left: 10 * second, FinTimeout: 60 * second, Rto: 50}, 10e9},
		{"by the sysctl, more", bpfSockFound{Left: second, FinTimeout: 62 * second, Rto: 50}, 3e9},
		{"by TCP_LINGER2, more", bpfSockFound{Left: second, FinTimeout: 60 * second, FinLinger: 90 * second, Rto: 50}, 31e9},
		{"by TCP_LINGER2, less", bpfSockFound{Left: second, FinTimeout: 90 * second, FinLinger: 30 * second, Rto: 50}, 1e9},
		{"not at all", bpfSockFound{Left: second, FinTimeout: 90 * second, FinLinger: -1, Rto: 50}, 1e9},
		{"a slow path", bpfSockFound{Left: second, FinTimeout: 61 * second, Rto: second}, 1e9 + 3.5e9},
		{"a very slow path", bpfSockFound{Left: second, FinTimeout: 60 * second, Rto: 20 * second}, 1e9 + 70e9},
		{"about to end", bpfSockFound{Left: 1<<32 - 2, FinTimeout: 60 * second, Rto: 50}, 0},
	} {
		if got := finWait2Left(&test.f, jiffy); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	if got := finWait2Left(new(bpfSockFound), 0); got != event.Unknown {
		t.Errorf("with a jiffy that is unknown: %d", got)
	}
}
