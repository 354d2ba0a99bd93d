//go:build linux

package linux

import (
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// initialPIDNamespace is the inode of the host's PID namespace (PROC_PID_INIT_INO in
// include/linux/proc_ns.h, since 3.8).
const initialPIDNamespace = 0xEFFFFFFC

// PIDNamespace returns the inode of the PID namespace that this process is in, or 0 if it is
// unknown, and reports whether the namespace is not the host's.
func PIDNamespace() (inode uint32, own bool) {
	ino, err := Inode("/proc/self/ns/pid")
	if err != nil {
		return 0, false
	}
	return uint32(ino), ino != initialPIDNamespace
}

// ProcShowsOwnPIDs reports whether /proc belongs to the PID namespace that this process is in. In
// the /proc of another namespace, the same number stands for another process, or for none.
func ProcShowsOwnPIDs() bool {
	self, err := procfs.Self()
	if err != nil {
		return false
	}
	status, err := self.NewStatus()
	return err == nil && oneNumber(status.NSpids)
}

// oneNumber reports whether a process has only one number. NSpid in /proc/PID/status lists its
// numbers, from the one in that /proc's namespace to the one in its own (task_state in
// fs/proc/array.c). Without CONFIG_PID_NS the line does not exist, and neither do other namespaces.
func oneNumber(nspid []uint64) bool { return len(nspid) <= 1 }

// Inode returns the inode of a file, which for a file in /proc/PID/ns identifies a namespace.
func Inode(path string) (uint64, error) {
	var stat unix.Stat_t
	err := unix.Stat(path, &stat)
	return stat.Ino, err
}
