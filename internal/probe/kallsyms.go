//go:build linux

package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
)

// timerFunctions are the functions by which the kernel side knows a mini-sock's timer: symbol of the kernel, variable of the object.
var timerFunctions = map[string]string{
	"reqsk_timer_handler": bpfVarReqskTimerHandler,
	"tw_timer_handler":    bpfVarTwTimerHandler,
	"tcp_write_timer":     bpfVarTcpWriteTimer,
}

// icmpHandlers are the functions of the kernel that take an ICMP message for a TCP connection.
var icmpHandlers = []string{"tcp_v4_err", "tcp_v6_err"}

var errHiddenSymbols = errors.New("/proc/kallsyms hides the kernel's addresses")

// symbols are what the kernel side knows by address.
type symbols struct {
	timers map[string]uint64
	icmp   [4]uint64 // of each of icmpHandlers where it begins and where the next function does; 0: unknown
}

// findSymbols returns the addresses of timerFunctions and icmpHandlers. They are all 0 for a process that may not see them
// (kernel.kptr_restrict=2, or without CAP_SYSLOG).
func findSymbols() (*symbols, error) {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := &symbols{timers: make(map[string]uint64)}
	lines := bufio.NewScanner(file)
	for lines.Scan() && !found.complete() {
		f := bytes.Fields(lines.Bytes())
		if len(f) < 3 {
			continue
		}
		addr, err := strconv.ParseUint(string(f[0]), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read /proc/kallsyms: %w", err)
		}
		name := string(f[2])
		if i := slices.Index(icmpHandlers, name); i >= 0 && found.icmp[2*i] == 0 {
			found.icmp[2*i], found.icmp[2*i+1] = addr, math.MaxUint64
		}
		// The list is in the order of addresses, but for modules.
		for i := 0; i < len(found.icmp); i += 2 {
			if addr > found.icmp[i] && addr < found.icmp[i+1] {
				found.icmp[i+1] = addr
			}
		}
		if _, ok := timerFunctions[name]; !ok {
			continue
		}
		if addr == 0 {
			return nil, errHiddenSymbols
		}
		found.timers[name] = addr
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read /proc/kallsyms: %w", err)
	}
	for i := 0; i < len(found.icmp); i += 2 {
		if found.icmp[i+1] == math.MaxUint64 {
			found.icmp[i], found.icmp[i+1] = 0, 0
		}
	}
	for name := range timerFunctions {
		if found.timers[name] == 0 {
			return nil, fmt.Errorf("no %s in /proc/kallsyms", name)
		}
	}
	return found, nil
}

// complete reports whether nothing is left to find.
func (s *symbols) complete() bool {
	return len(s.timers) == len(timerFunctions) && !slices.ContainsFunc(s.icmp[:], func(addr uint64) bool { return addr == 0 || addr == math.MaxUint64 })
}

// trace passes the addresses to the kernel side.
func (s *symbols) trace(spec *ebpf.CollectionSpec) error {
	for symbol, variable := range timerFunctions {
		if err := spec.Variables[variable].Set(s.timers[symbol]); err != nil {
			return err
		}
	}
	return spec.Variables[bpfVarIcmpHandlers].Set(s.icmp)
}
