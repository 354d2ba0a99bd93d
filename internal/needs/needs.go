//go:build linux

// Package needs reports what tracing needs from this machine, and what is missing.
package needs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"sstrace/internal/linux"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Need is one requirement for tracing.
type Need struct {
	Name  string
	OK    bool
	Found string
	Hint  string // what to do if the need is not met
	Soft  bool   // tracing works without it but shows less

	// Unknown reports that whether the need is met could not be determined, for instance because a
	// container hides it. OK is then true, because the need may well be met.
	Unknown bool
}

// All returns every need that can be tested without attaching a program.
func All() []Need {
	return []Need{
		kernelVersion(), privileges(), lockdown(), typeInfo(), tracepoint(), jit(),
		symbols(), otherNetNS(), allProcesses(), cgroupNames(),
	}
}

// FirstUnmet returns the first unmet need in all without which tracing does not work, or nil.
func FirstUnmet(all []Need) *Need {
	for i := range all {
		if !all[i].OK && !all[i].Soft {
			return &all[i]
		}
	}
	return nil
}

// Explain returns an error that says what to do about err, which is often a bare EPERM from the
// kernel.
func Explain(err error) error {
	if n := FirstUnmet(All()); n != nil {
		return fmt.Errorf("cannot trace here: %s: %s: %s", n.Name, n.Found, n.Hint)
	}
	return fmt.Errorf("%w (run `sstrace check` to see what this machine lacks)", err)
}

func kernelVersion() Need {
	n := Need{Name: "kernel", Hint: "use Linux 5.9 or later, which has the BPF iterator over TCP sockets"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		n.Found = err.Error()
		return n
	}
	n.Found = "Linux " + unix.ByteSliceToString(u.Release[:])
	const v5_9 = 5<<16 | 9<<8 // KERNEL_VERSION in include/linux/version.h
	version, err := features.LinuxVersionCode()
	n.OK = err == nil && version >= v5_9
	return n
}

func has(caps [2]unix.CapUserData, bit int) bool {
	return caps[bit/32].Effective&(1<<(bit%32)) != 0
}

func effective() ([2]unix.CapUserData, error) {
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return caps, unix.Capget(&header, &caps[0])
}

// initUserNS is the inode of the initial user namespace (PROC_USER_INIT_INO in
// include/linux/proc_ns.h).
const initUserNS = 0xEFFFFFFD

func privileges() Need {
	n := Need{Name: "privileges", Hint: "run it as root (sudo sstrace), or with CAP_BPF (to load programs) and " +
		"CAP_PERFMON (to let them read kernel memory); CAP_SYS_ADMIN replaces both. With CAP_SYS_ADMIN and " +
		"CAP_SYS_PTRACE it also finds sockets in other network namespaces that are older than the trace; with " +
		"CAP_DAC_READ_SEARCH it finds the names of cgroups"}
	if inode, err := linux.Inode("/proc/self/ns/user"); err == nil && inode != initUserNS {
		n.Found = "in a user namespace, whose capabilities do not count for bpf(2)"
		n.Hint = "run it outside the container, or in one that has the host's user namespace " +
			"(docker run --privileged --userns=host)"
		return n
	}
	caps, err := effective()
	if err != nil {
		n.Found = err.Error()
		return n
	}
	if has(caps, unix.CAP_SYS_ADMIN) {
		n.OK, n.Found = true, "CAP_SYS_ADMIN"
		return n
	}
	var missing []string
	if !has(caps, unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if !has(caps, unix.CAP_PERFMON) {
		missing = append(missing, "CAP_PERFMON")
	}
	if n.OK = len(missing) == 0; n.OK {
		n.Found = "CAP_BPF and CAP_PERFMON"
	} else {
		n.Found = fmt.Sprintf("not root (user %d), without %s", os.Geteuid(), strings.Join(missing, " and "))
	}
	return n
}

const securityfs = "/sys/kernel/security"

func lockdown() Need {
	n := Need{Name: "lockdown", OK: true, Found: "none",
		Hint: "boot with lockdown=integrity or none: " +
			"lockdown=confidentiality forbids BPF programs to read kernel memory"}
	text, err := os.ReadFile(securityfs + "/lockdown")
	if err == nil {
		n.Found = strings.TrimSpace(string(text))
		n.OK = !strings.Contains(n.Found, "[confidentiality]")
		return n
	}
	var stat unix.Statfs_t
	if !errors.Is(err, fs.ErrNotExist) {
		n.Unknown, n.Found = true, "unknown: "+err.Error()
	} else if err := unix.Statfs(securityfs, &stat); err != nil || stat.Type != unix.SECURITYFS_MAGIC {
		n.Unknown, n.Found = true, "unknown: securityfs is not mounted on "+securityfs
	}
	return n
}

const btfFile = "/sys/kernel/btf/vmlinux"

func typeInfo() Need {
	n := Need{Name: "BTF", OK: true, Found: btfFile,
		Hint: "mount /sys, and use a kernel built with CONFIG_DEBUG_INFO_BTF=y, " +
			"as those of the large distributions are"}
	if _, err := os.Stat(btfFile); err != nil {
		n.OK, n.Found = false, err.Error()
	}
	return n
}

func tracepoint() Need {
	n := Need{Name: "tracepoint", Found: "sock:inet_sock_set_state",
		Hint: "use a kernel built with CONFIG_INET and CONFIG_TRACEPOINTS; it has this tracepoint since 4.16"}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		n.Found = err.Error()
		return n
	}
	var hook *btf.Typedef
	if err := spec.TypeByName("btf_trace_inet_sock_set_state", &hook); err != nil {
		n.Found = "sock:inet_sock_set_state is missing: " + err.Error()
		return n
	}
	n.OK = true
	return n
}

func jit() Need {
	n := Need{Name: "JIT", Soft: true,
		Hint: "interpreting BPF programs costs several times as much: set sysctl net.core.bpf_jit_enable=1"}
	size, err := compiledSize()
	switch {
	case err != nil:
		n.OK, n.Unknown, n.Found = true, true, "unknown: "+err.Error()
	case size == 0:
		n.Found = "the kernel did not compile a program"
	default:
		n.OK, n.Found = true, "the kernel compiles programs"
	}
	return n
}

// compiledSize loads a program that does nothing and returns the size of its machine code, which is
// 0 if the kernel interprets it. net.core.bpf_jit_enable would not do: it exists only in the
// initial network namespace (net/core/sysctl_net_core.c, sysctl_core_init).
func compiledSize() (uint32, error) {
	_ = rlimit.RemoveMemlock() // matters before Linux 5.11; if it fails, loading may
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SocketFilter,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "GPL",
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = prog.Close() }()
	info, err := prog.Info()
	if err != nil {
		return 0, fmt.Errorf("get the size of a program: %w", err)
	}
	size, err := info.JitedSize()
	if err != nil {
		return 0, fmt.Errorf("get the size of a program: %w", err)
	}
	return size, nil
}

func symbols() Need {
	n := Need{Name: "half-open, TIME_WAIT", Soft: true, OK: true, Found: "addresses in /proc/kallsyms",
		Hint: "SYN_RECV begins with the ACK instead of the SYN, and the end of TIME_WAIT is not seen: " +
			"set sysctl kernel.kptr_restrict=1, and run it as root or with CAP_SYSLOG"}
	if _, err := linux.FindTimers(); err != nil {
		n.OK, n.Found = false, err.Error()
	}
	return n
}

func otherNetNS() Need {
	n := Need{Name: "other network namespaces", Soft: true, OK: true, Found: "CAP_SYS_ADMIN and CAP_SYS_PTRACE",
		Hint: "sockets there that are older than the trace are unknown until their first change: " +
			"add CAP_SYS_PTRACE, to find these namespaces, and CAP_SYS_ADMIN, to enter them"}
	if caps, err := effective(); err != nil || !has(caps, unix.CAP_SYS_ADMIN) || !has(caps, unix.CAP_SYS_PTRACE) {
		n.OK, n.Found = false, "not permitted"
	}
	return n
}

func allProcesses() Need {
	n := Need{Name: "all processes", Soft: true, OK: true, Found: "the host's PID namespace",
		Hint: "PIDs are those of this namespace, and processes outside it that hold a socket are not found: " +
			"use the host's (docker run --pid=host, hostPID: true)"}
	switch inode, own := linux.PIDNamespace(); {
	case inode == 0:
		n.OK = false
		n.Found = "unknown: /proc is not mounted, or belongs to a PID namespace that this process is not in"
	case own:
		n.OK, n.Found = false, fmt.Sprintf("a PID namespace of its own (%d)", inode)
	}
	return n
}

func cgroupNames() Need {
	n := Need{Name: "cgroup names", Soft: true, Hint: "cgroup_id is right, but cgroup is null: " +
		"mount a cgroup v2 tree, and add CAP_DAC_READ_SEARCH to look up names in it"}
	tree, err := linux.OpenCgroupTree()
	if err != nil {
		n.Found = err.Error()
		return n
	}
	defer tree.Close()
	caps, err := effective()
	switch {
	case err != nil || !has(caps, unix.CAP_DAC_READ_SEARCH):
		n.Found = "without CAP_DAC_READ_SEARCH"
	case !tree.Whole():
		n.Found = tree.Mount() + " is only a part of the tree, as in a container: cgroups outside it have no name"
	default:
		n.OK, n.Found = true, tree.Mount()
	}
	return n
}
