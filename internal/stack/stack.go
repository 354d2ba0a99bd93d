// Package stack names the functions on the stack of a process, using the symbols in the files that
// the process has mapped.
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

// Namer names functions. It caches the symbols of recent files. Its zero value is ready to use. It
// is not safe for concurrent use.
type Namer struct {
	files map[identity]*file
}

// identity identifies a file by device and inode, whatever its name.
type identity struct {
	dev, ino uint64
}

// goTable is the section with the functions of a Go program.
const goTable = ".gopclntab"

// The limits on what is read from files: a process may map anything.
const (
	maxFiles   = 64
	maxSection = 64 << 20 // bytes
	maxName    = 10       // the length of a symbol, as a power of two
)

// Program returns a value that identifies one execution of a program: another program in the same
// process, or another process with the same PID, has another value. It consists of the start time
// of the process, the start of its stack (starttime and startstack in proc(5)), and its executable.
// It is "" if the process does not exist.
func Program(pid uint32) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	const startTime, startStack = 22 - 3, 28 - 3 // after the name, which may contain anything
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= startStack {
		return ""
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // fails for a kernel thread
	return fields[startTime] + " " + fields[startStack] + " " + exe
}

// Names returns the functions at addrs, which are return addresses with the innermost first, in the
// form "main.serve+0x1f (/usr/bin/server)". If there is no symbol, the process has ended or pid is
// 0, it returns the addresses instead.
func (n *Namer) Names(pid uint32, addrs []uint64) []string {
	names := make([]string, 0, len(addrs))
	var maps []*procfs.ProcMap
	if proc, err := procfs.NewProc(int(pid)); err == nil && pid != 0 {
		maps, _ = proc.ProcMaps() // none if the process has ended
	}
	for i, addr := range addrs {
		names = append(names, n.name(int(pid), maps, addr, i > 0))
	}
	return names
}

// name returns the function at addr. isReturn means that addr is where a call returns to. If the
// call never returns, that may be the start of the next function, so the byte before it is looked
// up.
func (n *Namer) name(pid int, maps []*procfs.ProcMap, addr uint64, isReturn bool) string {
	at := addr
	if isReturn {
		at--
	}
	i := slices.IndexFunc(maps, func(m *procfs.ProcMap) bool {
		return uint64(m.StartAddr) <= at && at < uint64(m.EndAddr)
	})
	if i < 0 {
		return fmt.Sprintf("%#x", addr)
	}
	m := maps[i]
	if !filepath.IsAbs(m.Pathname) {
		return fmt.Sprintf("%#x %s", addr, m.Pathname) // [vdso], or generated code
	}
	offset := at - uint64(m.StartAddr) + uint64(m.Offset)
	if f := n.file(pid, m); f != nil {
		if symbol, rest, ok := f.find(offset); ok {
			return fmt.Sprintf("%s+%#x (%s)", symbol, rest+addr-at, m.Pathname)
		}
	}
	return fmt.Sprintf("%#x (%s+%#x)", addr, m.Pathname, offset+addr-at)
}

// file returns the symbols of a mapped file, or nil if they cannot be read.
func (n *Namer) file(pid int, m *procfs.ProcMap) *file {
	id := identity{m.Dev, m.Inode}
	if f, ok := n.files[id]; ok {
		return f
	}
	if len(n.files) >= maxFiles || n.files == nil {
		n.files = make(map[identity]*file)
	}
	f := open(pid, m)
	n.files[id] = f
	return f
}

// file has the functions of an ELF file.
type file struct {
	loads       []elf.ProgHeader
	functions   []elf.Symbol // sorted by address
	goFunctions *gosym.Table // of a Go program whose symbols are stripped
}

// open reads the symbols of the file that is mapped, whatever is at its path by now.
func open(pid int, m *procfs.ProcMap) *file {
	in, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.StartAddr, m.EndAddr))
	if err != nil {
		return nil
	}
	defer in.Close()
	return symbols(in)
}

// symbols reads the symbols of an ELF file. It returns nil for any other file, and for one whose
// symbols are compressed or exceed the limits.
func symbols(in *os.File) *file {
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	object, err := elf.NewFile(in)
	if err != nil {
		return nil
	}
	if slices.ContainsFunc(object.Sections, func(s *elf.Section) bool { return tooLarge(s, info.Size()) }) {
		return nil
	}
	return newFile(object)
}

// tooLarge reports whether a section of symbols would take too much memory to read.
func tooLarge(s *elf.Section, fileSize int64) bool {
	switch {
	case s.Type == elf.SHT_SYMTAB, s.Type == elf.SHT_DYNSYM, s.Type == elf.SHT_STRTAB, s.Name == goTable:
		return s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > maxSection || s.FileSize > uint64(fileSize)
	}
	return false
}

func newFile(object *elf.File) *file {
	f := new(file)
	for _, p := range object.Progs {
		if p.Type == elf.PT_LOAD {
			f.loads = append(f.loads, p.ProgHeader)
		}
	}
	static, _ := object.Symbols()         // none if the file is stripped
	dynamic, _ := object.DynamicSymbols() // none if it is statically linked
	for _, s := range slices.Concat(static, dynamic) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value != 0 {
			f.functions = append(f.functions, s)
		}
	}
	slices.SortFunc(f.functions, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	if table := object.Section(goTable); table != nil && len(static) == 0 {
		if text := object.Section(".text"); text != nil {
			if data, err := table.Data(); err == nil {
				// An unknown version of the table leaves it nil.
				f.goFunctions, _ = gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
			}
		}
	}
	return f
}

// find returns the function at an offset in the file, and how far into it that is.
func (f *file) find(offset uint64) (symbol string, rest uint64, ok bool) {
	i := slices.IndexFunc(f.loads, func(p elf.ProgHeader) bool {
		return p.Off <= offset && offset < p.Off+p.Filesz
	})
	if i < 0 {
		return "", 0, false
	}
	addr := offset - f.loads[i].Off + f.loads[i].Vaddr
	if f.goFunctions != nil {
		if fn := f.goFunctions.PCToFunc(addr); fn != nil {
			return fn.Name, addr - fn.Entry, true
		}
	}
	i, found := slices.BinarySearchFunc(f.functions, addr, func(s elf.Symbol, addr uint64) int {
		return cmp.Compare(s.Value, addr)
	})
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
	raw, _, _ := strings.Cut(s.Name, "@") // without the symbol's version
	name, err := demangle.ToString(raw, demangle.MaxLength(maxName))
	if err != nil {
		name = raw[:min(len(raw), 1<<maxName)]
	}
	return name, addr - s.Value, true
}
