package leaks

import (
	"cmp"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
)

// leak is the NDJSON line about a socket that has become stuck, or is no longer stuck.
// docs/ndjson.md describes the keys.
type leak struct {
	ndjson.Head
	Over      bool     `json:"over"`
	State     string   `json:"state"`
	New       *string  `json:"new"`
	Age       *int64   `json:"age_ns"`
	AtLeast   *int64   `json:"age_min_ns"`
	ID        *uint64  `json:"id"`
	Cookie    *uint64  `json:"cookie"`
	NetNS     *uint64  `json:"netns"`
	Family    string   `json:"family"`
	LAddr     *string  `json:"laddr"`
	LPort     *uint64  `json:"lport"`
	RAddr     *string  `json:"raddr"`
	RPort     *uint64  `json:"rport"`
	RecvQueue *int64   `json:"recv_q"`
	SendQueue *int64   `json:"send_q"`
	Waiting   *int64   `json:"accept_q"`
	MayWait   *int64   `json:"accept_max"`
	OwnerPID  *uint64  `json:"owner_pid"`
	OwnerComm *string  `json:"owner_comm"`
	OwnerVia  *string  `json:"owner_via"`
	Opened    *opened  `json:"opened"`
	Holders   []holder `json:"holders"`
	IfIndex   *uint64  `json:"ifindex"`
	IfName    *string  `json:"ifname"`
	Attached  *string  `json:"attached"`
	Proto     string   `json:"proto"`
}

// opened describes the call that connected or accepted.
type opened struct {
	Via   string   `json:"via"`
	PID   uint32   `json:"pid"`
	TID   *uint64  `json:"tid"`
	Comm  string   `json:"comm"`
	Stack []string `json:"stack"`
}

// holder is a process that holds a socket.
type holder struct {
	PID       uint32  `json:"pid"`
	Comm      string  `json:"comm"`
	FD        *uint32 `json:"fd"`
	Exe       *string `json:"exe"`
	Container *string `json:"container"`
	Unit      *string `json:"unit"`
	Slot      *uint32 `json:"slot"`
	RingFD    *uint32 `json:"ring_fd"`

	event.Holder `json:"-"`
}

// newHolder returns h together with what process returns about it. process may be nil.
func newHolder(h *event.Holder, process func(pid uint32) (executable, cgroup string)) holder {
	v := holder{PID: h.PID, Comm: h.Comm, FD: &h.FD, Holder: *h}
	if h.How == event.BySlot {
		v.FD, v.Slot, v.RingFD = nil, &h.Slot, &h.FD
	}
	if process != nil {
		executable, cgroup := process(h.PID)
		of := event.Event{Cgroup: cgroup}
		v.Exe, v.Container, v.Unit = ndjson.Known(executable, ""), ndjson.Known(of.Container(), ""),
			ndjson.Known(of.Unit(), "")
	}
	return v
}

func newLeak(s *socket, process func(pid uint32) (executable, cgroup string)) *leak {
	l := &leak{
		Head: ndjson.NewHead("leak", s.Wall, s.Mono), State: s.New.String(),
		Age: ndjson.Known(s.Dur, event.Unknown), AtLeast: ndjson.Known(s.Status.AtLeast, event.Unknown),
		ID: ndjson.Known(s.ID, 0), Cookie: ndjson.Known(s.Cookie, 0), NetNS: ndjson.Known(uint64(s.NetNS), 0),
		Family: s.Family.String(), Proto: s.Proto.String(), IfIndex: ndjson.Known(uint64(s.IfIndex), 0),
		IfName: ndjson.Known(s.IfName, ""),
		LPort:  ndjson.Known(uint64(s.Local.Port()), 0), RPort: ndjson.Known(uint64(s.Remote.Port()), 0),
		OwnerPID: ndjson.Known(uint64(s.OwnerPID), 0), OwnerVia: ndjson.Known(s.OwnerVia.String(), ""),
		Attached: ndjson.Known(s.Status.Attached.String(), ""),
	}
	if a := s.Local.Addr(); a.IsValid() {
		l.LAddr = ndjson.Known(a.String(), "")
	}
	if a := s.Remote.Addr(); a.IsValid() {
		l.RAddr = ndjson.Known(a.String(), "")
	}
	if s.OwnerPID != 0 {
		l.OwnerComm = &s.OwnerComm
	}
	if s.New == event.Listen {
		l.Waiting, l.MayWait = ndjson.Known(s.Status.RecvQueue, event.Unknown),
			ndjson.Known(s.Status.SendQueue, event.Unknown)
	} else {
		l.RecvQueue, l.SendQueue = ndjson.Known(s.Status.RecvQueue, event.Unknown),
			ndjson.Known(s.Status.SendQueue, event.Unknown)
	}
	if s.Status.Holders != nil {
		l.Holders = make([]holder, 0, len(s.Status.Holders))
	}
	for i := range s.Status.Holders {
		l.Holders = append(l.Holders, newHolder(&s.Status.Holders[i], process))
	}
	return l
}

// sum is a line at the end of the run. It says how many of a process's sockets are stuck in a
// state, or have been in it for an unknown time.
type sum struct {
	ndjson.Head
	PID     *uint64 `json:"pid"`
	Comm    *string `json:"comm"`
	State   string  `json:"state"`
	Count   int     `json:"count"`
	Age     *int64  `json:"age_ns"`
	AtLeast *int64  `json:"age_min_ns"`
	Proto   string  `json:"proto"`
}

// The possible types of a sum.
const (
	typeLeaks      = "leaks"
	typeUnknownAge = "unknown_age"
)

func (n *sum) ageUnknown() bool { return n.Type == typeUnknownAge }

// sumUp returns the sums of the stuck sockets, followed by the sums of the sockets whose age is
// unknown. The largest sum comes first in each part. A socket counts once for each process that
// holds it.
func sumUp(stuck, agesUnknown []*socket, end *event.Event) []*sum {
	type key struct {
		kind  string
		pid   uint32
		state event.State
		proto event.Proto
	}
	var all []*sum
	byKey := make(map[key]*sum)
	add := func(kind string, s *socket) {
		for _, h := range holdersOf(s) {
			k := key{kind, h.PID, s.New, s.Proto}
			n := byKey[k]
			if n == nil {
				n = &sum{
					Head: ndjson.NewHead(kind, end.Wall, end.Mono), PID: ndjson.Known(uint64(h.PID), 0),
					State: s.New.String(),
					Age:   ndjson.Known(s.Dur, event.Unknown), AtLeast: ndjson.Known(s.Status.AtLeast, event.Unknown),
					Proto: s.Proto.String(),
				}
				if h.PID != 0 {
					n.Comm = &h.Comm
				}
				byKey[k] = n
				all = append(all, n)
			}
			n.Count++
		}
	}
	for _, s := range stuck { // the oldest comes first, and its age becomes the age of the sum
		s.setAge(end.Mono)
		add(typeLeaks, s)
	}
	for _, s := range agesUnknown {
		add(typeUnknownAge, s)
	}
	slices.SortStableFunc(all, func(a, b *sum) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Count, a.Count))
	})
	return all
}

func (n *sum) rank() int {
	if n.ageUnknown() {
		return 1
	}
	return 0
}

// holdersOf returns each process that holds s, once. If the holders are unknown, it returns the
// owner. If there are none, it returns the zero Holder.
func holdersOf(s *socket) []event.Holder {
	switch holders := s.Status.Holders; {
	case holders == nil:
		return []event.Holder{{PID: s.OwnerPID, Comm: s.OwnerComm}}
	case len(holders) == 0:
		return []event.Holder{{}}
	default:
		var each []event.Holder
		for _, h := range holders {
			if !slices.ContainsFunc(each, func(o event.Holder) bool { return o.PID == h.PID }) {
				each = append(each, h)
			}
		}
		return each
	}
}
