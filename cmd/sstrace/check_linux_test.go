package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var checkLines = regexp.MustCompile(`(?m)^(\S.{3})  (.{24})  (.*)$`)

// checkIn runs check in new namespaces. It returns the lines by requirement, and the exit code.
func checkIn(t *testing.T, cmd *exec.Cmd, namespaces uintptr) (map[string]string, int) {
	t.Helper()
	needRoot(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if namespaces&unix.CLONE_NEWUSER != 0 {
		root := []syscall.SysProcIDMap{{Size: 1}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = root, root
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("start in namespaces %#x: %v", namespaces, err)
	}
	lines := make(map[string]string)
	for _, line := range checkLines.FindAllStringSubmatch(stdout.String(), -1) {
		lines[strings.TrimSpace(line[2])] = strings.TrimSpace(line[1]) + " " + line[3]
	}
	if len(lines) < 10 {
		t.Fatalf("got %d requirements:\n%s%s", len(lines), &stdout, &stderr)
	}
	return lines, cmd.ProcessState.ExitCode()
}

func TestCheck(t *testing.T) {
	needRoot(t)
	r := sstrace(t, "", "check")
	if r.code != 0 || strings.Contains(r.stdout, "NO ") || !strings.Contains(r.stdout, "programs load and attach") {
		t.Errorf("exit code %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// Without privileges, the error names the missing ones.
func TestNotRoot(t *testing.T) {
	cmd := self("sstrace")
	if os.Geteuid() == 0 {
		// Another user may not be allowed to read the directory of the test binary, so the test
		// opens the binary before it changes the user.
		exe, err := os.Open(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer exe.Close()
		cmd.ExtraFiles = []*os.File{exe}
		cmd.Path = "/proc/self/fd/3"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	const want = "without CAP_BPF and CAP_PERFMON: run it as root"
	if err == nil || cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(string(out), want) {
		t.Errorf("exit code %d, %v: got %q, want %q", cmd.ProcessState.ExitCode(), err, out, want)
	}
}

// In another network namespace, check reports the same about the kernel, although
// net.core.bpf_jit_enable is hidden there.
func TestCheckInAnotherNetworkNamespace(t *testing.T) {
	here, _ := checkIn(t, self("sstrace", "check"), 0)
	there, code := checkIn(t, self("sstrace", "check"), unix.CLONE_NEWNET)
	if code != 0 || !strings.HasPrefix(here["JIT"], "yes ") || there["JIT"] != here["JIT"] {
		t.Errorf("exit code %d, JIT: got %q, want %q as here", code, there["JIT"], here["JIT"])
	}
}

// The root user of a user namespace has every capability there, but may not trace.
func TestCheckInAUserNamespace(t *testing.T) {
	lines, code := checkIn(t, self("sstrace", "check"), unix.CLONE_NEWUSER)
	if code != 1 || !strings.HasPrefix(lines["privileges"], "NO in a user namespace") {
		t.Errorf("exit code %d, privileges: %q", code, lines["privileges"])
	}
	if !strings.HasPrefix(lines["JIT"], "? unknown") {
		t.Errorf("JIT: %q", lines["JIT"])
	}
}

// inShell returns a command that runs a script. The script runs check as its last command, "$@".
func inShell(script string) *exec.Cmd {
	cmd := self("sstrace", "check")
	args := []string{"-ec", "mount --make-rprivate /\n" + script, "sh", cmd.Path}
	sh := exec.Command("sh", append(args, cmd.Args[1:]...)...)
	sh.Env = cmd.Env
	return sh
}

// If securityfs is not mounted, check cannot know whether the kernel is locked down.
func TestCheckWithoutSecurityfs(t *testing.T) {
	for script, want := range map[string]string{
		"mount -t tmpfs none /sys/kernel/security":      "? unknown: securityfs is not mounted",
		"mount -t securityfs none /sys/kernel/security": "yes ",
	} {
		lines, code := checkIn(t, inShell(script+`; exec "$@"`), unix.CLONE_NEWNS)
		if code != 0 || !strings.HasPrefix(lines["lockdown"], want) {
			t.Errorf("%s: exit code %d, lockdown: got %q, want %q", script, code, lines["lockdown"], want)
		}
	}
}

// A container sees only part of the cgroup tree. Cgroups outside that part have no name there.
func TestCheckInACgroupNamespace(t *testing.T) {
	needRoot(t)
	tree := cgroupTree(t)
	group, err := os.MkdirTemp(tree, "sstrace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	sh := inShell(`echo $$ >"$GROUP/cgroup.procs"
		exec unshare --cgroup sh -ec 'umount "$TREE"; mount -t cgroup2 none "$TREE"; exec "$@"' sh "$@"`)
	sh.Env = append(sh.Env, "GROUP="+group, "TREE="+tree)
	lines, code := checkIn(t, sh, unix.CLONE_NEWNS)
	want := "less " + tree + " is only a part of the tree"
	if code != 0 || !strings.HasPrefix(lines["cgroup names"], want) {
		t.Errorf("exit code %d, cgroup names: got %q, want %q", code, lines["cgroup names"], want)
	}
}
