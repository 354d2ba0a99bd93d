// Package record defines what the kernel side reports, before the tracker turns it into lines.
package record

import "sstrace/internal/event"

// Record is one report from the kernel side. The embedded Event holds what the record contributes
// to its line; the tracker completes it. The other fields are for the tracker alone, and no view
// ever sees them. A field's zero value means unknown unless it says otherwise.
type Record struct {
	event.Event
	Kind Kind

	Listener uint64  // of a request sock: the address of its listener
	Mini     bool    // Sk is a request or timewait sock, not a full one
	Retries  uint8   // of a request sock: how often its SYN-ACK was retransmitted
	Closing  Closing // of a change to CLOSE
	Flags    Flags
	SoftErr  int32  // of a change from SYN_SENT to CLOSE: the errno of an earlier ICMP message; 0: none
	SRTT     uint32 // of a change from ESTABLISHED: the smoothed round-trip time, in µs
	Segment  uint8  // of a Reset: the flags of the segment, as in its header (RFC 9293 section 3.1)

	// Losses is the number of changes lost in the whole run when the kernel made this record. Two
	// records of a socket with the same number have nothing missing between them.
	Losses uint64
}

// These kinds do not come from the ring buffer. The others are the kernel side's: see enums.go.
const (
	Lost     Kind = 254 // changes are missing before the next record: RingFull of them
	Existing Kind = 255 // a socket that is older than the trace; its state is New
)
