package main

import (
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// testdata/pair.ndjson is a recording of a server and a client: connections over IPv4, IPv6 and mapped addresses, closed by either side, reset, refused, one of
// a socket with itself, and one that nobody accepts.
func TestPairedViews(t *testing.T) {
	schema := ndjsonSchema(t)
	for _, test := range []struct{ args, golden string }{
		{"handshakes", "handshakes.text"},
		{"handshakes -o ndjson", "handshakes.ndjson"},
		{"handshakes --summary --by port --interval 50ms", "handshakes.port"},
		{"handshakes --summary --by process -o ndjson", "handshakes.process"},
		{"handshakes --edge SYN_SENT:CLOSE", "handshakes.failed"},
		{"conns", "conns.text"},
		{"conns -o ndjson", "conns.ndjson"},
		{"conns --timeline", "conns.timeline"},
		{"conns --timeline --lport 7782", "conns.alone"},
		{"conns --state CLOSE_WAIT -6", "conns.state"},
	} {
		t.Run(test.args, func(t *testing.T) {
			r := sstrace(t, "", append(strings.Fields(test.args), "-r", "testdata/pair.ndjson")...)
			if r.code != 0 {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			golden(t, test.golden, r.stdout)
			if strings.HasPrefix(r.stdout, "{") {
				for line := range strings.Lines(r.stdout) {
					checkJSON(t, schema, line)
				}
			}
			for line := range strings.Lines(r.stdout) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); strings.Contains(test.args, "--timeline") && n > 100 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func checkJSON(t *testing.T, schema *jsonschema.Schema, line string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%v: %s", err, line)
	}
}

// A recording that was cut off is told of as far as it goes.
func TestPairedViewsOfACutRecording(t *testing.T) {
	text, err := os.ReadFile("testdata/pair.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	cut := strings.Join(lines[:6], "")
	for command, want := range map[string]string{"handshakes": " open\n", "conns": " open ", "conns --timeline": "client: still in "} {
		r := sstrace(t, cut, append(strings.Fields(command), "-r", "-")...)
		if r.code != exitFailure || !strings.Contains(r.stderr, "has no end line") || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: exit code %d, stderr %q, no %q in\n%s", command, r.code, r.stderr, want, r.stdout)
		}
	}
}

func TestPairedViewsSayWhatIsRight(t *testing.T) {
	for args, want := range map[string]string{
		"handshakes --by host":                        "expected port, remote, process, container",
		"handshakes -o csv":                           "the formats are text, ndjson",
		"handshakes now":                              "handshakes takes no argument",
		"conns --timeline -o ndjson -r " + os.DevNull: "--timeline draws in text",
	} {
		if r := sstrace(t, "", strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: exit code %d, stderr %q; want %q", args, r.code, r.stderr, want)
		}
	}
}
