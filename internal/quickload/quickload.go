//go:build linux

// Package quickload loads BPF iterators with less work than cilium/ebpf, for a listing that takes
// only a few dozen milliseconds. cilium/ebpf prepares all types of the kernel, more than a hundred
// thousand, before it loads a program; this package reads only the types that the programs name.
package quickload

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
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Collection loads the maps and the programs in spec, which must all be iterators. It supports what
// sstrace's iterators use: CO-RE and global variables, but no function calls, kfuncs or debug
// information. If it fails, ebpf.NewCollection may still succeed, or return a more helpful error.
func Collection(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	types, err := readKernelTypes(spec)
	if err != nil {
		return nil, err
	}
	data := spec.Copy()
	data.Programs = nil
	for _, m := range data.Maps {
		m.Key, m.Value = nil, nil // their types, which are not used
	}
	coll, err := ebpf.NewCollection(data)
	if err != nil {
		return nil, err
	}
	var loading errgroup.Group
	var mu sync.Mutex
	for name, prog := range spec.Programs {
		code, err := link(prog, coll.Maps, types.spec)
		if err != nil {
			_ = loading.Wait()
			coll.Close()
			return nil, err
		}
		loading.Go(func() error {
			loaded, err := load(prog, code, types.functions["bpf_iter_"+prog.AttachTo])
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			coll.Programs[name] = loaded
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		coll.Close()
		return nil, err
	}
	return coll, nil
}

// link returns the code of a program for the kernel that has these types, with its maps.
func link(prog *ebpf.ProgramSpec, maps map[string]*ebpf.Map, kernel *btf.Spec) ([]byte, error) {
	insns := slices.Clone(prog.Instructions)
	fixups, targets, err := relocations(insns, kernel)
	if err != nil {
		return nil, err
	}
	for i := range fixups {
		if err := fixups[i].Apply(targets[i]); err != nil {
			return nil, err
		}
	}
	for name, m := range maps {
		if err := insns.AssociateMap(name, m); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
			return nil, err
		}
	}
	var code bytes.Buffer
	err = insns.Marshal(&code, binary.LittleEndian)
	return code.Bytes(), err
}

// relocations returns the instructions that CO-RE changes, and how it changes them.
func relocations(insns asm.Instructions, kernel *btf.Spec) (
	fixups []btf.COREFixup, targets []*asm.Instruction, err error,
) {
	var relos []*btf.CORERelocation
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, targets = append(relos, r), append(targets, &insns[i])
		}
	}
	fixups, err = btf.CORERelocate(relos, []*btf.Spec{kernel}, binary.LittleEndian, nil)
	return fixups, targets, err
}

// progLoad is the part of union bpf_attr for BPF_PROG_LOAD (include/uapi/linux/bpf.h) that an
// iterator needs. A pointer has the size of a __u64 there, as on every 64-bit machine.
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

func load(prog *ebpf.ProgramSpec, code []byte, function btf.TypeID) (*ebpf.Program, error) {
	if function == 0 {
		return nil, fmt.Errorf("this kernel has no iterator %s", prog.AttachTo)
	}
	license := append([]byte(prog.License), 0)
	attr := progLoad{
		progType: uint32(prog.Type), expectedAttachType: uint32(prog.AttachType), attachBTFID: uint32(function),
		insnCount: uint32(len(code) / asm.InstructionSize), insns: unsafe.Pointer(&code[0]),
		license: unsafe.Pointer(&license[0]),
	}
	copy(attr.name[:len(attr.name)-1], prog.Name)
	for attempt := 1; ; attempt++ {
		fd, _, err := unix.Syscall(unix.SYS_BPF,
			unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if err == 0 {
			return ebpf.NewProgramFromFD(int(fd))
		}
		// EAGAIN: a signal arrived, such as Go's runtime sends (do_check in kernel/bpf/verifier.c).
		if err != unix.EAGAIN || attempt == 10 {
			return nil, fmt.Errorf("load program %s: %w", prog.Name, err)
		}
	}
}
