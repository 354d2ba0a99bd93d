//go:build linux

package probe

import (
	"fmt"
	"math"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/linux"
	"sstrace/internal/record"

	"github.com/cilium/ebpf"
)

const (
	recordSize = int(unsafe.Sizeof(bpfEvent{}))
	closedSize = int(unsafe.Sizeof(bpfClosed{}))
)

// decode returns a record in the ring without copying it: it checks the length and casts. bpf2go
// generates bpfEvent from the object, and a test compares the two.
func decode(raw []byte) (*bpfEvent, error) {
	if len(raw) < recordSize {
		return nil, fmt.Errorf("a record has %d bytes, fewer than the %d of struct event", len(raw), recordSize)
	}
	return (*bpfEvent)(unsafe.Pointer(unsafe.SliceData(raw))), nil
}

// totals returns the data that follow the record of a change to CLOSE.
func (n *namer) totals(raw []byte) (t event.Totals) {
	if len(raw) < closedSize {
		return t
	}
	c := (*bpfClosed)(unsafe.Pointer(unsafe.SliceData(raw)))
	if c.IsTcp == 0 {
		return t
	}
	t = event.Totals{
		Known: true, BytesAcked: c.BytesAcked, BytesReceived: c.BytesReceived, SegsOut: c.SegsOut, SegsIn: c.SegsIn,
		Retrans: c.Retrans, SRTT: c.SrttUs >> 3,
		Cong: n.String((*[16]byte)(unsafe.Pointer(&c.Cong))),
	}
	if c.MinRttUs != math.MaxUint32 {
		t.MinRTT = c.MinRttUs
	}
	return t
}

// namer adds the names of devices.
type namer struct {
	*linux.Names
	devices *ebpf.Map // by network namespace and number; nil: none are known
}

// device returns the name of a device, or "" if it is unknown. A device may be renamed, so names
// are not cached.
func (n *namer) device(netns, ifindex uint32) string {
	var name [16]byte
	if n.devices == nil || n.devices.Lookup(bpfDevice{Netns: netns, Ifindex: ifindex}, &name) != nil {
		return ""
	}
	return n.String(&name)
}

// record translates a record from the kernel side. The tracker adds everything that follows from
// the socket's history.
func (n *namer) record(r *bpfEvent) record.Record {
	rec := record.Record{
		Event: event.Event{
			Type: event.Change, Mono: int64(r.MonoNs), CPU: uint32(r.Cpu), Cookie: r.Cookie, Sk: r.Sk, NetNS: r.Netns,
			Proto: linux.Proto(r.Proto), Old: event.State(r.OldState), New: event.State(r.NewState), Dur: event.Unknown,
			Origin: event.Tracepoint, Err: r.SkErr, IfIndex: r.Ifindex, ISN: r.Isn, SynRetrans: event.Unknown,
			TaskPID: r.TaskPid, TaskTID: r.TaskTid, TaskComm: n.String(&r.TaskComm),
			UID: r.Uid, Cgroup: n.Cgroup(r.CgroupId), CgroupID: r.CgroupId,
		},
		Kind: record.Kind(r.Kind), Listener: r.Listener, Flags: record.Flags(r.Flags), SRTT: r.SrttUs >> 3,
		Segment: r.SegmentFlags, Losses: r.Losses,
	}
	e := &rec.Event
	switch rec.Kind {
	case record.Accepted, record.AcceptedPerhaps:
		e.Type, e.Old = event.Accept, e.New
	case record.Change, record.SecondChange:
		rec.Closing, rec.SoftErr = record.Closing(r.Closing), r.IcmpErr
	case record.NoSyn:
		e.Type, e.Role, e.OwnerVia, e.Err = event.ConnectFailed, event.Client, event.ViaConnect, int32(r.ConnectErr)
	case record.ConnectReturned:
		e.Err = int32(r.ConnectErr)
	case record.ResetSent:
	case record.ProcessExited:
		e.OwnerPID = r.TaskPid
		return rec
	default:
		e.Origin, rec.Mini, rec.Retries = event.FromTimer, rec.Kind != record.SynSentStarted, r.SynackTimeouts
	}
	if r.Ifindex != 0 {
		e.IfName = n.device(r.Netns, r.Ifindex)
	}
	handshake := e.Old == event.SynSent || e.Old == event.SynRecv || rec.Mini && e.New == event.SynRecv
	if handshake && r.SynRetrans != math.MaxUint16 {
		e.SynRetrans = int32(r.SynRetrans)
	}
	wildcard := e.Old == event.Listen && e.New == event.Close || e.New == event.Listen
	e.Family, e.Local, e.Remote = linux.Tuple(uint16(r.Family), &r.Laddr, &r.Raddr, r.Lport, r.Rport, wildcard)
	if r.Stack >= 0 {
		e.Stack = uint32(r.Stack) + 1
	}
	if r.IsOwner != 0 {
		e.OwnerPID, e.OwnerComm = r.TaskPid, n.String(&r.OwnerComm)
	}
	return rec
}
