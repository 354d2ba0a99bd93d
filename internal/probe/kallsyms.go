//go:build linux

package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
)

// timerFunctions are the functions by which the kernel side knows a mini-sock's timer: symbol of the kernel, variable of the object.
var timerFunctions = map[string]string{
	"reqsk_timer_handler": bpfVarReqskTimerHandler,
	"tw_timer_handler":    bpfVarTwTimerHandler,
	"tcp_write_timer":     bpfVarTcpWriteTimer,
}

var errHiddenSymbols = errors.New("/proc/kallsyms hides the kernel's addresses")

// findTimers gives the addresses of timerFunctions. They are all 0 for who may not see them (kernel.kptr_restrict=2, or without CAP_SYSLOG).
func findTimers() (map[string]uint64, error) {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := make(map[string]uint64)
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(found) < len(timerFunctions) {
		f := bytes.Fields(lines.Bytes())
		if len(f) < 3 {
			continue
		}
		if _, ok := timerFunctions[string(f[2])]; !ok {
			continue
		}
		addr, err := strconv.ParseUint(string(f[0]), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read /proc/kallsyms: %w", err)
		}
		if addr == 0 {
			return nil, errHiddenSymbols
		}
		found[string(f[2])] = addr
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read /proc/kallsyms: %w", err)
	}
	for name := range timerFunctions {
		if found[name] == 0 {
			return nil, fmt.Errorf("no %s in /proc/kallsyms", name)
		}
	}
	return found, nil
}

// traceTimers tells the kernel side which timers are a mini-sock's.
func traceTimers(spec *ebpf.CollectionSpec, addrs map[string]uint64) error {
	for symbol, variable := range timerFunctions {
		if err := spec.Variables[variable].Set(addrs[symbol]); err != nil {
			return err
		}
	}
	return nil
}
