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

// here returns its own address and the return addresses of its callers, innermost first.
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

// inProgram is set in the environment of the program that TestNames builds from this package.
const inProgram = "SSTRACE_TEST_STACK"

// A Go program's own functions can be named, with and without symbols.
func TestNames(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	if os.Getenv(inProgram) != "" {
		_, _ = os.Stdout.WriteString(strings.Join(new(Namer).Names(uint32(os.Getpid()), here()), "\n"))
		os.Exit(0)
	}
	for name, flags := range map[string]string{"symbols": "", "stripped": "-s -w"} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "test")
			build := exec.Command("go", "test", "-c", "-ldflags", flags, "-o", program, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Skipf("cannot build: %v: %s", err, out)
			}
			cmd := exec.Command(program, "-test.run", "^TestNames$")
			cmd.Env = append(os.Environ(), inProgram+"=1")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(out), "\n")
			for i, want := range []string{"sstrace/internal/stack.here+0x", "sstrace/internal/stack.TestNames+0x"} {
				if i >= len(lines) || !strings.HasPrefix(lines[i], want) ||
					!strings.HasSuffix(lines[i], " ("+program+")") {
					t.Errorf("got %q, want %s… (%s) in line %d", lines, want, program, i)
				}
			}
		})
	}
}

func TestNamesOfMissingProcess(t *testing.T) {
	if got := new(Namer).Names(1<<31-1, []uint64{0x1234}); len(got) != 1 || got[0] != "0x1234" {
		t.Errorf("got %q, want the address", got)
	}
}

// When a process calls exec(), it becomes another Program.
func TestProgram(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	self := uint32(os.Getpid())
	if first, second := Program(self), Program(self); first == "" || first != second {
		t.Errorf("this process: got %q and then %q, want the same", first, second)
	}
	cmd := exec.Command("sh", "-c", "echo; read _; exec cat")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	_, _ = out.Read(buf) // from echo
	pid := uint32(cmd.Process.Pid)
	before := Program(pid)
	_, _ = in.Write([]byte("\nx"))
	_, _ = out.Read(buf) // from cat
	after := Program(pid)
	in.Close()
	_ = cmd.Wait()
	if before == "" || after == "" || before == after {
		t.Errorf("got %q before exec() and %q after it, want two values", before, after)
	}
	if got := Program(pid); got != "" {
		t.Errorf("got %q for a process that has ended, want none", got)
	}
}

// Compressed symbols are not read, because they could expand to any size.
func TestCompressedSymbols(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Skip("needs an ELF executable")
	}
	headers := int(binary.LittleEndian.Uint64(data[40:]))
	for i, s := range f.Sections {
		if s.Type == elf.SHT_STRTAB || s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_DYNSYM {
			data[headers+i*64+8+1] |= 0x8 // SHF_COMPRESSED is 1 << 11
		}
	}
	name := filepath.Join(t.TempDir(), "compressed")
	if err := os.WriteFile(name, data, 0o700); err != nil {
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
