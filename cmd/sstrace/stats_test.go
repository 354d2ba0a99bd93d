package main

import (
	"strings"
	"testing"
)

func TestStatsOfARecording(t *testing.T) {
	for args, name := range map[string]string{
		"stats -r -": "stats.text", "stats -r - -o ndjson --by port --interval 10s": "stats.ndjson", "stats -r - --edge SYN_SENT:ESTABLISHED --histogram": "stats.histogram",
	} {
		r := sstrace(t, recorded, strings.Fields(args)...)
		if r.code != 0 {
			t.Errorf("%s: exit code %d, stderr %q", args, r.code, r.stderr)
		}
		golden(t, name, r.stdout)
	}
	// One that was cut off is told of as far as it goes.
	cut := strings.Join(strings.SplitAfter(recorded, "\n")[:2], "")
	r := sstrace(t, cut, "stats", "-r", "-")
	if r.code != exitFailure || !strings.Contains(r.stderr, "has no end line") || !strings.HasPrefix(r.stdout, "14:02:11  2 changes in 57.254µs, the whole run\n") {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s", r.code, r.stderr, r.stdout)
	}
}

func TestStatsUsage(t *testing.T) {
	for args, want := range map[string]string{
		"stats --by name -r -":               "expected port, remote, process, container",
		"stats --by= -r -":                   "expected port, remote, process, container",
		"stats --interval 5 -r -":            "expected a time with its unit",
		"stats --interval 0s -r -":           "expected a time with its unit",
		"stats --histogram -o ndjson -r -":   "--histogram draws in text",
		"stats -o csv -r -":                  "the formats are text, ndjson",
		"stats curl localhost":               "sstrace stats [flags] -- curl",
		"stats --states kernel -r -":         "unknown flag: --states",
		"stats -r - --for 1s --by container": "use --for when tracing",
	} {
		if r := sstrace(t, recorded, strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.stderr, want) || r.stdout != "" {
			t.Errorf("%s: exit code %d, stderr %q, stdout %q; want %d and %q", args, r.code, r.stderr, r.stdout, exitUsage, want)
		}
	}
	if r := sstrace(t, "", "__complete", "stats", "--by", ""); !strings.Contains(r.stdout, "container") {
		t.Errorf("--by completes to %q", r.stdout)
	}
}
