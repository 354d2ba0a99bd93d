package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diagramEdges lists the edges that diagramTraffic makes: role, old and new state, count, reason,
// and whether the edge is missing from the figure in RFC 9293.
var diagramEdges = []string{
	"listener CLOSE LISTEN 1",
	"client CLOSE SYN_SENT 7",
	"listener LISTEN CLOSE 1 normal",
	"server LISTEN SYN_RECV 6",
	"client SYN_SENT CLOSE 1 refused (not in the figure)",
	"client SYN_SENT ESTABLISHED 6",
	"server SYN_RECV ESTABLISHED 6",
	"client ESTABLISHED CLOSE 1 reset_sent_linger (not in the figure)",
	"server ESTABLISHED CLOSE 1 reset_by_peer (not in the figure)",
	"client ESTABLISHED FIN_WAIT1 3",
	"server ESTABLISHED FIN_WAIT1 2",
	"client ESTABLISHED CLOSE_WAIT 2",
	"server ESTABLISHED CLOSE_WAIT 3",
	"client FIN_WAIT1 FIN_WAIT2 3",
	"server FIN_WAIT1 FIN_WAIT2 2",
	"client FIN_WAIT2 TIME_WAIT 3",
	"server FIN_WAIT2 TIME_WAIT 2",
	"client CLOSE_WAIT LAST_ACK 2",
	"server CLOSE_WAIT LAST_ACK 3",
	"client LAST_ACK CLOSE 2 normal",
	"server LAST_ACK CLOSE 3 normal",
}

// diagramTraffic makes seven connections. The client closes three of them first and the server two.
// One is reset and one is refused.
func diagramTraffic(h *host) {
	l := h.listen(loopbackAddr, 8)
	for range 3 {
		closeBoth(h.established(l, loopbackAddr))
	}
	for range 2 {
		closeBoth(swap(h.established(l, loopbackAddr)))
	}
	resetBoth(h.established(l, loopbackAddr))
	h.quiet()
	l.close()
	c := h.socket(unix.AF_INET)
	c.refused()
	c.close()
}

// edgeLine is a line of `sstrace diagram -o ndjson`.
type edgeLine struct {
	Type, Old, New string
	Seq            int
	Role, Reason   *string
	Count, Timed   uint64
	InFigure       bool   `json:"in_figure"`
	Min            *int64 `json:"min_ns"`
	Median         *int64 `json:"median_ns"`
	Max            *int64 `json:"max_ns"`
}

// String returns e in the format of diagramEdges.
func (e *edgeLine) String() string {
	text := fmt.Sprint(*e.Role, " ", e.Old, " ", e.New, " ", e.Count)
	if e.Reason != nil {
		text += " " + *e.Reason
	}
	if !e.InFigure {
		text += " (not in the figure)"
	}
	return text
}

// Every edge is counted exactly, by the end that took it and by reason.
func TestDiagram(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "diagram")
	around(t, []string{"diagram", "-o", "ndjson", "-w", file, "--netns", h.netns()}, func() { diagramTraffic(h) })
	schema := ndjsonSchema(t)
	var got []string
	lines := strings.SplitAfter(strings.TrimSuffix(read(t, file), "\n"), "\n")
	for i, line := range lines {
		checkLine(t, schema, []byte(line))
		var e edgeLine
		h.must("decode", json.Unmarshal([]byte(line), &e))
		if e.Seq != i+1 || (e.Type == "end") != (i == len(lines)-1) {
			t.Errorf("line %d of %d: got %s", i+1, len(lines), line)
		}
		if e.Type != "edge" {
			continue
		}
		got = append(got, e.String())
		switch {
		case e.Old == "CLOSE" || e.Old == "LISTEN" && *e.Role == "server": // its beginning was not seen
			if e.Timed != 0 || e.Median != nil {
				t.Errorf("got %s, want no times", line)
			}
		case e.Timed != e.Count || *e.Min > *e.Median || *e.Median > *e.Max:
			t.Errorf("got %s, want all timed, and min_ns ≤ median_ns ≤ max_ns", line)
		}
	}
	if !slices.Equal(got, diagramEdges) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(diagramEdges, "\n"))
	}
}
