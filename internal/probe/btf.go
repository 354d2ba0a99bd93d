//go:build linux

package probe

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// typesFile is the kernel's BTF.
const typesFile = "/sys/kernel/btf/vmlinux"

// kernelTypes is of the kernel's types what our iterators need. cilium/ebpf makes ready all of them, more than a hundred thousand, before it loads a program.
type kernelTypes struct {
	*btf.Spec                       // structs, unions and enums, without what they point to: enough for CO-RE
	iterators map[string]btf.TypeID // by name: the functions bpf_iter_NAME, to which iterators attach
}

// readKernelTypes reads those that the object of our iterators names.
func readKernelTypes() (*kernelTypes, error) {
	own, iterators, err := ownTypes()
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	name := func(at uint32) {
		text := own.text(at)
		if i := bytes.LastIndex(text, []byte("___")); i > 0 { // what follows it tells one version of a type from another
			text = text[:i]
		}
		names[string(text)] = true
	}
	err = own.each(func(_ int, t btfType) {
		switch t.kind() {
		case btfStruct, btfUnion, btfEnum, btfEnum64:
			name(t.name())
			t.each(func(member btfType) { name(member.name()) })
		}
	})
	if err != nil {
		return nil, err
	}
	delete(names, "") // an anonymous type comes with the one that it is part of
	raw, err := mapped(typesFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Munmap(raw) }() // it was mapped
	return cut(raw, names, iterators)
}

// ownTypes are those of that object, and the names of its iterators.
func ownTypes() (types *btfData, iterators []string, err error) {
	object, err := elf.NewFile(bytes.NewReader(_ListBytes))
	if err != nil {
		return nil, nil, err
	}
	for _, section := range object.Sections {
		if name, ok := strings.CutPrefix(section.Name, "iter/"); ok {
			iterators = append(iterators, name)
		}
	}
	raw, err := object.Section(".BTF").Data()
	if err != nil {
		return nil, nil, err
	}
	types, err = newBTFData(raw)
	return types, iterators, err
}

// mapped gives a file's bytes, which may not be changed: of this one without copying them where the kernel can (from 6.16).
func mapped(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := int(info.Size())
	if raw, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_POPULATE); err == nil {
		return raw, nil
	}
	raw, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(f, raw); err != nil {
		return nil, errors.Join(err, unix.Munmap(raw))
	}
	return raw, nil
}

// cut makes kernelTypes of raw BTF: the types with these names, and of their members those with these names.
func cut(raw []byte, names map[string]bool, iterators []string) (*kernelTypes, error) {
	all, err := newBTFData(raw)
	if err != nil {
		return nil, err
	}
	k := &kernelTypes{iterators: make(map[string]btf.TypeID)}
	functions := make([]uint32, len(iterators)) // where their names are: there are so many functions that to read all names would take longer than all else
	for i, name := range iterators {
		functions[i] = all.find("bpf_iter_" + name)
	}
	c := cutting{from: all, names: names, begin: make([]uint32, 1, 1+len(all.types)/24), ids: map[uint32]uint32{0: 0}, types: make([]btfType, 1), strings: []byte{0}}
	var wanted []uint32
	err = all.each(func(begin int, t btfType) {
		id := uint32(len(c.begin))
		c.begin = append(c.begin, uint32(begin))
		switch t.kind() {
		case btfFunc:
			if i := slices.Index(functions, t.name()); i >= 0 {
				k.iterators[iterators[i]] = btf.TypeID(id)
			}
		case btfStruct, btfUnion, btfEnum, btfEnum64:
			if names[string(all.text(t.name()))] {
				wanted = append(wanted, id)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, id := range wanted {
		c.take(id)
	}
	if c.odd {
		return nil, errBTF
	}
	k.Spec, err = btf.LoadSpecFromReader(bytes.NewReader(c.bytes()))
	return k, err
}

// Kinds of types, and sizes (include/uapi/linux/btf.h in Linux 6.18).
const (
	btfInt       = 1
	btfPtr       = 2
	btfArray     = 3
	btfStruct    = 4
	btfUnion     = 5
	btfEnum      = 6
	btfFwd       = 7
	btfTypedef   = 8
	btfVolatile  = 9
	btfConst     = 10
	btfRestrict  = 11
	btfFunc      = 12
	btfFuncProto = 13
	btfVar       = 14
	btfDatasec   = 15
	btfFloat     = 16
	btfDeclTag   = 17
	btfTypeTag   = 18
	btfEnum64    = 19

	btfMagic      = 0xeb9f
	btfHeaderSize = 24
	btfTypeSize   = 12
)

var errBTF = errors.New("this is BTF of a form that sstrace does not know")

// btfUnused are bits of a type's second word that have no meaning; kinds and numbers of members may grow into them.
const btfUnused = 0x60ff0000

// btfMore is what follows a type of each kind: so many bytes, and so many for each member.
var btfMore = [...]struct{ once, each int }{
	btfInt: {once: 4}, btfArray: {once: 12}, btfStruct: {each: 12}, btfUnion: {each: 12}, btfEnum: {each: 8}, btfFuncProto: {each: 8}, btfVar: {once: 4},
	btfDatasec: {each: 12}, btfDeclTag: {once: 4}, btfEnum64: {each: 12},
}

// btfType is a type as BTF has it, and what follows it.
type btfType []byte

func (t btfType) word(at int) uint32 { return binary.LittleEndian.Uint32(t[at:]) } // bpf_bpfel.go is not built on other machines
func (t btfType) name() uint32       { return t.word(0) }
func (t btfType) kind() int          { return int(t.word(4) >> 24 & 31) }
func (t btfType) members() int       { return int(t.word(4) & 0xffff) }

func (t btfType) set(at int, v uint32) { binary.LittleEndian.PutUint32(t[at:], v) }

// each gives the members, whose names are where a type's is.
func (t btfType) each(do func(member btfType)) {
	more := btfMore[t.kind()]
	for rest := t[btfTypeSize+more.once:]; len(rest) > 0; rest = rest[more.each:] {
		do(rest[:more.each])
	}
}

// btfData is BTF (Documentation/bpf/btf.rst).
type btfData struct {
	types, strings []byte
}

func newBTFData(raw []byte) (*btfData, error) {
	if len(raw) < btfHeaderSize || binary.LittleEndian.Uint16(raw) != btfMagic {
		return nil, errBTF
	}
	word := btfType(raw).word
	body := raw[min(int(word(4)), len(raw)):]
	part := func(begin, size uint32) []byte {
		if uint64(begin)+uint64(size) > uint64(len(body)) {
			return nil
		}
		return body[begin:][:size]
	}
	b := &btfData{types: part(word(8), word(12)), strings: part(word(16), word(20))}
	if b.types == nil || len(b.strings) == 0 || b.strings[len(b.strings)-1] != 0 {
		return nil, errBTF
	}
	return b, nil
}

// each gives all types and where they begin, in the order of their ids, from 1 on.
func (b *btfData) each(do func(int, btfType)) error {
	for begin := 0; begin < len(b.types); {
		t, ok := b.at(begin)
		if !ok {
			return errBTF
		}
		do(begin, t)
		begin += len(t)
	}
	return nil
}

// at gives the type that begins there.
func (b *btfData) at(begin int) (btfType, bool) {
	t := btfType(b.types[begin:])
	if len(t) < btfTypeSize {
		return nil, false
	}
	kind := t.kind()
	if kind == 0 || kind >= len(btfMore) || t.word(4)&btfUnused != 0 {
		return nil, false
	}
	more := &btfMore[kind]
	size := btfTypeSize + more.once + t.members()*more.each
	if size > len(t) {
		return nil, false
	}
	return t[:size], true
}

// text is the string at an offset; where there cannot be one, it is empty.
func (b *btfData) text(at uint32) []byte {
	s := b.strings[min(int(at), len(b.strings)-1):]
	return s[:bytes.IndexByte(s, 0)]
}

// find tells where a string is; 0, which is the empty one, if it is not there.
func (b *btfData) find(text string) uint32 {
	for at := 0; ; at++ {
		i := bytes.Index(b.strings[at:], []byte(text+"\x00"))
		if i < 0 {
			return 0
		}
		if at += i; at > 0 && b.strings[at-1] == 0 {
			return uint32(at)
		}
	}
}

// cutting is BTF of some types of another one.
type cutting struct {
	from    *btfData
	names   map[string]bool   // of members
	begin   []uint32          // where each type begins there, by id; 0 is void
	ids     map[uint32]uint32 // those here of those there
	types   []btfType         // by id
	strings []byte
	odd     bool // one is made of what no type is made of
}

// take copies a type and what it is made of, but not what it points to, and gives its id.
func (c *cutting) take(id uint32) uint32 {
	if to, ok := c.ids[id]; ok {
		return to
	}
	to := uint32(len(c.types))
	c.ids[id] = to
	c.types = append(c.types, nil)
	if int(id) >= len(c.begin) {
		c.odd = true
		return to
	}
	from, _ := c.from.at(int(c.begin[id])) // each has seen it
	t := btfType(bytes.Clone(from))
	t.set(0, c.text(from.name()))
	switch t.kind() {
	case btfInt, btfFwd, btfFloat:
	case btfPtr:
		t.set(8, 0)
	case btfTypedef, btfVolatile, btfConst, btfRestrict, btfTypeTag:
		t.set(8, c.take(from.word(8)))
	case btfArray: // of what, and what counts
		t.set(12, c.take(from.word(12)))
		t.set(16, c.take(from.word(16)))
	case btfStruct, btfUnion:
		t = t[:btfTypeSize]
		kept := uint32(0)
		from.each(func(m btfType) {
			if m.name() != 0 && !c.names[string(c.from.text(m.name()))] {
				return
			}
			kept++
			t = append(t, m...)
			here := t[len(t)-len(m):]
			here.set(0, c.text(m.name()))
			here.set(4, c.take(m.word(4)))
		})
		t.set(4, from.word(4)&^0xffff|kept)
	case btfEnum, btfEnum64:
		t.each(func(m btfType) { m.set(0, c.text(m.name())) })
	default:
		c.odd = true
	}
	c.types[to] = t
	return to
}

func (c *cutting) text(at uint32) uint32 {
	text := c.from.text(at)
	if len(text) == 0 {
		return 0
	}
	to := len(c.strings)
	c.strings = append(append(c.strings, text...), 0)
	return uint32(to)
}

// bytes is what was cut out, as a whole.
func (c *cutting) bytes() []byte {
	var types []byte
	for _, t := range c.types {
		types = append(types, t...)
	}
	return btfBytes(types, c.strings)
}

func btfBytes(types, strings []byte) []byte {
	header := make([]byte, 0, btfHeaderSize)
	header = binary.LittleEndian.AppendUint16(header, btfMagic)
	header = append(header, 1, 0) // version, flags
	for _, word := range []int{btfHeaderSize, 0, len(types), len(types), len(strings)} {
		header = binary.LittleEndian.AppendUint32(header, uint32(word))
	}
	return slices.Concat(header, types, strings)
}
