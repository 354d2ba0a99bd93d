package handshakes

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
	w := v.legWidth
	return fmt.Sprintf("%-*s %*s %*s %*s %*s  %-*s %-*s %-*s %-*s STATE\n",
		len(text.Clock), "TIME", w, "SYN", w, "SYN-ACK", w, "ACK", w, "ACCEPT",
		v.widths.Address, "CLIENT", v.widths.Process, "CLIENT'S OWNER",
		v.widths.Address, "SERVER", v.widths.Process, "SERVER'S OWNER")
}

// line returns the line about a handshake.
func (v *View) line(c pair.Conn, state string, of [legs]int64) string {
	legs := v.legs(c, of)
	client, server := addresses(c)
	v.widths.FitAddress(max(utf8.RuneCountInString(client), utf8.RuneCountInString(server)))
	clientOwner, serverOwner := v.owners(owner(c.Client), owner(c.Server))
	_, wall := began(c)
	return fmt.Sprintf("%s%s  %-*s %-*s %-*s %-*s %s\n",
		time.Unix(0, wall).Format(text.Clock), legs,
		v.widths.Address, client, v.widths.Process, clientOwner,
		v.widths.Address, server, v.widths.Process, serverOwner, v.outcome(c, state))
}

// legs returns the four columns of legs. If one end measured only the sum of two legs, the sum
// spans both columns.
func (v *View) legs(c pair.Conn, of [legs]int64) string {
	for _, ns := range of {
		if len(text.Duration(ns)) > v.legWidth+1 { // µ takes two bytes
			v.legWidth = text.DurationWidth
		}
	}
	cell := func(leg int) string { return fmt.Sprintf(" %*s", v.legWidth, text.Duration(of[leg])) }
	span := func(sum int) string { return " " + bracket(text.Duration(of[sum]), 2*v.legWidth+1) }
	switch {
	case of[connect] != event.Unknown && endState(c.Client) == established &&
		(of[syn] == event.Unknown || of[synAck] == event.Unknown):
		return span(connect) + cell(ack) + cell(accept)
	case c.Client == nil && of[serve] != event.Unknown &&
		(endState(c.Server) != failed || c.Server.Deferred > 0):
		return cell(syn) + span(serve) + cell(accept)
	}
	return cell(syn) + cell(synAck) + cell(ack) + cell(accept)
}

// bracket returns text centered in ├── ──┤.
func bracket(text string, width int) string {
	free := width - utf8.RuneCountInString(text) - 4
	return "├" + strings.Repeat("─", free-free/2) + " " + text + " " + strings.Repeat("─", free/2) + "┤"
}

// addresses returns the addresses of the client and the server. They are taken from the client's
// end if it is on this host.
func addresses(c pair.Conn) (client, server string) {
	if c.Client != nil {
		zone := c.Client.Zone()
		return text.AddressIn(c.Client.Local, zone), text.AddressIn(c.Client.Remote, zone)
	}
	zone := c.Server.Zone()
	return text.AddressIn(c.Server.Remote, zone), text.AddressIn(c.Server.Local, zone)
}

// owners returns two processes as text. It widens their columns if necessary.
func (v *View) owners(client, server pair.Process) (string, string) {
	c, s := text.Process(client.PID, client.Comm), text.Process(server.PID, server.Comm)
	either := client.PID | server.PID // HostPID is set if either PID has it
	v.widths.FitProcess(max(utf8.RuneCountInString(c), utf8.RuneCountInString(s)), either)
	return c, s
}

// outcome returns the state, followed by remarks.
func (v *View) outcome(c pair.Conn, state string) string {
	line := state
	if reason, err, end := failure(c); end != nil {
		if after := failedAfter(end); after != event.Unknown {
			line += " after " + text.Time(after)
		}
		line += ": " + text.Reason(cmp.Or(reason, event.ReasonUnexplained), err)
		if end == c.Server && c.Client != nil {
			line += " (server's end)"
		}
	}
	if state == failed || state == lost {
		line = text.Alarm(line, v.color)
	}
	for _, remark := range remarks(c, state) {
		line += ", " + remark
	}
	return line
}

// remarks returns everything that a person should know beyond the times and the state.
func remarks(c pair.Conn, state string) (all []string) {
	if client := c.Client; client != nil {
		if client.NoSyn() {
			all = append(all, "no SYN was sent")
		}
		if client.Local.IsValid() && client.Local == client.Remote {
			all = append(all, "connected to itself")
		}
	}
	if state == established && c.Server != nil {
		all = append(all, "no accept() seen")
	}
	if c.Server != nil && c.Server.Deferred > 0 {
		all = append(all, "waited "+text.Time(c.Server.Deferred)+" for data (TCP_DEFER_ACCEPT)")
	}
	if c.Client != nil && c.Client.SynRetrans > 0 {
		all = append(all, fmt.Sprintf("SYN retransmitted %d×", c.Client.SynRetrans))
	}
	if c.Server != nil && c.Server.SynRetrans > 0 {
		all = append(all, fmt.Sprintf("SYN-ACK retransmitted %d×", c.Server.SynRetrans))
	}
	if c.Client != nil && c.Client.Pairing == pair.Perhaps {
		all = append(all, "perhaps two connections")
	}
	if c.Redirected() {
		all = append(all, "arrived at "+text.AddressIn(c.Server.Local, c.Server.Zone()))
	}
	if c.Lost() {
		all = append(all, "lines lost")
	}
	return all
}
