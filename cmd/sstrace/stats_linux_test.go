package main

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"sstrace/internal/event/eventtest"
)

// If the client closes 50 connections, each change is counted 50 times, both in the sum of all
// intervals and in the whole run.
func TestStats(t *testing.T) {
	const connections = 50
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "stats.ndjson")
	args := []string{"stats", "--netns", h.netns(), "--by", "port", "--interval", "10ms", "-o", "ndjson", "-w", file}
	around(t, args, func() {
		l := h.listen(loopbackAddr, connections)
		for range connections {
			closeBoth(h.established(l, loopbackAddr))
		}
		h.quiet()
		l.close()
	})
	text := read(t, file)
	eventtest.KeepsSchema(t, text)
	type line struct {
		Type, By, Group  string
		Old, New, Reason string
		Final            bool
		Count, Timed     int
	}
	count, timed := map[bool]map[string]int{false: {}, true: {}}, map[string]int{}
	var last string
	for raw := range strings.Lines(text) {
		var l line
		if err := json.Unmarshal([]byte(raw), &l); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if last = l.Type; last == "end" {
			continue
		}
		if l.By != "port" || l.Group != "7781" {
			t.Errorf("got %s, want the server's port", raw)
		}
		what := l.Old + " " + l.New + l.Reason
		count[l.Final][what] += l.Count
		if l.Final && l.Type == "stats" {
			timed[what] = l.Timed
		}
	}
	if last != "end" {
		t.Errorf("got %q as the last line, want end", last)
	}
	for _, c := range count { // reusing a port ends its TIME_WAIT
		delete(c, "TIME_WAIT CLOSE")
		delete(c, " time_wait_reused")
	}
	delete(timed, "TIME_WAIT CLOSE")
	const n = connections
	want := map[string]int{
		"CLOSE LISTEN": 1, "LISTEN CLOSE": 1,
		"CLOSE SYN_SENT": n, "SYN_SENT ESTABLISHED": n,
		"LISTEN SYN_RECV": n, "SYN_RECV ESTABLISHED": n, "(queue) (accepted)": n,
		"ESTABLISHED FIN_WAIT1": n, "FIN_WAIT1 FIN_WAIT2": n, "FIN_WAIT2 TIME_WAIT": n,
		"ESTABLISHED CLOSE_WAIT": n, "CLOSE_WAIT LAST_ACK": n, "LAST_ACK CLOSE": n,
		" normal": n + 1,
	}
	if !maps.Equal(count[true], want) {
		t.Errorf("whole run: got %v, want %v", count[true], want)
	}
	if !maps.Equal(count[false], want) {
		t.Errorf("intervals: got %v, want %v", count[false], want)
	}
	delete(want, " normal")
	// The time before these changes is unknown.
	for _, first := range []string{"CLOSE LISTEN", "CLOSE SYN_SENT", "LISTEN SYN_RECV"} {
		want[first] = 0
	}
	if !maps.Equal(timed, want) {
		t.Errorf("timed: got %v, want %v", timed, want)
	}
}
