//go:build linux

package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"
	"sstrace/internal/listing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
)

// KERNEL_VERSION in include/linux/version.h.
const (
	linux5_15 = 5<<16 | 15<<8
	linux7_0  = 7 << 16
)

// timerVariables are the variables of the object for the addresses of kernel functions.
var timerVariables = map[string]string{
	"reqsk_timer_handler": bpfVarReqskTimerHandler,
	"tw_timer_handler":    bpfVarTwTimerHandler,
	"tcp_write_timer":     bpfVarTcpWriteTimer,
}

// load loads the object in the way that f and the options require.
func (p *Probe) load(f *filter.Filter, buffer int, rfc, stacks bool) error {
	types := btf.NewCache()
	go func() { _, _ = types.Kernel() }() // takes longer than everything before its first use
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	tracing, calls, err := p.choosePrograms(spec, types, rfc)
	if err != nil {
		return err
	}
	wanted := slices.Concat(tracing, calls, listing.Programs)
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return !slices.Contains(wanted, name)
	})
	spec.Maps[bpfMapEvents].MaxEntries = uint32(buffer)
	if !stacks {
		spec.Maps[bpfMapStacks].MaxEntries = 1
	}
	if err := errors.Join(
		set(spec, bpfVarWantStacks, stacks),
		configure(spec, f),
		listing.Configure(spec, f, false),
	); err != nil {
		return err
	}
	if p.objs, err = listing.Load(spec, types); err != nil {
		return err
	}
	p.Lister = listing.New(p.objs, f, p.names.Names, &p.clock)
	for _, name := range tracing {
		p.tracing = append(p.tracing, p.objs.Programs[name])
	}
	if err := errors.Join(p.objs.Assign(&p.maps), p.objs.Assign(&p.vars)); err != nil {
		return err
	}
	p.names.devices = p.maps.Devices
	return p.fill(f)
}

// choosePrograms returns the programs on tracepoints, in the order in which to attach them, and
// those on system calls, and sets the variables of spec that they need on this kernel.
func (p *Probe) choosePrograms(spec *ebpf.CollectionSpec, types *btf.Cache, rfc bool) (
	tracing, calls []string, err error,
) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		return nil, nil, fmt.Errorf("get the kernel's version: %w", err)
	}
	var errs []error
	set := func(name string, value any) { errs = append(errs, set(spec, name, value)) }
	set(bpfVarHaveTaskPtRegs, version >= linux5_15)
	tracing = []string{bpfProgChange, bpfProgChangeMissed}
	if version >= linux7_0 { // tracepoints are under SRCU, so a task may be preempted inside a program (seen from 7.1)
		tracing = append(tracing, bpfProgChangeMissed2, bpfProgChangeMissed3)
		set(bpfVarPreemptible, true)
	}
	if !rfc {
		return tracing, nil, errors.Join(errs...)
	}
	var timers *linux.Timers
	if timers, p.timersErr = linux.FindTimers(); p.timersErr == nil {
		set(bpfVarWantMini, true)
		for function, variable := range timerVariables {
			set(variable, timers.Handlers[function])
		}
		set(bpfVarIcmpHandlers, timers.ICMP)
		// The cancellation of a timer comes last, because it means little without what follows.
		tracing = append(tracing, bpfProgTimerStarted, bpfProgTimerExpired, bpfProgSkbDropped, bpfProgTimerCancelled)
	}
	tracing = append(tracing, bpfProgProcessExited, bpfProgResetSent)
	calls = []string{bpfProgAccepted, bpfProgAccepted4, bpfProgConnectBegins, bpfProgConnectReturns}
	set(bpfVarTraceConnects, true)
	args, err := ioUringArgs(types)
	if err != nil {
		return nil, nil, err
	}
	if args > 0 {
		tracing = append(tracing, bpfProgIoUringCompleted)
		set(bpfVarIoUringCompleteArgs, args)
	}
	return tracing, calls, errors.Join(errs...)
}

// ioUringArgs returns how many arguments the tracepoint io_uring:io_uring_complete has, if the
// kernel side knows them: 3 (ring, request, completion) since 6.15, and 7 (ring, request,
// user_data, result, flags, extra1, extra2) since 5.19. It returns 0 for a kernel without io_uring,
// or one whose completions do not include the request (up to 5.18).
func ioUringArgs(types *btf.Cache) (uint8, error) {
	spec, err := types.Kernel()
	if err != nil {
		return 0, err
	}
	var hook *btf.Typedef
	if err := spec.TypeByName("btf_trace_io_uring_complete", &hook); err != nil {
		return 0, nil // no io_uring
	}
	if pointer, ok := hook.Type.(*btf.Pointer); ok {
		if function, ok := pointer.Target.(*btf.FuncProto); ok {
			if args := len(function.Params) - 1; args == 3 || args == 7 { // the first parameter is the tracepoint's own
				return uint8(args), nil
			}
		}
	}
	return 0, nil
}

// set sets a variable in an object before it is loaded.
func set(spec *ebpf.CollectionSpec, name string, value any) error {
	if err := spec.Variables[name].Set(value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// configure sets the filters, as constants: the verifier removes the code for those that are off.
func configure(spec *ebpf.CollectionSpec, f *filter.Filter) error {
	const either, local, remote = 1, 2, 4 // PORT_EITHER, PORT_LOCAL, PORT_REMOTE
	var ports [65536]byte
	var used byte
	for bit, wanted := range map[byte]*filter.PortSet{either: f.Ports, local: f.LocalPorts, remote: f.RemotePorts} {
		if wanted == nil {
			continue
		}
		used |= bit
		for port := range ports {
			if wanted.Has(uint16(port)) {
				ports[port] |= bit
			}
		}
	}
	protos := f.Protos
	if len(protos) == 0 {
		protos = []event.Proto{event.TCP}
	}
	var errs []error
	for name, value := range map[string]any{
		bpfVarWantTcp:      slices.Contains(protos, event.TCP),
		bpfVarWantMptcp:    slices.Contains(protos, event.MPTCP),
		bpfVarWantSctp:     slices.Contains(protos, event.SCTP),
		bpfVarWantIpv4:     f.Family != event.IPv6,
		bpfVarWantIpv6:     f.Family != event.IPv4,
		bpfVarFilterPorts:  used,
		bpfVarPorts:        ports,
		bpfVarFilterHosts:  len(f.Hosts) > 0,
		bpfVarFilterNetns:  len(f.NetNS) > 0,
		bpfVarFilterUid:    len(f.UIDs) > 0,
		bpfVarFilterCgroup: len(f.Cgroups) > 0,
	} {
		errs = append(errs, set(spec, name, value))
	}
	return errors.Join(errs...)
}

// fill puts the values of those filters that are sets into their maps.
func (p *Probe) fill(f *filter.Filter) error {
	yes := uint8(1)
	for _, host := range f.Hosts {
		key := bpfHostKey{PrefixLen: uint32(host.Bits()), Addr: host.Addr().As16()}
		if host.Addr().Is4() {
			key.PrefixLen += 96 // stored as ::ffff:a.b.c.d
		}
		if err := p.maps.Hosts.Put(key, yes); err != nil {
			return fmt.Errorf("filter by host: %w", err)
		}
	}
	for _, inode := range f.NetNS {
		if err := p.maps.Netnses.Put(inode, yes); err != nil {
			return fmt.Errorf("filter by network namespace: %w", err)
		}
	}
	for _, uid := range f.UIDs {
		if err := p.maps.Uids.Put(uid, yes); err != nil {
			return fmt.Errorf("filter by user: %w", err)
		}
	}
	for _, path := range f.Cgroups {
		id, err := p.names.CgroupID(path)
		if err != nil {
			return err
		}
		if err := p.maps.Cgroups.Put(id, yes); err != nil {
			return fmt.Errorf("filter by cgroup: %w", err)
		}
	}
	return nil
}
