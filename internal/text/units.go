package text

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"sstrace/internal/event"
)

// Bytes returns n bytes to three significant digits: 1.05 MB.
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

// Duration returns ns exactly, or "-" if it is event.Unknown.
func Duration(ns int64) string {
	if ns == event.Unknown {
		return "-"
	}
	return time.Duration(ns).String()
}

// Time returns ns to three significant digits, 57.3µs. From one minute up, it returns minutes and
// seconds, hours and minutes, or days and hours.
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

// digits returns v, which must be less than 1000, to three significant digits.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// Count returns n and a noun in the plural that adds an s: "1 handshake", "2 handshakes".
func Count(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatUint(n, 10) + " " + noun
}
