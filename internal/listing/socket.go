//go:build linux

package listing

import (
	"math"

	"sstrace/internal/event"
	"sstrace/internal/linux"

	"golang.org/x/sys/unix"
)

// blankEvents returns events that socket can fill.
func blankEvents(n int) []event.Event {
	events, statuses := make([]event.Event, n), make([]event.Status, n)
	for i := range events {
		events[i].Status = &statuses[i]
	}
	return events
}

func (l *Lister) newEvent(f *listSockFound, role event.Role) event.Event {
	e := event.Event{Status: new(event.Status)}
	l.socket(f, &e)
	e.Role = role
	return e
}

// port is a port in a network namespace.
type port struct {
	netns  uint32
	number uint16
}

// role returns the role of f. It must be called for the sockets in a namespace in order, listeners
// first. backlog0 contains the listeners with a backlog of 0, whose children look like clients.
func role(f *listSockFound, backlog0 map[port]bool) event.Role {
	at := port{f.Netns, f.Lport}
	switch {
	case f.NoRole != 0 || event.State(f.State) == event.Close:
		return 0
	case f.IsMini != 0:
		if f.Listener != 0 {
			return event.Server
		}
	case event.State(f.State) == event.Listen:
		if f.AcceptBacklog == 0 && backlog0 != nil {
			backlog0[at] = true
		}
		return event.Listener
	case f.AcceptBacklog != 0:
		return event.Server // only listen() sets it, and only a child inherits it (sk_clone_lock in net/core/sock.c)
	case !backlog0[at]:
		return event.Client
	}
	return 0
}

// socket fills e and its Status with what the iterator found.
func (l *Lister) socket(f *listSockFound, e *event.Event) {
	state := event.State(f.State)
	*e.Status = event.Status{
		RecvQueue: int64(f.RecvQueue), SendQueue: int64(f.SendQueue), AtLeast: event.Unknown, Left: event.Unknown,
		Attached: event.Attached(f.Attached), HeldAs: f.Mptcp,
	}
	*e = event.Event{
		Type: event.Socket, Wall: l.clock.Wall(int64(f.MonoNs)), Mono: int64(f.MonoNs),
		Cookie: f.Cookie, Sk: f.Sk, NetNS: f.Netns, Proto: linux.Proto(f.Proto), New: state,
		Dur: event.Unknown, SynRetrans: event.Unknown,
		UID: f.Uid, Cgroup: l.names.Cgroup(f.CgroupId), CgroupID: f.CgroupId,
		Status: e.Status,
	}
	unconnected := state == event.Listen || state == event.Close
	e.Family, e.Local, e.Remote = linux.Tuple(f.Family, &f.Laddr, &f.Raddr, f.Lport, f.Rport, unconnected)
	if e.IfIndex = f.Ifindex; e.IfIndex != 0 && e.IfIndex == f.IfnameOf {
		e.IfName = unix.ByteSliceToString(f.Ifname[:])
	}
	if e.Family == event.IPv6 && unconnected {
		e.Status.V6Only = event.No
		if f.V6only != 0 {
			e.Status.V6Only = event.Yes
		}
	}
	if e.Status.Mini = f.IsMini != 0; e.Status.Mini || e.Proto == event.MPTCP || state == event.Close {
		e.Status.RecvQueue, e.Status.SendQueue = event.Unknown, event.Unknown
	}
	if state == event.Listen && f.NoRole == 0 {
		e.Status.RecvQueue, e.Status.SendQueue = int64(f.RecvQueue), int64(f.AcceptBacklog)
	}
	setAge(f, e)
}

// setAge sets how long e has been in its state and how long it will stay there, to the extent that
// the socket itself shows this.
func setAge(f *listSockFound, e *event.Event) {
	switch state := e.New; {
	case state == event.Listen || state == event.Close:
	case state == event.FinWait2 && f.IsMini == 0 && f.Left != math.MaxUint32:
		e.Status.Left = finWait2Left(f, jiffy(f.Jiffies, e.Mono))
		e.Status.AtLeast = atLeast(f)
	case f.Listener != 0:
		e.SynRetrans = int32(f.Retrans)
		if f.SynackUs != 0 {
			e.Dur = e.Mono - int64(f.SynackUs)*1000
		}
	case f.IsMini != 0:
		e.UID = event.NoUID
		if jiffy := jiffy(f.Jiffies, e.Mono); jiffy != 0 {
			e.Status.Left = int64(f.Left) * jiffy
		}
	case state != event.FinWait1 && state != event.LastAck:
		// The state started with a segment or a connect(), which set the time (tcp_mstamp_refresh
		// in tcp_rcv_established, tcp_rcv_state_process and tcp_connect), as did any later segment.
		// A close() may not set it: its FIN may go with data that has already been sent.
		e.Status.AtLeast = atLeast(f)
	}
}

// atLeast returns how long ago, in ns, f last handled a segment, or event.Unknown.
func atLeast(f *listSockFound) int64 {
	if f.ActiveUs == 0 {
		return event.Unknown
	}
	return max(int64(f.MonoNs)-int64(f.ActiveUs)*1000, 0)
}

// finWait2Left returns how long an orphan in FIN_WAIT2 that is a full socket has left, in ns. Its
// timer ends it, unless it may wait for more than TCP_TIMEWAIT_LEN. In that case the timer turns it
// into a timewait sock, which lasts for the rest of that wait (tcp_fin_time in include/net/tcp.h,
// tcp_keepalive_timer in net/ipv4/tcp_timer.c, tcp_time_wait in net/ipv4/tcp_minisocks.c).
func finWait2Left(f *listSockFound, jiffy int64) int64 {
	const timewait = 60e9
	if jiffy == 0 {
		return event.Unknown
	}
	left := max(int64(int32(f.Left)), 0) * jiffy // below 0: the timer is about to fire
	if f.FinLinger < 0 {
		return left
	}
	least := int64(f.Rto<<2-f.Rto>>1) * jiffy
	wait := int64(f.FinTimeout) * jiffy
	if f.FinLinger > 0 {
		wait = int64(f.FinLinger) * jiffy
	}
	if more := max(wait, least) - timewait; more > 0 {
		left += max(more, least)
	}
	return left
}

// jiffy returns the length of a jiffy in ns, or 0 if it cannot be determined. count is jiffies_64
// when CLOCK_MONOTONIC was mono; both stand still while the machine sleeps. The kernel is built
// with one of a few frequencies, and its count starts 5 minutes before 2^32 (INITIAL_JIFFIES in
// include/linux/jiffies.h).
func jiffy(count uint64, mono int64) int64 {
	const begin = 300e9 // when the count is near 2^32, it does not reveal the frequency
	since := mono - begin
	if max(since, -since) < 30e9 {
		return 0
	}
	hz := (float64(count) - 1<<32) / float64(since) * 1e9
	whole := math.Round(hz)
	if whole < 1 || math.Abs(hz-whole) > whole/100 {
		return 0
	}
	return int64(1e9 / whole)
}
