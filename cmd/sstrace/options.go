package main

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/view/lines"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var vocabularies = []string{"rfc", "kernel"}

// options holds the flags of a command.
type options struct {
	filter  filter.Options
	formats []string // of the command, the default first
	listing bool     // the source is the sockets that exist, not a trace
	older   bool     // sockets that are older than the trace matter, too
	bound   bool     // so do sockets that only hold a port
	stacks  bool     // record the stacks of connect() and accept()
	answers bool     // the command reports on lines instead of printing them
	format  string
	clock   string
	states  string

	statesGiven bool
	write       string
	read        string
	count       number
	duration    positiveTime
	buffer      string
}

// register adds the flags of sstrace itself.
func (o *options) register(c *cobra.Command) {
	f := newFlags(c)
	o.formats = lines.Formats
	o.registerFilters(f)
	o.registerOutput(f)
	f.StringVar(&o.clock, "time", "wall", "`clock` for the text formats: "+strings.Join(lines.Clocks, ", "))
	f.tag(groupOutput)
	f.StringVar(&o.states, "states", "rfc",
		"`vocabulary`: rfc, the state machine of RFC 9293, or kernel, the tracepoint's changes unaltered")
	o.registerSource(f)
	f.VarP(&o.count, "count", "n", "stop after `N` changes")
	f.complete("time", lines.Clocks)
	f.complete("states", vocabularies)
	f.tag(groupSource)
}

// registerFilters adds the flags that select lines.
func (o *options) registerFilters(f *flags) {
	o.registerConnections(f, "`protocols` to trace: tcp,mptcp,sctp; tcp if omitted", "tcp", "mptcp", "sctp")
	f.StringArrayVar(&o.filter.States, "state", nil,
		"changes from or to this `state`: CLOSE_WAIT, or close-wait as in ss")
	f.StringArrayVar(&o.filter.Edges, "edge", nil, "changes from one state to another: `OLD:NEW`")
	f.Var((*positiveTime)(&o.filter.MinDur), "min-dur", "changes out of a state that lasted at least this `time`: 1ms")
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "changes to sockets owned by this `process`")
	f.StringArrayVar(&o.filter.Comms, "comm", nil,
		"changes to sockets owned by a process with this `name`, of up to 15 bytes")
	f.StringVar(&o.filter.Where, "where", "",
		"changes for which this `expression` over the NDJSON keys is true: 'dur_ns > 1e6 && rport == 443'")
	f.complete("state", stateNames())
	f.tag(groupLines)
}

// registerSockets adds the filters of a command that lists sockets; --state, which each command
// explains differently, has already been added. keys describes the keys that --where accepts.
func (o *options) registerSockets(f *flags, keys string) {
	f.complete("state", stateNames())
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "sockets held by this `process`")
	f.StringArrayVar(&o.filter.Comms, "comm", nil, "sockets held by a process with this `name`, of up to 15 bytes")
	f.StringVar(&o.filter.Where, "where", "", "sockets for which this `expression` over "+keys+" is true: 'recv_q > 0'")
	f.tag(groupSockets)
}

// checkProtos rejects protocols whose existing sockets the kernel does not list.
func (o *options) checkProtos() error {
	for _, list := range o.filter.Protos {
		if slices.Contains(strings.Split(strings.ToLower(list), ","), "sctp") {
			return errors.New("--proto: existing SCTP sockets cannot be listed; expected tcp, mptcp")
		}
	}
	return nil
}

// registerConnections adds the filters that select whole connections, in the kernel. usage and
// protos are the help and the values of --proto.
func (o *options) registerConnections(f *flags, usage string, protos ...string) {
	f.StringArrayVarP(&o.filter.Ports, "port", "p", nil,
		"connections with this `port` at either end; lists and ranges: 80,8000-8100")
	f.StringArrayVar(&o.filter.LocalPorts, "lport", nil, "connections with this local `port`")
	f.StringArrayVar(&o.filter.RemotePorts, "rport", nil, "connections with this remote `port`")
	f.StringArrayVar(&o.filter.Hosts, "host", nil,
		"connections with this `address` or prefix at either end: 10.0.0.0/8")
	f.BoolVarP(&o.filter.IPv4, "ipv4", "4", false, "IPv4 only, including IPv4-mapped")
	f.BoolVarP(&o.filter.IPv6, "ipv6", "6", false, "IPv6 only")
	f.StringArrayVar(&o.filter.NetNS, "netns", nil, "sockets in this network `namespace`: NAME, PATH, pid:N or INODE")
	f.StringArrayVar(&o.filter.UIDs, "uid", nil, "sockets owned by this `user`, a name or a number")
	f.StringArrayVar(&o.filter.Cgroups, "cgroup", nil,
		"sockets in the cgroup v2 at this `path` or below it: /system.slice/redis.service")
	f.StringArrayVar(&o.filter.Protos, "proto", nil, usage)
	f.complete("proto", protos)
	f.tag(groupConnections)
}

// registerOutput adds the flags that set where lines go, and in which format.
func (o *options) registerOutput(f *flags) {
	f.StringVarP(&o.format, "output", "o", o.formats[0], "`format`: "+strings.Join(o.formats, ", "))
	f.StringVarP(&o.write, "write", "w", "",
		"write to this `file`, created with mode 0600, instead of stdout (-)")
	f.complete("output", o.formats)
	f.tag(groupOutput)
}

// registerSource adds the flags that set where changes come from, and for how long.
func (o *options) registerSource(f *flags) {
	o.registerRead(f)
	f.Var(&o.duration, "for", "stop after this `time`: 30s")
	o.registerBuffer(f)
}

func (o *options) registerRead(f *flags) {
	f.StringVarP(&o.read, "read", "r", "",
		"read a recording made with -o ndjson from this `file`, or from stdin (-), instead of tracing")
	f.tag(groupSource)
}

func (o *options) registerBuffer(f *flags) {
	f.StringVar(&o.buffer, "buffer", "16M", "`size` of the ring buffer, rounded up to a power of two")
	f.tag(groupSource)
}

func stateNames() (names []string) {
	for _, s := range event.States() {
		names = append(names, s.String())
	}
	return names
}

// positiveTime is a time on the command line.
type positiveTime time.Duration

func (p *positiveTime) String() string { return "" } // there is no default
func (p *positiveTime) Type() string   { return "time" }

// Set implements pflag.Value.
func (p *positiveTime) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("expected a time with its unit: 500ms, 10s, 1m30s")
	}
	*p = positiveTime(d)
	return nil
}

// number is a count on the command line.
type number uint64

func (n *number) String() string { return "" } // there is no default
func (n *number) Type() string   { return "number" }

// Set implements pflag.Value.
func (n *number) Set(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("expected a number, 1 or more")
	}
	*n = number(v)
	return nil
}

// checkGiven rejects flags with an empty value, which is what "$UNSET" expands to.
func checkGiven(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if text := f.Value.String(); err == nil &&
			(f.Value.Type() == "string" && text == "" || f.Value.Type() == "stringArray" && text == "[]") {
			err = fmt.Errorf("--%s \"\": expected a value", f.Name)
		}
	})
	return err
}

// check rejects flags that parse but make no sense.
func (o *options) check(command []string) error {
	switch {
	case !slices.Contains(o.formats, o.format):
		return fmt.Errorf("-o %q: the formats are %s", o.format, strings.Join(o.formats, ", "))
	case o.clock != "" && !slices.Contains(lines.Clocks, o.clock):
		return fmt.Errorf("--time %q: the clocks are %s", o.clock, strings.Join(lines.Clocks, ", "))
	case o.states != "" && !slices.Contains(vocabularies, o.states):
		return fmt.Errorf("--states %q: the vocabularies are %s", o.states, strings.Join(vocabularies, ", "))
	case o.read != "" && len(command) > 0:
		return fmt.Errorf("-r reads a recording; omit it to trace %q", command[0])
	case o.read != "" && o.statesGiven:
		return fmt.Errorf("-r reads a recording, which has the vocabulary it was made with; use --states when tracing")
	case o.read != "" && o.duration != 0:
		return errors.New("-r reads a recording; use --for when tracing")
	}
	return nil
}

// ringSize parses --buffer: bytes, or a number with K, M or G. It returns the next power of two
// that is a multiple of the page size, as the kernel requires.
func ringSize(text string) (int, error) {
	digits, shift := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I"), 0
	for i, unit := range "KMG" {
		if rest, ok := strings.CutSuffix(digits, string(unit)); ok {
			digits, shift = rest, 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	const most = 1 << 30
	if err != nil || n == 0 || n<<shift > most {
		return 0, fmt.Errorf("--buffer %q: expected a size up to 1G, as in 64M", text)
	}
	return max(1<<bits.Len64(n<<shift-1), os.Getpagesize()), nil
}
