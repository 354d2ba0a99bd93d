package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What was travelled is told exactly, each way with whose it was and how it ended.
func TestDiagram(t *testing.T) {
	const addr = "127.0.0.1:7781"
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "diagram")
	cmd := self("sstrace", "diagram", "-o", "ndjson", "-w", file, "--netns", h.netns(), "--", "sh", "-c", "echo attached; read _")
	stdin, err := cmd.StdinPipe()
	h.must("pipe", err)
	stdout, err := cmd.StdoutPipe()
	h.must("pipe", err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	h.must("start", cmd.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "attached\n" {
		_ = cmd.Wait()
		t.Fatalf("it did not attach: %q, %v: %s", line, err, &stderr)
	}

	l := h.listen(addr, 8)
	connection := func() (client, server sock) {
		client = h.dial(addr)
		return client, l.accept()
	}
	for range 3 {
		c, s := connection()
		closeBoth(c, s)
	}
	for range 2 {
		c, s := connection()
		closeBoth(s, c)
	}
	c, s := connection()
	c.reset()
	c.close()
	s.reach(unix.BPF_TCP_CLOSE)
	s.close()
	h.quiet()
	l.close()
	refused := h.socket(unix.AF_INET)
	_ = unix.Connect(refused.fd, sockaddr(netip.MustParseAddrPort(addr), unix.AF_INET))
	refused.close()
	stdin.Close()
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait() // `read` fails at the end of file

	schema := ndjsonSchema(t)
	var got []string
	lines := strings.SplitAfter(strings.TrimSuffix(read(t, file), "\n"), "\n")
	for i, line := range lines {
		checkLine(t, schema, []byte(line))
		var e struct {
			Type, Old, New string
			Seq            int
			Role, Reason   *string
			Count, Timed   uint64
			InFigure       bool   `json:"in_figure"`
			Least          *int64 `json:"min_ns"`
			Median         *int64 `json:"median_ns"`
			Most           *int64 `json:"max_ns"`
		}
		h.must("decode", json.Unmarshal([]byte(line), &e))
		if e.Seq != i+1 || (e.Type == "end") != (i == len(lines)-1) {
			t.Errorf("line %d of %d: %s", i+1, len(lines), line)
		}
		if e.Type != "edge" {
			continue
		}
		reason := ""
		if e.Reason != nil {
			reason = " " + *e.Reason
		}
		if !e.InFigure {
			reason += " (not in the figure)"
		}
		got = append(got, fmt.Sprint(*e.Role, " ", e.Old, " ", e.New, " ", e.Count, reason))
		switch {
		case e.Old == "CLOSE" || e.Old == "LISTEN" && *e.Role == "server": // its beginning is not seen
			if e.Timed != 0 || e.Median != nil {
				t.Errorf("a time that nobody knows: %s", line)
			}
		case e.Timed != e.Count || *e.Least > *e.Median || *e.Median > *e.Most:
			t.Errorf("times: %s", line)
		}
	}
	want := []string{
		"listener CLOSE LISTEN 1", "client CLOSE SYN_SENT 7", "listener LISTEN CLOSE 1 normal", "server LISTEN SYN_RECV 6",
		"client SYN_SENT CLOSE 1 refused (not in the figure)", "client SYN_SENT ESTABLISHED 6", "server SYN_RECV ESTABLISHED 6",
		"client ESTABLISHED CLOSE 1 reset_sent_linger (not in the figure)", "server ESTABLISHED CLOSE 1 reset_by_peer (not in the figure)",
		"client ESTABLISHED FIN_WAIT1 3", "server ESTABLISHED FIN_WAIT1 2", "client ESTABLISHED CLOSE_WAIT 2", "server ESTABLISHED CLOSE_WAIT 3",
		"client FIN_WAIT1 FIN_WAIT2 3", "server FIN_WAIT1 FIN_WAIT2 2", "client FIN_WAIT2 TIME_WAIT 3", "server FIN_WAIT2 TIME_WAIT 2",
		"client CLOSE_WAIT LAST_ACK 2", "server CLOSE_WAIT LAST_ACK 3", "client LAST_ACK CLOSE 2 normal", "server LAST_ACK CLOSE 3 normal",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), &stderr)
	}
}
