package event_test

import (
	"fmt"
	"strings"
	"time"

	"sstrace/internal/event"
)

const recording = `{"v":1,"type":"change","seq":1,"ts":"2026-11-22T14:02:11.123456789Z","mono_ns":1000000000,` +
	`"id":12,"family":"ipv4","proto":"tcp","laddr":"127.0.0.1","lport":40602,"raddr":"127.0.0.1","rport":7781,` +
	`"old":"SYN_SENT","new":"ESTABLISHED","dur_ns":57254,"role":"client","owner_pid":17837,"owner_comm":"nc"}
{"v":1,"type":"lost","seq":2,"ts":"2026-11-22T14:02:12.000000000Z","mono_ns":1876543211,"ring_full":12}
`

// Decode one line and look at the result. Keys that are missing from the line are unknown.
func ExampleEvent_DecodeJSON() {
	line, _, _ := strings.Cut(recording, "\n")
	var e event.Event
	if err := e.DecodeJSON([]byte(line)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Old, "to", e.New, "after", time.Duration(e.Dur))
	fmt.Println(e.Local, e.Remote, e.OwnerComm)
	fmt.Println(e.UID == event.NoUID, e.SynRetrans == event.Unknown)
	// Output:
	// SYN_SENT to ESTABLISHED after 57.254µs
	// 127.0.0.1:40602 127.0.0.1:7781 nc
	// true true
}

// Read a recording.
func ExampleRead() {
	for e, err := range event.Read(strings.NewReader(recording)) {
		if err != nil {
			fmt.Println(err)
			return
		}
		switch e.Type {
		case event.Change:
			fmt.Println(e.Seq, e.New)
		case event.Lost:
			fmt.Println(e.Seq, e.RingFull, "changes are missing")
		}
	}
	// Output:
	// 1 ESTABLISHED
	// 2 12 changes are missing
}

// List the keys of lines about connect() that changes do not have, or that have other values there.
func ExampleKinds_Keys() {
	for _, k := range event.InConnectFailed.Keys() {
		if doc := k.DocIn(event.InConnectFailed); doc != k.Doc {
			fmt.Println(k.Name+":", doc)
		}
	}
	// Output:
	// reason: Why connect() failed.
	// err: Errno that connect() returned.
	// isn: Always null, since no SYN was sent.
}
