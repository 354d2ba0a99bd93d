// Package stack names the functions on the stack of a process, from the symbols of the files that it has mapped.
package stack

import (
	"bytes"
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

// Namer names functions. It keeps the symbols of the files that it has seen last. It is not safe for concurrent use.
type Namer struct {
	files map[identity]*file
}

// identity is that of a file, however it is called.
type identity struct {
	dev, ino uint64
}

// goTable has the functions of a Go program.
const goTable = ".gopclntab"

// What a process has mapped is whatever it likes. So no more than this is read of it, and no symbol may become longer.
const (
	mostFiles   = 64
	mostSection = 64 << 20
	mostName    = 10 // a power of two
)

// Program tells one execution of a program from another, of the same process or of one with the same number: by when the process began and where its stack
// does (proc(5): starttime, startstack); "" if it is gone.
func Program(pid uint32) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	const startTime, startStack = 22 - 3, 28 - 3 // behind the name, which may hold anything
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= startStack {
		return ""
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // "" for a kernel thread
	return fields[startTime] + " " + fields[startStack] + " " + exe
}

// Names names the functions at addrs, return addresses with the innermost first, as in "main.serve+0x1f (/usr/bin/server)". What has no symbol stays an
// address; so does all of a process that has ended, and of pid 0.
func (n *Namer) Names(pid uint32, addrs []uint64) []string {
	names := make([]string, 0, len(addrs))
	var maps []*procfs.ProcMap
	if proc, err := procfs.NewProc(int(pid)); err == nil && pid != 0 {
		maps, _ = proc.ProcMaps() // none, if it is gone
	}
	for i, addr := range addrs {
		names = append(names, n.name(int(pid), maps, addr, i > 0))
	}
	return names
}

// name names what is at addr. Behind the innermost function addr is where it returns to, which may be the next function's begin, if the call never returns.
func (n *Namer) name(pid int, maps []*procfs.ProcMap, addr uint64, returns bool) string {
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
	offset := at - uint64(m.StartAddr) + uint64(m.Offset)
	if f := n.file(pid, m); f != nil {
		if symbol, into, ok := f.find(offset); ok {
			return fmt.Sprintf("%s+%#x (%s)", symbol, into+addr-at, m.Pathname)
		}
	}
	return fmt.Sprintf("%#x (%s+%#x)", addr, m.Pathname, offset+addr-at)
}

// file gives the symbols of what a process has mapped; nil if there are none to be had.
func (n *Namer) file(pid int, m *procfs.ProcMap) *file {
	which := identity{m.Dev, m.Inode}
	if f, ok := n.files[which]; ok {
		return f
	}
	if len(n.files) >= mostFiles || n.files == nil {
		n.files = make(map[identity]*file)
	}
	f := open(pid, m)
	n.files[which] = f
	return f
}

// file is the functions of an ELF file.
type file struct {
	loads     []elf.ProgHeader
	functions []elf.Symbol // by address
	lines     *gosym.Table // of a Go program; tells functions also where the symbols were stripped
}

// open reads the symbols of the very file that is mapped, whatever its name leads to by now.
func open(pid int, m *procfs.ProcMap) *file {
	in, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.StartAddr, m.EndAddr))
	if err != nil {
		return nil
	}
	defer in.Close()
	return symbols(in)
}

// symbols reads those of an ELF file; nil if it is none, or one that would take more than it is worth.
func symbols(in *os.File) *file {
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	object, err := elf.NewFile(in)
	if err != nil {
		return nil
	}
	for _, s := range object.Sections {
		if (s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_DYNSYM || s.Type == elf.SHT_STRTAB || s.Name == goTable) &&
			(s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > mostSection || s.FileSize > uint64(info.Size())) {
			return nil
		}
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
	if table := object.Section(goTable); table != nil && len(all) == 0 {
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
	name, err := demangle.ToString(before, demangle.MaxLength(mostName))
	if err != nil {
		name = before[:min(len(before), 1<<mostName)]
	}
	return name, addr - s.Value, true
}
