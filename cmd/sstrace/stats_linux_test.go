package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// Connections that the client closes are as many of each change, in the intervals and in the whole
// run.
func TestStats(t *testing.T) {
	const connections = 50
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "stats.ndjson")
	around(t, []string{"stats", "--netns", h.netns(), "--by", "port", "--interval", "10ms", "-o", "ndjson", "-w", file}, func() {
		l := h.listen("127.0.0.1:7781", connections)
		for range connections {
			c := h.dial("127.0.0.1:7781")
			s := l.accept()
			c.close()
			s.reach(8) // CLOSE_WAIT
			s.close()
		}
		h.quiet()
		l.close()
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	schema := ndjsonSchema(t)
	type line struct {
		Type, By, Group  string
		Old, New, Reason string
		Final            bool
		Count, Timed     int
	}
	count, timed := map[bool]map[string]int{false: {}, true: {}}, map[string]int{}
	var last string
	for raw := range bytes.Lines(text) {
		checkLine(t, schema, raw)
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if last = l.Type; last == "end" {
			continue
		}
		if l.By != "port" || l.Group != "7781" {
			t.Errorf("not of the server's port: %s", raw)
		}
		what := l.Old + " " + l.New + l.Reason
		count[l.Final][what] += l.Count
		if l.Final && l.Type == "stats" {
			timed[what] = l.Timed
		}
	}
	if last != "end" {
		t.Error("the last line is not the end")
	}
	for _, c := range count { // a port that is chosen again ends its TIME_WAIT
		delete(c, "TIME_WAIT CLOSE")
		delete(c, " time_wait_reused")
	}
	delete(timed, "TIME_WAIT CLOSE")
	const n = connections
	want := map[string]int{
		"CLOSE LISTEN": 1, "CLOSE SYN_SENT": n, "LISTEN SYN_RECV": n, "LISTEN CLOSE": 1, "SYN_SENT ESTABLISHED": n, "SYN_RECV ESTABLISHED": n, "(queue) (accepted)": n,
		"ESTABLISHED FIN_WAIT1": n, "ESTABLISHED CLOSE_WAIT": n, "FIN_WAIT1 FIN_WAIT2": n, "FIN_WAIT2 TIME_WAIT": n, "CLOSE_WAIT LAST_ACK": n, "LAST_ACK CLOSE": n, " normal": n + 1,
	}
	if !maps.Equal(count[true], want) {
		t.Errorf("the whole run has %v, want %v", count[true], want)
	}
	if !maps.Equal(count[false], want) {
		t.Errorf("the intervals have %v, want %v", count[false], want)
	}
	delete(want, " normal")
	for what := range want {
		if what == "CLOSE LISTEN" || what == "CLOSE SYN_SENT" || what == "LISTEN SYN_RECV" { // the beginning of these is no change
			want[what] = 0
		}
	}
	if !maps.Equal(timed, want) {
		t.Errorf("times are known of %v, want %v", timed, want)
	}
}
