package event

//go:generate go run ./gen

// Key describes one key of the NDJSON output, in one or more kinds of object. Everything that has
// to agree on the keys is generated from the table keys or checked against it: the encoder and the
// decoder, the CSV columns, the names that --where accepts, docs/ndjson.schema.json and the tables
// in docs/ndjson.md.
type Key struct {
	Name string
	In   Kinds // the kinds of object that have the key
	Form Form

	// Get is the value to encode: a member of Event or, in an object inside a line, of Totals or
	// Holder. It may be a method. Set is the member to decode into. If Set is empty, it is the same
	// as Get, unless Get is a method. In that case the key is derived from other keys, so the
	// decoder skips it.
	Get, Set string

	CSV     int    // the column, counted from 1; 0: none
	NoWhere bool   // --where does not accept it
	Unit    string // ns, µs, bytes; "" for everything else
	Pattern string // for a string, a regular expression for the schema

	// Doc describes the key in Markdown. The first sentence is also its description in the schema.
	Doc string

	// Special lists the kinds of object in which the key means more, or less, than Doc says.
	Special []Special
}

// Special describes a key in some of its kinds of object.
type Special struct {
	In     Kinds
	Values []string // the only names that it takes; "" is null. nil: no restriction
	Doc    string   // replaces Key.Doc if it is not empty
}

// Kinds is a set of kinds of JSON object: lines that are Events, and objects inside them.
type Kinds uint16

// The kinds of object.
const (
	InChange Kinds = 1 << iota
	InAccept
	InConnectFailed
	InSocket
	InLost
	InEnd
	InTotals // totals, in a change
	InHolder // an element of holders, in a socket

	InTrace   = InChange | InAccept | InConnectFailed // about one socket, from a trace
	InSockets = InTrace | InSocket                    // about one socket
	InLines   = InSockets | InLost | InEnd
)

// kinds holds the kind of each Type that is a line.
var kinds = [...]Kinds{
	Change: InChange, Accept: InAccept, ConnectFailed: InConnectFailed, Socket: InSocket, Lost: InLost, End: InEnd,
}

// In returns t as a set of one kind, or an empty set if t is not a line.
func (t Type) In() Kinds {
	if int(t) < len(kinds) {
		return kinds[t]
	}
	return 0
}

// Form is how a value is encoded, and which value means unknown.
type Form uint8

// The forms. Unless a form says otherwise, the value is always known.
const (
	FormVersion   Form = iota // the constant Version
	FormType                  // the name of Event.Type
	FormInt                   // integer
	FormPositive              // integer, at least 1
	FormZeroNull              // integer; 0 is null
	FormMinusNull             // integer; Unknown is null
	FormWall                  // ns since 1970, as RFC 3339
	FormHex                   // integer, as a hexadecimal string
	FormName                  // name of an enumeration
	FormNameNull              // the same; the zero value is null
	FormAddr                  // address of a netip.AddrPort; the invalid one is null
	FormPort                  // port of a netip.AddrPort; 0 is null
	FormText                  // any bytes
	FormTextNull              // the same; "" is null
	FormOwnerComm             // the same; null if OwnerPID is 0
	FormBool                  // true or false
	FormAnswer                // true or false; the zero value is null
	FormPID                   // null unless it is a process in sstrace's PID namespace
	FormTaskPID               // the same; 0 is the idle task, not null
	FormHostPID               // null unless it has HostPID
	FormUID                   // NoUID is null
	FormSlot                  // slot of a Holder; null unless How is BySlot
	FormTotals                // an object of kind InTotals; null unless Known
	FormHolders               // an array of objects of kind InHolder; nil is null
)

// Null reports whether the value may be null.
func (f Form) Null() bool {
	switch f {
	case FormVersion, FormType, FormInt, FormPositive, FormWall, FormHex, FormName, FormText, FormBool:
		return false
	}
	return true
}

// Keys returns the keys of a kind of object, in the order in which they are written.
func (k Kinds) Keys() []*Key {
	var all []*Key
	for i := range keys {
		if keys[i].In&k != 0 {
			all = append(all, &keys[i])
		}
	}
	return all
}

// CSVKeys returns the keys with a CSV column, in column order. The keys of totals are among them.
func CSVKeys() []*Key {
	var all []*Key
	for i := range keys {
		if n := keys[i].CSV; n > 0 {
			all = append(all, make([]*Key, max(0, n-len(all)))...)
			all[n-1] = &keys[i]
		}
	}
	return all
}

// DocIn returns the documentation of the key in objects of kind in.
func (k *Key) DocIn(in Kinds) string {
	for _, s := range k.Special {
		if s.In&in != 0 && s.Doc != "" {
			return s.Doc
		}
	}
	return k.Doc
}

// ValuesIn returns the names to which the key is restricted in objects of kind in, with "" for
// null. It returns nil if the key is not restricted.
func (k *Key) ValuesIn(in Kinds) []string {
	for _, s := range k.Special {
		if s.In&in != 0 && s.Values != nil {
			return s.Values
		}
	}
	return nil
}

// keys holds every key, in the order in which a line lists them. syn_retrans and ring_full appear
// twice, because they have a different place or meaning in another kind of line. A new key goes at
// the end of its objects, and gets the next free column.
var keys = []Key{
	{Name: "v", In: InLines, Form: FormVersion, CSV: 1, NoWhere: true,
		Doc: "Version of the format: 1."},
	{Name: "type", In: InLines, Form: FormType, Get: "Type", CSV: 2, NoWhere: true,
		Doc: "Kind of line. `change`, `accept`, `connect_failed`, `lost` and `end` are written by a trace, `socket` " +
			"by a listing. The commands that answer questions write lines of their own, described below."},
	{Name: "seq", In: InLines, Form: FormPositive, Get: "Seq", CSV: 3, NoWhere: true,
		Doc: "Number of the line, counted from 1 without gaps over all lines of the output."},
	{Name: "ts", In: InLines, Form: FormWall, Get: "Wall", CSV: 4,
		Doc: "Wall-clock time, RFC 3339 in UTC with nanoseconds. It is `mono_ns` plus the offset between the two " +
			"clocks, which is measured again every second, so it follows a clock that is set."},
	{Name: "mono_ns", In: InLines, Form: FormInt, Get: "Mono", CSV: 5, Unit: "ns",
		Doc: "CLOCK_MONOTONIC when the kernel made the change. Use this one to compute differences."},

	{Name: "cpu", In: InTrace, Form: FormInt, Get: "CPU", CSV: 6,
		Doc: "CPU on which it happened."},
	{Name: "id", In: InTrace, Form: FormPositive, Get: "ID", CSV: 7,
		Doc: "Number of the socket within this run, assigned in order of appearance. The two ends of a loopback " +
			"connection are two sockets."},
	{Name: "cookie", In: InSockets, Form: FormZeroNull, Get: "Cookie", CSV: 8,
		Doc: "The kernel's number for the socket. It is not reused until the next boot, but an accepted MPTCP socket " +
			"has the cookie of its listener. `ss -e` prints it as `sk:`, in hexadecimal. null before Linux 5.12, " +
			"and for a half-open connection, whose socket gets one later."},
	{Name: "sk", In: InSockets, Form: FormHex, Get: "Sk", CSV: 9,
		Doc: "Address of the kernel's struct sock. Another socket may have the same address a microsecond later: " +
			"use `id` to identify one."},
	{Name: "netns", In: InSockets, Form: FormZeroNull, Get: "NetNS", CSV: 10,
		Doc: "Inode of the network namespace, as in `lsns -t net`."},
	{Name: "family", In: InSockets, Form: FormName, Get: "Family", CSV: 11,
		Doc: "Address family: `ipv4`, `ipv6`, or `ipv4-mapped` (IPv4 over an IPv6 socket)."},
	{Name: "proto", In: InSockets, Form: FormName, Get: "Proto", CSV: 12,
		Doc: "Protocol: `tcp`, `mptcp` or `sctp`."},
	{Name: "laddr", In: InSockets, Form: FormAddr, Get: "Local", CSV: 13,
		Doc: "Local address."},
	{Name: "lport", In: InSockets, Form: FormPort, Get: "Local", CSV: 14,
		Doc: "Local port. In the kernel vocabulary a client has none at CLOSE→SYN_SENT unless it bound one."},
	{Name: "raddr", In: InSockets, Form: FormAddr, Get: "Remote", CSV: 15,
		Doc: "Remote address. null for a listener, and in the kernel vocabulary up to Linux 6.12 at " +
			"LISTEN→SYN_RECV."},
	{Name: "rport", In: InSockets, Form: FormPort, Get: "Remote", CSV: 16,
		Doc: "Remote port. null in the same cases as `raddr`."},

	{Name: "queue_ns", In: InAccept, Form: FormMinusNull, Get: "Dur", CSV: 33, Unit: "ns",
		Doc: "Time in the accept queue, from ESTABLISHED to the return of accept(). null if the beginning was not " +
			"seen."},

	{Name: "state", In: InSocket, Form: FormName, Get: "New",
		Doc: "TCP state, one of those that `old` and `new` have."},
	{Name: "age_ns", In: InSocket, Form: FormMinusNull, Get: "Dur", Unit: "ns",
		Doc: "Time in `state`. null if the beginning is unknown."},
	{Name: "age_min_ns", In: InSocket, Form: FormMinusNull, Get: "Status.AtLeast", Unit: "ns",
		Doc: "Lower bound of the time in `state`, where `age_ns` is unknown. In TIME_WAIT it comes from the timer, " +
			"which a repeated FIN may have restarted; in CLOSE_WAIT, CLOSING and FIN_WAIT2 from the last segment of " +
			"the peer. null where `age_ns` is known, or nothing is."},
	{Name: "left_ns", In: InSocket, Form: FormMinusNull, Get: "Status.Left", Unit: "ns",
		Doc: "Time until a timer ends the socket. Known in TIME_WAIT, and in FIN_WAIT2 once no process has the " +
			"socket. Where tcp_fin_timeout or TCP_LINGER2 is above 60 s it covers both phases of FIN_WAIT2."},
	{Name: "recv_q", In: InSocket, Form: FormMinusNull, Get: "RecvQ()", Set: "Status.RecvQueue", Unit: "bytes",
		Doc: "Bytes received that no process has read. A FIN counts as 1. null for a listener, a half-open " +
			"connection, a timewait sock and an MPTCP socket (its subflows have the bytes), and in a recording of " +
			"changes."},
	{Name: "send_q", In: InSocket, Form: FormMinusNull, Get: "SendQ()", Set: "Status.SendQueue", Unit: "bytes",
		Doc: "Bytes sent, or queued to be sent, that the peer has not acknowledged. null whenever `recv_q` is null."},
	{Name: "accept_q", In: InSocket, Form: FormMinusNull, Get: "AcceptQ()", Set: "Status.RecvQueue",
		Doc: "Connections of a listener that wait for accept(). null for other sockets."},
	{Name: "accept_max", In: InSocket, Form: FormMinusNull, Get: "AcceptMax()", Set: "Status.SendQueue",
		Doc: "Limit of the accept queue of a listener: the backlog of listen(), capped by net.core.somaxconn. The " +
			"queue is full when it is longer than this. null for other sockets."},
	{Name: "syn_retrans", In: InSocket, Form: FormMinusNull, Get: "SynRetrans",
		Doc: "Retransmissions of the SYN-ACK so far, in SYN_RECV."},

	{Name: "old", In: InChange, Form: FormName, Get: "Old", CSV: 17,
		Doc: "State before the change: CLOSE, LISTEN, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, " +
			"CLOSE_WAIT, CLOSING, LAST_ACK or TIME_WAIT."},
	{Name: "new", In: InChange, Form: FormName, Get: "New", CSV: 18,
		Doc: "State after the change."},
	{Name: "dur_ns", In: InChange, Form: FormMinusNull, Get: "Dur", CSV: 19, Unit: "ns",
		Doc: "Time in `old`, the difference of two `mono_ns`. null if the beginning was not seen."},
	{Name: "origin", In: InChange, Form: FormName, Get: "Origin", CSV: 20,
		Doc: "Source of the line: `tracepoint`, or `timer` for the timer of a half-open connection or of one in " +
			"TIME_WAIT."},
	{Name: "role", In: InSockets, Form: FormNameNull, Get: "Role", CSV: 21,
		Doc: "Role of the socket: `client` (active open), `server` (passive open) or `listener`.",
		Special: []Special{
			{In: InAccept, Values: []string{"server"}},
			{In: InConnectFailed, Values: []string{"client"}},
		}},
	{Name: "reason", In: InChange | InConnectFailed, Form: FormNameNull, Get: "Reason", CSV: 22,
		Doc: "Why the connection ended, on a change to CLOSE. null on other changes, and in the kernel vocabulary. " +
			"docs/states.md explains the values.",
		Special: []Special{{In: InConnectFailed, Doc: "Why connect() failed."}}},
	{Name: "active_close", In: InChange, Form: FormAnswer, Get: "Closer", CSV: 42,
		Doc: "Whether this end closed first, on the changes to TIME_WAIT and CLOSE that end a connection. false " +
			"means that the peer did."},
	{Name: "err", In: InChange | InConnectFailed, Form: FormZeroNull, Get: "Err", CSV: 23,
		Doc:     "Error of the socket (sk_err), a Linux errno. 111 is ECONNREFUSED; `sstrace explain 111` explains it.",
		Special: []Special{{In: InConnectFailed, Doc: "Errno that connect() returned."}}},
	{Name: "owner_pid", In: InSockets, Form: FormPID, Get: "OwnerPID", CSV: 24,
		Doc: "Process to which the socket is attributed.",
		Special: []Special{{
			In:  InSocket,
			Doc: "The only process that holds the socket. In a recording of changes, the owner at the last change.",
		}}},
	{Name: "owner_comm", In: InSockets, Form: FormOwnerComm, Get: "OwnerComm", CSV: 25,
		Doc: "Name of that process."},
	{Name: "owner_via", In: InSockets, Form: FormNameNull, Get: "OwnerVia", CSV: 26,
		Doc: "How the owner is known. It called `connect`, `listen`, `accept` or `close`; or the socket is a " +
			"connection of its listener (`listener`); or it alone held the socket when the trace began " +
			"(`snapshot`).",
		Special: []Special{
			{In: InAccept, Values: []string{"accept"}},
			{In: InConnectFailed, Values: []string{"connect", ""}},
		}},
	{Name: "holders", In: InSocket, Form: FormHolders, Get: "Status.Holders",
		Doc: "Every process that holds the socket, once for each of its descriptors. A subflow has the holders of " +
			"its MPTCP socket. Empty if none was found; `attached` then says more. null in a recording of changes."},
	{Name: "task_pid", In: InTrace, Form: FormTaskPID, Get: "TaskPID", CSV: 27,
		Doc: "Process that was running on the CPU. In softirq context it has nothing to do with the socket. 0 is " +
			"the idle task."},
	{Name: "task_comm", In: InTrace, Form: FormText, Get: "TaskComm", CSV: 28,
		Doc: "Name of the thread that was running on the CPU."},
	{Name: "uid", In: InSockets, Form: FormUID, Get: "UID", CSV: 29,
		Doc: "User of the socket. accept() changes it to the user of the accepting process. null for a TIME_WAIT " +
			"that is older than the trace."},
	{Name: "cgroup", In: InSockets, Form: FormTextNull, Get: "Cgroup", CSV: 30,
		Doc: "Path of the socket's cgroup (v2). null if it is gone or cannot be looked up."},
	{Name: "cgroup_id", In: InSockets, Form: FormZeroNull, Get: "CgroupID", CSV: 31,
		Doc: "ID of that cgroup, the inode of its directory."},
	{Name: "container", In: InSockets, Form: FormTextNull, Get: "Container()", CSV: 43, Pattern: "^[0-9a-f]{64}$",
		Doc: "ID of the container that `cgroup` belongs to. Recognized are docker, containerd, cri-o and podman."},
	{Name: "unit", In: InSockets, Form: FormTextNull, Get: "Unit()", CSV: 44,
		Doc: "Innermost systemd unit that contains `cgroup`."},
	{Name: "totals", In: InChange, Form: FormTotals, Get: "Totals",
		Doc: "What the kernel counted for the connection, as in tcp_info. Present on the line on which the full " +
			"socket ends (to CLOSE or TIME_WAIT) and on those after it."},
	{Name: "syn_retrans", In: InChange, Form: FormMinusNull, Get: "SynRetrans", CSV: 45,
		Doc: "Retransmissions of the SYN or the SYN-ACK, on the change that leaves SYN_SENT or SYN_RECV."},
	{Name: "task_tid", In: InTrace, Form: FormPID, Get: "TaskTID", CSV: 46,
		Doc: "Thread of `task_pid`."},
	{Name: "ifindex", In: InSockets, Form: FormZeroNull, Get: "IfIndex", CSV: 47,
		Doc: "Network device that the socket is bound to, by SO_BINDTODEVICE, a VRF, or the zone of a link-local " +
			"address. Its number in `netns`. The device is part of the tuple: the same addresses and ports on " +
			"another device are another connection. null if the socket is not bound to one."},
	{Name: "ifname", In: InSockets, Form: FormTextNull, Get: "IfName", CSV: 48,
		Doc: "Name of that device when the line was made. null also if the name is unknown."},
	{Name: "isn", In: InTrace, Form: FormZeroNull, Get: "ISN", CSV: 49,
		Doc: "The client's initial sequence number, the same at both ends of a connection. It is on the first line " +
			"of either end (CLOSE→SYN_SENT, LISTEN→SYN_RECV), or on the next one if it is known only then.",
		Special: []Special{{In: InConnectFailed, Values: []string{""}, Doc: "Always null, since no SYN was sent."}}},
	{Name: "defer_ns", In: InChange, Form: FormZeroNull, Get: "Deferred", CSV: 50, Unit: "ns",
		Doc: "How long the server waited for data after the ACK of the handshake, on the change that leaves " +
			"SYN_RECV. The kernel drops that ACK if the listener has TCP_DEFER_ACCEPT. null if it was not dropped."},
	{Name: "owner_host_pid", In: InTrace, Form: FormHostPID, Get: "OwnerPID", CSV: 52,
		Doc: "PID of the owner in the initial PID namespace, if it has none in the PID namespace of sstrace. " +
			"`owner_pid` is then null, and `--pid` does not match."},
	{Name: "task_host_pid", In: InTrace, Form: FormHostPID, Get: "TaskPID", CSV: 53,
		Doc: "The same for `task_pid`. `task_pid` and `task_tid` are then null."},
	{Name: "v6only", In: InSocket, Form: FormAnswer, Get: "Status.V6Only",
		Doc: "Whether an IPv6 socket that listens or is bound accepts IPv6 only. false means that on `::` it " +
			"accepts IPv4, too. null for other sockets, and in a recording of changes."},
	{Name: "attached", In: InSocket, Form: FormNameNull, Get: "Status.Attached",
		Doc: "What refers to the socket. `descriptor`: at least one descriptor, wherever it is; if `holders` is " +
			"empty it may be in flight over a UNIX socket, or belong to a process in a PID namespace that sstrace " +
			"cannot see. `accept_queue`: not accepted yet. `kernel`: a part of the kernel opened it for itself. " +
			"`nothing`: the kernel ends it. A subflow has the value of its MPTCP socket. null in a recording of " +
			"changes."},

	{Name: "ring_full", In: InLost, Form: FormPositive, Get: "RingFull", CSV: 32,
		Doc: "Changes missing between the previous line and the next one."},

	{Name: "seen", In: InEnd, Form: FormInt, Get: "Balance.Seen",
		Doc: "Records from the kernel. These are changes and, in the rfc vocabulary, timer events of half-open " +
			"connections and of those in TIME_WAIT. After a listing: the sockets found."},
	{Name: "added", In: InEnd, Form: FormInt, Get: "Balance.Added",
		Doc: "Lines made without a record of the kernel. Always 0 for now."},
	{Name: "filtered", In: InEnd, Form: FormInt, Get: "Balance.Filtered",
		Doc: "Records dropped by a filter, in the kernel or in user space. They include changes that waited for a " +
			"port that never came."},
	{Name: "ring_full", In: InEnd, Form: FormInt, Get: "Balance.RingFull",
		Doc: "Records lost because the ring buffer was full, the sum of all `lost` lines."},
	{Name: "unread", In: InEnd, Form: FormInt, Get: "Balance.Unread",
		Doc: "Records left in the ring buffer when `-n` had enough lines."},
	{Name: "merged", In: InEnd, Form: FormInt, Get: "Balance.Merged",
		Doc: "Records merged into another line, or that added nothing new. 0 in the kernel vocabulary."},
	{Name: "printed", In: InEnd, Form: FormInt, Get: "Balance.Printed",
		Doc: "Lines of type `change`, `accept` and `connect_failed`. For a command that answers a question " +
			"(`stats`, `conns`, …), the lines that its answer covers."},
	{Name: "missed", In: InEnd, Form: FormInt, Get: "Balance.Missed",
		Doc: "Changes that the kernel skipped and nothing caught, outside the sum. 0 unless something is wrong."},
	{Name: "partial", In: InEnd, Form: FormBool, Get: "Balance.Partial",
		Doc: "Whether lines of reported connections were left out, by a line filter (`--state`, `--where`, …) or " +
			"because `-n` had enough. `ls -r` and `leaks -r` cannot rely on such a recording, and report that."},

	{Name: "bytes_acked", In: InTotals, Form: FormInt, Get: "BytesAcked", CSV: 34, Unit: "bytes",
		Doc: "Bytes sent and acknowledged. A SYN and a FIN count as 1 each."},
	{Name: "bytes_received", In: InTotals, Form: FormInt, Get: "BytesReceived", CSV: 35, Unit: "bytes",
		Doc: "Bytes received in order. A FIN counts as 1."},
	{Name: "segs_out", In: InTotals, Form: FormInt, Get: "SegsOut", CSV: 36,
		Doc: "Segments sent."},
	{Name: "segs_in", In: InTotals, Form: FormInt, Get: "SegsIn", CSV: 37,
		Doc: "Segments received."},
	{Name: "retrans", In: InTotals, Form: FormInt, Get: "Retrans", CSV: 38,
		Doc: "Segments retransmitted, including SYN and SYN-ACK."},
	{Name: "srtt_us", In: InTotals, Form: FormZeroNull, Get: "SRTT", CSV: 39, Unit: "µs",
		Doc: "Smoothed round-trip time. At the end that closed first it includes the ACK of the FIN, which the peer " +
			"may have delayed. null if none was measured."},
	{Name: "srtt_open_us", In: InTotals, Form: FormZeroNull, Get: "SRTTOpen", CSV: 51, Unit: "µs",
		Doc: "Smoothed round-trip time as the socket left ESTABLISHED: what the application saw."},
	{Name: "min_rtt_us", In: InTotals, Form: FormZeroNull, Get: "MinRTT", CSV: 40, Unit: "µs",
		Doc: "Shortest round-trip time."},
	{Name: "cong", In: InTotals, Form: FormText, Get: "Cong", CSV: 41,
		Doc: "Congestion control algorithm."},

	{Name: "pid", In: InHolder, Form: FormPositive, Get: "PID",
		Doc: "Process that holds the socket."},
	{Name: "comm", In: InHolder, Form: FormText, Get: "Comm",
		Doc: "Name of the process."},
	{Name: "fd", In: InHolder, Form: FormMinusNull, Get: "SocketFD()", Set: "FD",
		Doc: "File descriptor of the socket. null if the process holds it through io_uring."},
	{Name: "slot", In: InHolder, Form: FormSlot, Get: "Slot",
		Doc: "Slot in the file table of an io_uring (direct descriptor)."},
	{Name: "ring_fd", In: InHolder, Form: FormMinusNull, Get: "RingFD()", Set: "FD",
		Doc: "File descriptor of that io_uring."},
}
