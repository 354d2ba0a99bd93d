package handshakes

import (
	"cmp"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
	"sstrace/internal/quantile"
)

// line is the NDJSON line about a handshake. docs/ndjson.md describes the keys.
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
	ID uint64 `json:"id"`
	pair.Keys
	SynRetrans *int32 `json:"syn_retrans"`
	pair.OwnerKeys
}

func newLine(c pair.Conn, state string, of [legs]int64) *line {
	mono, wall := began(c)
	ns := func(leg int) *int64 { return ndjson.Known(of[leg], event.Unknown) }
	l := &line{
		Head: ndjson.NewHead("handshake", wall, mono), State: state,
		Syn: ns(syn), SynAck: ns(synAck), Ack: ns(ack), Accept: ns(accept),
		Connect: ns(connect), Serve: ns(serve), Defer: ns(deferred),
		NoSyn: c.Client != nil && c.Client.NoSyn(), Lost: c.Lost(), Client: newEnd(c.Client), Server: newEnd(c.Server),
	}
	if c.Client != nil {
		l.Pairing = ndjson.Known(c.Client.Pairing.String(), "")
	}
	if reason, err, of := failure(c); of != nil {
		l.Reason, l.Err = ndjson.Known(reason.String(), ""), ndjson.Known(err, 0)
		side := "client"
		if of == c.Server {
			side = "server"
		}
		l.Failed = &side
	}
	return l
}

func newEnd(e *pair.End) *end {
	if e == nil {
		return nil
	}
	return &end{
		ID: e.ID, Keys: e.Keys(), OwnerKeys: e.OwnerKeys(owner(e)),
		SynRetrans: ndjson.Known(e.SynRetrans, event.Unknown),
	}
}

// summary is the NDJSON line about a group in a report. docs/ndjson.md describes the keys.
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

func (v *View) newSummary(r *report, t *tally, group string, others bool) *summary {
	leg := func(i int) *percentiles { return newPercentiles(t.times[i]) }
	s := &summary{
		Head:     ndjson.NewHead("handshakes", r.Wall, r.End),
		Interval: r.End - r.Begin, Final: r.Final,
		By: ndjson.Known(v.By, ""), Group: ndjson.Known(group, ""), Others: others,
		Accepted: t.states[accepted], Estab: t.states[established], Failed: t.states[failed],
		Open: t.states[open], Lost: t.states[lost], Reasons: make(map[string]uint64),
		Syn: leg(syn), SynAck: leg(synAck), Ack: leg(ack), Accept: leg(accept),
		Connect: leg(connect), Serve: leg(serve), Defer: leg(deferred),
	}
	for reason, n := range t.reasons {
		s.Reasons[reasonName(reason)] += n
	}
	return s
}

// reasonName returns the name of r. In the kernel vocabulary there are no reasons.
func reasonName(r event.Reason) string { return cmp.Or(r, event.ReasonUnexplained).String() }

type percentiles struct {
	Count uint64 `json:"count"`
	Min   int64  `json:"min_ns"`
	P50   int64  `json:"p50_ns"`
	P90   int64  `json:"p90_ns"`
	P99   int64  `json:"p99_ns"`
	P999  int64  `json:"p999_ns"`
	Max   int64  `json:"max_ns"`
}

// newPercentiles returns the percentiles of times, or nil if times is nil.
func newPercentiles(times *quantile.Sketch) *percentiles {
	if times == nil {
		return nil
	}
	q := times.Quantile
	return &percentiles{times.Count(), times.Min(), q(0.5), q(0.9), q(0.99), q(0.999), times.Max()}
}
