package conns

import (
	"strconv"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
)

// line is that of an end; docs/ndjson.md has the keys.
type line struct {
	ndjson.Head
	ID          uint64        `json:"id"`
	PeerID      *uint64       `json:"peer_id"`
	Pairing     *string       `json:"pairing"`
	Cookie      *uint64       `json:"cookie"`
	NetNS       *uint32       `json:"netns"`
	Family      string        `json:"family"`
	Proto       string        `json:"proto"`
	LocalAddr   *string       `json:"laddr"`
	LocalPort   *uint16       `json:"lport"`
	RemoteAddr  *string       `json:"raddr"`
	RemotePort  *uint16       `json:"rport"`
	IfIndex     *uint32       `json:"ifindex"`
	IfName      *string       `json:"ifname"`
	Role        *string       `json:"role"`
	State       string        `json:"state"`
	StateTime   *int64        `json:"state_ns"`
	Open        bool          `json:"open"`
	Lost        bool          `json:"lost"`
	Opened      *string       `json:"opened"`
	OpenedMono  *int64        `json:"opened_mono_ns"`
	Life        *int64        `json:"life_ns"`
	States      stateSum      `json:"states"`
	Queued      *int64        `json:"queue_ns"`
	Deferred    *int64        `json:"defer_ns"`
	NoSyn       bool          `json:"no_syn"`
	ActiveClose *bool         `json:"active_close"`
	Reason      *string       `json:"reason"`
	Err         *int32        `json:"err"`
	SynRetrans  *int32        `json:"syn_retrans"`
	Totals      *event.Totals `json:"totals"`
	OwnerPID    *uint32       `json:"owner_pid"`
	OwnerHost   *uint32       `json:"owner_host_pid"`
	OwnerComm   *string       `json:"owner_comm"`
	OwnerVia    *string       `json:"owner_via"`
	Container   *string       `json:"container"`
	Unit        *string       `json:"unit"`
}

// stateSum is the time in each state, in the order of the path.
type stateSum []pair.Step

// MarshalJSON implements json.Marshaler.
func (s stateSum) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, step := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, step.State.String())
		b = append(b, ':')
		if step.Dur == event.Unknown {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendInt(b, step.Dur, 10)
		}
	}
	return append(b, '}'), nil
}

func (c *Conns) jsonLine(e *pair.End) *line {
	l := &line{
		Head: ndjson.NewHead("conn", e.Last.Wall, e.Last.Mono),
		ID:   e.ID, Cookie: ndjson.Known(e.Cookie, 0), NetNS: ndjson.Known(e.NetNS, 0), Family: e.Family.String(), Proto: e.Proto.String(),
		LocalPort: ndjson.Known(e.Local.Port(), 0), RemotePort: ndjson.Known(e.Remote.Port(), 0), Role: ndjson.Known(e.Role.String(), ""),
		State: e.State().String(), StateTime: ndjson.Known(c.state(e), event.Unknown), Open: !e.Over, Lost: e.Lost(),
		Life: ndjson.Known(c.life(e), event.Unknown), States: e.Path, Queued: ndjson.Known(e.Queued, event.Unknown),
		Reason: ndjson.Known(e.Reason.String(), ""), Err: ndjson.Known(e.Err, 0), SynRetrans: ndjson.Known(e.SynRetrans, event.Unknown),
		IfIndex: ndjson.Known(e.IfIndex, 0), IfName: ndjson.Known(e.IfName, ""), Deferred: ndjson.Known(e.Deferred, 0), NoSyn: noSyn(e),
		Totals: &e.Totals, Pairing: ndjson.Known(e.Pairing.String(), ""), OwnerVia: ndjson.Known(e.Owner.Via.String(), ""), Container: ndjson.Known(e.Container(), ""), Unit: ndjson.Known(e.Unit(), ""),
	}
	l.OwnerPID, l.OwnerHost = ndjson.PIDs(e.Owner.PID)
	if a := e.Local.Addr(); a.IsValid() {
		l.LocalAddr = ndjson.Known(a.String(), "")
	}
	if a := e.Remote.Addr(); a.IsValid() {
		l.RemoteAddr = ndjson.Known(a.String(), "")
	}
	if e.Owner.PID != 0 {
		l.OwnerComm = &e.Owner.Comm
	}
	if e.Peer != nil {
		l.PeerID = &e.Peer.ID
	}
	if !e.Older && !e.NoSyn {
		mono, wall := e.Began()
		opened := string(event.AppendTime(nil, wall))
		l.Opened, l.OpenedMono = &opened, &mono
	}
	if e.Closer != 0 {
		active := e.Closer == event.WeClosed
		l.ActiveClose = &active
	}
	return l
}
