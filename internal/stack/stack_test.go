package stack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// here gives return addresses of this process: that of its caller first.
//
//go:noinline
func here() []uint64 {
	pcs := make([]uintptr, 8)
	pcs = pcs[:runtime.Callers(2, pcs)]
	addrs := []uint64{uint64(reflect.ValueOf(here).Pointer())}
	for _, pc := range pcs {
		addrs = append(addrs, uint64(pc))
	}
	return addrs
}

// The functions of a Go program have names, with and without symbols in its file.
func TestNames(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	if os.Getenv("SSTRACE_TEST_STACK") != "" {
		_, _ = os.Stdout.WriteString(strings.Join(new(Namer).Names(uint32(os.Getpid()), here()), "\n"))
		os.Exit(0)
	}
	for _, flags := range []string{"", "-s -w"} {
		binary := filepath.Join(t.TempDir(), "test")
		if out, err := exec.Command("go", "test", "-c", "-ldflags", flags, "-o", binary, ".").CombinedOutput(); err != nil {
			t.Skipf("no go here to build with: %v: %s", err, out)
		}
		cmd := exec.Command(binary, "-test.run", "^TestNames$")
		cmd.Env = append(os.Environ(), "SSTRACE_TEST_STACK=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(out), "\n")
		if len(lines) < 3 || !strings.HasPrefix(lines[0], "sstrace/internal/stack.here+0x") || !strings.HasPrefix(lines[1], "sstrace/internal/stack.TestNames+0x") ||
			!strings.HasSuffix(lines[0], " ("+binary+")") {
			t.Errorf("-ldflags %q: %q", flags, lines)
		}
	}
}

// What cannot be known stays an address.
func TestUnknown(t *testing.T) {
	if got := new(Namer).Names(1<<31-1, []uint64{0x1234}); len(got) != 1 || got[0] != "0x1234" {
		t.Errorf("%q", got)
	}
}

// Another execution of the same process is told from it.
func TestProgram(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	self := Program(uint32(os.Getpid()))
	if self == "" || self != Program(uint32(os.Getpid())) {
		t.Errorf("this process is %q, and %q", self, Program(uint32(os.Getpid())))
	}
	cmd := exec.Command("sh", "-c", "echo; read _; exec cat")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	_, _ = out.Read(buf)
	before := Program(uint32(cmd.Process.Pid))
	_, _ = in.Write([]byte("\nx"))
	_, _ = out.Read(buf) // cat's
	after := Program(uint32(cmd.Process.Pid))
	in.Close()
	_ = cmd.Wait()
	if before == "" || after == "" || before == after || Program(uint32(cmd.Process.Pid)) != "" {
		t.Errorf("before exec() %q, after it %q", before, after)
	}
}

// A file that would take much memory to read is not read.
func TestHostileFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "hostile")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		t.Skip("no ELF here")
	}
	headers := int(binary.LittleEndian.Uint64(text[40:]))
	for i, s := range f.Sections {
		if s.Type == elf.SHT_STRTAB || s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_DYNSYM {
			text[headers+i*64+8+1] |= 0x8 // SHF_COMPRESSED is 1 << 11
		}
	}
	if err := os.WriteFile(name, text, 0o700); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if symbols(in) != nil {
		t.Error("compressed symbols were read")
	}
}
