//go:build linux

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/filter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Need is one thing that tracing needs of the machine.
type Need struct {
	Name  string
	OK    bool
	Found string
	Hint  string // what to do if not OK
	Soft  bool   // without it tracing works and tells less

	// Unknown reports that this could not be found out, as in a container that hides it. OK is true
	// then, because it may well be there.
	Unknown bool
}

// Check looks whether this machine can trace, and tries to if nothing speaks against it.
func Check() []Need {
	all := needs()
	if first := firstUnmet(all); first != nil {
		return append(all, Need{Name: "attach", Found: "not tried", Hint: "see above"})
	}
	attach := Need{Name: "attach", OK: true, Found: "programs load and attach"}
	accepts := Need{Name: "who accepts", Soft: true, OK: true, Found: "syscalls:sys_exit_accept", Hint: "the owner of a connection is who listens"}
	p, err := Open(&filter.Filter{Protos: []event.Proto{event.TCP}}, os.Getpagesize(), true, false)
	if err != nil {
		attach = Need{Name: "attach", Found: err.Error(), Hint: "a security module or a container's seccomp filter may forbid bpf(2): see dmesg"}
		return append(all, attach)
	}
	if err := p.Deaf(); err != nil {
		accepts.OK, accepts.Found = false, err.Error()
	}
	p.Close()
	return append(all, attach, accepts)
}

func needs() []Need {
	return []Need{kernel(), capabilities(), lockdown(), typeInfo(), tracepoint(), jit(), miniSocks(), namespaces(), processes(), cgroupNames()}
}

func firstUnmet(all []Need) *Need {
	for i := range all {
		if !all[i].OK && !all[i].Soft {
			return &all[i]
		}
	}
	return nil
}

// explain turns the kernel's terse refusal into what to do about it.
func explain(err error) error {
	if n := firstUnmet(needs()); n != nil {
		return fmt.Errorf("cannot trace here: %s: %s: %s", n.Name, n.Found, n.Hint)
	}
	return fmt.Errorf("%w (`sstrace check` looks what this machine lacks)", err)
}

func kernel() Need {
	n := Need{Name: "kernel", Hint: "the BPF iterator over TCP sockets came with Linux 5.9: use that or a later kernel"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		n.Found = err.Error()
		return n
	}
	n.Found = "Linux " + unix.ByteSliceToString(u.Release[:])
	major, minor, err := kernelVersion()
	n.OK = err == nil && (major > 5 || major == 5 && minor >= 9)
	return n
}

func kernelVersion() (major, minor int, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, 0, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	_, err = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major, minor, err
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

func capabilities() Need {
	n := Need{Name: "privileges", Hint: "run it as root (sudo sstrace), or with CAP_BPF (to load programs) and CAP_PERFMON (for tracing ones, which may read " +
		"kernel memory), or CAP_SYS_ADMIN in place of both. More tell more: CAP_SYS_ADMIN and CAP_SYS_PTRACE of sockets in other network " +
		"namespaces that are older than the trace, CAP_DAC_READ_SEARCH the names of cgroups"}
	if inode, err := inodeOf("/proc/self/ns/user"); err == nil && inode != initUserNS {
		n.Found = "in a user namespace, whose capabilities do not count for bpf(2)"
		n.Hint = "run it outside of the container, or in one that has the host's user namespace (docker: --privileged --userns=host)"
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
	n := Need{Name: "lockdown", OK: true, Found: "none", Hint: "lockdown=confidentiality forbids BPF to read kernel memory: boot with lockdown=integrity or none"}
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
	n := Need{Name: "BTF", OK: true, Found: btfFile, Hint: "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as those of the large distributions are, and /sys must be mounted"}
	if _, err := os.Stat(btfFile); err != nil {
		n.OK, n.Found = false, err.Error()
	}
	return n
}

func tracepoint() Need {
	n := Need{Name: "tracepoint", Found: "sock:inet_sock_set_state", Hint: "the kernel must be built with CONFIG_INET and CONFIG_TRACEPOINTS (it has this tracepoint since 4.16)"}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		n.Found = err.Error()
		return n
	}
	var hook *btf.Typedef
	if err := spec.TypeByName("btf_trace_inet_sock_set_state", &hook); err != nil {
		n.Found = "sock:inet_sock_set_state is not there: " + err.Error()
		return n
	}
	n.OK = true
	return n
}

func jit() Need {
	n := Need{Name: "JIT", Soft: true, Hint: "BPF programs are interpreted, which costs several times more: sysctl net.core.bpf_jit_enable=1"}
	size, err := compiledSize()
	switch {
	case err != nil:
		n.OK, n.Unknown, n.Found = true, true, "unknown: "+err.Error()
	case size == 0:
		n.Found = "the kernel has not compiled a program"
	default:
		n.OK, n.Found = true, "the kernel compiles programs"
	}
	return n
}

// compiledSize loads a program that does nothing and returns the size of its machine code, which is 0
// if the kernel interprets it. net.core.bpf_jit_enable would not do: it exists in the initial network
// namespace only (net/core/sysctl_net_core.c, sysctl_core_init).
func compiledSize() (uint32, error) {
	_ = rlimit.RemoveMemlock() // as in Open
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
		return 0, fmt.Errorf("ask for a program's size: %w", err)
	}
	size, err := info.JitedSize()
	if err != nil {
		return 0, fmt.Errorf("ask for a program's size: %w", err)
	}
	return size, nil
}

func miniSocks() Need {
	n := Need{Name: "half-open, TIME_WAIT", Soft: true, OK: true, Found: "addresses in /proc/kallsyms",
		Hint: "SYN_RECV begins with the ACK instead of the SYN, and the end of TIME_WAIT is not seen: sysctl kernel.kptr_restrict=1, and root or CAP_SYSLOG"}
	if _, err := findSymbols(); err != nil {
		n.OK, n.Found = false, err.Error()
	}
	return n
}

func namespaces() Need {
	n := Need{Name: "other network namespaces", Soft: true, OK: true, Found: "CAP_SYS_ADMIN and CAP_SYS_PTRACE",
		Hint: "their sockets are traced, but those older than the trace are known only from their first change on: CAP_SYS_ADMIN lets it enter them, CAP_SYS_PTRACE find them"}
	if caps, err := effective(); err != nil || !has(caps, unix.CAP_SYS_ADMIN) || !has(caps, unix.CAP_SYS_PTRACE) {
		n.OK, n.Found = false, "not allowed"
	}
	return n
}

// rootCgroup is the inode and the id of the root of the cgroup v2 tree, the first that
// kernfs_create_root in fs/kernfs/dir.c assigns.
const rootCgroup = 1

func processes() Need {
	n := Need{Name: "all processes", Soft: true, OK: true, Found: "the host's PID namespace",
		Hint: "PIDs are those of this namespace, and processes outside it that hold a socket are not seen: run it in the host's (docker run --pid=host, hostPID: true)"}
	switch inode, own := pidNamespace(); {
	case inode == 0:
		n.OK, n.Found = false, "unknown: /proc is not mounted, or of a PID namespace that this process is not in"
	case own:
		n.OK, n.Found = false, fmt.Sprintf("a PID namespace of its own (%d)", inode)
	}
	return n
}

func cgroupNames() Need {
	n := Need{Name: "cgroup names", Soft: true, Hint: "cgroup is null and cgroup_id is right: mount a cgroup v2 tree, and give CAP_DAC_READ_SEARCH to find names in it"}
	tree := openCgroupFS()
	defer tree.close()
	caps, err := effective()
	var root unix.Stat_t
	switch {
	case tree.mount == "":
		n.Found = errNoCgroupFS.Error()
	case err != nil || !has(caps, unix.CAP_DAC_READ_SEARCH):
		n.Found = "without CAP_DAC_READ_SEARCH"
	case unix.Fstat(tree.dir, &root) != nil || root.Ino != rootCgroup:
		n.Found = tree.mount + " is only a part of the tree, as a container's is: cgroups outside of it have no name"
	default:
		n.OK, n.Found = true, tree.mount
	}
	return n
}
