package main

import (
	"os"
	"strings"
	"testing"
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
		"--where", "--output", "--time", "--states", "--write", "--read", "--count", "--for", "--buffer", "--watch",
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
