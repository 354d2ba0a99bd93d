package main

import (
	"os"
	"strings"
	"testing"
)

// usageErrors lists wrong command lines and what the error says about each.
var usageErrors = []struct{ args, want string }{
	{"-p 65536", "expected a port from 1 to 65535"},
	{"-p 0", "expected a port from 1 to 65535"},
	{"-p abc", "expected a port from 1 to 65535"},
	{"-p 80,,90", "expected a port from 1 to 65535"},
	{"--lport 9-3", "expected a range from low to high: 3-9"},
	{"--rport -5", "expected a port from 1 to 65535"},
	{"--host 10.0.0.0/33", "expected an IP address or a prefix"},
	{"--host 10.0.0.1/8", "expected 10.0.0.0/8"},
	{"--host example.org", "expected an IP address or a prefix"},
	{"--netns nowhere", "expected a network namespace"},
	{"--netns pid:0", "expected a process that exists"},
	{"--uid nobody-at-all", "expected the name of a user"},
	{"--cgroup system.slice", "expected a path in the cgroup v2 tree"},
	{"--state TIMEWAITING", "expected a TCP state: ESTABLISHED, SYN_SENT"},
	{"--edge CLOSE", "expected OLD:NEW"},
	{"--edge CLOSE:NOWHERE", "expected a TCP state"},
	{"--min-dur 5", "expected a time with its unit"},
	{"--min-dur -5s", "expected a time with its unit"},
	{"--pid redis", "expected a process ID"},
	{"--proto udp", "expected tcp, mptcp or sctp"},
	{"--where dur_ns>", "| dur_ns>\n | ......^"},
	{"--where rport=='x'", "mismatched types int and string"},
	{"--where size>1", "unknown name size"},
	{"-o json", "the formats are text, wide, ndjson, csv"},
	{"--time utc", "the clocks are wall, mono, rel, delta"},
	{"--states linux", "the vocabularies are rfc, kernel"},
	{"--for 0", "expected a time with its unit"},
	{"-n 0", "expected a number, 1 or more"},
	{"--comm sixteen-bytes-xx", "expected 1 to 15 bytes"},
	{"--port=", "--port \"\": expected a value"},
	{"--read=", "--read \"\": expected a value"},
	{"--netns /etc/passwd", "not a network namespace"},
	{"curl -s localhost", "sstrace [flags] -- curl"},
	{"--frobnicate", "unknown flag"},
	{"redis-cli ping", "sstrace [flags] -- redis-cli"},
	{"check now", "check takes no argument"},
	{"diagram -o png", "the formats are svg, dot, text, ndjson"},
	{"diagram now", "diagram takes no argument \"now\""},
	{"ls now", "ls takes no argument"},
	{"ls -o csv", "the formats are text, wide, ndjson"},
	{"ls --where dur_ns>1", "unknown name dur_ns"},
	{"ls --buffer 1M", "omit --buffer, or add --watch"},
	{"ls --watch", "stdout is not one"},
	{"ls --watch -o ndjson", "omit -o ndjson"},
	{"ls --watch -w x", "omit -w"},
	{"ls --watch -r x", "omit -r"},
	{"explain ASLEEP", "unknown topic \"ASLEEP\"; the topics are CLOSE LISTEN"},
	{"explain CLOSE LISTEN", "explain takes one argument"},
	{"-r x -- true", "-r reads a recording"},
	{"-r x --states kernel", "has the vocabulary it was made with"},
	{"leaks --once --for 1s", "omit --for"},
	{"leaks --once --stacks", "use it when tracing"},
	{"leaks --older 5m", "expected STATE=TIME with one of these states: SYN_SENT=30s"},
	{"leaks --older ESTABLISHED=5m", "expected STATE=TIME with one of these states: SYN_SENT=30s"},
	{"stats --frobnicate", "Try sstrace stats --help"},
	{"-r x --for 1s", "-r reads a recording"},
	{"stats --by name -r -", "expected port, remote, process, container"},
	{"stats --by= -r -", "expected port, remote, process, container"},
	{"stats --interval 5 -r -", "expected a time with its unit"},
	{"stats --interval 0s -r -", "expected a time with its unit"},
	{"stats --histogram -o ndjson -r -", "--histogram draws in text"},
	{"stats -o csv -r -", "the formats are text, ndjson"},
	{"stats curl localhost", "sstrace stats [flags] -- curl"},
	{"stats --states kernel -r -", "unknown flag: --states"},
	{"stats -r - --for 1s --by container", "use --for when tracing"},
	{"handshakes --by host", "expected port, remote, process, container"},
	{"handshakes -o csv", "the formats are text, ndjson"},
	{"handshakes now", "handshakes takes no argument"},
	{"conns --timeline -o ndjson -r " + os.DevNull, "--timeline draws in text"},
}

// A usage error names what is wrong and what would be right.
func TestUsageErrors(t *testing.T) {
	for _, test := range usageErrors {
		t.Run(test.args, func(t *testing.T) {
			r := sstrace(t, "", strings.Fields(test.args)...)
			says := strings.HasPrefix(r.stderr, "sstrace: ") && strings.Contains(r.stderr, test.want)
			if r.code != exitUsage || !says {
				t.Errorf("got exit code %d, stderr %q; want %d and %q", r.code, r.stderr, exitUsage, test.want)
			}
			if r.stdout != "" {
				t.Errorf("got stdout %q, want errors on stderr", r.stdout)
			}
		})
	}
}

func TestRingSize(t *testing.T) {
	page := os.Getpagesize()
	for text, want := range map[string]int{
		"1": page, "4096": page, "64K": 64 << 10, "65K": 128 << 10, "16M": 16 << 20, "16MiB": 16 << 20, "1g": 1 << 30,
		"16777217": 32 << 20,
	} {
		if got, err := ringSize(text); err != nil || got != max(want, page) {
			t.Errorf("ringSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "M", "2G", "-1", "1.5M", "16X", "99999999999"} {
		if got, err := ringSize(text); err == nil {
			t.Errorf("ringSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestExplain(t *testing.T) {
	r := sstrace(t, "", "explain", "close-wait")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "CLOSE_WAIT\n") || !strings.Contains(r.stdout, "forgets to close") {
		t.Errorf("got %+v", r)
	}
}

func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"completion bash":        "sstrace",
		"__complete -o ":         "ndjson",
		"__complete stats --by ": "container",
	} {
		if r := sstrace(t, "", strings.Split(args, " ")...); r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: exit code %d, no %q in %q", args, r.code, want, r.stdout)
		}
	}
}
