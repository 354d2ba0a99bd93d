package print

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"sstrace/internal/event"
)

// What a text is made of, for who tells something else than lines.

// Address gives address:port, "-" for an unknown one of them.
func Address(a netip.AddrPort) string { return string(AppendAddress(nil, a)) }

// AddressIn returns address:port of a socket with this Event.Zone, which a link-local address is printed with.
func AddressIn(a netip.AddrPort, zone string) string { return string(AppendAddressIn(nil, a, zone)) }

// ProcessWidth returns how wide a column of processes must be for one of pid: names of hostile bytes may need more.
func ProcessWidth(pid uint32) int {
	if pid&event.HostPID != 0 {
		return hostWidth
	}
	return ownerWidth
}

// Local returns the local end of e, as AppendLocal writes it.
func Local(e *event.Event) string { return string(AppendLocal(nil, e, false)) }

// Remote returns the remote end of e, as AppendRemote writes it.
func Remote(e *event.Event) string { return string(AppendRemote(nil, e)) }

// Process gives PID/COMM, or "-" for pid 0.
func Process(pid uint32, comm string) string {
	return string(AppendProcess(nil, pid, comm, pid != 0))
}

// Why gives the reason why a connection ended and the socket's error, as far as there are.
func Why(r event.Reason, err int32) string {
	return string((&text{}).appendReason(nil, &event.Event{Reason: r, Err: err}))
}

// Gap gives the line that tells of a Lost.
func Gap(e *event.Event, color bool) string {
	t := &text{clock: "wall", color: color}
	return string(t.appendLost(t.appendTime(nil, e), e))
}

// Alarm gives text, red if there is color.
func Alarm(text string, color bool) string {
	if !color || text == "" {
		return text
	}
	return red + text + reset
}

// State gives the name of s, in its color if there is color.
func State(s event.State, color bool) string {
	if c := StateColor[s]; color && c != "" {
		return c + s.String() + reset
	}
	return s.String()
}

// Bytes gives a number of bytes to three digits: 1.05 MB.
func Bytes(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for ; v >= 999.5; unit++ {
		v /= 1000
	}
	return digits(v) + " " + "kMGTPE"[unit:unit+1] + "B"
}

// Duration gives ns exactly, or - for Unknown.
func Duration(ns int64) string {
	if ns == event.Unknown {
		return "-"
	}
	return time.Duration(ns).String()
}

// Time gives ns to three digits, 57.3µs, and from a minute on in minutes and seconds, hours and minutes, or days and hours.
func Time(ns int64) string {
	switch v := float64(ns); {
	case ns < 1000:
		return strconv.FormatInt(ns, 10) + "ns"
	case v < 999.5e3:
		return digits(v/1e3) + "µs"
	case v < 999.5e6:
		return digits(v/1e6) + "ms"
	case v < 59.95e9:
		return digits(v/1e9) + "s"
	default:
		s := int64(math.Round(v / 1e9))
		if s < 3600 {
			return fmt.Sprintf("%dm%02ds", s/60, s%60)
		}
		if s < 86400 {
			return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
		}
		return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
	}
}

// digits writes v, which is less than 1000, to three digits.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
