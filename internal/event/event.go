// Package event defines Event, one line of the output, and reads and writes it as NDJSON. Since a
// line of NDJSON is an Event, a recording is a source of Events just like the kernel.
//
// The table in keys.go lists the keys. After changing it, run go generate.
package event

import (
	"net/netip"
	"strconv"
)

// Unknown is the unknown value of a member that can be known to be 0, such as the Event.Dur of a
// state whose start was not seen.
const Unknown = -1

// NoUID is the Event.UID of a socket whose user is unknown. It is the kernel's INVALID_UID
// (include/linux/uidgid.h).
const NoUID = 1<<32 - 1

// Version is the value of the key "v". Within a version keys may be added; no key is renamed,
// removed or given another meaning.
const Version = 1

// Type is the kind of line that an Event is.
type Type uint8

// The types. A Socket is an existing socket: it is older than the trace, or belongs to a listing.
// Its state is New.
const (
	Change Type = iota // a TCP state change
	Lost               // changes are missing between the line before and the line after
	End                // the last line, with the balance
	Accept             // accept() gave a connection to a process; Dur is how long it waited
	Socket
	ConnectFailed // connect() failed before it sent a SYN: no state changed, and Err is the reason
)

// HostPID marks a process ID of the initial PID namespace, for a process that has none in the PID
// namespace of sstrace. Process IDs stay below 1<<22 (PID_MAX_LIMIT in include/linux/threads.h), so
// the bit is free.
const HostPID = 1 << 31

// State is a TCP state, by the kernel's number (include/net/tcp_states.h; RFC 9293 section 3.3.2).
type State uint8

// The states, named as in the kernel but without TCP_. State 12, NEW_SYN_RECV, never reaches the
// tracepoint.
const (
	Established State = iota + 1
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
)

// Family is the address family. Mapped is IPv4 over an IPv6 socket (RFC 4291 section 2.5.5.2),
// whose addresses are IPv4 addresses here.
type Family uint8

// The families.
const (
	IPv4 Family = iota + 1
	IPv6
	Mapped
)

// Proto is the protocol of the socket. MPTCP and SCTP sockets change states on the same tracepoint.
type Proto uint8

// The protocols.
const (
	TCP Proto = iota + 1
	MPTCP
	SCTP
)

// Origin is the source from which a line was made.
type Origin uint8

// The origins.
const (
	Tracepoint Origin = iota + 1 // sock:inet_sock_set_state
	FromTimer                    // the timer of a mini-sock
)

// Reason is the reason why a connection ended, on a change to CLOSE. It is zero on other changes,
// and in the kernel vocabulary.
type Reason uint8

// The reasons. If the socket has an error, Event.Err holds it.
const (
	ReasonNormal             Reason = iota + 1 // both ends closed; or a listener was closed
	ReasonRefused                              // RST answered the SYN
	ReasonResetByPeer                          // RST was received
	ReasonResetSentUnread                      // close() with unread data: RST was sent (RFC 2525 section 2.17)
	ReasonResetSentLinger                      // close() with SO_LINGER and time 0: RST was sent
	ReasonTimedOut                             // what was sent was not acknowledged
	ReasonKeepaliveTimeout                     // keep-alive probes were not answered
	ReasonUnreachable                          // ICMP, or no route
	ReasonAborted                              // ss -K, connect() to AF_UNSPEC, or SO_LINGER 0 too late for RST
	ReasonGivenUp                              // closed by its process before it was connected
	ReasonHandshakeAbandoned                   // the ACK of the SYN-ACK never came
	ReasonTimeWaitExpired                      // the end of TIME_WAIT
	ReasonTimeWaitReused                       // a new connection took the place of one in TIME_WAIT
	ReasonTimeWaitOverflow                     // no TIME_WAIT, since tcp_max_tw_buckets was reached
	ReasonFinWait2Timeout                      // the peer never closed
	ReasonResetSentLateData                    // data came after close(): RST was sent (RFC 9293 section 3.6.1)
	ReasonListenerClosed                       // the listener was closed before the connection was accepted
	ReasonUnexplained                          // none of these
	ReasonNoPort                               // connect() found no free local port (EADDRNOTAVAIL); no SYN was sent
	ReasonPortUnreachable                      // ICMP port unreachable, not RST, answered the SYN
	ReasonRepaired                             // close() of a socket in TCP_REPAIR: nothing was sent
	ReasonResetSentLinger2                     // close() with TCP_LINGER2 below 0: RST was sent instead of FIN_WAIT2
	ReasonTooManyOrphans                       // more than tcp_max_orphans, or out of memory (TCPAbortOnMemory)
	ReasonAcceptQueueFull                      // the ACK of the SYN-ACK came, but the accept queue was full
	ReasonNetNSGone                            // the network namespace was removed
	ReasonResetSentSyn                         // a SYN for a half-open connection was answered with RST
)

// Closer is the end that closed first. It is zero while the connection is open, if the connection
// ended without a close (a timeout), and if the close was not seen.
type Closer uint8

// The closers.
const (
	WeClosed Closer = iota + 1 // active close (RFC 9293 section 3.6)
	TheyClosed
)

// Role is the role of a socket; zero if it is unknown.
type Role uint8

// The roles.
const (
	Client Role = iota + 1 // active open
	Server                 // passive open
	Listener
)

// Via is how the owner is known. It is zero if there is no owner.
type Via uint8

// The ways. The owner called connect(), listen(), close() or accept(); or the socket is a
// connection of its listener; or it was the socket's only holder when the trace started.
const (
	ViaConnect Via = iota + 1
	ViaListen
	ViaListener
	ViaClose
	ViaSnapshot
	ViaAccept
)

// Attached is what refers to a socket; zero if it is unknown. The values match enum attached in
// bpf/existing.h.
type Attached uint8

// What may refer to a socket.
const (
	AttachedNothing    Attached = iota + 1 // an orphan, half-open or in TIME_WAIT; the kernel ends it
	AttachedQueue                          // the accept queue of its listener
	AttachedKernel                         // a part of the kernel, which opened it for itself
	AttachedDescriptor                     // at least one file descriptor, wherever that is
)

// Answer is yes or no; zero if it is unknown or does not apply.
type Answer uint8

// The answers.
const (
	Yes Answer = iota + 1
	No
)

// Hold is how a process holds a socket.
type Hold uint8

// The ways to hold a socket.
const (
	ByDescriptor Hold = iota
	BySlot            // a slot in the file table of an io_uring (direct descriptor)
)

// The names of each enumeration, by value. The empty name stands for the unknown value.
var (
	typeNames = []string{
		Change: "change", Lost: "lost", End: "end", Accept: "accept", Socket: "socket",
		ConnectFailed: "connect_failed",
	}
	stateNames = []string{
		"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
		"LAST_ACK", "LISTEN", "CLOSING",
	}
	familyNames = []string{"", "ipv4", "ipv6", "ipv4-mapped"}
	protoNames  = []string{"", "tcp", "mptcp", "sctp"}
	originNames = []string{"", "tracepoint", "timer"}
	reasonNames = []string{
		"", "normal", "refused", "reset_by_peer", "reset_sent_unread", "reset_sent_linger", "timeout", "keepalive",
		"unreachable", "aborted", "given_up", "handshake_abandoned", "time_wait_expired", "time_wait_reused",
		"time_wait_overflow", "fin_wait2_timeout", "reset_sent_late_data", "listener_closed", "unknown", "no_port",
		"port_unreachable", "repaired", "reset_sent_linger2", "too_many_orphans", "accept_queue_full",
		"netns_gone", "reset_sent_syn",
	}
	roleNames     = []string{"", "client", "server", "listener"}
	attachedNames = []string{"", "nothing", "accept_queue", "kernel", "descriptor"}
	viaNames      = []string{"", "connect", "listen", "listener", "close", "snapshot", "accept"}
)

// name returns the name of v, or its number if this version has no name for it.
func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

func (t Type) String() string     { return name(typeNames, t) }
func (s State) String() string    { return name(stateNames, s) }
func (f Family) String() string   { return name(familyNames, f) }
func (p Proto) String() string    { return name(protoNames, p) }
func (o Origin) String() string   { return name(originNames, o) }
func (r Reason) String() string   { return name(reasonNames, r) }
func (r Role) String() string     { return name(roleNames, r) }
func (v Via) String() string      { return name(viaNames, v) }
func (a Attached) String() string { return name(attachedNames, a) }

// Reasons returns all reasons.
func Reasons() []Reason {
	all := make([]Reason, len(reasonNames)-1)
	for i := range all {
		all[i] = Reason(i + 1)
	}
	return all
}

// Zone returns the zone of the socket's link-local addresses (RFC 4007 section 11.2): the name of
// the device that the socket is bound to, or its number if the name is unknown, or "" if there is
// no device.
func (e *Event) Zone() string { return Zone(e.IfIndex, e.IfName) }

// Zone returns the zone of the device with this index and name, as Event.Zone does.
func Zone(index uint32, name string) string {
	if name == "" && index != 0 {
		return strconv.FormatUint(uint64(index), 10)
	}
	return name
}

// Scoped returns addr with zone if it is link-local, since the same address on another link belongs
// to another host.
func Scoped(addr netip.Addr, zone string) netip.Addr {
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		return addr.WithZone(zone)
	}
	return addr
}

// States returns all states, in the kernel's order.
func States() []State {
	return []State{
		Established, SynSent, SynRecv, FinWait1, FinWait2, TimeWait, Close, CloseWait, LastAck, Listen, Closing,
	}
}

// Event is one line. Unless its comment says otherwise, the zero value of a member means unknown,
// which is printed as null or "-".
type Event struct {
	Type Type
	Seq  uint64 // number of the line in its output, counted from 1 without gaps
	Wall int64  // ns since 1970 UTC; always known
	Mono int64  // ns, CLOCK_MONOTONIC; always known

	// In lines about one socket. The table in keys.go lists which kinds of line have which member.

	CPU           uint32         // always known
	ID            uint64         // number of the socket within a run; always known
	Cookie        uint64         // the kernel's number for the socket, which `ss -e` prints as sk:
	Sk            uint64         // address of the struct sock; the kernel reuses it within microseconds
	NetNS         uint32         // inode of the network namespace
	Family        Family         // always known
	Proto         Proto          // always known
	Local, Remote netip.AddrPort // an invalid address, or port 0, is unknown
	IfIndex       uint32         // network device that the socket is bound to; 0: none
	IfName        string
	Old, New      State  // always known
	Dur           int64  // ns in Old, in New for a Socket, in the accept queue for an Accept; or Unknown
	Origin        Origin // always known
	Role          Role
	Reason        Reason
	Closer        Closer
	Err           int32 // sk_err, an errno number; 0: none
	OwnerPID      uint32
	OwnerComm     string
	OwnerVia      Via
	TaskPID       uint32 // process that was running on the CPU; always known, 0 is the idle task
	TaskComm      string
	TaskTID       uint32 // its thread; 0 in recordings from versions without the key
	Totals        Totals
	SynRetrans    int32  // retransmissions of the SYN or SYN-ACK, when leaving SYN_SENT or SYN_RECV; or Unknown
	ISN           uint32 // the client's initial sequence number, the same at both ends of a connection
	Deferred      int64  // ns from a dropped ACK of the handshake to the end of SYN_RECV (TCP_DEFER_ACCEPT)
	UID           uint32 // user of the socket; or NoUID
	Cgroup        string // path
	CgroupID      uint64

	// Stack identifies the user-space stack of the process that connects or accepts; 0 if there is
	// none. It is not printed as such: see probe.Probe.Stack.
	Stack uint32

	// Unwanted reports that a line filter rejects this line, though another line may select its
	// connection.
	Unwanted bool

	Status   *Status  // for a Socket; nil otherwise
	RingFull uint64   // for a Lost: changes missing between the previous line and the next one
	Balance  *Balance // for an End; nil otherwise
}

// Status is the current condition of a socket, apart from its state. Event.Dur is its age, if that
// is known.
type Status struct {
	RecvQueue int64    // unread bytes; for a listener, connections waiting for accept(); Unknown for a mini-sock
	SendQueue int64    // unacknowledged bytes; for a listener, the limit of its accept queue; or Unknown
	AtLeast   int64    // ns in this state, or longer; or Unknown
	Left      int64    // ns until a timer ends a TIME_WAIT, or a FIN_WAIT2 without a process; or Unknown
	Holders   []Holder // nil: unknown
	Attached  Attached
	// Mini reports that this is a half-open connection or one that a timewait sock represents, not
	// a full socket. It is not printed.
	Mini bool

	V6Only Answer // whether a listening or bound IPv6 socket accepts IPv6 only
	HeldAs uint64 // for a subflow, the address of its MPTCP socket, whose holders it shares; not printed
}

// Holder is a process that holds a socket.
type Holder struct {
	PID, FD uint32 // FD is the socket's descriptor or, if BySlot, the io_uring's
	Comm    string
	How     Hold
	Slot    uint32 // if BySlot, the socket's slot in that io_uring
}

// Totals holds the kernel's counters for a connection, as in tcp_info. They are known on the line
// on which the full socket ends, and on later ones.
type Totals struct {
	Known         bool
	BytesAcked    uint64 // sent and acknowledged (RFC 4898, tcpEStatsAppHCThruOctetsAcked); SYN and FIN count as 1
	BytesReceived uint64 // in order (tcpEStatsAppHCThruOctetsReceived)
	SegsOut       uint32
	SegsIn        uint32
	Retrans       uint32 // segments retransmitted, including SYN and SYN-ACK
	SRTT          uint32 // smoothed round-trip time, µs; 0: not measured
	SRTTOpen      uint32 // SRTT as the socket left ESTABLISHED, before a delayed ACK of the FIN can count; 0: unknown
	MinRTT        uint32 // µs; 0: not measured
	Cong          string // congestion control algorithm
}

// Balance accounts for every change of a run: Seen + Added = Filtered + RingFull + Unread + Merged
// + Printed.
type Balance struct {
	Seen     uint64 // kernel records that its filters examined
	Added    uint64 // lines made without a record of their own
	Filtered uint64 // dropped by a filter, in the kernel or in user space
	RingFull uint64 // lost because the ring buffer was full
	Unread   uint64 // left in the ring buffer when enough lines had been printed
	Merged   uint64 // records merged into another line
	Printed  uint64 // lines about changes
	Missed   uint64 // outside the sum: changes that the kernel skipped and nothing caught
	Partial  bool   // lines of reported connections were left out, by a line filter or because -n was reached
}

// Balanced reports whether the sum adds up.
func (b *Balance) Balanced() bool {
	return b.Seen+b.Added == b.Filtered+b.RingFull+b.Unread+b.Merged+b.Printed
}
