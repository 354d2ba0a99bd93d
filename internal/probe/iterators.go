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
	Sockets  *ebpf.Program
	Holders  *ebpf.Program
	Unlisted *ebpf.Program // nil unless extras ask for it
	Slots    *ebpf.Program // nil until loadSlots, if there is one
	rings    rings         // likewise

	loadSlots func() (*ebpf.Program, rings, error)
}

// rings is where Slots puts the sockets that it finds in the tables of io_urings.
type rings struct {
	Found  *ebpf.Variable `ebpf:"ring_found"`
	Holder *ebpf.Variable `ebpf:"ring_holder"`
	Socks  *ebpf.Variable `ebpf:"ring_socks"`
	Next   *ebpf.Variable `ebpf:"ring_next"`
}

// extras are the sockets that a listing has beside the TCP sockets of the kernel's tables.
type extras struct {
	mptcp, bound bool
}

func (x extras) unlisted() bool { return x.mptcp || x.bound }

func (i *iterators) close() {
	for _, prog := range []*ebpf.Program{i.Sockets, i.Holders, i.Unlisted, i.Slots} {
		_ = prog.Close() // it was only read
	}
}

// lookSpec is what both objects have for a look at what exists.
type lookSpec struct {
	ListMptcp    *ebpf.VariableSpec `ebpf:"list_mptcp"`
	ListBound    *ebpf.VariableSpec `ebpf:"list_bound"`
	PIDNamespace *ebpf.VariableSpec `ebpf:"pid_namespace"`
}

// configureLook sets what a look finds, and whose numbers its pids are.
func configureLook(spec *ebpf.CollectionSpec, x extras) error {
	var vars lookSpec
	if err := spec.Assign(&vars); err != nil {
		return err
	}
	if !x.unlisted() {
		delete(spec.Programs, listProgUnlisted)
	}
	inode, own := pidNamespace()
	if !own {
		inode = 0
	}
	return errors.Join(vars.ListMptcp.Set(x.mptcp), vars.ListBound.Set(x.bound), vars.PIDNamespace.Set(inode))
}

// listSpec reads the object of a listing.
func listSpec(x extras) (*ebpf.CollectionSpec, error) {
	spec, err := loadList()
	if err != nil {
		return nil, err
	}
	return spec, configureLook(spec, x)
}

// loadIterators loads them as cilium/ebpf does, which knows what old kernels lack, and why one refuses a program.
func loadIterators(x extras) (objs iterators, err error) {
	spec, o, err := readObject(func() (*ebpf.CollectionSpec, error) { return listSpec(x) })
	if err != nil {
		return objs, err
	}
	var all *ebpf.Collection
	err = loadHere(spec, func() error {
		all, err = ebpf.NewCollectionWithOptions(spec, o)
		return err
	})
	if err != nil {
		return objs, err
	}
	defer all.Close()
	objs.Sockets, objs.Holders = all.DetachProgram(listProgSockets), all.DetachProgram(listProgHolders)
	objs.Unlisted, objs.Slots = all.DetachProgram(listProgUnlisted), all.DetachProgram(listProgSlots)
	return objs, all.Assign(&objs.rings)
}

// loadQuickly loads them by as few of the kernel's types as they need, in a quarter of the time (BenchmarkLoading). Where it
// fails loadIterators may not, or tells why.
func loadQuickly(x extras) (objs iterators, err error) {
	var types *kernelTypes
	var untyped error
	var reading sync.WaitGroup
	reading.Go(func() { types, untyped = readKernelTypes() })
	spec, err := listSpec(x)
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
	objs.loadSlots = func() (*ebpf.Program, rings, error) { return loadSlots(spec, types) }
	for name, to := range map[string]**ebpf.Program{listProgSockets: &objs.Sockets, listProgHolders: &objs.Holders, listProgUnlisted: &objs.Unlisted} {
		prog := spec.Programs[name]
		if prog == nil {
			continue
		}
		if *to, err = loadQuick(prog, map[string]*ebpf.Map{".rodata": maps.Constants}, types); err != nil {
			objs.close()
			return objs, err
		}
	}
	return objs, nil
}

// loadSlots loads the one that few hosts need, with maps of its own.
func loadSlots(spec *ebpf.CollectionSpec, types *kernelTypes) (*ebpf.Program, rings, error) {
	var used struct {
		Constants *ebpf.Map `ebpf:".rodata"`
		Rings     *ebpf.Map `ebpf:".data.rings"`
		Shared    rings
	}
	if err := spec.LoadAndAssign(&used, nil); err != nil {
		return nil, rings{}, err
	}
	defer func() { _ = errors.Join(used.Constants.Close(), used.Rings.Close()) }() // the program keeps them
	prog, err := loadQuick(spec.Programs[listProgSlots], map[string]*ebpf.Map{".rodata": used.Constants, ".data.rings": used.Rings}, types)
	return prog, used.Shared, err
}

// loadQuick loads one of them, with the maps that it uses.
func loadQuick(prog *ebpf.ProgramSpec, maps map[string]*ebpf.Map, types *kernelTypes) (*ebpf.Program, error) {
	insns := slices.Clone(prog.Instructions)
	if err := relocate(insns, types.Spec); err != nil {
		return nil, err
	}
	for name, m := range maps {
		if err := insns.AssociateMap(name, m); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
			return nil, err
		}
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
