// Package record defines what the kernel side reports, before the tracker makes lines of it.
package record

import "sstrace/internal/event"

// Record is one report of the kernel side. The embedded Event has what the record contributes to its
// line; the tracker completes it. The other fields are for the tracker alone, and no view ever sees
// them. A field's zero value means unknown unless it says otherwise.
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

// Kind is what a Record reports. The numbers are those of enum kind in bpf/sstrace.bpf.c, except for
// Lost and Existing, which do not come from the ring buffer.
//
// A mini-socket is a request sock, which stands for a handshake that is not over, or a timewait sock,
// which stands for a connection that only waits for its end. The kernel cancels a mini-socket's timer
// just before it lets the timer expire, and also when it restarts one that is still running.
type Kind uint8

// The kinds.
const (
	Change            Kind = iota // a full socket changed its state
	RequestStarted                // a SYN arrived, or the SYN-ACK was retransmitted
	RequestCancelled              // the timer of a request sock was cancelled
	RequestExpired                // the timer of a request sock expired
	TimeWaitStarted               // New is the state: TIME_WAIT or FIN_WAIT2
	TimeWaitCancelled             // the timer of a timewait sock was cancelled
	TimeWaitExpired               // the timer of a timewait sock expired
	SynSentStarted                // connect() sent its SYN and so has chosen a port; Sk is the full socket
	SecondChange                  // a Change that the kernel side's second program caught
	Accepted                      // accept() returned the socket to the current task
	Reset                         // the segment that ended the mini-socket whose timer was cancelled just before
	AcceptedPerhaps               // as Accepted, unless an Accepted reported it: io_uring returned the socket's descriptor number
	RequestAcked                  // the handshake's ACK was dropped, since the listener waits for data (TCP_DEFER_ACCEPT)
	NoSyn                         // connect() failed and changed no state
	ConnectReturned               // connect() failed after it had changed states; Err is what it returned
	ProcessExited                 // a process that had called listen() exited
	ResetSent                     // a socket that a segment has just closed answers it with RST

	Lost     Kind = 254 // changes are missing before the next record: RingFull of them
	Existing Kind = 255 // a socket that is older than the trace; its state is New
)

// Closing describes a socket as it closes (the CLOSING_ bits in bpf/sstrace.bpf.c).
type Closing uint32

// The bits of Closing.
const (
	Shut         Closing = 1 << iota // shut down in both directions, as close() does
	Linger0                          // SO_LINGER with a time of 0
	Keepalive                        // SO_KEEPALIVE
	Unaccepted                       // no process ever held it
	Orphan                           // no process holds it any more
	FinCame                          // the peer's FIN arrived
	TimeWaitFull                     // the limit of timewait socks is reached, or unknown
	NoFinWait2                       // TCP_LINGER2 below 0: as an orphan it does not wait for a FIN
	Unread                           // it received data that no process has read
	Repair                           // TCP_REPAIR is on
	InConnect                        // the current task closes it in its own connect()
	Unacked                          // a SYN, data or a FIN is unacknowledged, or unsent
	NetNSGone                        // no process is left in its network namespace
	RecvShut                         // it no longer receives: close(), shutdown(), or the peer's FIN
	Owned                            // a system call on the socket made the change
	NoSegment                        // it has sent no segment
	Unsent                           // data or a FIN is unsent
)

// Flags describes the socket of a record, or what happened to it (the FLAG_ bits in
// bpf/sstrace.bpf.c).
type Flags uint8

// The bits of Flags. All but PortStale, Destroyed and Abandoned are about request socks.
const (
	PortStale Flags = 1 << iota // it has no local port: Local has the port of its last connection
	Acked                       // the ACK arrived and was dropped
	Defers                      // its listener waits for data (TCP_DEFER_ACCEPT)
	QueueFull                   // its listener's accept queue is full
	ByICMP                      // an ICMP message ended it
	Destroyed                   // the current task asked for it to be destroyed (ss -K)
	Abandoned                   // of a timewait sock: no process is left in its network namespace
)
