//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/record"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	recordSize = int(unsafe.Sizeof(bpfEvent{}))
	closedSize = int(unsafe.Sizeof(bpfClosed{}))
)

// decode reads a record of the ring in place: a length check and a cast. The compiler keeps bpfEvent in step with the object
// (bpf2go), and a test compares both with the object's BTF.
func decode(raw []byte) (*bpfEvent, error) {
	if len(raw) < recordSize {
		return nil, fmt.Errorf("record of %d bytes where struct event has %d", len(raw), recordSize)
	}
	return (*bpfEvent)(unsafe.Pointer(unsafe.SliceData(raw))), nil
}

// totals reads what stands behind the record of a change to CLOSE.
func (n *namer) totals(raw []byte) (t event.Totals) {
	if len(raw) < closedSize {
		return t
	}
	c := (*bpfClosed)(unsafe.Pointer(unsafe.SliceData(raw)))
	if c.IsTcp == 0 {
		return t
	}
	t = event.Totals{
		Known: true, BytesAcked: c.BytesAcked, BytesReceived: c.BytesReceived, SegsOut: c.SegsOut, SegsIn: c.SegsIn, Retrans: c.Retrans, SRTT: c.SrttUs >> 3,
		Cong: n.comm((*[16]byte)(unsafe.Pointer(&c.Cong))),
	}
	if c.MinRttUs != math.MaxUint32 {
		t.MinRTT = c.MinRttUs
	}
	return t
}

// namer turns the kernel's numbers and bytes into names, each allocated once.
type namer struct {
	comms    map[[16]byte]string
	lastComm [16]byte
	last     string
	cgroups  map[uint64]string
	cgroupFS cgroupFS
	devices  *ebpf.Map // names, by network namespace and number; nil: none are known
}

// maxNames bounds each cache; a host that runs through more begins anew.
const maxNames = 1 << 14

func newNamer() *namer {
	return &namer{comms: make(map[[16]byte]string), cgroups: make(map[uint64]string), cgroupFS: openCgroupFS()}
}

func (n *namer) comm(b *[16]byte) string {
	if *b == n.lastComm {
		return n.last
	}
	s, ok := n.comms[*b]
	if !ok {
		if len(n.comms) >= maxNames {
			clear(n.comms)
		}
		text, _, _ := bytes.Cut(b[:], []byte{0})
		s = string(text)
		n.comms[*b] = s
	}
	n.lastComm, n.last = *b, s
	return s
}

// cgroup gives the path of a cgroup, or "" when it is gone or cannot be looked up.
func (n *namer) cgroup(id uint64) string {
	if id == 0 {
		return ""
	}
	path, ok := n.cgroups[id]
	if !ok {
		if len(n.cgroups) >= maxNames {
			clear(n.cgroups)
		}
		path = n.cgroupFS.path(id)
		n.cgroups[id] = path
	}
	return path
}

// device returns the name of a device, or "" if it is unknown. It may be renamed, so it is looked up each time.
func (n *namer) device(netns, ifindex uint32) string {
	var name [16]byte
	if n.devices == nil || n.devices.Lookup(bpfDevice{Netns: netns, Ifindex: ifindex}, &name) != nil {
		return ""
	}
	return n.comm(&name)
}

// record translates what the kernel side reports. What the socket's history adds is the tracker's.
func (n *namer) record(r *bpfEvent) record.Record {
	rec := record.Record{
		Event: event.Event{
			Type: event.Change, Mono: int64(r.MonoNs), CPU: uint32(r.Cpu), Cookie: r.Cookie, Sk: r.Sk, NetNS: r.Netns, Proto: proto(r.Proto),
			Old: event.State(r.OldState), New: event.State(r.NewState), Dur: event.Unknown, Origin: event.Tracepoint, Err: r.SkErr,
			IfIndex: r.Ifindex, ISN: r.Isn, TaskPID: r.TaskPid, TaskTID: r.TaskTid, SynRetrans: event.Unknown, TaskComm: n.comm(&r.TaskComm),
			UID: r.Uid, Cgroup: n.cgroup(r.CgroupId), CgroupID: r.CgroupId,
		},
		Kind: record.Kind(r.Kind), Listener: r.Listener, Flags: record.Flags(r.Flags), SRTT: r.SrttUs >> 3, Segment: r.SegmentFlags, Losses: r.Losses,
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
	if (e.Old == event.SynSent || e.Old == event.SynRecv || rec.Mini && e.New == event.SynRecv) && r.SynRetrans != math.MaxUint16 {
		e.SynRetrans = int32(r.SynRetrans)
	}
	wildcard := e.Old == event.Listen && e.New == event.Close || e.New == event.Listen
	e.Family, e.Local, e.Remote = ends(uint16(r.Family), &r.Laddr, &r.Raddr, r.Lport, r.Rport, wildcard)
	if r.Stack >= 0 {
		e.Stack = uint32(r.Stack) + 1
	}
	if r.IsOwner != 0 {
		e.OwnerPID, e.OwnerComm = r.TaskPid, n.comm(&r.OwnerComm)
	}
	return rec
}

// ends gives the two ends. All addresses (0.0.0.0, ::) is an address of a listener only; elsewhere, and for a remote end without
// port, the kernel just does not know it yet.
func ends(family uint16, laddr, raddr *[16]byte, lport, rport uint16, wildcard bool) (event.Family, netip.AddrPort, netip.AddrPort) {
	local, remote := netip.AddrFrom16(*laddr), netip.AddrFrom16(*raddr)
	f := event.IPv6
	switch {
	case family == unix.AF_INET:
		f = event.IPv4
	case local.Is4In6() || remote.Is4In6():
		f = event.Mapped
	}
	local, remote = local.Unmap(), remote.Unmap()
	if local.IsUnspecified() && !wildcard {
		local = netip.Addr{}
	}
	if rport == 0 {
		remote = netip.Addr{}
	}
	return f, netip.AddrPortFrom(local, lport), netip.AddrPortFrom(remote, rport)
}

func proto(p uint16) event.Proto {
	switch p {
	case unix.IPPROTO_MPTCP:
		return event.MPTCP
	case unix.IPPROTO_SCTP:
		return event.SCTP
	}
	return event.TCP
}

// clock turns CLOCK_MONOTONIC into wall time. Their distance jumps when somebody sets the clock or the machine wakes up, and only
// then (both are slewed alike), so it is looked at once a second of the record's time and kept while it is right within the
// precision of looking: wall times then differ as exactly as monotonic ones.
type clock struct {
	offset int64
	looked int64
}

func (c *clock) wall(mono int64) int64 {
	if mono-c.looked > 1e9 || c.looked == 0 {
		c.look()
	}
	return mono + c.offset
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}

func (c *clock) look() {
	best, offset := int64(1<<62), int64(0)
	for range 3 {
		var real unix.Timespec
		before := monotonic()
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &real)
		after := monotonic()
		if after-before < best {
			best, offset = after-before, real.Nano()-(before+after)/2
		}
	}
	if off := offset - c.offset; off > best || off < -best {
		c.offset = offset
	}
	c.looked = monotonic()
}
