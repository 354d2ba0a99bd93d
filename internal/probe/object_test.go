//go:build linux

package probe

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/listing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
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

// listObject returns the object of internal/listing.
func listObject(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpec("../listing/list_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// structIn returns a struct from an object.
func structIn(t *testing.T, spec *ebpf.CollectionSpec, name string) *btf.Struct {
	t.Helper()
	var s *btf.Struct
	if err := spec.Types.TypeByName(name, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The Go structs have the same layout as those in the object, member by member.
func TestStructLayouts(t *testing.T) {
	spec := object(t)
	for name, goType := range map[string]reflect.Type{
		"event": reflect.TypeFor[bpfEvent](), "closed": reflect.TypeFor[bpfClosed](), "cpu": reflect.TypeFor[bpfCpu](),
		"host_key": reflect.TypeFor[bpfHostKey](), "device": reflect.TypeFor[bpfDevice](),
	} {
		t.Run(name, func(t *testing.T) {
			c := structIn(t, spec, name)
			if uintptr(c.Size) != goType.Size() {
				t.Errorf("the struct has %d bytes in C and %d in Go", c.Size, goType.Size())
			}
			for _, m := range c.Members {
				want := strings.ReplaceAll(m.Name, "_", "")
				field, ok := goType.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, want) })
				if !ok || uint32(field.Offset) != m.Offset.Bytes() {
					t.Errorf("member %s is at %d in C; in Go: %v, at %d", m.Name, m.Offset.Bytes(), ok, field.Offset)
				}
			}
		})
	}
}

// The tracer's iterators write the structs that internal/listing reads.
func TestListingReadsTheTracersIterators(t *testing.T) {
	for _, name := range []string{"sock_found", "holder_found"} {
		t.Run(name, func(t *testing.T) {
			got, want := structIn(t, object(t), name), structIn(t, listObject(t), name)
			if got.Size != want.Size || len(got.Members) != len(want.Members) {
				t.Fatalf("the tracer's has %d bytes and %d members, the listing's %d and %d",
					got.Size, len(got.Members), want.Size, len(want.Members))
			}
			for i, m := range got.Members {
				if w := want.Members[i]; m.Name != w.Name || m.Offset != w.Offset {
					t.Errorf("member %d: %s at %v, want %s at %v", i, m.Name, m.Offset, w.Name, w.Offset)
				}
			}
		})
	}
}

// Tracepoints and iterators are enough. Hardened machines refuse kprobes, fentry and LSM programs.
func TestProgramTypes(t *testing.T) {
	var got []string
	for _, spec := range []*ebpf.CollectionSpec{object(t), listObject(t)} {
		for _, p := range spec.Programs {
			got = append(got, p.SectionName)
			if p.Type == ebpf.TracePoint {
				continue
			}
			if p.Type != ebpf.Tracing || p.AttachType != ebpf.AttachTraceRawTp && p.AttachType != ebpf.AttachTraceIter {
				t.Errorf("%s is a %v program, attached as %v", p.Name, p.Type, p.AttachType)
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file", "iter/task_file",
		"iter/tcp", "iter/tcp", "tp_btf/inet_sock_set_state", "tp_btf/inet_sock_set_state",
		"tp_btf/inet_sock_set_state", "tp_btf/inet_sock_set_state",
		"tp_btf/io_uring_complete", "tp_btf/kfree_skb", "tp_btf/sched_process_exit", "tp_btf/tcp_send_reset",
		"tp_btf/timer_cancel", "tp_btf/timer_expire_entry", "tp_btf/timer_start",
		"tracepoint/syscalls/sys_enter_connect", "tracepoint/syscalls/sys_exit_accept",
		"tracepoint/syscalls/sys_exit_accept4", "tracepoint/syscalls/sys_exit_connect",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the programs are %q, want %q", got, want)
	}
}

func TestConfigure(t *testing.T) {
	spec := object(t)
	f, err := filter.New(&filter.Options{
		Ports: []string{"80"}, RemotePorts: []string{"80,443"}, Protos: []string{"tcp,sctp"}, IPv6: true,
		UIDs: []string{"0"},
	})
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
		t.Errorf("ports 80, 443 and 81 have the bits %d, %d and %d, want 5, 4 and 0",
			ports[80], ports[443], ports[81])
	}
	for name, want := range map[string]uint8{
		bpfVarFilterPorts: 5, bpfVarWantTcp: 1, bpfVarWantMptcp: 0, bpfVarWantSctp: 1, bpfVarWantIpv4: 0,
		bpfVarWantIpv6: 1, bpfVarFilterUid: 1, bpfVarFilterHosts: 0, bpfVarFilterNetns: 0, bpfVarFilterCgroup: 0,
	} {
		var got uint8
		if err := spec.Variables[name].Get(&got); err != nil || got != want {
			t.Errorf("%s: got %d (%v), want %d", name, got, err, want)
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

// loadFor loads some of an object's programs as if the kernel had these types. It includes the code
// that options switch off.
func loadFor(t *testing.T, spec *ebpf.CollectionSpec, types *btf.Spec, programs ...string) error {
	t.Helper()
	_ = rlimit.RemoveMemlock()
	if err := listing.Configure(spec, &filter.Filter{Protos: []event.Proto{event.MPTCP}}, true); err != nil {
		t.Fatal(err)
	}
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	if err := set(spec, bpfVarHaveCookie, version >= 5<<16|12<<8); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return !slices.Contains(programs, name)
	})
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{KernelTypes: types},
	})
	if err == nil {
		coll.Close()
	}
	return err
}

// The programs load on kernels whose types differ from those of this kernel. If no kernel with such
// types is available, the test changes the types of this kernel, and its verifier checks the
// result.
func TestLoadsWithOtherTypes(t *testing.T) {
	needsRoot(t)
	for _, test := range []struct {
		name   string
		change func(*testing.T, *btf.Spec)
	}{
		{"unchanged", func(*testing.T, *btf.Spec) {}},
		{"tcp_death_row is a pointer, as in 5.18 to 6.0", func(t *testing.T, kernel *btf.Spec) {
			m := member(t, kernel, "netns_ipv4", "tcp_death_row")
			m.Type = &btf.Pointer{Target: m.Type}
		}},
		{"the count of TIME_WAIT is unknown", func(t *testing.T, kernel *btf.Spec) {
			member(t, kernel, "inet_timewait_death_row", "tw_refcount", "tw_count").Name = "tw_other"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			kernel, err := btf.LoadKernelSpec()
			if err != nil {
				t.Fatal(err)
			}
			test.change(t, kernel)
			err = loadFor(t, object(t), kernel, bpfProgChange, bpfProgChangeMissed, bpfProgSockets, bpfProgUnlisted)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// member returns the member of a struct that has one of these names.
func member(t *testing.T, kernel *btf.Spec, of string, names ...string) *btf.Member {
	t.Helper()
	var s *btf.Struct
	if err := kernel.TypeByName(of, &s); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(s.Members, func(m btf.Member) bool { return slices.Contains(names, m.Name) })
	if i < 0 {
		t.Fatalf("struct %s has no member named %q", of, names)
	}
	return &s.Members[i]
}

// The iterators load on a kernel without MPTCP, or without one of its types, although leaks asks
// for MPTCP sockets by default.
func TestIteratorsLoadWithoutMPTCP(t *testing.T) {
	needsRoot(t)
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip(err)
	}
	for _, names := range [][]string{
		{"mptcp_sock"}, {"mptcp_subflow_context"}, {"mptcp_sock", "mptcp_subflow_context", "is_mptcp"},
	} {
		t.Run(strings.Join(names, ","), func(t *testing.T) {
			without := raw
			for _, name := range names {
				renamed := "no" + name[2:]
				without = bytes.ReplaceAll(without, []byte("\x00"+name+"\x00"), []byte("\x00"+renamed+"\x00"))
			}
			if bytes.Equal(without, raw) {
				t.Skipf("this kernel has no %q itself", names)
			}
			types, err := btf.LoadSpecFromReader(bytes.NewReader(without))
			if err != nil {
				t.Fatal(err)
			}
			for object, spec := range map[string]*ebpf.CollectionSpec{"list": listObject(t), "trace": object(t)} {
				if err := loadFor(t, spec, types, bpfProgSockets, bpfProgUnlisted, bpfProgHolders); err != nil {
					t.Errorf("%s: %v", object, err)
				}
			}
		})
	}
}
