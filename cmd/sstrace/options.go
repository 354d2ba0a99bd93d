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

const version = "0.1.0"

var vocabularies = []string{"rfc", "kernel"}

// options are the flags.
type options struct {
	filter  filter.Options
	formats []string // those that the command has
	listing bool     // of what exists, not a trace
	older   bool     // what is older than the trace matters, too
	bound   bool     // sockets that only hold a port, too
	stacks  bool     // of who connects and who accepts
	answers bool     // it tells about the lines, it does not print them
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

// register adds the flags of the trace itself.
func (o *options) register(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	o.formats = lines.Formats
	o.registerFilters(c)
	o.registerFormat(c)
	f.StringVar(&o.clock, "time", "wall", "`clock` of the text formats: "+strings.Join(lines.Clocks, ", "))
	f.StringVar(&o.states, "states", "rfc", "`vocabulary`: rfc, the state machine of RFC 9293; kernel, the tracepoint's changes as they are")
	f.VarP(&o.count, "count", "n", "stop after `N` changes")
	o.registerSource(f)
	complete(c, "time", lines.Clocks)
	complete(c, "states", vocabularies)
}

// registerFilters adds those that decide which lines are wanted.
func (o *options) registerFilters(c *cobra.Command) {
	f := c.Flags()
	o.registerConnections(f)
	f.StringArrayVar(&o.filter.Protos, "proto", nil, "`protocols` whose sockets to show: tcp,mptcp,sctp; live, tcp if not said")
	f.StringArrayVar(&o.filter.States, "state", nil, "changes from or to this `state`: CLOSE_WAIT, or as in ss, close-wait")
	f.StringArrayVar(&o.filter.Edges, "edge", nil, "changes from one state to another: `OLD:NEW`")
	f.Var((*positiveTime)(&o.filter.MinDur), "min-dur", "changes out of a state that lasted at least this `time`: 1ms")
	f.StringArrayVar(&o.filter.PIDs, "pid", nil, "changes of sockets that this `process` owns")
	f.StringArrayVar(&o.filter.Comms, "comm", nil, "changes of sockets that a process of this `name` owns; up to 15 bytes, as the kernel has it")
	f.StringVar(&o.filter.Where, "where", "", "changes for which this `expression` over the NDJSON keys is true: 'dur_ns > 1e6 && rport == 443'")
	complete(c, "proto", []string{"tcp", "mptcp", "sctp"})
	complete(c, "state", stateNames())
}

// registerListed adds --proto for those that look at what exists; live, its default is byDefault.
func (o *options) registerListed(c *cobra.Command, byDefault string) {
	c.Flags().StringArrayVar(&o.filter.Protos, "proto", nil, "`protocols` whose sockets to show: tcp,mptcp; live, "+byDefault+" if not said")
	complete(c, "proto", []string{"tcp", "mptcp"})
}

// checkProtos finds protocols whose existing sockets cannot be found.
func (o *options) checkProtos() error {
	for _, list := range o.filter.Protos {
		if slices.Contains(strings.Split(strings.ToLower(list), ","), "sctp") {
			return errors.New("--proto: sockets of SCTP that exist cannot be found; expected tcp, mptcp")
		}
	}
	return nil
}

// registerConnections adds the filters that decide about whole connections, in the kernel.
func (o *options) registerConnections(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.filter.Ports, "port", "p", nil, "connections with this `port` at either end; lists and ranges: 80,8000-8100")
	f.StringArrayVar(&o.filter.LocalPorts, "lport", nil, "connections with this local `port`")
	f.StringArrayVar(&o.filter.RemotePorts, "rport", nil, "connections with this remote `port`")
	f.StringArrayVar(&o.filter.Hosts, "host", nil, "connections with this `address` or prefix at either end: 10.0.0.0/8")
	f.BoolVarP(&o.filter.IPv4, "ipv4", "4", false, "IPv4 only, IPv4-mapped included")
	f.BoolVarP(&o.filter.IPv6, "ipv6", "6", false, "IPv6 only")
	f.StringArrayVar(&o.filter.NetNS, "netns", nil, "sockets of this network `namespace`: NAME, PATH, pid:N or INODE")
	f.StringArrayVar(&o.filter.UIDs, "uid", nil, "sockets of this `user`, by name or number")
	f.StringArrayVar(&o.filter.Cgroups, "cgroup", nil, "sockets of this cgroup v2 and those below it: the `path` as in /system.slice/redis.service")
}

// registerFormat adds where the lines go, and how they look.
func (o *options) registerFormat(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.format, "output", "o", o.formats[0], "`format`: "+strings.Join(o.formats, ", "))
	f.StringVarP(&o.write, "write", "w", "", "write the lines to this `file` (created with mode 0600) and leave stdout free; -: stdout")
	complete(c, "output", o.formats)
}

// registerSource adds where the changes come from, and for how long.
func (o *options) registerSource(f *pflag.FlagSet) {
	f.StringVarP(&o.read, "read", "r", "", "read a recording made with -o ndjson from this `file`, - for stdin, instead of tracing")
	f.Var(&o.duration, "for", "stop after this `time`: 30s")
	o.registerBuffer(f)
}

func (o *options) registerBuffer(f *pflag.FlagSet) {
	f.StringVar(&o.buffer, "buffer", "16M", "`size` of the ring buffer, rounded up to a power of two")
}

// complete tells the shell what a flag's values are. The flag must be there.
func complete(c *cobra.Command, flag string, values []string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func stateNames() (names []string) {
	for _, s := range event.States() {
		names = append(names, s.String())
	}
	return names
}

// positiveTime is a time on the command line.
type positiveTime time.Duration

func (p *positiveTime) String() string { return "" } // none is given
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

func (n *number) String() string { return "" } // none is given
func (n *number) Type() string   { return "number" }

// Set implements pflag.Value.
func (n *number) Set(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("expected a number from 1 on")
	}
	*n = number(v)
	return nil
}

// checkGiven finds flags that are given and empty, as "$UNSET" is: they would ask for nothing.
func checkGiven(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if text := f.Value.String(); err == nil && (f.Value.Type() == "string" && text == "" || f.Value.Type() == "stringArray" && text == "[]") {
			err = fmt.Errorf("--%s \"\": expected a value", f.Name)
		}
	})
	return err
}

// check finds what is wrong with the flags that parse.
func (o *options) check(command []string) error {
	switch {
	case !slices.Contains(o.formats, o.format):
		return fmt.Errorf("-o %q: the formats are %s", o.format, strings.Join(o.formats, ", "))
	case o.clock != "" && !slices.Contains(lines.Clocks, o.clock):
		return fmt.Errorf("--time %q: the clocks are %s", o.clock, strings.Join(lines.Clocks, ", "))
	case o.states != "" && !slices.Contains(vocabularies, o.states):
		return fmt.Errorf("--states %q: the vocabularies are %s", o.states, strings.Join(vocabularies, ", "))
	case o.read != "" && len(command) > 0:
		return fmt.Errorf("-r reads a recording: it cannot trace %q", command[0])
	case o.read != "" && o.statesGiven:
		return fmt.Errorf("-r reads a recording, which has the vocabulary that it was made with: --states goes with tracing")
	case o.read != "" && o.duration != 0:
		return fmt.Errorf("-r reads a recording: --for goes with tracing")
	}
	return nil
}

// ringSize parses --buffer: bytes, or with K, M or G. The kernel wants a power of two of whole pages.
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
