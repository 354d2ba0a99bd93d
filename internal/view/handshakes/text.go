package handshakes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/pair"
	"sstrace/internal/quantile"
	"sstrace/internal/text"
)

// widths are those of the columns. They grow, for good, when something needs more: so columns stay aligned.
type widths struct{ leg, address, owner int }

const (
	clock  = "15:04:05.000000000"
	longer = len("1m0.000123456s")
	ipv6   = len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
)

func (h *Handshakes) header() string {
	return fmt.Sprintf("%-*s %*s %*s %*s %*s  %-*s %-*s %-*s %-*s STATE\n", len(clock), "TIME", h.widths.leg, "SYN", h.widths.leg, "SYN-ACK", h.widths.leg, "ACK",
		h.widths.leg, "ACCEPT", h.widths.address, "CLIENT", h.widths.owner, "CLIENT'S OWNER", h.widths.address, "SERVER", h.widths.owner, "SERVER'S OWNER")
}

// line writes a handshake. What one end tells of two legs together spans both columns.
func (h *Handshakes) line(c pair.Conn, state string, of [legs]int64) string {
	for _, ns := range of {
		if len(text.Duration(ns)) > h.widths.leg+1 { // µ has two bytes
			h.widths.leg = longer
		}
	}
	w := h.widths.leg
	cell := func(i int) string { return fmt.Sprintf(" %*s", w, text.Duration(of[i])) }
	both := func(i int) string { return " " + spanned(text.Duration(of[i]), 2*w+1) }
	var legs string
	switch {
	case of[connect] != event.Unknown && stateOf(c.Client) == established && (of[syn] == event.Unknown || of[synAck] == event.Unknown):
		legs = both(connect) + cell(ack)
	case c.Client == nil && of[serve] != event.Unknown && (stateOf(c.Server) != failed || c.Server.Deferred > 0):
		legs = cell(syn) + both(serve)
	default:
		legs = cell(syn) + cell(synAck) + cell(ack)
	}
	client, server := addresses(c)
	if n := max(utf8.RuneCountInString(client), utf8.RuneCountInString(server)); n > h.widths.address {
		h.widths.address = max(ipv6, n)
	}
	clientOwner, serverOwner := text.Process(who(c.Client).PID, who(c.Client).Comm), text.Process(who(c.Server).PID, who(c.Server).Comm)
	if max(utf8.RuneCountInString(clientOwner), utf8.RuneCountInString(serverOwner)) > h.widths.owner {
		h.widths.owner = max(h.widths.owner, text.ProcessWidth(who(c.Client).PID), text.ProcessWidth(who(c.Server).PID))
	}
	_, wall := began(c)
	return fmt.Sprintf("%s%s%s  %-*s %-*s %-*s %-*s %s\n", time.Unix(0, wall).Format(clock), legs, cell(accept), h.widths.address, client, h.widths.owner, clientOwner,
		h.widths.address, server, h.widths.owner, serverOwner, h.outcome(c, state))
}

// addresses gives the client's and the server's, as the client's end sees them if it is here.
func addresses(c pair.Conn) (client, server string) {
	if c.Client != nil {
		return text.AddressIn(c.Client.Local, c.Client.Zone()), text.AddressIn(c.Client.Remote, c.Client.Zone())
	}
	return text.AddressIn(c.Server.Remote, c.Server.Zone()), text.AddressIn(c.Server.Local, c.Server.Zone())
}

// spanned writes text in the middle of ├── ──┤.
func spanned(text string, width int) string {
	free := width - utf8.RuneCountInString(text) - 4
	return "├" + strings.Repeat("─", free-free/2) + " " + text + " " + strings.Repeat("─", free/2) + "┤"
}

// outcome tells the state, and what there is to say about it.
func (h *Handshakes) outcome(c pair.Conn, state string) string {
	line := state
	if reason, err, end := why(c); end != nil {
		if after := failedAfter(end); after != event.Unknown {
			line += " after " + text.Time(after)
		}
		line += ": " + text.Reason(cmp.Or(reason, event.ReasonUnexplained), err)
		if end == c.Server && c.Client != nil {
			line += " (server's end)"
		}
	}
	if state == failed || state == lost {
		line = text.Alarm(line, h.color)
	}
	if noSyn(c.Client) {
		line += ", no SYN was sent"
	}
	if c.Client != nil && c.Client.Local.IsValid() && c.Client.Local == c.Client.Remote {
		line += ", with itself"
	}
	if state == established && c.Server != nil {
		line += ", no accept() seen"
	}
	if c.Server != nil && c.Server.Deferred > 0 {
		line += ", waited " + text.Time(c.Server.Deferred) + " for data (TCP_DEFER_ACCEPT)"
	}
	if c.Client != nil && c.Client.SynRetrans > 0 {
		line += fmt.Sprintf(", SYN sent again %d×", c.Client.SynRetrans)
	}
	if c.Server != nil && c.Server.SynRetrans > 0 {
		line += fmt.Sprintf(", SYN-ACK sent again %d×", c.Server.SynRetrans)
	}
	if c.Client != nil && c.Client.Pairing == pair.Perhaps {
		line += ", perhaps two connections"
	}
	if c.Client != nil && c.Server != nil && c.Client.Remote != c.Server.Local {
		line += ", came to " + text.AddressIn(c.Server.Local, c.Server.Zone())
	}
	if c.Client != nil && c.Client.Lost() || c.Server != nil && c.Server.Lost() {
		line += ", lines lost"
	}
	return line
}

// shown is how many groups a person gets to see.
const shown = 20

var titles = [legs]string{"SYN", "SYN-ACK", "ACK", "ACCEPT", "SYN + SYN-ACK", "SYN-ACK + ACK", "WAIT FOR DATA"}

func (h *Handshakes) tables(of span, part func(*group) *tally) error {
	var b strings.Builder
	groups := h.sorted(part)
	all := newTally()
	for _, g := range groups {
		if err := all.add(part(g)); err != nil {
			return err
		}
	}
	if err := all.add(part(h.others)); err != nil {
		return err
	}
	if h.wrote {
		b.WriteByte('\n')
	}
	h.wrote, h.tabled = true, true
	layout := "15:04:05"
	if h.Interval%time.Second != 0 {
		layout = "15:04:05.000"
	}
	fmt.Fprintf(&b, "%s  %s in %v", time.Unix(0, of.end+h.wall).Format(layout), all.amount(), time.Duration(of.end-of.begin).Round(time.Millisecond))
	if of.final {
		b.WriteString(", the whole run")
	}
	b.WriteByte('\n')
	if of.lost > 0 {
		fmt.Fprintf(&b, "--- %d changes lost in this time, the ring buffer was full: a filter or a larger --buffer helps ---\n", of.lost)
	}
	if h.By == "" {
		all.table(&b)
		return h.lines.Text(b.String())
	}
	for _, g := range groups[:min(shown, len(groups))] {
		t := part(g)
		fmt.Fprintf(&b, "\n%s %s: %s\n", h.By, groupName(g.name), t.amount())
		t.table(&b)
	}
	rest := newTally()
	for _, g := range groups[min(shown, len(groups)):] {
		if err := rest.add(part(g)); err != nil {
			return err
		}
	}
	if err := rest.add(part(h.others)); err != nil {
		return err
	}
	if rest.handshakes() > 0 {
		fmt.Fprintf(&b, "\nall others: %s\n", rest.amount())
		rest.table(&b)
	}
	if part(h.others).handshakes() > 0 {
		fmt.Fprintf(&b, "\n--- more than %d groups: those that came later are only in the last table ---\n", most)
	}
	return h.lines.Text(b.String())
}

// groupName writes a name; that of a container as docker ps has it.
func groupName(name string) string {
	switch {
	case name == "":
		return "-"
	case len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "":
		return name[:12]
	}
	return text.Visible(name)
}

// amount tells how many handshakes there were, and how they ended.
func (t *tally) amount() string {
	n := t.handshakes()
	text := fmt.Sprintf("%d handshakes", n)
	if n == 1 {
		text = "1 handshake"
	}
	var parts []string
	for _, s := range []string{accepted, established, failed, open, lost} {
		if t.states[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t.states[s], s))
		}
	}
	if len(parts) == 0 {
		return text
	}
	return text + " (" + strings.Join(parts, ", ") + ")"
}

// table writes the percentiles of each leg, and why handshakes failed.
func (t *tally) table(b *strings.Builder) {
	if slices.ContainsFunc(t.times[:], func(q *quantile.Sketch) bool { return q != nil }) {
		fmt.Fprintf(b, "%-13s %10s %8s %8s %8s %8s %8s %8s\n", "LEG", "COUNT", "MIN", "P50", "P90", "P99", "P99.9", "MAX")
	}
	for i, title := range titles {
		p := percentilesOf(t.times[i])
		if p == nil {
			continue
		}
		fmt.Fprintf(b, "%-13s %10d %8s %8s %8s %8s %8s %8s\n", title, p.Count, text.Time(p.Min), text.Time(p.P50), text.Time(p.P90), text.Time(p.P99), text.Time(p.P999), text.Time(p.Max))
	}
	reasons := slices.SortedFunc(maps.Keys(t.why), func(x, y event.Reason) int { return cmp.Or(cmp.Compare(t.why[y], t.why[x]), cmp.Compare(x, y)) })
	if len(reasons) > 0 {
		fmt.Fprintf(b, "%-13s %10s\n", "FAILED", "COUNT")
	}
	for _, r := range reasons {
		fmt.Fprintf(b, "%-13s %10d\n", reasonName(r), t.why[r])
	}
}
