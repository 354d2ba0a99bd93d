package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// If nobody reads the smallest ring for a while, changes are lost. The lines report how many
// changes were lost, and where. They contain no duration that spans a loss.
func TestOverflow(t *testing.T) {
	for _, states := range []string{"kernel", "rfc"} {
		t.Run(states, func(t *testing.T) {
			r, stderr := overflow(t, states)
			checkLosses(t, states, r)
			if !strings.Contains(stderr, "--buffer") {
				t.Errorf("got stderr %q, want a hint at --buffer", stderr)
			}
		})
	}
}

// overflow makes sstrace lose changes. Nobody reads its output pipe at first, so it soon sleeps in
// write().
func overflow(t *testing.T, states string) (r recordedRun, stderr string) {
	h := newHost(t)
	tr := h.start([]string{"-o", "ndjson", "--buffer", "4K", "--states", states})
	tr.awaitAttached()
	l, old, s := h.connection(loopbackAddr, loopbackAddr)
	for range 2000 {
		c := h.dial(loopbackAddr)
		c.reset()
		c.close()
		l.accept().close()
	}
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	copied := tr.copyOutput(file)
	await(t, "sstrace has caught up", func() bool {
		h.listen("127.0.0.1:2", 1).close()
		text, err := os.ReadFile(file)
		h.must("read", err)
		return bytes.Contains(text, []byte(`"lport":2,`))
	})
	closeBoth(old, s)
	l.close()
	tr.end(unix.SIGTERM, 0)
	h.must("copy", <-copied)
	return readRecording(t, file), tr.stderr.String()
}

// checkLosses checks that the losses add up, and that no duration spans one.
func checkLosses(t *testing.T, states string, r recordedRun) {
	var lost uint64
	var losses []uint64 // the seq of each
	for _, e := range r.lost {
		lost += e.RingFull
		losses = append(losses, e.Seq)
	}
	if lost == 0 || lost != r.end.RingFull {
		t.Errorf("got %d changes lost in all places, want the end's %d, and not 0", lost, r.end.RingFull)
	}
	last := make(map[uint64]uint64)
	affected := 0
	for _, e := range r.changes {
		socket := e.Sk // everything that sstrace may treat as one socket
		if states == "rfc" {
			socket = e.ID // one socket may be several connections in succession
		}
		before, ok := last[socket]
		last[socket] = e.Seq
		if !ok || !slices.ContainsFunc(losses, func(at uint64) bool { return before < at && at < e.Seq }) {
			continue
		}
		affected++
		if e.Dur != event.Unknown {
			t.Errorf("changes were lost between lines %d and %d: got duration %d, want unknown", before, e.Seq, e.Dur)
		}
	}
	t.Logf("%d changes, %d lost in %d places, %d affected", len(r.changes), lost, len(r.lost), affected)
	// Without cookies, sstrace treats a socket as another one after a loss.
	cookies := slices.ContainsFunc(r.changes, func(e event.Event) bool { return e.Cookie != 0 })
	if affected == 0 && cookies {
		t.Error("no socket has changes on both sides of a loss, so this tests nothing")
	}
}
