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
	spec, o, err := readObject(loadList)
	if err != nil {
		return objs, err
	}
	err = loadHere(spec, func() error { return spec.LoadAndAssign(&objs, &o) })
	return objs, err
}

// loadQuickly loads them by as few of the kernel's types as they need, in a quarter of the time (BenchmarkLoading). Where it
// fails loadIterators may not, or tells why.
func loadQuickly() (objs iterators, err error) {
	var types *kernelTypes
	var untyped error
	var reading sync.WaitGroup
	reading.Go(func() { types, untyped = readKernelTypes() })
	spec, err := loadList()
	reading.Wait()
	if err := errors.Join(err, untyped); err != nil {
		return objs, err
	}
	for _, m := range spec.Maps {
		m.Key, m.Value = nil, nil // their types: nobody asks
	}
	var maps struct { // all that they use
		Constants *ebpf.Map `ebpf:".rodata"`
	}
	if err := spec.LoadAndAssign(&maps, nil); err != nil {
		return objs, err
	}
	defer func() { _ = maps.Constants.Close() }() // the programs keep it
	if objs.Sockets, err = loadQuick(spec.Programs[listProgSockets], maps.Constants, types); err == nil {
		objs.Holders, err = loadQuick(spec.Programs[listProgHolders], maps.Constants, types)
	}
	if err != nil {
		objs.close()
	}
	return objs, err
}

// loadQuick loads one of them.
func loadQuick(prog *ebpf.ProgramSpec, constants *ebpf.Map, types *kernelTypes) (*ebpf.Program, error) {
	insns := slices.Clone(prog.Instructions)
	if err := relocate(insns, types.Spec); err != nil {
		return nil, err
	}
	if err := insns.AssociateMap(".rodata", constants); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
		return nil, err
	}
	var code bytes.Buffer
	if err := insns.Marshal(&code, binary.LittleEndian); err != nil {
		return nil, err
	}
	target, ok := types.iterators[prog.AttachTo]
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
