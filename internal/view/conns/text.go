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

// widths are those of the columns. They grow, for good, when something needs more: so columns stay aligned.
type widths struct{ address, owner int }

const (
	clock = "15:04:05.000000000"
	ipv6  = len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
)

func (c *Conns) row(opened, life, role, local, remote, owner, sent, received, rtt, first, end, states string) string {
	return fmt.Sprintf("%-*s %14s %-6s %-*s %-*s %-*s %8s %8s %7s %-5s %-24s %s\n", len(clock), opened, life, role, c.widths.address, local, c.widths.address, remote,
		c.widths.owner, owner, sent, received, rtt, first, end, states)
}

func (c *Conns) header() string {
	return c.row("OPENED", "LIFE", "ROLE", "LOCAL", "REMOTE", "OWNER", "SENT", "RECEIVED", "RTT", "FIRST", "END", "STATES")
}

// line writes one end.
func (c *Conns) line(e *pair.End) string {
	local, remote := text.AddressIn(e.Local, e.Zone()), text.AddressIn(e.Remote, e.Zone())
	who := text.Process(e.Owner.PID, e.Owner.Comm)
	if n := max(utf8.RuneCountInString(local), utf8.RuneCountInString(remote)); n > c.widths.address {
		c.widths.address = max(ipv6, n)
	}
	if utf8.RuneCountInString(who) > c.widths.owner {
		c.widths.owner = max(c.widths.owner, text.ProcessWidth(e.Owner.PID))
	}
	sent, received, rtt := "-", "-", "-"
	if t := e.Totals; t.Known {
		sent, received = text.Bytes(t.BytesAcked), text.Bytes(t.BytesReceived)
		rtt = roundTrip(&t)
	}
	return c.row(opened(e), text.Duration(c.life(e)), text.OrDash(e.Role.String()), local, remote, who, sent, received, rtt, first(e), c.end(e), c.states(e))
}

func opened(e *pair.End) string {
	if e.Older || e.NoSyn {
		return "-"
	}
	_, wall := e.Began()
	return time.Unix(0, wall).Format(clock)
}

// first tells which side closed first.
func first(e *pair.End) string {
	switch e.Closer {
	case event.WeClosed:
		return "here"
	case event.TheyClosed:
		return "peer"
	}
	return "-"
}

// noSyn reports whether it is known that e sent no SYN.
func noSyn(e *pair.End) bool { return e.NoSyn || e.Reason == event.ReasonNoPort }

// end tells how it ended, or that it is open.
func (c *Conns) end(e *pair.End) string {
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

// states tells the time in each state.
func (c *Conns) states(e *pair.End) string {
	var parts []string
	for i, s := range e.Path {
		switch {
		case s.State == event.TimeWait:
			continue
		case s.Dur != event.Unknown:
			parts = append(parts, s.State.String()+" "+text.Time(s.Dur))
		case i == len(e.Path)-1 && c.state(e) != event.Unknown:
			parts = append(parts, s.State.String()+" "+text.Time(c.state(e))+" so far")
		default:
			parts = append(parts, s.State.String()+" -")
		}
		if s.State == event.SynRecv && e.Deferred > 0 {
			parts[len(parts)-1] += " (waited " + text.Time(e.Deferred) + " for data)"
		}
		if s.State == event.Established && e.Queued != event.Unknown {
			parts[len(parts)-1] += " (queued " + text.Time(e.Queued) + ")"
		}
	}
	if noSyn(e) {
		parts = append(parts, "no SYN was sent")
	}
	if n := e.Totals.Retrans; n > 0 {
		parts = append(parts, fmt.Sprintf("%d sent again", n))
	}
	if e.Lost() {
		parts = append(parts, "lines lost")
	}
	return strings.Join(parts, ", ")
}

// roundTrip returns the round-trip time that the application saw, which the kernel has in whole µs; "-" if it is unknown. Behind a
// FIN it contains the time for which the peer delayed its ACK.
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
