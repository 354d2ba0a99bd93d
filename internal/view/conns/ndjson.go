package conns

import (
	"strconv"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/pair"
)

// line is the NDJSON line about an end. docs/ndjson.md describes the keys.
type line struct {
	ndjson.Head
	ID      uint64  `json:"id"`
	PeerID  *uint64 `json:"peer_id"`
	Pairing *string `json:"pairing"`
	pair.Keys
	Role        *string       `json:"role"`
	State       string        `json:"state"`
	StateTime   *int64        `json:"state_ns"`
	Open        bool          `json:"open"`
	Lost        bool          `json:"lost"`
	Opened      *string       `json:"opened"`
	OpenedMono  *int64        `json:"opened_mono_ns"`
	Life        *int64        `json:"life_ns"`
	States      stateTimes    `json:"states"`
	Queued      *int64        `json:"queue_ns"`
	Deferred    *int64        `json:"defer_ns"`
	NoSyn       bool          `json:"no_syn"`
	ActiveClose *bool         `json:"active_close"`
	Reason      *string       `json:"reason"`
	Err         *int32        `json:"err"`
	SynRetrans  *int32        `json:"syn_retrans"`
	Totals      *event.Totals `json:"totals"`
	pair.OwnerKeys
}

// stateTimes is a JSON object with the time in each state, in the order in which the states were
// entered.
type stateTimes []pair.Step

// MarshalJSON implements json.Marshaler.
func (s stateTimes) MarshalJSON() ([]byte, error) {
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

func (v *View) newLine(e *pair.End) *line {
	l := &line{
		Head: ndjson.NewHead("conn", e.Last.Wall, e.Last.Mono),
		ID:   e.ID, Pairing: ndjson.Known(e.Pairing.String(), ""), Keys: e.Keys(),
		Role: ndjson.Known(e.Role.String(), ""), State: e.State().String(),
		StateTime: ndjson.Known(v.stateTime(e), event.Unknown), Open: !e.Over, Lost: e.Lost(),
		Life: ndjson.Known(v.life(e), event.Unknown), States: e.Path,
		Queued: ndjson.Known(e.Queued, event.Unknown), Deferred: ndjson.Known(e.Deferred, 0), NoSyn: e.NoSyn(),
		Reason: ndjson.Known(e.Reason.String(), ""), Err: ndjson.Known(e.Err, 0),
		SynRetrans: ndjson.Known(e.SynRetrans, event.Unknown), Totals: &e.Totals,
		OwnerKeys: e.OwnerKeys(e.Owner),
	}
	if e.Peer != nil {
		l.PeerID = &e.Peer.ID
	}
	if !e.Older && !e.ConnectFailed {
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
