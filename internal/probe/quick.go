//go:build linux

package probe

import (
	"errors"

	"github.com/cilium/ebpf"
)

// iterators are the programs that a listing needs.
type iterators struct {
	Sockets *ebpf.Program `ebpf:"sockets"`
	Holders *ebpf.Program `ebpf:"holders"`
}

func (i *iterators) close() {
	_ = errors.Join(i.Sockets.Close(), i.Holders.Close()) // they were only read
}

// loadIterators loads them.
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
