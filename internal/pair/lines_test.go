package pair

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"sstrace/internal/event"
)

var states = func() map[string]event.State {
	m := make(map[string]event.State)
	for _, s := range event.States() {
		m[s.String()] = s
	}
	return m
}()

var roles = map[string]event.Role{"client": event.Client, "server": event.Server, "listener": event.Listener}

// lines parses text into lines that are 1 µs apart: "ID NETNS ROLE LOCAL REMOTE OLD NEW", "lost",
// "accept ID", and "wait", which waits for a second. "ID OLD NEW" copies the other fields from the
// previous line with that ID. A line may end with a device, "dev=3", and an initial sequence
// number, "isn=4".
func lines(text string) (all []event.Event) {
	last := make(map[string]event.Event)
	mono := int64(1e9)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		mono += 1000
		var e event.Event
		switch f[0] {
		case "lost":
			e = event.Event{Type: event.Lost, RingFull: 1}
		case "wait":
			mono += 1e9
			continue
		case "accept":
			e = last[f[1]]
			e.Type, e.Dur = event.Accept, 1000
			e.OwnerPID, e.OwnerComm, e.OwnerVia = 77, "worker", event.ViaAccept
		default:
			e = change(f, mono, last)
		}
		e.Mono, e.Wall = mono, mono
		if e.Type == event.Change {
			last[fmt.Sprint(e.ID)] = e
		}
		all = append(all, e)
	}
	return all
}

func change(f []string, mono int64, last map[string]event.Event) event.Event {
	var isn, dev uint32
	for ; strings.Contains(f[len(f)-1], "="); f = f[:len(f)-1] {
		fmt.Sscanf(f[len(f)-1], "isn=%d", &isn)
		fmt.Sscanf(f[len(f)-1], "dev=%d", &dev)
	}
	before, continues := last[f[0]]
	e := before
	if len(f) > 3 {
		e = event.Event{
			Role: roles[f[2]], Local: addr(f[3]), Remote: addr(f[4]),
			Family: event.IPv4, Proto: event.TCP, Origin: event.Tracepoint, SynRetrans: event.Unknown,
		}
		fmt.Sscan(f[0], &e.ID)
		fmt.Sscan(f[1], &e.NetNS)
		if e.ID == 51 || e.ID == 52 {
			e.Proto = event.MPTCP
		}
		e.Sk = 0xffff0000 + e.ID
	}
	e.ISN = isn
	if dev != 0 {
		e.IfIndex = dev
	}
	e.Old, e.New = states[f[len(f)-2]], states[f[len(f)-1]]
	if e.Old == event.Listen && e.New == event.SynRecv {
		e.Origin = event.FromTimer
	}
	e.Dur = event.Unknown
	if continues && before.New == e.Old {
		e.Dur = mono - before.Mono
	}
	return e
}

func addr(text string) (a netip.AddrPort) {
	if text == "-" {
		return a
	}
	if rest, ok := strings.CutSuffix(text, ":-"); ok {
		return netip.AddrPortFrom(netip.MustParseAddr(rest), 0)
	}
	return netip.MustParseAddrPort(text)
}

// talk returns the lines of one complete connection. The IDs of its ends are id and id+1.
func talk(id uint64, netns uint32, client, server netip.AddrPort) []event.Event {
	return lines(fmt.Sprintf(`
		%[1]d %[5]d client %[3]v %[4]v CLOSE SYN_SENT
		%[2]d %[5]d server %[4]v %[3]v LISTEN SYN_RECV
		%[1]d SYN_SENT ESTABLISHED
		%[2]d SYN_RECV ESTABLISHED
		accept %[2]d
		%[1]d ESTABLISHED FIN_WAIT1
		%[2]d ESTABLISHED CLOSE_WAIT
		%[2]d CLOSE_WAIT LAST_ACK
		%[1]d FIN_WAIT1 FIN_WAIT2
		%[1]d FIN_WAIT2 TIME_WAIT
		%[2]d LAST_ACK CLOSE`, id, id+1, client, server, netns))
}

// next removes and returns a line from one of several streams. r chooses the stream.
func next(r *rand.Rand, streams *[][]event.Event) event.Event {
	all := *streams
	i := r.IntN(len(all))
	e := all[i][0]
	if all[i] = all[i][1:]; len(all[i]) == 0 {
		all[i] = all[len(all)-1]
		*streams = all[:len(all)-1]
	}
	return e
}
