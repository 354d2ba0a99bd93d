// Package stack names the functions on the stack of a process, from the symbols of the files that it has mapped.
package stack

import (
	"cmp"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ianlancetaylor/demangle"
	"github.com/prometheus/procfs"
)

// Names names the functions at addrs, return addresses with the innermost first, as in "main.serve+0x1f (/usr/bin/server)". What has no symbol stays an
// address; so does all of a process that has ended.
func Names(pid uint32, addrs []uint64) []string {
	names := make([]string, 0, len(addrs))
	proc, err := procfs.NewProc(int(pid))
	var maps []*procfs.ProcMap
	if err == nil {
		maps, _ = proc.ProcMaps() // none, if it is gone
	}
	files := make(map[string]*file)
	for i, addr := range addrs {
		names = append(names, name(int(pid), maps, files, addr, i > 0))
	}
	return names
}

// name names what is at addr. Behind the innermost function addr is where it returns to, which may be the next function's begin, if the call never returns.
func name(pid int, maps []*procfs.ProcMap, files map[string]*file, addr uint64, returns bool) string {
	at := addr
	if returns {
		at--
	}
	i := slices.IndexFunc(maps, func(m *procfs.ProcMap) bool { return uint64(m.StartAddr) <= at && at < uint64(m.EndAddr) })
	if i < 0 {
		return fmt.Sprintf("%#x", addr)
	}
	m := maps[i]
	if !filepath.IsAbs(m.Pathname) {
		return fmt.Sprintf("%#x %s", addr, m.Pathname) // [vdso], or code that was made
	}
	f, ok := files[m.Pathname]
	if !ok {
		f = open(pid, m)
		files[m.Pathname] = f
	}
	offset := at - uint64(m.StartAddr) + uint64(m.Offset)
	if f != nil {
		if symbol, into, ok := f.find(offset); ok {
			return fmt.Sprintf("%s+%#x (%s)", symbol, into+addr-at, m.Pathname)
		}
	}
	return fmt.Sprintf("%#x (%s+%#x)", addr, m.Pathname, offset+addr-at)
}

// file is the functions of an ELF file.
type file struct {
	loads     []elf.ProgHeader
	functions []elf.Symbol // by address
	lines     *gosym.Table // of a Go program; tells functions also where the symbols were stripped
}

// open reads the symbols of what a process has mapped, through /proc, for the file may be of another mount namespace or be deleted by now.
func open(pid int, m *procfs.ProcMap) *file {
	in, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.StartAddr, m.EndAddr))
	if err != nil {
		if in, err = os.Open(fmt.Sprintf("/proc/%d/root%s", pid, m.Pathname)); err != nil {
			return nil
		}
	}
	defer in.Close()
	object, err := elf.NewFile(in)
	if err != nil {
		return nil
	}
	f := new(file)
	for _, p := range object.Progs {
		if p.Type == elf.PT_LOAD {
			f.loads = append(f.loads, p.ProgHeader)
		}
	}
	all, _ := object.Symbols()            // stripped, if there are none
	dynamic, _ := object.DynamicSymbols() // static, if there are none
	for _, s := range slices.Concat(all, dynamic) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value != 0 {
			f.functions = append(f.functions, s)
		}
	}
	slices.SortFunc(f.functions, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	if table := object.Section(".gopclntab"); table != nil && len(all) == 0 {
		if text := object.Section(".text"); text != nil {
			if data, err := table.Data(); err == nil {
				f.lines, _ = gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr)) // nil, if it is of another kind
			}
		}
	}
	return f
}

// find gives the function at an offset in the file, and how far in it that is.
func (f *file) find(offset uint64) (symbol string, into uint64, ok bool) {
	i := slices.IndexFunc(f.loads, func(p elf.ProgHeader) bool { return p.Off <= offset && offset < p.Off+p.Filesz })
	if i < 0 {
		return "", 0, false
	}
	addr := offset - f.loads[i].Off + f.loads[i].Vaddr
	if f.lines != nil {
		if fn := f.lines.PCToFunc(addr); fn != nil {
			return fn.Name, addr - fn.Entry, true
		}
	}
	i, found := slices.BinarySearchFunc(f.functions, addr, func(s elf.Symbol, addr uint64) int { return cmp.Compare(s.Value, addr) })
	if !found {
		i--
	}
	if i < 0 {
		return "", 0, false
	}
	s := f.functions[i]
	if s.Size > 0 && addr >= s.Value+s.Size {
		return "", 0, false
	}
	before, _, _ := strings.Cut(s.Name, "@") // a symbol's version
	return demangle.Filter(before), addr - s.Value, true
}
