//go:build linux

package quickload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// typesFile is the kernel's BTF.
const typesFile = "/sys/kernel/btf/vmlinux"

// kernelTypes is part of the kernel's BTF.
type kernelTypes struct {
	spec      *btf.Spec             // structs, unions and enums, but not the types their pointers refer to
	functions map[string]btf.TypeID // bpf_iter_NAME, to which iterators attach
}

// readKernelTypes reads the types that the programs in spec name.
func readKernelTypes(spec *ebpf.CollectionSpec) (*kernelTypes, error) {
	names, err := typeNames(spec.Types)
	if err != nil {
		return nil, err
	}
	raw, release, err := mapFile(typesFile)
	if err != nil {
		return nil, err
	}
	defer release()
	return extract(raw, names)
}

// mapFile returns the bytes of a file, which are valid until release is called. It maps the file,
// to avoid copying megabytes, or reads it if mapping is not possible: the kernel's BTF can be
// mapped since 6.16.
func mapFile(name string) (raw []byte, release func(), err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	raw, err = unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err == nil {
		return raw, func() { _ = unix.Munmap(raw) }, nil
	}
	raw, err = os.ReadFile(name)
	return raw, func() {}, err
}

// typeNames returns the names of the types and members that CO-RE may look up to fit a program with
// types to the kernel.
func typeNames(types *btf.Spec) (map[string]bool, error) {
	names := make(map[string]bool)
	add := func(name string, members []btf.Member) {
		if i := strings.LastIndex(name, "___"); i > 0 { // a flavour: what follows is ignored by CO-RE
			name = name[:i]
		}
		names[name] = true
		for _, m := range members {
			names[m.Name] = true
		}
	}
	for t, err := range types.All() {
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case *btf.Struct:
			add(t.Name, t.Members)
		case *btf.Union:
			add(t.Name, t.Members)
		case *btf.Enum:
			add(t.Name, nil)
		}
	}
	delete(names, "") // an anonymous type comes with the type that contains it
	return names, nil
}

// Kinds of types, and sizes (include/uapi/linux/btf.h in Linux 6.18).
const (
	kindInt       = 1
	kindPtr       = 2
	kindArray     = 3
	kindStruct    = 4
	kindUnion     = 5
	kindEnum      = 6
	kindFwd       = 7
	kindTypedef   = 8
	kindVolatile  = 9
	kindConst     = 10
	kindRestrict  = 11
	kindFunc      = 12
	kindFuncProto = 13
	kindVar       = 14
	kindDatasec   = 15
	kindFloat     = 16
	kindDeclTag   = 17
	kindTypeTag   = 18
	kindEnum64    = 19

	magic      = 0xeb9f
	headerSize = 24
	typeSize   = 12 // of struct btf_type

	// unusedBits of a type's second word have no meaning yet; kinds and member counts may grow into
	// them.
	unusedBits = 0x60ff0000
)

// trailing is how many bytes follow struct btf_type in each kind, once and for each member.
var trailing = [...]struct{ once, each int }{
	kindInt: {once: 4}, kindArray: {once: 12}, kindStruct: {each: 12}, kindUnion: {each: 12}, kindEnum: {each: 8},
	kindFuncProto: {each: 8}, kindVar: {once: 4}, kindDatasec: {each: 12}, kindDeclTag: {once: 4},
	kindEnum64: {each: 12},
}

var errBTF = errors.New("the kernel's BTF has a form that sstrace does not know")

// A rawType is a struct btf_type and the data that follow it, as words. Every name is the first
// word of its type or member.
type rawType []byte

func (t rawType) word(i int) uint32   { return binary.LittleEndian.Uint32(t[4*i:]) } // the object is little-endian, too
func (t rawType) set(i int, v uint32) { binary.LittleEndian.PutUint32(t[4*i:], v) }
func (t rawType) name() uint32        { return t.word(0) }
func (t rawType) kind() int           { return int(t.word(1) >> 24 & 31) }

// members returns the members of a type whose kind has them.
func (t rawType) members() []rawType {
	var all []rawType
	for m := range slices.Chunk(t[typeSize:], trailing[t.kind()].each) {
		all = append(all, m)
	}
	return all
}

// rawBTF is BTF (Documentation/bpf/btf.rst).
type rawBTF struct {
	types, strings []byte
	begin          []uint32 // each type's start in types, by id, and the end of the last one; void (id 0) is empty
}

func parse(raw []byte) (*rawBTF, error) {
	if len(raw) < headerSize || binary.LittleEndian.Uint16(raw) != magic {
		return nil, errBTF
	}
	header := rawType(raw[:headerSize])
	body := raw[min(int(header.word(1)), len(raw)):]
	part := func(begin, size uint32) []byte {
		if uint64(begin)+uint64(size) > uint64(len(body)) {
			return nil
		}
		return body[begin:][:size]
	}
	b := &rawBTF{types: part(header.word(2), header.word(3)), strings: part(header.word(4), header.word(5))}
	if b.types == nil || len(b.strings) == 0 || b.strings[len(b.strings)-1] != 0 {
		return nil, errBTF
	}
	b.begin = make([]uint32, 1, 2+len(b.types)/24)
	for at := 0; at < len(b.types); {
		b.begin = append(b.begin, uint32(at))
		t := rawType(b.types[at:])
		if len(t) < typeSize {
			return nil, errBTF
		}
		kind := t.kind()
		if kind == 0 || kind >= len(trailing) || t.word(1)&unusedBits != 0 {
			return nil, errBTF
		}
		more := &trailing[kind]
		if at += typeSize + more.once + int(t.word(1)&0xffff)*more.each; at > len(b.types) {
			return nil, errBTF
		}
	}
	b.begin = append(b.begin, uint32(len(b.types)))
	return b, nil
}

// text returns the string at an offset, or an empty one if the offset is out of bounds.
func (b *rawBTF) text(at uint32) []byte {
	s := b.strings[min(int(at), len(b.strings)-1):]
	return s[:bytes.IndexByte(s, 0)]
}

// extract returns the structs, unions and enums in raw that have one of these names, with the
// members that have one of them, and all functions to which iterators attach.
func extract(raw []byte, names map[string]bool) (*kernelTypes, error) {
	from, err := parse(raw)
	if err != nil {
		return nil, err
	}
	k := &kernelTypes{functions: make(map[string]btf.TypeID)}
	x := extraction{
		from: from, names: names, ids: map[uint32]uint32{0: 0}, types: make([]rawType, 1), strings: []byte{0},
	}
	iterator := []byte("bpf_iter_")
	for id := uint32(1); int(id) < len(from.begin)-1; id++ {
		t := rawType(from.types[from.begin[id]:])
		switch t.kind() {
		case kindFunc: // there are many, so that reading each name to its end would take long
			if at := int(t.name()); at < len(from.strings) && bytes.HasPrefix(from.strings[at:], iterator) {
				k.functions[string(from.text(t.name()))] = btf.TypeID(id)
			}
		case kindStruct, kindUnion, kindEnum, kindEnum64:
			if names[string(from.text(t.name()))] {
				x.take(id)
			}
		}
	}
	if x.failed {
		return nil, errBTF
	}
	k.spec, err = btf.LoadSpecFromReader(bytes.NewReader(encode(slices.Concat(x.types...), x.strings)))
	return k, err
}

// extraction is BTF that consists of some of the types in other BTF.
type extraction struct {
	from    *rawBTF
	names   map[string]bool   // of members
	ids     map[uint32]uint32 // by id in from
	types   []rawType         // by id
	strings []byte
	failed  bool // from is malformed
}

// take copies a type and the types that it contains, but none that it points to, and returns its
// new id.
func (x *extraction) take(id uint32) uint32 {
	if to, ok := x.ids[id]; ok {
		return to
	}
	to := uint32(len(x.types))
	x.ids[id] = to
	x.types = append(x.types, nil)
	if int(id) >= len(x.from.begin)-1 {
		x.failed = true
		return to
	}
	from := rawType(x.from.types[x.from.begin[id]:x.from.begin[id+1]])
	t := slices.Clone(from)
	t.set(0, x.text(from.name()))
	switch t.kind() {
	case kindInt, kindFwd, kindFloat:
	case kindPtr:
		t.set(2, 0)
	case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
		t.set(2, x.take(from.word(2)))
	case kindArray: // the types of its elements and its index
		t.set(3, x.take(from.word(3)))
		t.set(4, x.take(from.word(4)))
	case kindStruct, kindUnion:
		t = t[:typeSize]
		kept := uint32(0)
		for _, m := range from.members() {
			if m.name() != 0 && !x.names[string(x.from.text(m.name()))] {
				continue
			}
			kept++
			m = slices.Clone(m)
			m.set(0, x.text(m.name()))
			m.set(1, x.take(m.word(1)))
			t = append(t, m...)
		}
		t.set(1, from.word(1)&^0xffff|kept)
	case kindEnum, kindEnum64:
		for _, m := range t.members() {
			m.set(0, x.text(m.name()))
		}
	default:
		x.failed = true
	}
	x.types[to] = t
	return to
}

// text copies a string and returns its new offset.
func (x *extraction) text(at uint32) uint32 {
	text := x.from.text(at)
	if len(text) == 0 {
		return 0
	}
	to := len(x.strings)
	x.strings = append(append(x.strings, text...), 0)
	return uint32(to)
}

// encode returns BTF with these types and strings.
func encode(types, strings []byte) []byte {
	header := binary.LittleEndian.AppendUint16(nil, magic)
	header = append(header, 1, 0) // version, flags
	for _, word := range []int{headerSize, 0, len(types), len(types), len(strings)} {
		header = binary.LittleEndian.AppendUint32(header, uint32(word))
	}
	return slices.Concat(header, types, strings)
}
