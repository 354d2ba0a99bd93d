package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shown lists the commands in docs/redis.md and the files to which docs/redis.sh writes their
// output.
var shown = []struct{ command, file string }{
	{"sstrace ls -p 6379,6389", "ls.txt"},
	{"sstrace -p 6379,6389", "trace.txt"},
	{"sstrace conns --timeline -r trace.ndjson", "timeline.txt"},
	{"sstrace handshakes -r trace.ndjson", "handshakes.txt"},
	{"sstrace conns -r trace.ndjson", "conns.txt"},
	{"sstrace ls -p 6379,6389 # a moment later", "ls-after.txt"},
	{"sstrace diagram -r trace.ndjson -o text", "diagram.txt"},
}

// The parts that may differ between runs. What is left of a line is its words: states, names and
// reasons.
var (
	differs = regexp.MustCompile(`[0-9]+|[^A-Za-z_()→]+`)
	units   = regexp.MustCompile(`([0-9.]+(ns|µs|ms|[hms]))+|[0-9.]+ k?B\b`)
)

// words returns the words of each line, sorted, because events at both ends at the same time have
// no fixed order.
func words(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimSpace(differs.ReplaceAllString(units.ReplaceAllString(line, ""), " ")))
	}
	slices.Sort(all)
	return all
}

// All output in docs/redis.md comes from a run of docs/redis.sh. A run today must print the same
// words. SSTRACE_GOLDEN=write updates the page. Review the diff before you commit it.
func TestTutorial(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	sstrace := filepath.Join(dir, "sstrace")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n" + roleVariable + "=sstrace exec " + exe + " \"$@\"\n"
	if err := os.WriteFile(sstrace, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	server := redisServer(t)
	cmd := exec.Command("../../docs/redis.sh", dir)
	path := filepath.Dir(server) + ":" + os.Getenv("PATH")
	cmd.Env = append(os.Environ(), "SSTRACE="+sstrace, "NO_COLOR=1", "TZ=UTC", "PATH="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const page = "../../docs/redis.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shown {
		got, err := os.ReadFile(filepath.Join(dir, s.file))
		if err != nil {
			t.Fatal(err)
		}
		heading := []byte("\n    # " + s.command + "\n")
		_, after, ok := bytes.Cut(text, heading)
		if !ok {
			t.Errorf("%s: no %q in it", page, s.command)
			continue
		}
		var block []byte // indented lines, and the empty ones between them
		for line := range bytes.Lines(after) {
			if !bytes.HasPrefix(line, []byte("    ")) && len(bytes.TrimSpace(line)) > 0 {
				break
			}
			block = append(block, line...)
		}
		block = bytes.TrimRight(block, "\n")
		var indented bytes.Buffer
		for line := range bytes.Lines(got) {
			if len(bytes.TrimSpace(line)) > 0 {
				indented.WriteString("    ")
			}
			indented.Write(line)
		}
		now := bytes.TrimRight(indented.Bytes(), "\n")
		if os.Getenv("SSTRACE_GOLDEN") == "write" {
			text = bytes.Replace(text, slices.Concat(heading, block), slices.Concat(heading, now), 1)
			continue
		}
		if want, have := words(string(block)), words(string(now)); !slices.Equal(want, have) {
			t.Errorf("%s: got:\n%s\nwant, as in %s:\n%s", s.command, now, page, block)
		}
	}
	picture, err := os.ReadFile(filepath.Join(dir, "diagram.svg"))
	if err != nil || !bytes.Contains(picture, []byte("</svg>")) {
		t.Errorf("diagram.svg: %v", err)
	}
	if os.Getenv("SSTRACE_GOLDEN") == "write" {
		for file, content := range map[string][]byte{page: text, "../../docs/redis.svg": picture} {
			if err := os.WriteFile(file, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
