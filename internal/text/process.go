package text

import (
	"strconv"

	"sstrace/internal/event"
)

// hostMark precedes a process ID of the initial PID namespace.
const hostMark = "host:"

// OwnerWidth is the width of the widest PID/COMM of printable ASCII. PIDs end at PID_MAX_LIMIT
// (include/linux/threads.h), and a comm has 15 bytes (TASK_COMM_LEN).
const OwnerWidth = len("4194304/0123456789abcde")

// ProcessWidth returns the width of a column for PIDs like this one. A name with escaped bytes may
// need more.
func ProcessWidth(pid uint32) int {
	if pid&event.HostPID != 0 {
		return len(hostMark) + OwnerWidth
	}
	return OwnerWidth
}

// Process returns PID/COMM, or "-" for PID 0.
func Process(pid uint32, comm string) string {
	return string(AppendProcess(nil, pid, comm, pid != 0))
}

// AppendProcess appends PID/COMM, as netstat -p prints it, or "-" if the process is not known.
func AppendProcess(b []byte, pid uint32, comm string, known bool) []byte {
	if !known {
		return append(b, '-')
	}
	if pid&event.HostPID != 0 {
		b = append(b, hostMark...)
	}
	b = strconv.AppendUint(b, uint64(pid&^event.HostPID), 10)
	b = append(b, '/')
	return AppendVisible(b, comm)
}
