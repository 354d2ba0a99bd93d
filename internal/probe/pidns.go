//go:build linux

package probe

import (
	"bytes"
	"os"
)

// initialPIDNamespace is the inode of the host's PID namespace (PROC_PID_INIT_INO in
// include/linux/proc_ns.h, since 3.8).
const initialPIDNamespace = 0xEFFFFFFC

// pidNamespace returns the inode of the PID namespace that this process is in, 0 if it is unknown,
// and reports whether it is one of its own rather than the host's.
func pidNamespace() (inode uint32, own bool) {
	ino, err := inodeOf("/proc/self/ns/pid")
	if err != nil {
		return 0, false
	}
	return uint32(ino), ino != initialPIDNamespace
}

// InPIDNamespace reports whether this process is in a PID namespace of its own rather than the host's.
func InPIDNamespace() bool {
	_, own := pidNamespace()
	return own
}

// ProcIsOurs reports whether /proc shows the PID namespace that this process is in. In a /proc of
// another one the same number is another process, or none.
func ProcIsOurs() bool {
	status, err := os.ReadFile("/proc/self/status")
	return err == nil && oneNumber(status)
}

// oneNumber reports whether /proc and the process whose file status this is are of one PID
// namespace. NSpid lists the process's numbers, from the namespace of /proc to its own (task_state
// in fs/proc/array.c). Without CONFIG_PID_NS the line does not exist, nor do other namespaces.
func oneNumber(status []byte) bool {
	for line := range bytes.Lines(status) {
		if numbers, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return len(bytes.Fields(numbers)) == 1
		}
	}
	return true
}
