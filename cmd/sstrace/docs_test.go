package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sstrace/internal/event"
)

// Every flag must be found by who looks for it: in the README or the man page, and with an example.
func TestFlagsAreDocumented(t *testing.T) {
	man, err := os.ReadFile("../../docs/sstrace.8")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	help := sstrace(t, "", "--help").stdout + sstrace(t, "", "ls", "--help").stdout
	manText := strings.ReplaceAll(string(man), `\-`, "-")
	for _, flag := range []string{
		"--port", "--lport", "--rport", "--host", "--ipv4", "--ipv6", "--netns", "--uid", "--cgroup", "--proto", "--state", "--edge", "--min-dur", "--pid", "--comm",
		"--where", "--output", "--time", "--states", "--write", "--read", "--count", "--for", "--buffer", "--watch", "--bound",
	} {
		if !strings.Contains(help, flag) {
			t.Errorf("%s is not in --help", flag)
		}
		if !strings.Contains(manText, flag) {
			t.Errorf("%s is not in docs/sstrace.8", flag)
		}
		if !strings.Contains(string(readme), flag) {
			t.Errorf("%s is not in README.md", flag)
		}
	}
}

// Every reason stands where reasons are listed.
func TestReasonsAreDocumented(t *testing.T) {
	for path, quote := range map[string]string{"README.md": "`", "docs/ndjson.md": "`", "docs/ndjson.schema.json": `"`, "docs/sstrace.8": ""} {
		text, err := os.ReadFile("../../" + path)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range event.Reasons() {
			if !regexp.MustCompile(quote + `\b` + r.String() + `\b` + quote).Match(text) {
				t.Errorf("%s is not in %s", r, path)
			}
		}
	}
}
