package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUsageErrorsSayWhatIsRight(t *testing.T) {
	for _, test := range []struct {
		args string
		want string
	}{
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
	} {
		t.Run(test.args, func(t *testing.T) {
			r := sstrace(t, "", strings.Fields(test.args)...)
			if r.code != exitUsage || !strings.Contains(r.stderr, test.want) || !strings.HasPrefix(r.stderr, "sstrace: ") {
				t.Errorf("exit code %d, stderr %q; want %d and %q", r.code, r.stderr, exitUsage, test.want)
			}
			if r.stdout != "" {
				t.Errorf("stdout is %q; an error belongs on stderr", r.stdout)
			}
		})
	}
}

func TestRingSize(t *testing.T) {
	page := os.Getpagesize()
	for text, want := range map[string]int{
		"1": page, "4096": page, "64K": 64 << 10, "65K": 128 << 10, "16M": 16 << 20, "16MiB": 16 << 20, "1g": 1 << 30, "16777217": 32 << 20,
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

const recorded = `{"v":1,"type":"change","seq":1,"ts":"2026-11-22T14:02:11.123456789Z","mono_ns":1000000000,"cpu":0,"id":1,"cookie":4711,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv4","proto":"tcp","laddr":"127.0.0.1","lport":null,"raddr":"127.0.0.1","rport":7781,"old":"CLOSE","new":"SYN_SENT","dur_ns":null,"origin":"tracepoint","role":"client","reason":null,"active_close":null,"err":null,"owner_pid":17837,"owner_comm":"nc","owner_via":"connect","task_pid":17837,"task_comm":"nc","uid":0,"cgroup":"/system.slice/redis.service","cgroup_id":4242,"container":null,"unit":"redis.service","totals":null,"syn_retrans":null,"task_tid":null,"ifindex":null,"ifname":null,"isn":null,"defer_ns":null,"owner_host_pid":null,"task_host_pid":null}
{"v":1,"type":"change","seq":2,"ts":"2026-11-22T14:02:11.123514043Z","mono_ns":1000057254,"cpu":0,"id":1,"cookie":4711,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv4","proto":"tcp","laddr":"127.0.0.1","lport":40602,"raddr":"127.0.0.1","rport":7781,"old":"SYN_SENT","new":"ESTABLISHED","dur_ns":57254,"origin":"tracepoint","role":"client","reason":null,"active_close":null,"err":null,"owner_pid":17837,"owner_comm":"nc","owner_via":"connect","task_pid":17837,"task_comm":"nc","uid":0,"cgroup":"/system.slice/redis.service","cgroup_id":4242,"container":null,"unit":"redis.service","totals":null,"syn_retrans":1,"task_tid":null,"ifindex":null,"ifname":null,"isn":null,"defer_ns":null,"owner_host_pid":null,"task_host_pid":null}
{"v":1,"type":"lost","seq":3,"ts":"2026-11-22T14:02:11.123514143Z","mono_ns":1000057354,"ring_full":12}
{"v":1,"type":"change","seq":4,"ts":"2026-11-22T14:03:11.123637499Z","mono_ns":61000180710,"cpu":1,"id":2,"cookie":null,"sk":"0xffff8881012e7a80","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"2001:db8::1","lport":7781,"raddr":"2001:db8:1111:2222:3333:4444:5555:6666","rport":40602,"old":"LISTEN","new":"SYN_RECV","dur_ns":60000123456,"origin":"tracepoint","role":"server","reason":null,"active_close":null,"err":104,"owner_pid":null,"owner_comm":null,"owner_via":null,"task_pid":0,"task_comm":"swapper/1","uid":1000,"cgroup":null,"cgroup_id":null,"container":null,"unit":null,"totals":{"bytes_acked":7,"bytes_received":1048576,"segs_out":12,"segs_in":730,"retrans":1,"srtt_us":20125,"srtt_open_us":null,"min_rtt_us":null,"cong":"cubic"},"syn_retrans":null,"task_tid":4711,"ifindex":null,"ifname":null,"isn":null,"defer_ns":null,"owner_host_pid":null,"task_host_pid":null}
{"v":1,"type":"end","seq":5,"ts":"2026-11-22T14:03:12.123637499Z","mono_ns":62000180710,"seen":18,"added":0,"filtered":3,"ring_full":12,"unread":0,"merged":0,"printed":3,"missed":0,"partial":false}
`

// bound is a recording of what is told apart by more than its addresses: a link-local connection that waited for data, whose processes have no number
// in sstrace's PID namespace, and a connect() from a VRF that sent no SYN.
const bound = `{"v":1,"type":"change","seq":1,"ts":"2026-11-22T14:02:11.000000000Z","mono_ns":1000000000,"cpu":0,"id":1,"cookie":5,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"fe80::1","lport":8080,"raddr":"fe80::2","rport":40000,"old":"LISTEN","new":"SYN_RECV","dur_ns":null,"origin":"timer","role":"server","reason":null,"active_close":null,"err":null,"owner_pid":null,"owner_comm":"redis-server","owner_via":"listener","task_pid":0,"task_comm":"swapper/1","uid":0,"cgroup":"/","cgroup_id":1,"container":null,"unit":null,"totals":null,"syn_retrans":null,"task_tid":null,"ifindex":3,"ifname":"eth0","isn":4294967295,"defer_ns":null,"owner_host_pid":8471,"task_host_pid":null}
{"v":1,"type":"change","seq":2,"ts":"2026-11-22T14:02:13.180000000Z","mono_ns":3180000000,"cpu":0,"id":1,"cookie":5,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"fe80::1","lport":8080,"raddr":"fe80::2","rport":40000,"old":"SYN_RECV","new":"ESTABLISHED","dur_ns":2180000000,"origin":"timer","role":"server","reason":null,"active_close":null,"err":null,"owner_pid":null,"owner_comm":"redis-server","owner_via":"listener","task_pid":null,"task_comm":"\u001b[31mredis","uid":0,"cgroup":"/","cgroup_id":1,"container":null,"unit":null,"totals":null,"syn_retrans":0,"task_tid":null,"ifindex":3,"ifname":"eth0","isn":4294967295,"defer_ns":2179900000,"owner_host_pid":8471,"task_host_pid":8472}
{"v":1,"type":"connect_failed","seq":3,"ts":"2026-11-22T14:02:14.000000000Z","mono_ns":4000000000,"cpu":0,"id":2,"cookie":6,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv4","proto":"tcp","laddr":null,"lport":null,"raddr":"203.0.113.1","rport":80,"role":"client","reason":"unreachable","err":113,"owner_pid":17837,"owner_comm":"nc","owner_via":"connect","task_pid":17837,"task_comm":"nc","uid":0,"cgroup":"/","cgroup_id":1,"container":null,"unit":null,"task_tid":null,"ifindex":7,"ifname":"vrf-red","isn":null,"owner_host_pid":null,"task_host_pid":null}
{"v":1,"type":"change","seq":4,"ts":"2026-11-22T14:02:15.000000000Z","mono_ns":5000000000,"cpu":0,"id":1,"cookie":5,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"fe80::1","lport":8080,"raddr":"fe80::2","rport":40000,"old":"LAST_ACK","new":"CLOSE","dur_ns":20,"origin":"tracepoint","role":"server","reason":"normal","active_close":false,"err":null,"owner_pid":17837,"owner_comm":"nc","owner_via":"connect","task_pid":17837,"task_comm":"nc","uid":0,"cgroup":"/","cgroup_id":1,"container":null,"unit":null,"totals":{"bytes_acked":1,"bytes_received":1,"segs_out":3,"segs_in":4,"retrans":0,"srtt_us":2500,"srtt_open_us":35,"min_rtt_us":20,"cong":"cubic"},"syn_retrans":1,"task_tid":null,"ifindex":3,"ifname":"eth0","isn":null,"defer_ns":null,"owner_host_pid":null,"task_host_pid":null}
{"v":1,"type":"end","seq":5,"ts":"2026-11-22T14:02:16.000000000Z","mono_ns":6000000000,"seen":4,"added":0,"filtered":0,"ring_full":0,"unread":0,"merged":0,"printed":4,"missed":0,"partial":false}
`

// What was recorded is printed, filtered and read again, whatever the line is about.
func TestReplayOfBoundSockets(t *testing.T) {
	if got := sstrace(t, bound, "-r", "-", "-o", "ndjson").stdout; got != bound {
		t.Errorf("a recording printed as NDJSON is not itself:\n%s", got)
	}
	schema := ndjsonSchema(t)
	for line := range strings.Lines(bound + recorded) {
		checkJSON(t, schema, line)
	}
	for args, name := range map[string]string{"": "bound.text", "-o wide": "bound.wide", "-o csv": "bound.csv"} {
		golden(t, name, sstrace(t, bound, append([]string{"-r", "-"}, strings.Fields(args)...)...).stdout)
	}
	for args, want := range map[string]string{
		"-p 80": "3", "--host 203.0.113.1": "3", "--pid 17837": "34", "--pid 8471": "", "--where owner_host_pid==8471": "12", "--where task_host_pid>0": "2",
		"--where ifname=='vrf-red'": "3", "--where ifindex==3": "124", "--where defer_ns>1e9": "2", "--where isn!=nil": "12", "--where totals.srtt_open_us<40": "4",
		"--where totals.srtt_us<40": "", "--state close": "4", "--edge SYN_SENT:CLOSE": "", "--where err==113&&old==nil": "3", "-4": "3", "-6": "124",
	} {
		r := sstrace(t, bound, append([]string{"-r", "-", "-o", "csv", "--time", "mono"}, strings.Fields(args)...)...)
		got := ""
		for i, line := range strings.Split(bound, "\n")[:4] {
			mono, _, _ := strings.Cut(line[strings.Index(line, `"mono_ns":`)+len(`"mono_ns":`):], ",")
			if strings.Contains(r.stdout, ","+mono+",") {
				got += string(rune('1' + i))
			}
		}
		if got != want || r.code != 0 || strings.Contains(r.stderr, "failed") {
			t.Errorf("%s: lines %q, want %q; %s", args, got, want, r.stderr)
		}
	}
	for command, want := range map[string]string{
		"handshakes": `"no_syn":true,"reason":"unreachable","err":113`, "conns": `"states":{},"queue_ns":null,"defer_ns":null,"no_syn":true`, "stats": `"old":"(connect)","new":"(failed)","count":1`,
		"diagram": `"old":"LAST_ACK"`,
	} {
		r := sstrace(t, bound, command, "-r", "-", "-o", "ndjson")
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: exit code %d, %q; no %s in\n%s", command, r.code, r.stderr, want, r.stdout)
		}
		for line := range strings.Lines(r.stdout) {
			checkJSON(t, schema, line)
		}
	}
	for args, name := range map[string]string{"handshakes": "bound.handshakes", "conns": "bound.conns", "conns --timeline": "bound.timeline"} {
		golden(t, name, sstrace(t, bound, append(strings.Fields(args), "-r", "-")...).stdout)
	}
	if r := sstrace(t, bound, "ls", "-r", "-"); r.code != 0 || strings.Contains(r.stdout, "203.0.113.1") {
		t.Errorf("a connect() that failed left a socket: exit code %d, %s%s", r.code, r.stdout, r.stderr)
	}
}

func TestReplay(t *testing.T) {
	for _, test := range []struct {
		name, args, golden string
	}{
		{"text", "-r -", "replay.text"},
		{"wide", "-r - -o wide --time mono", "replay.wide"},
		{"csv", "-r - -o csv", "replay.csv"},
		{"rel", "-r - --time rel", "replay.rel"},
		{"delta", "-r - --time delta", "replay.delta"},
		{"ndjson", "-r - -o ndjson", "replay.ndjson"},
		{"connection by a port not known at first", "-r - -o ndjson -p 40602 -4", "replay.port"},
		{"count", "-r - -o ndjson -n 1", "replay.count"},
		{"states", "-r - -o csv --state syn-recv", "replay.state"},
		{"where", "-r - -o csv --where dur_ns==57254", "replay.where"},
		{"cgroup", "-r - -o csv --cgroup /system.slice --edge SYN_SENT:ESTABLISHED", "replay.where"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, recorded, strings.Fields(test.args)...)
			if r.code != 0 {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			golden(t, test.golden, r.stdout)
		})
	}
	if got := sstrace(t, recorded, "-r", "-", "-o", "ndjson").stdout; got != recorded {
		t.Errorf("a recording printed as NDJSON is not itself:\n%s", got)
	}
}

// listed is a listing: with everything, with nothing known, and with a name that means harm.
const listed = `{"v":1,"type":"socket","seq":1,"ts":"2026-11-22T14:02:11.123456789Z","mono_ns":1000000000,"cookie":4711,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"::","lport":443,"raddr":null,"rport":null,"state":"LISTEN","age_ns":null,"age_min_ns":null,"left_ns":null,"recv_q":null,"send_q":null,"accept_q":129,"accept_max":128,"syn_retrans":null,"role":"listener","owner_pid":null,"owner_comm":null,"owner_via":null,"holders":[{"pid":800,"comm":"nginx","fd":6,"slot":null,"ring_fd":null},{"pid":801,"comm":"nginx","fd":6,"slot":null,"ring_fd":null},{"pid":801,"comm":"nginx","fd":9,"slot":null,"ring_fd":null}],"uid":0,"cgroup":"/system.slice/nginx.service","cgroup_id":4242,"container":null,"unit":"nginx.service","ifindex":2,"ifname":"eth\u001b0","v6only":false,"attached":"descriptor"}
{"v":1,"type":"socket","seq":2,"ts":"2026-11-22T14:02:11.123456799Z","mono_ns":1000000010,"cookie":48879,"sk":"0xffff8881012e7a80","netns":4026531840,"family":"ipv4-mapped","proto":"tcp","laddr":"192.0.2.1","lport":443,"raddr":"198.51.100.7","rport":40602,"state":"CLOSE_WAIT","age_ns":null,"age_min_ns":7265000000000,"left_ns":null,"recv_q":1,"send_q":4096,"accept_q":null,"accept_max":null,"syn_retrans":null,"role":"server","owner_pid":801,"owner_comm":"\u001b[31mng\n","owner_via":"snapshot","holders":[{"pid":801,"comm":"\u001b[31mng\n","fd":12,"slot":null,"ring_fd":null},{"pid":801,"comm":"\u001b[31mng\n","fd":null,"slot":3,"ring_fd":5}],"uid":33,"cgroup":"/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","cgroup_id":4243,"container":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","ifindex":null,"ifname":null,"v6only":null,"attached":"descriptor"}
{"v":1,"type":"socket","seq":3,"ts":"2026-11-22T14:02:11.123456809Z","mono_ns":1000000020,"cookie":null,"sk":"0xffff8881012e7b00","netns":4026531840,"family":"ipv4","proto":"tcp","laddr":"192.0.2.1","lport":443,"raddr":"198.51.100.8","rport":40603,"state":"SYN_RECV","age_ns":57254,"age_min_ns":null,"left_ns":null,"recv_q":null,"send_q":null,"accept_q":null,"accept_max":null,"syn_retrans":2,"role":"server","owner_pid":null,"owner_comm":null,"owner_via":null,"holders":[],"uid":0,"cgroup":"/","cgroup_id":1,"container":null,"unit":null,"ifindex":3,"ifname":null,"v6only":null,"attached":"nothing"}
{"v":1,"type":"socket","seq":4,"ts":"2026-11-22T14:02:11.123456819Z","mono_ns":1000000030,"cookie":null,"sk":"0xffff8881012e7c00","netns":4026531840,"family":"ipv6","proto":"tcp","laddr":"2001:db8::1","lport":50000,"raddr":"2001:db8::2","rport":5432,"state":"TIME_WAIT","age_ns":null,"age_min_ns":12340000000,"left_ns":47660000000,"recv_q":null,"send_q":null,"accept_q":null,"accept_max":null,"syn_retrans":null,"role":null,"owner_pid":null,"owner_comm":null,"owner_via":null,"holders":[],"uid":null,"cgroup":null,"cgroup_id":null,"container":null,"unit":null,"ifindex":null,"ifname":null,"v6only":null,"attached":null}
{"v":1,"type":"end","seq":5,"ts":"2026-11-22T14:02:11.123456819Z","mono_ns":1000000030,"seen":4,"added":0,"filtered":0,"ring_full":0,"unread":0,"merged":0,"printed":4,"missed":0,"partial":false}
`

// What a command wrote that another reads is said to be what it is.
func TestWrongKindOfRecording(t *testing.T) {
	if r := sstrace(t, listed, "-r", "-"); r.code != exitUsage || !strings.Contains(r.stderr, "sstrace ls -r - prints it") {
		t.Errorf("a listing: exit code %d, %q", r.code, r.stderr)
	}
	answer := sstrace(t, recorded, "stats", "-r", "-", "-o", "ndjson").stdout
	if r := sstrace(t, answer, "-r", "-"); r.code != exitFailure || !strings.Contains(r.stderr, "only the output of a trace or of ls") {
		t.Errorf("an answer: exit code %d, %q", r.code, r.stderr)
	}
	partial := sstrace(t, recorded, "-r", "-", "-o", "ndjson", "--state", "established").stdout
	for _, command := range []string{"ls", "leaks"} {
		if r := sstrace(t, partial, command, "-r", "-"); r.code != exitFailure || !strings.Contains(r.stderr, "is missing lines") {
			t.Errorf("%s of a part: exit code %d, %q", command, r.code, r.stderr)
		}
	}
	if r := sstrace(t, listed, "leaks", "-r", "-"); r.code != 0 || !strings.Contains(r.stdout, "CLOSE_WAIT") || !strings.Contains(r.stdout, "accept queue full: 129 waiting, backlog 128") {
		t.Errorf("leaks of a listing: exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

// ls of a recording lists what exists at its end; of a listing, that.
func TestListOfRecording(t *testing.T) {
	lines := strings.SplitAfter(recorded, "\n")
	whole := strings.ReplaceAll(strings.Join(slices.Delete(lines, 2, 3), ""), `"ring_full":12`, `"ring_full":0`)
	whole = strings.NewReplacer(`"seq":4`, `"seq":3`, `"seq":5`, `"seq":4`).Replace(whole)
	for _, test := range []struct {
		name, in, args, golden string
	}{
		{"text", whole, "", "ls.trace.text"},
		{"wide", whole, "-o wide", "ls.trace.wide"},
		{"ndjson", whole, "-o ndjson", "ls.trace.ndjson"},
		{"by owner", whole, "-o ndjson --pid 17837 --state established", "ls.trace.owner"},
		{"after a loss", recorded, "", "ls.lost.text"},
		{"after a loss, ndjson", recorded, "-o ndjson", "ls.lost.ndjson"},
		{"listing as text", listed, "", "ls.text"},
		{"listing as wide", listed, "-o wide", "ls.wide"},
		{"by any holder", listed, "--pid 800", "ls.holder"},
		{"where", listed, "-o ndjson --where age_min_ns>1e12", "ls.where"},
		{"nothing", listed, "-p 80", "ls.none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, test.in, append([]string{"ls", "-r", "-"}, strings.Fields(test.args)...)...)
			if r.code != 0 {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			golden(t, test.golden, r.stdout)
		})
	}
	if got := sstrace(t, listed, "ls", "-r", "-", "-o", "ndjson").stdout; got != listed {
		t.Errorf("a listing printed as NDJSON is not itself:\n%s", got)
	}
}

func TestReplayOfBrokenRecordings(t *testing.T) {
	lines := strings.SplitAfter(recorded, "\n")
	for _, test := range []struct {
		name, in, want string
		lines          int // that are printed all the same
	}{
		{"cut in a line", recorded[:len(recorded)-20], "line 5 is cut short", 4},
		{"without end", strings.Join(lines[:4], ""), "has no end line", 4},
		{"empty", "", "has no end line", 0},
		{"two", recorded + recorded, "this file contains two recordings", 4},
		{"not JSON", lines[0] + "hello\n", "line 2: column 1: not a JSON object", 1},
		{"other JSON", `{"a":1}` + "\n", "line 1: not a line written by sstrace", 0},
		{"of the future", strings.ReplaceAll(lines[0], `"v":1`, `"v":2`), "v is 2 and this sstrace reads 1", 0},
		{"other state", strings.ReplaceAll(lines[0], "SYN_SENT", "ASLEEP"), `key "new": "ASLEEP" is unknown to this version`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, test.in, "-r", "-", "-o", "ndjson")
			if r.code != exitFailure || !strings.Contains(r.stderr, test.want) {
				t.Errorf("exit code %d, stderr %q; want %d and %q", r.code, r.stderr, exitFailure, test.want)
			}
			if got := strings.Count(r.stdout, "\n"); got != test.lines {
				t.Errorf("%d lines printed, want %d", got, test.lines)
			}
		})
	}
	gap := sstrace(t, lines[0]+lines[3]+lines[4], "-r", "-")
	if gap.code != exitFailure || !strings.Contains(gap.stderr, "line 1 is followed by line 4") || strings.Contains(gap.stderr, "report") {
		t.Errorf("a gap in seq: exit code %d, stderr %q", gap.code, gap.stderr)
	}
	missing := sstrace(t, "", "-r", "/nonexistent/trace")
	if missing.code != exitFailure || !strings.Contains(missing.stderr, "no such file") {
		t.Errorf("no file: exit code %d, stderr %q", missing.code, missing.stderr)
	}
}

func TestRecordingIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	if err := os.WriteFile(file, []byte(recorded), 0o600); err != nil {
		t.Fatal(err)
	}
	link := file + ".link"
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if r := sstrace(t, "", "-r", file, "-w", link, "-o", "ndjson"); r.code != exitFailure || !strings.Contains(r.stderr, "write to another file") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != recorded {
		t.Errorf("the recording is now %q, %v", text, err)
	}
}

func TestReplayIntoClosedPipe(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	cmd := self("sstrace", "-r", "-")
	var stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(recorded), writer, &stderr
	if err := cmd.Run(); err != nil || stderr.String() != "" {
		t.Errorf("%v, stderr %q", err, &stderr)
	}
}

func TestExplain(t *testing.T) {
	r := sstrace(t, "", "explain", "close-wait")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "CLOSE_WAIT\n") || !strings.Contains(r.stdout, "forgets to close") {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

func TestCompletion(t *testing.T) {
	if r := sstrace(t, "", "completion", "bash"); r.code != 0 || !strings.Contains(r.stdout, "sstrace") {
		t.Errorf("exit code %d, %d bytes", r.code, len(r.stdout))
	}
	if r := sstrace(t, "", "__complete", "-o", ""); !strings.Contains(r.stdout, "ndjson") {
		t.Errorf("-o completes to %q", r.stdout)
	}
}

// golden compares with testdata/name; SSTRACE_GOLDEN=write renews it, to be read before it is committed.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("SSTRACE_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}
