//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

var everything = extras{mptcp: true, bound: true}

// By the few types that are read of this kernel's, programs are fit to it just as by all of them.
func TestFewTypesAreEnough(t *testing.T) {
	if _, err := os.Stat(typesFile); err != nil {
		t.Skip(err)
	}
	few, err := readKernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	all, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadList()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{listProgSockets, listProgHolders, listProgUnlisted, listProgSlots} {
		prog := spec.Programs[name]
		want, _, err := fixups(prog.Instructions, all)
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < 10 {
			t.Errorf("%s: %d relocations", name, len(want))
		}
		got, _, err := fixups(prog.Instructions, few.Spec)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%s: got %v, want %v", name, &got[i], &want[i])
			}
		}
		var function *btf.Func
		if err := all.TypeByName("bpf_iter_"+prog.AttachTo, &function); err != nil {
			t.Fatal(err)
		}
		if id, err := all.TypeID(function); err != nil || few.iterators[prog.AttachTo] != id {
			t.Errorf("bpf_iter_%s: got %d, want %d: %v", prog.AttachTo, few.iterators[prog.AttachTo], id, err)
		}
	}
}

// Of BTF is cut out what is asked for, and what it is made of, as it was.
func TestCut(t *testing.T) {
	own, _, err := ownTypes()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"sock": true, "__sk_common": true, "skc_family": true, "sk_protocol": true}
	few, err := cut(btfBytes(own.types, own.strings), names, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := loadList()
	if err != nil {
		t.Fatal(err)
	}
	for name, members := range map[string][]string{"sock": {"__sk_common", "sk_protocol"}, "sock_common": {"skc_family"}} {
		var got, want *btf.Struct
		if err := few.TypeByName(name, &got); err != nil {
			t.Fatal(err)
		}
		if err := whole.Types.TypeByName(name, &want); err != nil {
			t.Fatal(err)
		}
		if got.Size != want.Size {
			t.Errorf("%s has %d bytes, want %d", name, got.Size, want.Size)
		}
		for _, w := range want.Members {
			i := slices.IndexFunc(got.Members, func(m btf.Member) bool { return m.Name == w.Name })
			if (i >= 0) != (w.Name == "" || slices.Contains(members, w.Name)) {
				t.Errorf("%s.%s: %v", name, w.Name, i >= 0)
			}
			if i >= 0 && w.Name != "" {
				if m := got.Members[i]; m.Offset != w.Offset || m.BitfieldSize != w.BitfieldSize || m.Type.TypeName() != w.Type.TypeName() {
					t.Errorf("%s: got %v, want %v", name, m, w)
				}
			}
		}
	}
	var socket *btf.Struct
	if err := few.TypeByName("socket", &socket); err == nil {
		t.Error("a sock only points to a socket")
	}
}

// Of BTF that is cut short, or of a form that is not known, nothing is made.
func TestOddBTF(t *testing.T) {
	own, _, err := ownTypes()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"sock": true, "tcp_sock": true}
	whole := btfBytes(own.types, own.strings)
	if _, err := cut(whole, names, nil); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, btfHeaderSize - 1, btfHeaderSize, btfHeaderSize + 5, len(whole) / 3, len(whole) - 1} {
		if _, err := cut(whole[:size], names, nil); err == nil {
			t.Errorf("%d bytes of %d: no error", size, len(whole))
		}
	}
	for _, kind := range []byte{0, btfEnum64 + 1, 31, 32 + btfInt, 64 + btfInt} {
		raw := bytes.Clone(whole)
		raw[btfHeaderSize+7] = kind // of the first type
		if _, err := cut(raw, names, nil); err == nil {
			t.Errorf("a type of kind %d: no error", kind)
		}
	}
	if _, err := cut(btfBytes([]byte{0, 0, 0, 0, 0, 0, 0, btfInt, 4, 0, 0, 0, 32, 0, 0, 0}, []byte{0}), names, nil); err != nil {
		t.Errorf("one type: %v", err)
	}
	for i := btfHeaderSize; i < len(whole); i += 3 { // whatever else is wrong
		raw := bytes.Clone(whole)
		raw[i] ^= 0xff
		_, _ = cut(raw, names, nil)
	}
}

// The quick way of loading works here, and loads what the slow one does: else each listing would take that, and nobody would know.
func TestLoadsQuickly(t *testing.T) {
	needsRoot(t)
	if _, err := os.Stat(typesFile); err != nil {
		t.Skip(err)
	}
	if major, minor, err := kernelVersion(); err != nil || major == 5 && minor < 12 {
		t.Skipf("Linux %d.%d has no bpf_get_socket_cookie for iterators: only the slow way finds out", major, minor)
	}
	_ = rlimit.RemoveMemlock()
	quick, err := loadQuickly(everything)
	if err != nil {
		t.Fatal(err)
	}
	defer quick.close()
	slow, err := loadIterators(everything)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.close()
	if got, want := tag(t, quick.Sockets), tag(t, slow.Sockets); got != want {
		t.Errorf("sockets: got %s, want %s", got, want)
	}
	if quick.Slots, _, err = quick.loadSlots(); err != nil {
		t.Fatal(err)
	}
	if got, want := tag(t, quick.Slots), tag(t, slow.Slots); got != want {
		t.Errorf("slots: got %s, want %s", got, want)
	}
	if got, want := tag(t, quick.Unlisted), tag(t, slow.Unlisted); got != want {
		t.Errorf("unlisted: got %s, want %s", got, want)
	}
	if got, want := tag(t, quick.Holders), tag(t, slow.Holders); got != want {
		t.Errorf("holders: got %s, want %s", got, want)
	}
}

// A kernel without MPTCP, or with a type of it missing, loads what lists its sockets, too: leaks asks for them by itself.
func TestLoadsWithoutMPTCP(t *testing.T) {
	needsRoot(t)
	raw, err := os.ReadFile(typesFile)
	if err != nil {
		t.Skip(err)
	}
	_ = rlimit.RemoveMemlock()
	for _, names := range [][]string{{"mptcp_sock"}, {"mptcp_subflow_context"}, {"mptcp_sock", "mptcp_subflow_context", "is_mptcp"}} {
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
		for object, load := range map[string]func() (*ebpf.CollectionSpec, error){"list": loadList, "trace": loadBpf} {
			spec, err := load()
			if err != nil {
				t.Fatal(err)
			}
			if err := configureLook(spec, extras{mptcp: true}); err != nil {
				t.Fatal(err)
			}
			for name := range spec.Programs {
				if name != listProgSockets && name != listProgUnlisted && name != listProgHolders {
					delete(spec.Programs, name)
				}
			}
			objs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: types}})
			if err != nil {
				t.Errorf("%s, without %q: %v", object, names, err)
				continue
			}
			objs.Close()
		}
	}
}

// tag is the kernel's, of a program's instructions; and how large they are when constants have decided what is left out.
func tag(t *testing.T, p *ebpf.Program) string {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	size, err := info.TranslatedSize()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Tag, " ", size)
}

// What it takes to load what a listing needs: by the few types that it needs, and by all.
func BenchmarkLoading(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	_ = rlimit.RemoveMemlock()
	for name, load := range map[string]func(extras) (iterators, error){"quickly": loadQuickly, "whole": loadIterators} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				objs, err := load(extras{})
				if err != nil {
					b.Fatal(err)
				}
				objs.close()
			}
		})
	}
}
