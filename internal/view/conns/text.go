package conns

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/pair"
	"sstrace/internal/text"
)

func (v *View) header() string {
	return v.row(
		"OPENED", "LIFE", "ROLE", "LOCAL", "REMOTE", "OWNER", "SENT", "RECEIVED", "RTT", "FIRST", "END", "STATES",
	)
}

// line returns the line about an end.
func (v *View) line(e *pair.End) string {
	local, remote := text.AddressIn(e.Local, e.Zone()), text.AddressIn(e.Remote, e.Zone())
	owner := text.Process(e.Owner.PID, e.Owner.Comm)
	v.widths.FitAddress(max(utf8.RuneCountInString(local), utf8.RuneCountInString(remote)))
	v.widths.FitProcess(utf8.RuneCountInString(owner), e.Owner.PID)
	sent, received, rtt := "-", "-", "-"
	if t := e.Totals; t.Known {
		sent, received = text.Bytes(t.BytesAcked), text.Bytes(t.BytesReceived)
		rtt = roundTrip(&t)
	}
	return v.row(
		opened(e), text.Duration(v.life(e)), text.OrDash(e.Role.String()), local, remote, owner,
		sent, received, rtt, closedFirst(e), outcome(e), v.states(e),
	)
}

func (v *View) row(opened, life, role, local, remote, owner, sent, received, rtt, first, end, states string) string {
	return fmt.Sprintf("%-*s %14s %-6s %-*s %-*s %-*s %8s %8s %7s %-5s %-24s %s\n",
		len(text.Clock), opened, life, role, v.widths.Address, local, v.widths.Address, remote, v.widths.Process, owner,
		sent, received, rtt, first, end, states)
}

func opened(e *pair.End) string {
	if e.Older || e.ConnectFailed {
		return "-"
	}
	_, wall := e.Began()
	return time.Unix(0, wall).Format(text.Clock)
}

// closedFirst returns which side closed first.
func closedFirst(e *pair.End) string {
	switch e.Closer {
	case event.WeClosed:
		return "here"
	case event.TheyClosed:
		return "peer"
	}
	return "-"
}

// outcome returns how e ended, or says that it is still open.
func outcome(e *pair.End) string {
	switch {
	case e.Gone:
		return "lost"
	case !e.Over:
		return "open"
	case e.State() == event.TimeWait:
		return "TIME_WAIT"
	}
	return text.Reason(e.Reason, e.Err)
}

// states returns the time in each state, and remarks.
func (v *View) states(e *pair.End) string {
	var parts []string
	for i, s := range e.Path {
		if s.State == event.TimeWait {
			continue
		}
		part := s.State.String() + " -"
		if s.Dur != event.Unknown {
			part = s.State.String() + " " + text.Time(s.Dur)
		} else if i == len(e.Path)-1 && v.stateTime(e) != event.Unknown {
			part = s.State.String() + " " + text.Time(v.stateTime(e)) + " so far"
		}
		if s.State == event.SynRecv && e.Deferred > 0 {
			part += " (waited " + text.Time(e.Deferred) + " for data)"
		}
		if s.State == event.Established && e.Queued != event.Unknown {
			part += " (queued " + text.Time(e.Queued) + ")"
		}
		parts = append(parts, part)
	}
	if e.NoSyn() {
		parts = append(parts, "no SYN was sent")
	}
	if n := e.Totals.Retrans; n > 0 {
		parts = append(parts, fmt.Sprintf("%d retransmitted", n))
	}
	if e.Lost() {
		parts = append(parts, "lines lost")
	}
	return strings.Join(parts, ", ")
}

// roundTrip returns the round-trip time, or "-" if it is unknown. The kernel measures it in whole
// µs. The value from ESTABLISHED is preferred, because that is the one the application experienced:
// after a FIN, the round-trip time also includes the peer's delayed ACK.
func roundTrip(t *event.Totals) string {
	switch us := cmp.Or(t.SRTTOpen, t.SRTT); {
	case us == 0:
		return "-"
	case us < 1000:
		return fmt.Sprintf("%dµs", us)
	default:
		return text.Time(int64(us) * 1000)
	}
}
