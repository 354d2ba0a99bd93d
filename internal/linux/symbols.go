//go:build linux

package linux

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
)

var errHiddenSymbols = errors.New("/proc/kallsyms hides the kernel's addresses")

// Range is the code of a function: its first address, and the first address of the next function.
type Range struct{ Begin, End uint64 }

// Timers are the functions by which the kernel side recognises the timers of mini-sockets, and
// those that handle an ICMP message for a TCP connection.
type Timers struct {
	// Handlers are the addresses of reqsk_timer_handler, tw_timer_handler and tcp_write_timer.
	Handlers map[string]uint64
	// ICMP is the code of tcp_v4_err and tcp_v6_err; a Range is zero if it is unknown.
	ICMP [2]Range
}

// FindTimers looks up the functions in /proc/kallsyms. It fails if a handler is missing, or if this
// process may not see addresses (kernel.kptr_restrict=2, or without CAP_SYSLOG): the file then
// contains zeros.
func FindTimers() (*Timers, error) {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	handlers, icmp, err := findSymbols(file,
		[]string{"reqsk_timer_handler", "tw_timer_handler", "tcp_write_timer"}, []string{"tcp_v4_err", "tcp_v6_err"})
	if err != nil {
		return nil, err
	}
	return &Timers{handlers, [2]Range(icmp)}, nil
}

// findSymbols returns the addresses of some functions and the code of others.
func findSymbols(kallsyms io.Reader, addresses, ranges []string) (map[string]uint64, []Range, error) {
	found := make(map[string]uint64)
	code := make([]Range, len(ranges))
	complete := func() bool {
		return len(found) == len(addresses) &&
			!slices.ContainsFunc(code, func(r Range) bool { return r.End == 0 || r.End == math.MaxUint64 })
	}
	lines := bufio.NewScanner(kallsyms)
	for lines.Scan() && !complete() {
		f := bytes.Fields(lines.Bytes())
		if len(f) < 3 {
			continue
		}
		addr, err := strconv.ParseUint(string(f[0]), 16, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("read /proc/kallsyms: %w", err)
		}
		name := string(f[2])
		if i := slices.Index(ranges, name); i >= 0 && code[i].Begin == 0 {
			code[i] = Range{addr, math.MaxUint64}
		}
		for i := range code { // symbols are sorted by address, except those of modules
			if addr > code[i].Begin && addr < code[i].End {
				code[i].End = addr
			}
		}
		if slices.Contains(addresses, name) {
			if addr == 0 {
				return nil, nil, errHiddenSymbols
			}
			found[name] = addr
		}
	}
	if err := lines.Err(); err != nil {
		return nil, nil, fmt.Errorf("read /proc/kallsyms: %w", err)
	}
	for _, name := range addresses {
		if found[name] == 0 {
			return nil, nil, fmt.Errorf("/proc/kallsyms has no %s", name)
		}
	}
	for i := range code {
		if code[i].End == math.MaxUint64 {
			code[i] = Range{}
		}
	}
	return found, code, nil
}
