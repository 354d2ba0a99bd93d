package handshakes

import (
	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/quantile"
)

// line is that of a handshake; docs/ndjson.md has the keys.
type line struct {
	ndjson.Head
	State   string  `json:"state"`
	Pairing *string `json:"pairing"`
	Syn     *int64  `json:"syn_ns"`
	SynAck  *int64  `json:"synack_ns"`
	Ack     *int64  `json:"ack_ns"`
	Accept  *int64  `json:"accept_ns"`
	Connect *int64  `json:"connect_ns"`
	Serve   *int64  `json:"server_ns"`
	Defer   *int64  `json:"defer_ns"`
	NoSyn   bool    `json:"no_syn"`
	Reason  *string `json:"reason"`
	Err     *int32  `json:"err"`
	Failed  *string `json:"failed_end"`
	Lost    bool    `json:"lost"`
	Client  *end    `json:"client"`
	Server  *end    `json:"server"`
}

type end struct {
	ID         uint64  `json:"id"`
	Cookie     *uint64 `json:"cookie"`
	NetNS      *uint32 `json:"netns"`
	Family     string  `json:"family"`
	Proto      string  `json:"proto"`
	LocalAddr  *string `json:"laddr"`
	LocalPort  *uint16 `json:"lport"`
	RemoteAddr *string `json:"raddr"`
	RemotePort *uint16 `json:"rport"`
	IfIndex    *uint32 `json:"ifindex"`
	IfName     *string `json:"ifname"`
	SynRetrans *int32  `json:"syn_retrans"`
	OwnerPID   *uint32 `json:"owner_pid"`
	OwnerHost  *uint32 `json:"owner_host_pid"`
	OwnerComm  *string `json:"owner_comm"`
	OwnerVia   *string `json:"owner_via"`
	Container  *string `json:"container"`
	Unit       *string `json:"unit"`
}

func jsonLine(c pair.Conn, state string, of [legs]int64) *line {
	mono, wall := began(c)
	ns := func(leg int) *int64 { return ndjson.Known(of[leg], event.Unknown) }
	l := &line{
		Head: ndjson.NewHead("handshake", wall, mono), State: state,
		Syn: ns(syn), SynAck: ns(synAck), Ack: ns(ack), Accept: ns(accept), Connect: ns(connect), Serve: ns(serve),
		Defer: ns(deferred), NoSyn: noSyn(c.Client),
		Client: jsonEnd(c.Client), Server: jsonEnd(c.Server),
		Lost: c.Client != nil && c.Client.Lost() || c.Server != nil && c.Server.Lost(),
	}
	if c.Client != nil {
		l.Pairing = ndjson.Known(c.Client.Pairing.String(), "")
	}
	if reason, err, of := why(c); of != nil {
		l.Reason, l.Err = ndjson.Known(reason.String(), ""), ndjson.Known(err, 0)
		side := "client"
		if of == c.Server {
			side = "server"
		}
		l.Failed = &side
	}
	return l
}

func jsonEnd(e *pair.End) *end {
	if e == nil {
		return nil
	}
	owner := who(e)
	j := &end{
		ID: e.ID, Cookie: ndjson.Known(e.Cookie, 0), NetNS: ndjson.Known(e.NetNS, 0), Family: e.Family.String(), Proto: e.Proto.String(),
		LocalPort: ndjson.Known(e.Local.Port(), 0), RemotePort: ndjson.Known(e.Remote.Port(), 0), SynRetrans: ndjson.Known(e.SynRetrans, event.Unknown),
		IfIndex: ndjson.Known(e.IfIndex, 0), IfName: ndjson.Known(e.IfName, ""), OwnerVia: ndjson.Known(owner.Via.String(), ""), Container: ndjson.Known(e.Container(), ""), Unit: ndjson.Known(e.Unit(), ""),
	}
	j.OwnerPID, j.OwnerHost = ndjson.PIDs(owner.PID)
	if a := e.Local.Addr(); a.IsValid() {
		j.LocalAddr = ndjson.Known(a.String(), "")
	}
	if a := e.Remote.Addr(); a.IsValid() {
		j.RemoteAddr = ndjson.Known(a.String(), "")
	}
	if owner.PID != 0 {
		j.OwnerComm = &owner.Comm
	}
	return j
}

// began gives the moment of the first line.
func began(c pair.Conn) (mono, wall int64) {
	for _, e := range []*pair.End{c.Client, c.Server} {
		if e == nil {
			continue
		}
		if m, w := e.Began(); mono == 0 || m < mono {
			mono, wall = m, w
		}
	}
	return mono, wall
}

// summary is what there was in a span; docs/ndjson.md has the keys.
type summary struct {
	ndjson.Head
	Interval int64             `json:"interval_ns"`
	Final    bool              `json:"final"`
	By       *string           `json:"by"`
	Group    *string           `json:"group"`
	Others   bool              `json:"others"`
	Accepted uint64            `json:"accepted"`
	Estab    uint64            `json:"established"`
	Failed   uint64            `json:"failed"`
	Open     uint64            `json:"open"`
	Lost     uint64            `json:"lost"`
	Reasons  map[string]uint64 `json:"reasons"`
	Syn      *percentiles      `json:"syn"`
	SynAck   *percentiles      `json:"synack"`
	Ack      *percentiles      `json:"ack"`
	Accept   *percentiles      `json:"accept"`
	Connect  *percentiles      `json:"connect"`
	Serve    *percentiles      `json:"server"`
	Defer    *percentiles      `json:"defer"`
}

type percentiles struct {
	Count uint64 `json:"count"`
	Min   int64  `json:"min_ns"`
	P50   int64  `json:"p50_ns"`
	P90   int64  `json:"p90_ns"`
	P99   int64  `json:"p99_ns"`
	P999  int64  `json:"p999_ns"`
	Max   int64  `json:"max_ns"`
}

func (h *Handshakes) summary(of span, t *tally, group string, others bool) *summary {
	s := &summary{
		Head: ndjson.NewHead("handshakes", of.end+h.wall, of.end), Interval: of.end - of.begin, Final: of.final, By: ndjson.Known(h.By, ""), Group: ndjson.Known(group, ""), Others: others,
		Accepted: t.states[accepted], Estab: t.states[established], Failed: t.states[failed], Open: t.states[open], Lost: t.states[lost],
		Reasons: make(map[string]uint64),
		Syn:     percentilesOf(t.times[syn]), SynAck: percentilesOf(t.times[synAck]), Ack: percentilesOf(t.times[ack]),
		Accept: percentilesOf(t.times[accept]), Connect: percentilesOf(t.times[connect]), Serve: percentilesOf(t.times[serve]),
		Defer: percentilesOf(t.times[deferred]),
	}
	for r, n := range t.why {
		s.Reasons[reasonName(r)] += n
	}
	return s
}

// reasonName: the kernel vocabulary tells none.
func reasonName(r event.Reason) string {
	if r == 0 {
		r = event.ReasonUnexplained
	}
	return r.String()
}

func percentilesOf(times *quantile.Sketch) *percentiles {
	if times == nil {
		return nil
	}
	q := times.Quantile
	return &percentiles{times.Count(), times.Min(), q(0.5), q(0.9), q(0.99), q(0.999), times.Max()}
}
