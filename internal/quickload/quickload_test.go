//go:build linux

package quickload

import (
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// object returns the object for which this package was written. all also includes the code that
// options switch off.
func object(tb testing.TB, all bool) *ebpf.CollectionSpec {
	tb.Helper()
	spec, err := ebpf.LoadCollectionSpec("../listing/list_bpfel.o")
	if err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"list_mptcp", "list_bound"} {
		if err := spec.Variables[name].Set(all); err != nil {
			tb.Fatal(err)
		}
	}
	return spec
}

func needKernelTypes(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(typesFile); err != nil {
		t.Skip(err)
	}
}

// The extracted types relocate every instruction in the same way as all of the kernel's types.
func TestRelocationsEqual(t *testing.T) {
	needKernelTypes(t)
	spec := object(t, true)
	few, err := readKernelTypes(spec)
	if err != nil {
		t.Fatal(err)
	}
	all, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	for name, prog := range spec.Programs {
		t.Run(name, func(t *testing.T) {
			want, _, err := relocations(prog.Instructions, all)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) < 10 {
				t.Errorf("the program has %d relocations, which is too few for a comparison", len(want))
			}
			got, _, err := relocations(prog.Instructions, few.spec)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if !reflect.DeepEqual(got[i], want[i]) {
					t.Errorf("relocation %d: got %v, want %v", i, &got[i], &want[i])
				}
			}
			var function *btf.Func
			if err := all.TypeByName("bpf_iter_"+prog.AttachTo, &function); err != nil {
				t.Fatal(err)
			}
			if id, err := all.TypeID(function); err != nil || few.functions[function.Name] != id {
				t.Errorf("%s: got id %d, want %d (%v)", function.Name, few.functions[function.Name], id, err)
			}
		})
	}
}

// Collection works on this kernel and loads the same programs as ebpf.NewCollection. If it did not,
// every listing would silently fall back to ebpf.NewCollection.
func TestCollectionLoadsTheSamePrograms(t *testing.T) {
	needKernelTypes(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	if version, err := features.LinuxVersionCode(); err != nil || version < 5<<16|12<<8 {
		t.Skip("iterators have no bpf_get_socket_cookie before Linux 5.12")
	}
	_ = rlimit.RemoveMemlock()
	quick, err := Collection(object(t, true))
	if err != nil {
		t.Fatal(err)
	}
	defer quick.Close()
	complete, err := ebpf.NewCollection(object(t, true))
	if err != nil {
		t.Fatal(err)
	}
	defer complete.Close()
	for name, prog := range complete.Programs {
		t.Run(name, func(t *testing.T) {
			if quick.Programs[name] == nil {
				t.Fatal("the program is not loaded")
			}
			if got, want := code(t, quick.Programs[name]), code(t, prog); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	for name := range complete.Variables {
		if quick.Variables[name] == nil {
			t.Errorf("the collection has no variable %s", name)
		}
	}
}

// code identifies the code of a program. It contains the kernel's tag for the instructions, and
// their size after the verifier has removed the code that constants switch off.
func code(t *testing.T, p *ebpf.Program) string {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	size, err := info.TranslatedSize()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("tag ", info.Tag, ", ", size, " bytes")
}

func BenchmarkLoading(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	_ = rlimit.RemoveMemlock()
	spec := object(b, false)
	delete(spec.Programs, "slots")
	delete(spec.Programs, "unlisted")
	for _, way := range []struct {
		name string
		load func(*ebpf.CollectionSpec) (*ebpf.Collection, error)
	}{{"quickly", Collection}, {"whole", ebpf.NewCollection}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				coll, err := way.load(spec)
				if err != nil {
					b.Fatal(err)
				}
				coll.Close()
			}
		})
	}
}
