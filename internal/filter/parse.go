package filter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/event"
)

// Options holds the filters given on the command line. An element of a list may be several values,
// separated by commas.
type Options struct {
	Ports, LocalPorts, RemotePorts []string
	Hosts                          []string
	IPv4, IPv6                     bool
	Protos                         []string
	NetNS                          []string
	UIDs                           []string
	Cgroups                        []string
	States                         []string
	Edges                          []string
	MinDur                         time.Duration
	PIDs                           []string
	Comms                          []string
	Where                          string
	Whole, Listing                 bool // see Filter
}

// New returns the Filter for o. An error names the flag, the value and what the flag expects.
func New(o *Options) (*Filter, error) {
	f := &Filter{Whole: o.Whole, Listing: o.Listing, minDur: o.MinDur.Nanoseconds()}
	switch {
	case o.IPv4 && !o.IPv6:
		f.Family = event.IPv4
	case o.IPv6 && !o.IPv4:
		f.Family = event.IPv6
	}
	var err error
	if f.Ports, err = parsePorts("--port", o.Ports); err != nil {
		return nil, err
	}
	if f.LocalPorts, err = parsePorts("--lport", o.LocalPorts); err != nil {
		return nil, err
	}
	if f.RemotePorts, err = parsePorts("--rport", o.RemotePorts); err != nil {
		return nil, err
	}
	if f.Hosts, err = parseEach("--host", o.Hosts, parseHost); err != nil {
		return nil, err
	}
	if f.Protos, err = parseEach("--proto", o.Protos, parseProto); err != nil {
		return nil, err
	}
	if f.NetNS, err = parseEach("--netns", o.NetNS, parseNetNS); err != nil {
		return nil, err
	}
	if f.UIDs, err = parseEach("--uid", o.UIDs, parseUID); err != nil {
		return nil, err
	}
	if f.Cgroups, err = parseEach("--cgroup", o.Cgroups, parseCgroup); err != nil {
		return nil, err
	}
	if f.states, err = parseEach("--state", o.States, ParseState); err != nil {
		return nil, err
	}
	if f.edges, err = parseEach("--edge", o.Edges, parseEdge); err != nil {
		return nil, err
	}
	if f.pids, err = parseEach("--pid", o.PIDs, parsePID); err != nil {
		return nil, err
	}
	if f.comms, err = parseEach("--comm", o.Comms, parseComm); err != nil {
		return nil, err
	}
	if o.Where != "" {
		var env any = traceEnv{}
		if o.Listing {
			env = socketEnv{}
		}
		if f.where, err = compile(o.Where, env); err != nil {
			return nil, fmt.Errorf("--where: %w", err)
		}
	}
	return f, nil
}

func parseEach[T any](flag string, values []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, list := range values {
		for v := range strings.SplitSeq(list, ",") {
			p, err := parse(strings.TrimSpace(v))
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", flag, v, err)
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func parsePorts(flag string, values []string) (*PortSet, error) {
	ranges, err := parseEach(flag, values, parsePortRange)
	if len(ranges) == 0 || err != nil {
		return nil, err
	}
	set := new(PortSet)
	for _, r := range ranges {
		for p := int(r[0]); p <= int(r[1]); p++ {
			set[p/64] |= 1 << (p % 64)
		}
	}
	return set, nil
}

func parsePortRange(v string) ([2]uint16, error) {
	low, high, isRange := strings.Cut(v, "-")
	if !isRange {
		high = low
	}
	a, errA := strconv.ParseUint(low, 10, 16)
	b, errB := strconv.ParseUint(high, 10, 16)
	switch {
	case errA != nil || errB != nil || a == 0 || b == 0:
		return [2]uint16{}, fmt.Errorf("expected a port from 1 to 65535, or a range such as 8000-8100")
	case a > b:
		return [2]uint16{}, fmt.Errorf("expected a range from low to high: %d-%d", b, a)
	}
	return [2]uint16{uint16(a), uint16(b)}, nil
}

// parseHost parses an address or a prefix. IPv4-mapped ones become IPv4, as in the output.
func parseHost(v string) (netip.Prefix, error) {
	if inner, ok := strings.CutPrefix(v, "["); ok { // as in the output
		v = strings.TrimSuffix(inner, "]")
	}
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return p, fmt.Errorf("expected an IP address or a prefix such as 10.0.0.0/8 or 2001:db8::/32")
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("expected %v, without bits set beyond the prefix length", p.Masked())
	}
	return p, nil
}

func parseProto(v string) (event.Proto, error) {
	for _, p := range []event.Proto{event.TCP, event.MPTCP, event.SCTP} {
		if strings.EqualFold(v, p.String()) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("expected tcp, mptcp or sctp")
}

// parseNetNS returns the inode of a network namespace, given as a name known to ip netns, a path,
// pid:N or the inode itself.
func parseNetNS(v string) (uint32, error) {
	if inode, err := strconv.ParseUint(v, 10, 32); err == nil && inode != 0 {
		return uint32(inode), nil
	}
	path := v
	pid, isPID := strings.CutPrefix(v, "pid:")
	switch {
	case isPID:
		path = "/proc/" + pid + "/ns/net"
	case v == "":
		return 0, fmt.Errorf("expected a name, a path, pid:N or an inode")
	case !strings.Contains(v, "/"):
		path = "/run/netns/" + v
	}
	inode, err := netNSInode(path)
	switch {
	case err == nil || !errors.As(err, new(*os.PathError)):
		return inode, err
	case isPID:
		return 0, fmt.Errorf("expected a process that exists and may be inspected: %w", err)
	}
	return 0, fmt.Errorf("expected a network namespace (see `ip netns` and `lsns -t net`): %w", err)
}

func parseUID(v string) (uint32, error) {
	if uid, err := strconv.ParseUint(v, 10, 32); err == nil {
		return uint32(uid), nil
	}
	u, err := user.Lookup(v)
	if err != nil {
		return 0, fmt.Errorf("expected the name of a user, or a user ID")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(uid), err
}

func parseCgroup(v string) (string, error) {
	if !strings.HasPrefix(v, "/") {
		return "", fmt.Errorf("expected a path in the cgroup v2 tree, such as /system.slice/redis.service")
	}
	return v, nil
}

// ParseState returns the state with this name, as in the kernel or as in ss: CLOSE_WAIT,
// close-wait, TCP_CLOSE_WAIT; ESTAB, listening, closed.
func ParseState(v string) (event.State, error) {
	plain := strings.NewReplacer("_", "", "-", "")
	want := plain.Replace(strings.TrimPrefix(strings.ToUpper(v), "TCP_"))
	switch want {
	case "ESTAB":
		return event.Established, nil
	case "LISTENING":
		return event.Listen, nil
	case "CLOSED":
		return event.Close, nil
	}
	var names []string
	for _, s := range event.States() {
		if plain.Replace(s.String()) == want {
			return s, nil
		}
		names = append(names, s.String())
	}
	return 0, fmt.Errorf("expected a TCP state: %s", strings.Join(names, ", "))
}

func parseEdge(v string) (edge, error) {
	from, to, ok := strings.Cut(v, ":")
	if !ok {
		return edge{}, fmt.Errorf("expected OLD:NEW, such as SYN_SENT:CLOSE")
	}
	a, err := ParseState(from)
	if err != nil {
		return edge{}, err
	}
	b, err := ParseState(to)
	return edge{a, b}, err
}

func parseComm(v string) (string, error) {
	const longest = 15 // TASK_COMM_LEN - 1, include/linux/sched.h
	if v == "" || len(v) > longest {
		return "", fmt.Errorf("expected 1 to %d bytes: the kernel keeps no more of a process's name", longest)
	}
	return v, nil
}

func parsePID(v string) (uint32, error) {
	pid, err := strconv.ParseUint(v, 10, 31)
	if err != nil || pid == 0 {
		return 0, fmt.Errorf("expected a process ID")
	}
	return uint32(pid), nil
}
