//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"

	"sstrace/internal/event"
)

// Heirs returns the processes that some sockets belong to after process gone, which made them, has exited: of those that still hold
// one the process that started first, because the others are its children as a rule. Sockets that no other process holds are
// missing. /proc must show the PID namespace that sstrace is in. As Sockets it must not run at the same time as Events.
func (p *Probe) Heirs(sks []uint64, gone uint32) map[uint64]event.Holder {
	ends := make(chan openEnd)
	go func() {
		for range ends { // the network namespaces of the sockets: nobody asks
		}
	}()
	holders, err := p.lister.whoHolds(ends)
	if err != nil {
		return nil
	}
	started := make(map[uint32]uint64)
	heirs := make(map[uint64]event.Holder)
	for _, sk := range sks {
		first := uint64(math.MaxUint64)
		for _, h := range holders[sk] {
			if h.PID == gone {
				continue
			}
			at, ok := started[h.PID]
			if !ok {
				if at, err = startTime(h.PID); err != nil {
					continue // it has exited, too
				}
				started[h.PID] = at
			}
			if at < first {
				first, heirs[sk] = at, h
			}
		}
	}
	return heirs
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
