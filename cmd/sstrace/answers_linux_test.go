package main

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"sstrace/internal/event/eventtest"
)

// ask runs an sstrace command around traffic and returns its lines of type kind. linesOf checks all
// lines.
func ask[T any](t *testing.T, kind string, args []string, traffic func()) []T {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answer.ndjson")
	around(t, append(args, "-o", "ndjson", "-w", file), traffic)
	return linesOf[T](t, kind, read(t, file))
}

// answers runs an sstrace command to completion and returns its lines of type kind. linesOf checks
// all lines.
func answers[T any](t *testing.T, kind string, args ...string) []T {
	t.Helper()
	r := sstrace(t, "", append(args, "-o", "ndjson")...)
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	return linesOf[T](t, kind, r.stdout)
}

// linesOf returns the lines of type kind in a command's output. It checks all lines: they follow
// the schema, seq has no gaps, no change was lost, and the last line is the end.
func linesOf[T any](t *testing.T, kind, text string) (all []T) {
	t.Helper()
	eventtest.KeepsSchema(t, text)
	last, seq := "", 0
	for line := range strings.Lines(text) {
		var head struct {
			Type string
			Seq  int
		}
		if err := json.Unmarshal([]byte(line), &head); err != nil {
			t.Fatal(err)
		}
		if seq++; head.Seq != seq {
			t.Fatalf("got seq %d, want %d", head.Seq, seq)
		}
		last = head.Type
		if head.Type == "lost" {
			t.Fatalf("changes were lost: %s", line)
		}
		if head.Type != kind {
			continue
		}
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if last != "end" {
		t.Errorf("got %q as the last line, want end", last)
	}
	return all
}

// reportedHandshake is a line of `sstrace handshakes`.
type reportedHandshake struct {
	State          string
	Pairing        *string
	Defer          *int64 `json:"defer_ns"`
	NoSyn          bool   `json:"no_syn"`
	Syn            *int64 `json:"syn_ns"`
	SynAck         *int64 `json:"synack_ns"`
	Ack            *int64 `json:"ack_ns"`
	Accept         *int64 `json:"accept_ns"`
	Connect        *int64 `json:"connect_ns"`
	Serve          *int64 `json:"server_ns"`
	Reason         *string
	Client, Server *reportedEnd
}

// reportedEnd is one end of a reportedHandshake.
type reportedEnd struct {
	Cookie       *uint64
	NetNS        uint64
	Laddr, Raddr netip.Addr
	Lport, Rport uint16
	SynRetrans   *int `json:"syn_retrans"`
	OwnerPID     int  `json:"owner_pid"`
}

// reportedConn is a line of `sstrace conns`.
type reportedConn struct {
	ID       uint64
	PeerID   *uint64 `json:"peer_id"`
	Role     string
	State    string
	Open     bool
	Life     *int64 `json:"life_ns"`
	States   map[string]*int64
	Active   *bool `json:"active_close"`
	OwnerPID int   `json:"owner_pid"`
	Totals   *struct {
		Acked    int `json:"bytes_acked"`
		Received int `json:"bytes_received"`
	}
}
