package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// trace runs sstrace around traffic and returns the recording. It also checks what is true of every
// recording.
func trace(t *testing.T, args []string, traffic func()) recordedRun {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.ndjson")
	args = append([]string{"-o", "ndjson", "-w", file}, args...)
	if !slices.Contains(args, "--states") {
		args = append(args, "--states", "kernel")
	}
	around(t, args, traffic)
	r := readRecording(t, file)
	if rfc := slices.Contains(args, "rfc"); !rfc && r.end.Merged != 0 {
		t.Errorf("records were merged: %+v", *r.end)
	} else if rfc {
		checkPaths(t, &r)
	}
	return r
}

// around runs sstrace, with -w, around traffic. It waits until sstrace is attached, and ends
// sstrace when traffic is over.
func around(t *testing.T, args []string, traffic func()) {
	t.Helper()
	// The command starts once everything is attached. It reports that, and exits when the test
	// closes its stdin.
	args = append(args, "--", "sh", "-c", "echo attached; read _")
	cmd := self("sstrace", args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // if traffic ends the test
		stdin.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "attached\n" {
		_ = cmd.Wait()
		t.Fatalf("sstrace %q did not attach: %q, %v: %s", args, line, err, &stderr)
	}
	traffic()
	stdin.Close()
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait() // `read` fails at end of file
}

// recordedRun is a complete recording.
type recordedRun struct {
	file    string
	changes []event.Event
	accepts []event.Event
	failed  []event.Event // connect() calls that sent no SYN
	lost    []event.Event
	end     *event.Balance
}

// The keys of a trace's lines, in order.
var (
	changeKeys        = keyNames(event.InChange)
	acceptKeys        = keyNames(event.InAccept)
	connectFailedKeys = keyNames(event.InConnectFailed)
)

// readRecording checks each line against the schema. It also checks that seq has no gaps, that the
// balance adds up and matches the lines, and that durations match the times.
func readRecording(t *testing.T, file string) (r recordedRun) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.file = file
	schema := ndjsonSchema(t)
	seq := uint64(0)
	for line := range bytes.Lines(text) {
		if seq < 2000 { // the first lines stand for the rest
			checkLine(t, schema, line)
		}
		var e event.Event
		if err := e.DecodeJSON(line); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if seq++; e.Seq != seq {
			t.Fatalf("got seq %d, want %d", e.Seq, seq)
		}
		switch {
		case r.end != nil:
			t.Fatal("a line after the end")
		case e.Type == event.Change:
			r.changes = append(r.changes, e)
		case e.Type == event.Accept:
			r.accepts = append(r.accepts, e)
		case e.Type == event.ConnectFailed:
			r.failed = append(r.failed, e)
		case e.Type == event.Lost:
			r.lost = append(r.lost, e)
		case e.Type == event.End:
			r.end = e.Balance
		}
	}
	if r.end == nil {
		t.Fatal("no end line")
	}
	if !r.end.Balanced() || r.end.Printed != uint64(len(r.changes)+len(r.accepts)+len(r.failed)) || r.end.Added != 0 || r.end.Missed != 0 {
		t.Errorf("the balance does not add up, with %d changes printed: %+v", len(r.changes), *r.end)
	}
	checkDurations(t, r.changes)
	return r
}

func checkLine(t *testing.T, schema *jsonschema.Schema, line []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%v: %s", err, line)
	}
	keys := changeKeys
	switch {
	case bytes.Contains(line, []byte(`"type":"accept"`)):
		keys = acceptKeys
	case bytes.Contains(line, []byte(`"type":"connect_failed"`)):
		keys = connectFailedKeys
	case bytes.Contains(line, []byte(`"type":"socket"`)):
		keys = socketKeys
	case !bytes.Contains(line, []byte(`"type":"change"`)):
		return
	}
	var got []string
	in := json.NewDecoder(bytes.NewReader(line))
	_, _ = in.Token() // skips {
	for in.More() {
		key, err := in.Token()
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		got = append(got, fmt.Sprint(key))
		if err := in.Decode(new(any)); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	if strings.Join(got, " ") != strings.Join(keys, " ") {
		t.Errorf("keys are %v, want %v", got, keys)
	}
}

// checkDurations checks that each known duration is the time since the socket's previous change. It
// also checks that each socket leaves the state that it entered, unless changes are missing.
func checkDurations(t *testing.T, changes []event.Event) {
	t.Helper()
	last := make(map[uint64]event.Event)
	for _, e := range changes {
		before, ok := last[e.ID]
		last[e.ID] = e
		if !ok || e.Dur == event.Unknown {
			continue
		}
		if before.New != e.Old || e.Dur != e.Mono-before.Mono {
			t.Errorf("socket %d was in %v from %d to %d, and %d ns in %v are claimed", e.ID, before.New, before.Mono, e.Mono, e.Dur, e.Old)
		}
		if before.Cookie != 0 && before.Cookie != e.Cookie {
			t.Errorf("socket %d has the cookies %d and %d", e.ID, before.Cookie, e.Cookie)
		}
	}
}

// reason returns why e ended a connection, in the format of paths.
func reason(e *event.Event) string {
	if e.Reason == 0 {
		return ""
	}
	return " (" + e.Reason.String() + ")"
}

// paths returns one line for each socket with all of its changes, ordered by first change: "client
// CLOSE SYN_SENT ESTABLISHED ...".
func (r recordedRun) paths() []string {
	var order []uint64
	path := make(map[uint64]string)
	last := make(map[uint64]event.State)
	for _, e := range r.changes {
		if _, ok := path[e.ID]; !ok {
			order = append(order, e.ID)
			path[e.ID] = e.Role.String() + " " + e.Old.String()
		} else if last[e.ID] != e.Old {
			path[e.ID] += " ... " + e.Old.String()
		}
		path[e.ID] += " " + e.New.String() + reason(&e)
		last[e.ID] = e.New
	}
	var all []string
	for _, id := range order {
		all = append(all, path[id])
	}
	return all
}
