package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event/eventtest"
)

// replays lists commands and what each prints for a recording.
var replays = []struct {
	name, in, args, golden string
}{
	{"text", recorded, "", "replay.text"},
	{"wide", recorded, "-o wide --time mono", "replay.wide"},
	{"csv", recorded, "-o csv", "replay.csv"},
	{"rel", recorded, "--time rel", "replay.rel"},
	{"delta", recorded, "--time delta", "replay.delta"},
	{"connection by a port unknown at first", recorded, "-o ndjson -p 40602 -4", "replay.port"},
	{"count", recorded, "-o ndjson -n 1", "replay.count"},
	{"states", recorded, "-o csv --state syn-recv", "replay.state"},
	{"where", recorded, "-o csv --where dur_ns==57254", "replay.where"},
	{"cgroup", recorded, "-o csv --cgroup /system.slice --edge SYN_SENT:ESTABLISHED", "replay.where"},

	{"bound text", bound, "", "bound.text"},
	{"bound wide", bound, "-o wide", "bound.wide"},
	{"bound csv", bound, "-o csv", "bound.csv"},
	{"bound handshakes", bound, "handshakes", "bound.handshakes"},
	{"bound conns", bound, "conns", "bound.conns"},
	{"bound timeline", bound, "conns --timeline", "bound.timeline"},

	{"ls text", withoutLoss, "ls", "ls.trace.text"},
	{"ls wide", withoutLoss, "ls -o wide", "ls.trace.wide"},
	{"ls ndjson", withoutLoss, "ls -o ndjson", "ls.trace.ndjson"},
	{"ls by owner", withoutLoss, "ls -o ndjson --pid 17837 --state established", "ls.trace.owner"},
	{"ls after a loss", recorded, "ls", "ls.lost.text"},
	{"ls after a loss, ndjson", recorded, "ls -o ndjson", "ls.lost.ndjson"},
	{"listing as text", listed, "ls", "ls.text"},
	{"listing as wide", listed, "ls -o wide", "ls.wide"},
	{"listing by any holder", listed, "ls --pid 800", "ls.holder"},
	{"listing where", listed, "ls -o ndjson --where age_min_ns>1e12", "ls.where"},
	{"listing of nothing", listed, "ls -p 80", "ls.none"},

	{"stats text", recorded, "stats", "stats.text"},
	{"stats ndjson", recorded, "stats -o ndjson --by port --interval 10s", "stats.ndjson"},
	{"stats histogram", recorded, "stats --edge SYN_SENT:ESTABLISHED --histogram", "stats.histogram"},

	{"handshakes", paired, "handshakes", "handshakes.text"},
	{"handshakes ndjson", paired, "handshakes -o ndjson", "handshakes.ndjson"},
	{"handshakes by port", paired, "handshakes --summary --by port --interval 50ms", "handshakes.port"},
	{"handshakes by process", paired, "handshakes --summary --by process -o ndjson", "handshakes.process"},
	{"handshakes that failed", paired, "handshakes --edge SYN_SENT:CLOSE", "handshakes.failed"},
	{"conns", paired, "conns", "conns.text"},
	{"conns ndjson", paired, "conns -o ndjson", "conns.ndjson"},
	{"conns timeline", paired, "conns --timeline", "conns.timeline"},
	{"conns of one end", paired, "conns --timeline --lport 7782", "conns.alone"},
	{"conns by state", paired, "conns --state CLOSE_WAIT -6", "conns.state"},
}

// withoutLoss is recorded, edited as if nothing had been lost.
var withoutLoss = func() string {
	lines := slices.Delete(strings.SplitAfter(recorded, "\n"), 2, 3)
	return strings.NewReplacer(`"ring_full":12`, `"ring_full":0`, `"seq":4`, `"seq":3`, `"seq":5`, `"seq":4`).
		Replace(strings.Join(lines, ""))
}()

func TestReplay(t *testing.T) {
	for _, test := range replays {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, test.in, append(strings.Fields(test.args), "-r", "-")...)
			if r.code != 0 {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			eventtest.Golden(t, test.golden, r.stdout)
			if strings.HasPrefix(r.stdout, "{") {
				eventtest.KeepsSchema(t, r.stdout)
			}
			for line := range strings.Lines(r.stdout) {
				if n := len([]rune(line)) - 1; strings.Contains(test.args, "--timeline") && n > 100 {
					t.Errorf("got %d columns, want at most 100: %s", n, line)
				}
			}
		})
	}
}

// Printing a recording as NDJSON reproduces the recording.
func TestReplayIsExact(t *testing.T) {
	for _, test := range []struct{ in, command string }{
		{recorded, "-r - -o ndjson"}, {bound, "-r - -o ndjson"}, {listed, "ls -r - -o ndjson"},
	} {
		eventtest.KeepsSchema(t, test.in)
		if got := sstrace(t, test.in, strings.Fields(test.command)...).stdout; got != test.in {
			t.Errorf("%s: got:\n%s\nwant:\n%s", test.command, got, test.in)
		}
	}
}

// boundLines maps a filter to the numbers of the lines of bound that it selects.
var boundLines = map[string]string{
	"-p 80":                          "3",
	"--host 203.0.113.1":             "3",
	"--pid 17837":                    "34",
	"--pid 8471":                     "",
	"--where owner_host_pid==8471":   "12",
	"--where task_host_pid>0":        "2",
	"--where ifname=='vrf-red'":      "3",
	"--where ifindex==3":             "124",
	"--where defer_ns>1e9":           "2",
	"--where isn!=nil":               "12",
	"--where totals.srtt_open_us<40": "4",
	"--where totals.srtt_us<40":      "",
	"--where err==113&&old==nil":     "3",
	"--state close":                  "4",
	"--edge SYN_SENT:CLOSE":          "",
	"-4":                             "3",
	"-6":                             "124",
}

func TestFiltersOfARecording(t *testing.T) {
	for args, want := range boundLines {
		t.Run(args, func(t *testing.T) {
			r := sstrace(t, bound, strings.Fields("-r - -o csv --time mono "+args)...)
			got := ""
			for i, line := range strings.Split(bound, "\n")[:4] {
				_, after, _ := strings.Cut(line, `"mono_ns":`)
				mono, _, _ := strings.Cut(after, ",")
				if strings.Contains(r.stdout, ","+mono+",") {
					got += fmt.Sprint(i + 1)
				}
			}
			if got != want || r.code != 0 || strings.Contains(r.stderr, "failed") {
				t.Errorf("got lines %q, want %q; %s", got, want, r.stderr)
			}
		})
	}
}

// Every view shows the connect() that sent no SYN, except the views that show sockets.
func TestViewsOfBoundSockets(t *testing.T) {
	for command, want := range map[string]string{
		"handshakes": `"no_syn":true,"reason":"unreachable","err":113`,
		"conns":      `"states":{},"queue_ns":null,"defer_ns":null,"no_syn":true`,
		"stats":      `"old":"(connect)","new":"(failed)","count":1`,
		"diagram":    `"old":"LAST_ACK"`,
	} {
		r := sstrace(t, bound, command, "-r", "-", "-o", "ndjson")
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: exit code %d, %q; no %s in\n%s", command, r.code, r.stderr, want, r.stdout)
		}
		eventtest.KeepsSchema(t, r.stdout)
	}
	if r := sstrace(t, bound, "ls", "-r", "-"); r.code != 0 || strings.Contains(r.stdout, "203.0.113.1") {
		t.Errorf("ls: exit code %d, got %s%s, want no socket of a connect() that failed", r.code, r.stdout, r.stderr)
	}
}

// If a recording was cut off, each command prints what there is and then fails.
func TestCutRecording(t *testing.T) {
	for _, test := range []struct {
		in      string
		lines   int // in the input
		command string
		want    string
	}{
		{recorded, 2, "stats", "14:02:11  2 changes in 57.254µs, the whole run\n"},
		{paired, 6, "handshakes", " open\n"},
		{paired, 6, "conns", " open "},
		{paired, 6, "conns --timeline", "client: still in "},
	} {
		cut := strings.Join(strings.SplitAfter(test.in, "\n")[:test.lines], "")
		r := sstrace(t, cut, append(strings.Fields(test.command), "-r", "-")...)
		if r.code != exitFailure || !strings.Contains(r.stderr, "has no end line") {
			t.Errorf("%s: got exit code %d, stderr %q", test.command, r.code, r.stderr)
		}
		if !strings.Contains(r.stdout, test.want) {
			t.Errorf("%s: no %q in\n%s", test.command, test.want, r.stdout)
		}
	}
}

// A command that gets the output of another command says what kind of recording it is.
func TestWrongKindOfRecording(t *testing.T) {
	answer := sstrace(t, recorded, "stats", "-r", "-", "-o", "ndjson").stdout
	partial := sstrace(t, recorded, "-r", "-", "-o", "ndjson", "--state", "established").stdout
	for _, test := range []struct {
		name, in, args string
		code           int
		want           string
	}{
		{"listing", listed, "-r -", exitUsage, "sstrace ls -r - prints it"},
		{"answer", answer, "-r -", exitFailure, "only the output of a trace or of ls"},
		{"ls of a filtered recording", partial, "ls -r -", exitFailure, "is missing lines"},
		{"leaks of a filtered recording", partial, "leaks -r -", exitFailure, "is missing lines"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, test.in, strings.Fields(test.args)...)
			if r.code != test.code || !strings.Contains(r.stderr, test.want) {
				t.Errorf("got exit code %d, stderr %q; want %d and %q", r.code, r.stderr, test.code, test.want)
			}
		})
	}
}

func TestLeaksOfAListing(t *testing.T) {
	r := sstrace(t, listed, "leaks", "-r", "-")
	for _, want := range []string{"CLOSE_WAIT", "accept queue full: 129 waiting, backlog 128"} {
		if r.code != 0 || !strings.Contains(r.stdout, want) {
			t.Errorf("exit code %d, %s, no %q in\n%s", r.code, r.stderr, want, r.stdout)
		}
	}
}

func TestReplayOfBrokenRecordings(t *testing.T) {
	lines := strings.SplitAfter(recorded, "\n")
	for _, test := range []struct {
		name, in, want string
		lines          int // printed nevertheless
	}{
		{"cut within a line", recorded[:len(recorded)-20], "line 5 is cut short", 4},
		{"without an end", strings.Join(lines[:4], ""), "has no end line", 4},
		{"empty", "", "has no end line", 0},
		{"two recordings", recorded + recorded, "this file contains two recordings", 4},
		{"not JSON", lines[0] + "hello\n", "line 2: column 1: not a JSON object", 1},
		{"other JSON", `{"a":1}` + "\n", "line 1: not a line written by sstrace", 0},
		{"from the future", strings.ReplaceAll(lines[0], `"v":1`, `"v":2`), "v is 2 and this sstrace reads 1", 0},
		{"unknown state", strings.ReplaceAll(lines[0], "SYN_SENT", "ASLEEP"),
			`key "new": "ASLEEP" is unknown to this version`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := sstrace(t, test.in, "-r", "-", "-o", "ndjson")
			if r.code != exitFailure || !strings.Contains(r.stderr, test.want) {
				t.Errorf("got exit code %d, stderr %q; want %d and %q", r.code, r.stderr, exitFailure, test.want)
			}
			if got := strings.Count(r.stdout, "\n"); got != test.lines {
				t.Errorf("got %d lines, want %d", got, test.lines)
			}
		})
	}
	gap := sstrace(t, lines[0]+lines[3]+lines[4], "-r", "-")
	const followed = "line 1 is followed by line 4"
	if gap.code != exitFailure || !strings.Contains(gap.stderr, followed) || strings.Contains(gap.stderr, "report") {
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
	r := sstrace(t, "", "-r", file, "-w", link, "-o", "ndjson")
	if r.code != exitFailure || !strings.Contains(r.stderr, "write to another file") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != recorded {
		t.Errorf("got recording %q, %v, want it unchanged", text, err)
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
