// Package event defines the one type that travels through sstrace: a line of its output. One NDJSON line is one Event, so a
// recording is a source of Events just as the kernel is.
package event

import (
	"net/netip"
	"strconv"
)

// Unknown is the Event.Dur of a state whose beginning was not seen.
const Unknown = -1

// NoUID is the Event.UID of a socket whose user is not known; the kernel's INVALID_UID (include/linux/uidgid.h).
const NoUID = 1<<32 - 1

// Version is the value of the key "v": keys may be added within it, none is renamed, removed or given another meaning.
const Version = 1

// Type is the kind of line that an Event is.
type Type uint8

// The types. A Socket is one that exists: it is older than the trace, or a line of a listing. Its
// state is New.
const (
	Change Type = iota // a TCP state change
	Lost               // changes are missing between the line before and the line after
	End                // the last line, with the balance
	Accept             // accept() gave a connection to a process; Dur is the time that it waited for that
	Socket
	ConnectFailed // connect() failed before it sent a SYN: no state changed, and Err says why
)

// HostPID marks a process ID of the initial PID namespace: the process has none in the namespace that sstrace runs in. Linux has
// at most 1<<22 (PID_MAX_LIMIT in include/linux/threads.h), so the bit is free.
const HostPID = 1 << 31

// State is a TCP state, with the kernel's number (include/net/tcp_states.h; RFC 9293 section 3.3.2).
type State uint8

// The states by the kernel's names without TCP_. The kernel's 12, NEW_SYN_RECV, never reaches the tracepoint.
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

// Family tells what the addresses are. Mapped is IPv4 over an IPv6 socket (RFC 4291 section 2.5.5.2), shown as IPv4.
type Family uint8

// The families.
const (
	IPv4 Family = iota + 1
	IPv6
	Mapped
)

// Proto is the protocol of the socket: MPTCP and SCTP change states on the same tracepoint.
type Proto uint8

// The protocols.
const (
	TCP Proto = iota + 1
	MPTCP
	SCTP
)

// Origin tells where a line comes from.
type Origin uint8

// The origins.
const (
	Tracepoint Origin = iota + 1 // sock:inet_sock_set_state
	FromTimer                    // the timer of a mini-sock
)

// Reason tells why a connection ended, on a change to CLOSE; zero otherwise, and where the vocabulary is the kernel's.
type Reason uint8

// The reasons. Err goes with those that have one.
const (
	ReasonNormal             Reason = iota + 1 // both sides closed; or a listener was closed
	ReasonRefused                              // the peer answered the SYN with RST
	ReasonResetByPeer                          // RST came
	ReasonResetSentUnread                      // close() while data had not been read: RST was sent (RFC 2525 section 2.17)
	ReasonResetSentLinger                      // close() with SO_LINGER 0: RST was sent
	ReasonTimedOut                             // no answer to what was sent
	ReasonKeepaliveTimeout                     // no answer to keep-alive probes
	ReasonUnreachable                          // ICMP, or no route
	ReasonAborted                              // by an administrator (ss -K), by a connect() to AF_UNSPEC, or with SO_LINGER 0 when that sends no RST any more
	ReasonGivenUp                              // closed by its process before it was connected
	ReasonHandshakeAbandoned                   // the ACK of our SYN-ACK never came
	ReasonTimeWaitExpired                      // the end of TIME_WAIT
	ReasonTimeWaitReused                       // a new connection took its place
	ReasonTimeWaitOverflow                     // no TIME_WAIT: there are as many as tcp_max_tw_buckets allows
	ReasonFinWait2Timeout                      // the peer never closed its side
	ReasonResetSentLateData                    // data came after close(): RST was sent (RFC 9293 section 3.6.1)
	ReasonListenerClosed                       // its listener was closed before it was accepted
	ReasonUnexplained                          // none of these
	ReasonNoPort                               // connect() found no free local port (EADDRNOTAVAIL): no SYN was sent
	ReasonPortUnreachable                      // ICMP port unreachable answered the SYN, not an RST
	ReasonRepaired                             // close() of a socket in TCP_REPAIR: nothing was sent
	ReasonResetSentLinger2                     // closed with TCP_LINGER2 below 0: RST was sent in place of FIN_WAIT2
	ReasonTooManyOrphans                       // more than tcp_max_orphans, or no memory for it (TCPAbortOnMemory)
	ReasonAcceptQueueFull                      // the ACK of our SYN-ACK came, but the accept queue was full
	ReasonNetNSGone                            // its network namespace was removed
	ReasonResetSentSyn                         // a SYN came for a half-open connection, and RST was the answer
)

// Closer tells who closed first; zero before it is over, and where nobody did (a timeout) or it was not seen.
type Closer uint8

// The closers.
const (
	WeClosed Closer = iota + 1 // active close (RFC 9293 section 3.6)
	TheyClosed
)

// Role is the part that a socket plays; zero when it is not known.
type Role uint8

// The roles.
const (
	Client   Role = iota + 1 // active open
	Server                   // passive open
	Listener                 // accepts
)

// Via is the deed by which the owner is known; zero with no owner.
type Via uint8

// The deeds. ViaAccept: it took the connection; ViaListener: the socket is a connection of that process's listener; ViaSnapshot: it alone held the socket when
// the trace began.
const (
	ViaConnect Via = iota + 1
	ViaListen
	ViaListener
	ViaClose
	ViaSnapshot
	ViaAccept
)

// Attached is what an existing socket is attached to; zero if it is unknown. The numbers are the
// kernel side's (enum attached in bpf/existing.h).
type Attached uint8

// What a socket may be attached to.
const (
	AttachedNothing    Attached = iota + 1 // an orphan, half-open or in TIME_WAIT: the kernel ends it
	AttachedQueue                          // its listener's accept queue
	AttachedKernel                         // a part of the kernel that opened it for itself
	AttachedDescriptor                     // at least one descriptor, wherever that is
)

// Answer is yes or no; zero if it is unknown, or the question makes no sense.
type Answer uint8

// The answers.
const (
	Yes Answer = iota + 1
	No
)

// Hold is how a process holds a socket.
type Hold uint8

// The ways of holding.
const (
	ByDescriptor Hold = iota
	BySlot            // a slot of an io_uring's own table (direct descriptor)
)

// The names of each enumeration, by value; the empty name is the unknown value.
var (
	typeNames   = []string{Change: "change", Lost: "lost", End: "end", Accept: "accept", Socket: "socket", ConnectFailed: "connect_failed"}
	stateNames  = []string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"}
	familyNames = []string{"", "ipv4", "ipv6", "ipv4-mapped"}
	protoNames  = []string{"", "tcp", "mptcp", "sctp"}
	originNames = []string{"", "tracepoint", "timer"}
	reasonNames = []string{"", "normal", "refused", "reset_by_peer", "reset_sent_unread", "reset_sent_linger", "timeout", "keepalive", "unreachable",
		"aborted", "given_up", "handshake_abandoned", "time_wait_expired", "time_wait_reused", "time_wait_overflow", "fin_wait2_timeout", "reset_sent_late_data", "listener_closed", "unknown",
		"no_port", "port_unreachable", "repaired", "reset_sent_linger2", "too_many_orphans", "accept_queue_full", "netns_gone", "reset_sent_syn"}
	roleNames     = []string{"", "client", "server", "listener"}
	attachedNames = []string{"", "nothing", "accept_queue", "kernel", "descriptor"}
	viaNames      = []string{"", "connect", "listen", "listener", "close", "snapshot", "accept"}
)

// name gives a value that this version does not know as its number, so that it is neither hidden nor called another.
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

// Zone returns the name of the device that the socket is bound to, or its number where the name is unknown, as the zone of an
// IPv6 address has it (RFC 4007 section 11.2); "" if the socket is bound to none.
func (e *Event) Zone() string { return Zone(e.IfIndex, e.IfName) }

// Zone is Event.Zone of these two.
func Zone(index uint32, name string) string {
	if name == "" && index != 0 {
		return strconv.FormatUint(uint64(index), 10)
	}
	return name
}

// Scoped returns addr with zone if it is link-local: the same address on another link is another host's.
func Scoped(addr netip.Addr, zone string) netip.Addr {
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		return addr.WithZone(zone)
	}
	return addr
}

// States lists all states, in the kernel's order.
func States() []State {
	return []State{Established, SynSent, SynRecv, FinWait1, FinWait2, TimeWait, Close, CloseWait, LastAck, Listen, Closing}
}

// Event is one line. Unless a field says otherwise its zero value means "not known" and is printed as null or "-".
type Event struct {
	Type Type
	Seq  uint64 // of the line in its output, dense from 1
	Wall int64  // ns since 1970 UTC; always known
	Mono int64  // ns, CLOCK_MONOTONIC; always known

	// Of a Change, a ConnectFailed, and an Accept, but for what these two lack (see appendChange):

	CPU           uint32         // always known
	ID            uint64         // numbers sockets within a run; always known
	Cookie        uint64         // the kernel's number of the socket, `ss -e` prints it as sk:
	Sk            uint64         // address of the struct sock; reused by the kernel within microseconds
	NetNS         uint32         // inode of the network namespace
	Family        Family         // always known
	Proto         Proto          // always known
	Local, Remote netip.AddrPort // each of address (invalid) and port (0) may be unknown
	IfIndex       uint32         // the network device that the socket is bound to; 0: none
	IfName        string
	Old, New      State  // always known
	Dur           int64  // ns in Old, or in the accept queue; Unknown if its beginning was not seen
	Origin        Origin // always known
	Role          Role
	Reason        Reason
	Closer        Closer
	Err           int32 // sk_err, an errno number; 0: none
	OwnerPID      uint32
	OwnerComm     string
	OwnerVia      Via
	TaskPID       uint32 // the current task of that instant, whoever it was; always known, 0 is the idle task
	TaskComm      string
	TaskTID       uint32 // its thread; 0 in recordings of versions that did not tell
	Totals        Totals
	SynRetrans    int32  // SYNs or SYN-ACKs sent again, on the lines that leave SYN_SENT or SYN_RECV; else, and if not known, Unknown
	ISN           uint32 // the client's initial sequence number, the same at both ends of a connection
	Deferred      int64  // ns from the ACK of the handshake to the end of SYN_RECV, where the listener waited for data (TCP_DEFER_ACCEPT)
	UID           uint32 // of the socket; or NoUID
	Cgroup        string // path
	CgroupID      uint64

	// Stack identifies the user-space stack of the process that connects or accepts; 0 if there is
	// none. It is not printed as such: see probe.Probe.Stack.
	Stack uint32

	// Unwanted: a filter of lines does not want this one, but may want its connection for another.
	Unwanted bool

	// Status, of a Socket.
	Status *Status

	// RingFull, of a Lost: how many changes found the ring buffer full here.
	RingFull uint64

	// Balance, of an End.
	Balance *Balance
}

// Status is what a socket that exists is like, beside its state. Its Event has its age in Dur, if that is known.
type Status struct {
	RecvQueue int64    // bytes unread; of a listener: connections that wait for accept(); of what is no full socket: Unknown
	SendQueue int64    // bytes not acknowledged; of a listener: how many may wait; likewise
	AtLeast   int64    // ns in this state, and perhaps more; Unknown
	Left      int64    // ns until a timer ends it: of TIME_WAIT, and of FIN_WAIT2 without a process; Unknown
	Holders   []Holder // nil: not known
	Attached  Attached
	Mini      bool   // no full socket: a half-open connection, or one that a timewait sock represents. Not printed
	V6Only    Answer // of a listener or a bound socket of IPv6: does it take IPv6 alone?
	HeldAs    uint64 // of a subflow: the address of its MPTCP socket, whose holders are its. Not printed
}

// Holder is a process that holds the socket. FD is the socket's own descriptor; BySlot it is that of
// the io_uring which has the socket in Slot.
type Holder struct {
	PID, FD uint32
	Comm    string
	How     Hold
	Slot    uint32
}

// Totals is what the kernel counted of a connection, as it has it in tcp_info: on the line where its full socket ends, and on those
// after that.
type Totals struct {
	Known         bool
	BytesAcked    uint64 // sent and acknowledged (RFC 4898, tcpEStatsAppHCThruOctetsAcked); a SYN and a FIN count 1
	BytesReceived uint64 // in order (tcpEStatsAppHCThruOctetsReceived)
	SegsOut       uint32
	SegsIn        uint32
	Retrans       uint32 // segments sent again, SYN and SYN-ACK too
	SRTT          uint32 // smoothed round-trip time, µs; 0: not measured
	SRTTOpen      uint32 // the same as the socket left ESTABLISHED, before the delayed ACK of a FIN could count, µs; 0: unknown
	MinRTT        uint32 // µs; 0: not measured
	Cong          string // the congestion control algorithm
}

// Balance accounts for every change of a run: Seen + Added = Filtered + RingFull + Unread + Merged + Printed.
type Balance struct {
	Seen     uint64 // records of the kernel: all that its filters looked at
	Added    uint64 // lines made without a record of their own
	Filtered uint64 // dropped by a filter, in the kernel or here
	RingFull uint64 // lost: no room in the ring buffer
	Unread   uint64 // left in the ring buffer when enough was printed
	Merged   uint64 // records told in another's line
	Printed  uint64 // lines of changes
	Missed   uint64 // outside the sum: skipped by the kernel, and nothing caught it
	Partial  bool   // lines of connections that are told of were left out, by a filter of lines or because -n had enough
}

// Balanced reports whether the sum adds up.
func (b *Balance) Balanced() bool {
	return b.Seen+b.Added == b.Filtered+b.RingFull+b.Unread+b.Merged+b.Printed
}
