//go:build linux

package listing

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"sstrace/internal/event"

	"github.com/prometheus/procfs"
)

// setHolders sets the holders of a socket when they are known. If there is only one holder, that
// process is the owner.
func setHolders(e *event.Event, holders []event.Holder) {
	if holders == nil {
		holders = []event.Holder{} // nil would mean unknown
	}
	e.Status.Holders = holders
	if pid, comm := onlyHolder(holders); pid != 0 {
		e.OwnerPID, e.OwnerComm, e.OwnerVia = pid, comm, event.ViaSnapshot
	}
}

// onlyHolder returns the only process that holds a socket, or 0 if there are several or none.
func onlyHolder(holders []event.Holder) (pid uint32, comm string) {
	for _, h := range holders {
		if pid != 0 && pid != h.PID {
			return 0, ""
		}
		pid, comm = h.PID, h.Comm
	}
	return pid, comm
}

// findHolders returns the processes that have a descriptor for a socket, by the address of its
// sock. Unless refs is nil, it meanwhile sends a few sockets from each network namespace to refs,
// and then closes it.
func (l *Lister) findHolders(refs chan<- socketRef) (map[uint64][]event.Holder, error) {
	holders := make(holderMap, 1<<13)
	var unsent []socketRef
	if refs != nil {
		defer func() {
			go func() { // the receiver may be waiting for what this goroutine does next
				for _, ref := range unsent {
					refs <- ref
				}
				close(refs)
			}()
		}()
	}
	l.refs = l.refs[:0]
	last := make(map[uint32]uint32) // by network namespace: the process of its last socketRef
	sent := make(map[uint32]int)    // likewise: how many have been sent
	var spare []event.Holder
	withTables := false
	err := iterate(l.progs.holders, nil, func(found []listHolderFound) ([]listHolderFound, bool) {
		for i := range found {
			f := &found[i]
			if f.Slot == slotTable {
				withTables = true
				continue
			}
			spare = holders.add(f.Sk, l.holder(f), spare)
			if sent[f.Netns] < 3 && last[f.Netns] != f.Pid { // several, since one may be closed meanwhile
				last[f.Netns] = f.Pid
				sent[f.Netns]++
				ref := socketRef{f.Netns, f.Pid, f.Fd}
				l.refs = append(l.refs, ref)
				select {
				case refs <- ref:
				default:
					unsent = append(unsent, ref)
				}
			}
		}
		return found, true
	})
	if err == nil && withTables {
		err = l.slots(func(f *listHolderFound) { spare = holders.add(f.Sk, l.holder(f), spare) })
	}
	if err != nil {
		return nil, fmt.Errorf("list open files: %w", err)
	}
	return holders, nil
}

func (l *Lister) holder(f *listHolderFound) event.Holder {
	h := event.Holder{PID: f.Pid, FD: f.Fd, Comm: l.names.String(&f.Comm)}
	if f.Slot >= 0 {
		h.How, h.Slot = event.BySlot, uint32(f.Slot)
	}
	return h
}

// holderMap contains the holders of sockets by the addresses of their socks.
type holderMap map[uint64][]event.Holder

// add adds a holder and returns the rest of spare, from which it takes memory. Most sockets have
// one holder.
func (m holderMap) add(sk uint64, h event.Holder, spare []event.Holder) []event.Holder {
	switch of := m[sk]; {
	case of == nil:
		if len(spare) == 0 {
			spare = make([]event.Holder, 256)
		}
		spare[0] = h
		m[sk] = spare[:1:1]
		return spare[1:]
	case !slices.Contains(of, h): // several threads of a process may be visited, as they may have files of their own
		m[sk] = append(of, h)
	}
	return spare
}

// slotTable is SLOT_TABLE in bpf/holders.h.
const slotTable = -2

// slots calls add for each socket in a slot of an io_uring's own table.
func (l *Lister) slots(add func(*listHolderFound)) error {
	if l.progs.slots == nil {
		if err := l.progs.loadSlots(); err != nil {
			return err
		}
	}
	if err := l.progs.tables.begin(); err != nil {
		return err
	}
	take := func() error { return l.progs.tables.take(add) }
	return iterate(l.progs.slots, take, func(none []listHolderFound) ([]listHolderFound, bool) { return none, true })
}

// begin starts a walk of all tables.
func (t *slotTables) begin() error {
	return errors.Join(t.found.Set(uint32(0)), t.next.Set(make([]byte, t.next.Size())))
}

// take calls add for each holder that the walk has found since the last call.
func (t *slotTables) take(add func(*listHolderFound)) error {
	var some uint32
	if err := t.found.Get(&some); err != nil || some == 0 {
		return err
	}
	var holder listHolderFound
	var socks [64]uint64 // SLOTS_AT_ONCE in bpf/holders.h
	if err := errors.Join(t.holder.Get(&holder), t.socks.Get(&socks)); err != nil {
		return err
	}
	first := holder.Slot
	for i, sk := range socks {
		if sk != 0 {
			holder.Sk, holder.Slot = sk, first+int32(i)
			add(&holder)
		}
	}
	return t.found.Set(uint32(0))
}

// Heirs returns the owners of some sockets after their owner, process gone, has exited. If several
// processes still hold a socket, the one that started first is the owner, because the others are
// usually its children. Sockets that no other process holds are missing from the result. /proc must
// show the PID namespace that this process is in.
func (l *Lister) Heirs(sks []uint64, gone uint32) map[uint64]event.Holder {
	holders, err := l.findHolders(nil)
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

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid uint32) (uint64, error) {
	process, err := procfs.NewProc(int(pid))
	if err != nil {
		return 0, err
	}
	stat, err := process.Stat()
	return stat.Starttime, err
}
