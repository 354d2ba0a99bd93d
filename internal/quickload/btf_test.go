//go:build linux

package quickload

import (
	"bytes"
	"debug/elf"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// objectBTF returns the BTF of the object.
func objectBTF(t *testing.T) []byte {
	t.Helper()
	file, err := elf.Open("../listing/list_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	raw, err := file.Section(".BTF").Data()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// An extracted type has exactly the wanted members, unchanged.
func TestExtract(t *testing.T) {
	names := map[string]bool{"sock": true, "__sk_common": true, "skc_family": true, "sk_protocol": true}
	few, err := extract(objectBTF(t), names)
	if err != nil {
		t.Fatal(err)
	}
	all := object(t, true).Types
	for name, members := range map[string][]string{
		"sock": {"__sk_common", "sk_protocol"}, "sock_common": {"skc_family"},
	} {
		t.Run(name, func(t *testing.T) {
			var got, want *btf.Struct
			if err := few.spec.TypeByName(name, &got); err != nil {
				t.Fatal(err)
			}
			if err := all.TypeByName(name, &want); err != nil {
				t.Fatal(err)
			}
			if got.Size != want.Size {
				t.Errorf("got %d bytes, want %d", got.Size, want.Size)
			}
			for _, w := range want.Members {
				i := slices.IndexFunc(got.Members, func(m btf.Member) bool { return m.Name == w.Name })
				if (i >= 0) != (w.Name == "" || slices.Contains(members, w.Name)) {
					t.Errorf("member %q: extracted is %v", w.Name, i >= 0)
				}
				if i < 0 || w.Name == "" {
					continue
				}
				m := got.Members[i]
				if m.Offset != w.Offset || m.BitfieldSize != w.BitfieldSize || m.Type.TypeName() != w.Type.TypeName() {
					t.Errorf("member %q: got %v, want %v", w.Name, m, w)
				}
			}
		})
	}
	var socket *btf.Struct
	if err := few.spec.TypeByName("socket", &socket); err == nil {
		t.Error("struct socket was extracted, but a sock only points to it")
	}
}

func TestExtractRejectsTruncatedBTF(t *testing.T) {
	whole := objectBTF(t)
	names := map[string]bool{"sock": true, "tcp_sock": true}
	for _, size := range []int{0, 1, headerSize - 1, headerSize, headerSize + 5, len(whole) / 3, len(whole) - 1} {
		if _, err := extract(whole[:size], names); err == nil {
			t.Errorf("%d of %d bytes: no error", size, len(whole))
		}
	}
}

func TestExtractRejectsUnknownKinds(t *testing.T) {
	names := map[string]bool{"sock": true}
	for _, kind := range []byte{0, kindEnum64 + 1, 31, 32 + kindInt, 64 + kindInt} {
		raw := objectBTF(t)
		raw[headerSize+7] = kind // the kind of the first type
		if _, err := extract(raw, names); err == nil {
			t.Errorf("kind %d: no error", kind)
		}
	}
	one := encode([]byte{0, 0, 0, 0, 0, 0, 0, kindInt, 4, 0, 0, 0, 32, 0, 0, 0}, []byte{0})
	if _, err := extract(one, names); err != nil {
		t.Errorf("a single int: %v", err)
	}
}

// Whichever byte is changed, and to whatever value, extract returns.
func TestExtractSurvivesCorruption(t *testing.T) {
	whole := objectBTF(t)
	names := map[string]bool{"sock": true, "tcp_sock": true}
	for i := headerSize; i < len(whole); i += 3 {
		raw := bytes.Clone(whole)
		raw[i] ^= 0xff
		_, _ = extract(raw, names)
	}
}
