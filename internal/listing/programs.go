//go:build linux

package listing

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"
	"sstrace/internal/quickload"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// programs are the iterators of a Lister.
type programs struct {
	sockets  *ebpf.Program
	holders  *ebpf.Program
	unlisted *ebpf.Program // nil unless the caller wants sockets that the program sockets does not find
	slots    *ebpf.Program // may be nil until loadSlots
	tables   slotTables    // likewise

	spec  *ebpf.CollectionSpec // for loadSlots
	owned []*ebpf.Collection   // to close
}

// slotTables holds what slots finds in the tables of io_urings.
type slotTables struct {
	found, holder, socks, next *ebpf.Variable
}

// Programs are the names of the iterators in every object that has them.
var Programs = []string{listProgSockets, listProgHolders, listProgUnlisted, listProgSlots}

// Configure sets what the iterators in an object find, before it is loaded.
func Configure(spec *ebpf.CollectionSpec, f *filter.Filter, bound bool) error {
	var vars struct {
		ListMptcp    *ebpf.VariableSpec `ebpf:"list_mptcp"`
		ListBound    *ebpf.VariableSpec `ebpf:"list_bound"`
		PIDNamespace *ebpf.VariableSpec `ebpf:"pid_namespace"`
	}
	if err := spec.Assign(&vars); err != nil {
		return err
	}
	mptcp := slices.Contains(f.Protos, event.MPTCP)
	if !mptcp && !bound {
		delete(spec.Programs, listProgUnlisted)
	}
	inode, own := linux.PIDNamespace()
	if !own {
		inode = 0
	}
	return errors.Join(vars.ListMptcp.Set(mptcp), vars.ListBound.Set(bound), vars.PIDNamespace.Set(inode))
}

// Load loads spec like ebpf.NewCollection. It fits the programs to the kernel itself and not to its
// modules, of which a host has about a hundred, and supports kernels up to 5.11, whose tracing
// programs have no bpf_get_socket_cookie.
func Load(spec *ebpf.CollectionSpec, types *btf.Cache) (*ebpf.Collection, error) {
	o := ebpf.CollectionOptions{Cache: types}
	o.Programs.KernelTypes, _ = types.Kernel() // without types, loading returns the error
	coll, err := ebpf.NewCollectionWithOptions(spec, o)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		if err := spec.Variables[listVarHaveCookie].Set(false); err != nil {
			return nil, err
		}
		coll, err = ebpf.NewCollectionWithOptions(spec, o)
	}
	if err != nil {
		return nil, fmt.Errorf("load BPF programs: %w", err)
	}
	return coll, nil
}

// programsOf returns the iterators of a loaded object.
func programsOf(coll *ebpf.Collection) programs {
	return programs{
		sockets: coll.Programs[listProgSockets], holders: coll.Programs[listProgHolders],
		unlisted: coll.Programs[listProgUnlisted], slots: coll.Programs[listProgSlots],
		tables: slotTables{
			found: coll.Variables[listVarRingFound], holder: coll.Variables[listVarRingHolder],
			socks: coll.Variables[listVarRingSocks], next: coll.Variables[listVarRingNext],
		},
	}
}

// loadPrograms loads the iterators for a listing, except slots, which few hosts need.
func loadPrograms(f *filter.Filter, bound bool) (programs, error) {
	spec, err := loadList()
	if err != nil {
		return programs{}, err
	}
	if err := Configure(spec, f, bound); err != nil {
		return programs{}, err
	}
	coll, err := loadSome(spec, listProgSockets, listProgHolders, listProgUnlisted)
	if err != nil {
		return programs{}, err
	}
	p := programsOf(coll)
	p.spec, p.owned = spec, []*ebpf.Collection{coll}
	return p, nil
}

// loadSlots loads the program slots, with its own maps.
func (p *programs) loadSlots() error {
	coll, err := loadSome(p.spec, listProgSlots)
	if err != nil {
		return err
	}
	loaded := programsOf(coll)
	p.slots, p.tables, p.owned = loaded.slots, loaded.tables, append(p.owned, coll)
	return nil
}

// close closes the programs that loadPrograms and loadSlots have loaded.
func (p *programs) close() {
	for _, coll := range p.owned {
		coll.Close()
	}
}

// loadSome loads the programs in spec that have one of these names.
func loadSome(spec *ebpf.CollectionSpec, names ...string) (*ebpf.Collection, error) {
	spec = spec.Copy()
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(names, name) })
	if coll, err := quickload.Collection(spec); err == nil {
		return coll, nil
	}
	return Load(spec, btf.NewCache())
}

// atOnce is the maximum number of structs to read at once. The kernel gathers 178 sockets: 32 KiB
// (bpf_seq_read in kernel/bpf/bpf_iter.c).
const atOnce = 256

// iterate runs an iterator in the calling thread's network namespace, and calls each with the
// structs T that it writes, until there are no more or each wants no more. each either keeps the
// slice and returns another buf for atOnce structs, or returns the same slice. After each read,
// iterate calls read unless it is nil.
func iterate[T any](prog *ebpf.Program, read func() error, each func([]T) (buf []T, more bool)) error {
	var t T
	size := int(unsafe.Sizeof(t))
	iter, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attach iterator: %w", err)
	}
	defer iter.Close()
	in, err := iter.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer in.Close()
	some := make([]T, atOnce)
	for have := 0; ; {
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&some[0])), size*atOnce)
		n, err := in.Read(raw[have:])
		if read != nil {
			if err := read(); err != nil {
				return err
			}
		}
		have += n
		if whole := have / size; whole > 0 {
			buf, more := each(some[:whole])
			if !more {
				return nil
			}
			some = buf[:atOnce]
			have = copy(unsafe.Slice((*byte)(unsafe.Pointer(&some[0])), size*atOnce), raw[whole*size:have])
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, unix.EAGAIN): // too many objects in a row without output (bpf_seq_read)
		case err != nil:
			return fmt.Errorf("read iterator: %w", err)
		}
	}
}
