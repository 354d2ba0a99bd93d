package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sstrace/internal/event/eventtest"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Tests run sstrace as users do, as a process. The process is the test binary itself, which runs as
// sstrace if this variable says so.
const roleVariable = "SSTRACE_TEST_ROLE"

// roles are the programs that the test binary can run as.
var roles = map[string]func(){"sstrace": main}

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		os.Unsetenv(roleVariable)
		role()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// self returns a command that runs the test binary in a role.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		cmd.Path = exe
	}
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "NO_COLOR=1", "TZ=UTC")
	return cmd
}

// result is the output and the exit code of a process.
type result struct {
	stdout, stderr string
	code           int
}

// sstrace runs sstrace with args until it exits.
func sstrace(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	cmd := self("sstrace", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ndjsonSchema returns the schema in docs/. Here the schema also forbids keys that it does not
// define.
func ndjsonSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return eventtest.Schema(t)
}

// read returns the content of a file.
func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
