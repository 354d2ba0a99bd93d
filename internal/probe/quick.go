//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// iterators are the programs that a listing needs.
type iterators struct {
	Sockets *ebpf.Program `ebpf:"sockets"`
	Holders *ebpf.Program `ebpf:"holders"`
}

func (i *iterators) close() {
	_ = errors.Join(i.Sockets.Close(), i.Holders.Close()) // they were only read
}

// loadIterators loads them as cilium/ebpf does, which knows what old kernels lack, and why one refuses a program.
func loadIterators() (objs iterators, err error) {
	spec, o, err := readObject()
	if err != nil {
		return objs, err
	}
	if err := spec.Variables[bpfVarWantMini].Set(true); err != nil {
		return objs, err
	}
	err = loadHere(spec, func() error { return spec.LoadAndAssign(&objs, &o) })
	return objs, err
}

// loadQuickly loads them by as few of the kernel's types as they need, in a third of the time. That matters where the listing takes hardly longer. Where it fails
// loadIterators may not, or tells why.
func loadQuickly() (objs iterators, err error) {
	var types *kernelTypes
	var untyped error
	var reading sync.WaitGroup
	reading.Go(func() { types, untyped = readKernelTypes() })
	spec, err := loadBpf()
	reading.Wait()
	if err := errors.Join(err, untyped); err != nil {
		return objs, err
	}
	if err := spec.Variables[bpfVarWantMini].Set(true); err != nil {
		return objs, err
	}
	spec.Maps[bpfMapFinWait2].MaxEntries = 1 // it stays empty
	q := quickly{spec: spec, types: types}
	if err := q.loadMaps(); err != nil {
		return objs, err
	}
	defer q.close()
	if objs.Sockets, err = q.load(bpfProgSockets); err == nil {
		objs.Holders, err = q.load(bpfProgHolders)
	}
	if err != nil {
		objs.close()
	}
	return objs, err
}

// quickly loads iterator programs.
type quickly struct {
	spec  *ebpf.CollectionSpec
	types *kernelTypes
	maps  struct { // that they use
		Constants *ebpf.Map `ebpf:".rodata"`
		Data      *ebpf.Map `ebpf:".data"`
		Zeroes    *ebpf.Map `ebpf:".bss"`
		FinWait2  *ebpf.Map `ebpf:"fin_wait2"`
	}
}

func (q *quickly) loadMaps() error {
	for _, m := range q.spec.Maps {
		m.Key, m.Value = nil, nil // nobody asks what is in it
	}
	return q.spec.LoadAndAssign(&q.maps, nil)
}

// close gives the maps back: a program keeps those that it uses.
func (q *quickly) close() {
	_ = errors.Join(q.maps.Constants.Close(), q.maps.Data.Close(), q.maps.Zeroes.Close(), q.maps.FinWait2.Close())
}

func (q *quickly) load(name string) (*ebpf.Program, error) {
	prog := q.spec.Programs[name]
	insns := slices.Clone(prog.Instructions)
	if err := relocate(insns, q.types.Spec); err != nil {
		return nil, err
	}
	for name, m := range map[string]*ebpf.Map{".rodata": q.maps.Constants, ".data": q.maps.Data, ".bss": q.maps.Zeroes, bpfMapFinWait2: q.maps.FinWait2} {
		if err := insns.AssociateMap(name, m); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
			return nil, err
		}
	}
	var code bytes.Buffer
	if err := insns.Marshal(&code, binary.LittleEndian); err != nil {
		return nil, err
	}
	target, ok := q.types.iterators[prog.AttachTo]
	if !ok {
		return nil, fmt.Errorf("this kernel has no iterator %s", prog.AttachTo)
	}
	return loadProgram(prog, code.Bytes(), target)
}

// relocate makes insns fit the kernel that has these types (CO-RE).
func relocate(insns asm.Instructions, kernel *btf.Spec) error {
	how, which, err := fixups(insns, kernel)
	if err != nil {
		return err
	}
	for i := range how {
		if err := how[i].Apply(which[i]); err != nil {
			return err
		}
	}
	return nil
}

// fixups are how some instructions have to change.
func fixups(insns asm.Instructions, kernel *btf.Spec) (how []btf.COREFixup, which []*asm.Instruction, err error) {
	var relos []*btf.CORERelocation
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, which = append(relos, r), append(which, &insns[i])
		}
	}
	how, err = btf.CORERelocate(relos, []*btf.Spec{kernel}, binary.LittleEndian, nil)
	return how, which, err
}

// progLoad is what union bpf_attr has for BPF_PROG_LOAD (include/uapi/linux/bpf.h), as far as an iterator needs it. On 64 bits a pointer is a __u64.
type progLoad struct {
	progType, insnCount            uint32
	insns, license                 unsafe.Pointer
	logLevel, logSize              uint32
	logBuf                         unsafe.Pointer
	kernVersion, flags             uint32
	name                           [unix.BPF_OBJ_NAME_LEN]byte
	ifindex, expectedAttachType    uint32
	btfFD, funcInfoRecSize         uint32
	funcInfo                       unsafe.Pointer
	funcInfoCount, lineInfoRecSize uint32
	lineInfo                       unsafe.Pointer
	lineInfoCount, attachBTFID     uint32
}

func loadProgram(prog *ebpf.ProgramSpec, code []byte, target btf.TypeID) (*ebpf.Program, error) {
	license := append([]byte(prog.License), 0)
	attr := progLoad{
		progType: uint32(prog.Type), insnCount: uint32(len(code) / asm.InstructionSize), insns: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0]),
		expectedAttachType: uint32(prog.AttachType), attachBTFID: uint32(target),
	}
	copy(attr.name[:len(attr.name)-1], prog.Name)
	for attempt := 1; ; attempt++ {
		fd, _, err := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch {
		case err == 0:
			return ebpf.NewProgramFromFD(int(fd))
		case err != unix.EAGAIN || attempt == 10: // else a signal came, as Go's runtime sends them (do_check in kernel/bpf/verifier.c)
			return nil, fmt.Errorf("load program %s: %w", prog.Name, err)
		}
	}
}
