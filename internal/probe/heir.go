//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
)

// Heir returns the process that a socket belongs to after process gone, which made it, has exited: of those that still hold it the
// one that started first, for the others are its children as a rule. pid is 0 if no other process holds it. As Sockets it must not
// run at the same time as Events gives something.
func (p *Probe) Heir(sk uint64, gone uint32) (pid uint32, comm string) {
	ends := make(chan openEnd)
	go func() {
		for range ends { // the network namespaces of the sockets: nobody asks
		}
	}()
	holders, err := p.lister.whoHolds(ends)
	if err != nil {
		return 0, ""
	}
	first := uint64(math.MaxUint64)
	for _, h := range holders[sk] {
		if started, err := startTime(h.PID); h.PID != gone && err == nil && started < first {
			first, pid, comm = started, h.PID, h.Comm
		}
	}
	return pid, comm
}

// startTime returns when a process started, in clock ticks since the boot (proc(5): starttime).
func startTime(pid uint32) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name, in parentheses, and may have blanks and parentheses in it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const starttime = 22 - 3 // counted from 1; the first of fields is the third
	if len(fields) <= starttime {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[starttime]), 10, 64)
}
