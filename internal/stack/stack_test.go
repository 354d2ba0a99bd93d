package stack

import (
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
		_, _ = os.Stdout.WriteString(strings.Join(Names(uint32(os.Getpid()), here()), "\n"))
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
	if got := Names(1<<31-1, []uint64{0x1234}); len(got) != 1 || got[0] != "0x1234" {
		t.Errorf("%q", got)
	}
}
