package explain

// The states in the order in which a client, a server and a side that closes go through them: RFC
// 9293 section 3.3.2, and what Linux adds.
var states = []topic{
	{"CLOSE", `No connection: before connect() or listen(), and after the end.
Side:      both
Next:      connect() → SYN_SENT; listen() → LISTEN
Source:    RFC 9293 section 3.3.2 (CLOSED); include/net/tcp_states.h`},
	{"LISTEN", `A server is waiting for connections.
Side:      server; the listener itself stays in this state, and each connection begins from it
Next:      a SYN creates a connection in SYN_RECV; close() → CLOSE
Normal:    as long as the server runs
Sysctl:    net.core.somaxconn limits the backlog of listen()
Source:    RFC 9293 section 3.10.7.2; net/ipv4/inet_connection_sock.c`},
	{"SYN_SENT", `connect() has sent a SYN and is waiting for the answer.
Side:      client
Next:      SYN-ACK → ESTABLISHED; SYN → SYN_RECV; RST → CLOSE (refused);
           no answer → CLOSE (timeout)
Normal:    one round trip
Many:      a firewall drops the SYNs, or the server drops them because its accept queue is full
Sysctl:    net.ipv4.tcp_syn_retries (6: about 2 minutes)
Source:    RFC 9293 section 3.10.7.3; net/ipv4/tcp_input.c, tcp_rcv_synsent_state_process`},
	{"SYN_RECV", `A SYN arrived and a SYN-ACK was sent, but its ACK has not arrived yet: half-open.
Side:      server (client only in a simultaneous open)
Next:      ACK → ESTABLISHED; no ACK → CLOSE (handshake_abandoned)
Normal:    one round trip
Many:      a SYN flood, a network that loses the ACKs, or a full accept queue, which drops them
Sysctl:    net.ipv4.tcp_synack_retries (5), tcp_max_syn_backlog, tcp_syncookies
Source:    RFC 9293 section 3.10.7.4; net/ipv4/inet_connection_sock.c, reqsk_timer_handler`},
	{"ESTABLISHED", `Both sides may send.
Side:      both
Next:      this side closes first → FIN_WAIT1; the peer closes first → CLOSE_WAIT; a reset → CLOSE
Normal:    as long as the programs need the connection
Many:      normal with as many users; if unused, look for a connection pool that only grows
Sysctl:    net.ipv4.tcp_keepalive_time, only with SO_KEEPALIVE; tcp_retries2 for vanished peers
Source:    RFC 9293 section 3.3.2`},
	{"FIN_WAIT1", `This side closed first and sent a FIN, which is not acknowledged yet.
Side:      the side that closes first (active close)
Next:      ACK → FIN_WAIT2; FIN → CLOSING; both in one segment → FIN_WAIT2, and at once TIME_WAIT
Normal:    one round trip, plus the time to send what was still queued
Many:      peers that vanished, or that stopped reading (zero window)
Sysctl:    net.ipv4.tcp_orphan_retries, tcp_max_orphans
Source:    RFC 9293 section 3.6`},
	{"FIN_WAIT2", `The peer has acknowledged this side's FIN, but has not sent its own.
Side:      the side that closes first
Next:      FIN → TIME_WAIT; after close(), no FIN in time → CLOSE (fin_wait2_timeout)
Normal:    until the peer's program closes too: this is the side that waits
Many:      the peers do not close; at their end the connections are in CLOSE_WAIT
Sysctl:    net.ipv4.tcp_fin_timeout (60 s) after close(); no limit after shutdown()
Source:    RFC 9293 section 3.6; net/ipv4/tcp.c, __tcp_close`},
	{"CLOSING", `Both sides sent a FIN at the same time; this side's is not acknowledged yet.
Side:      both: a simultaneous close
Next:      ACK → TIME_WAIT
Normal:    half a round trip; rare
Source:    RFC 9293 section 3.6, figure 13`},
	{"TIME_WAIT", `Both sides have closed. This side still expects late segments, and resends a lost last ACK.
Side:      the side that closed first; no process has the socket any more
Next:      after 60 s → CLOSE (time_wait_expired), or a new connection reuses it
Normal:    60 s, always (TCP_TIMEWAIT_LEN; twice the RFC's MSL would be 4 minutes)
Many:      this side opens and closes many connections; harmless until the ports to one
           destination run out
Sysctl:    net.ipv4.tcp_tw_reuse, tcp_max_tw_buckets, ip_local_port_range
Source:    RFC 9293 section 3.6.1; include/net/tcp.h; net/ipv4/tcp_minisocks.c`},
	{"CLOSE_WAIT", `The peer has closed; the local program has not closed yet.
Side:      the side that closes second (passive close)
Next:      close() → LAST_ACK; a reset → CLOSE
Normal:    as long as the program takes to read the end of file: milliseconds
Many:      the local program forgets to close. There is no timeout: a descriptor is still open, in
           a process, in the table of an io_uring, or in flight over a UNIX socket
Sysctl:    none helps; sstrace leaks and sstrace ls --state close-wait find every process that
           holds the socket
Source:    RFC 9293 section 3.6`},
	{"LAST_ACK", `This side closed second and sent its FIN; the last ACK has not arrived yet.
Side:      the side that closes second
Next:      ACK → CLOSE
Normal:    one round trip
Many:      peers that vanished after their own FIN
Sysctl:    net.ipv4.tcp_orphan_retries
Source:    RFC 9293 section 3.6`},
}

var edges = []topic{
	{"CLOSE:LISTEN", "listen() was called: the server is ready."},
	{"CLOSE:SYN_SENT", "connect() was called: a SYN is on its way."},
	{
		"LISTEN:SYN_RECV",
		`A SYN arrived for this listener: a new connection, half-open. With --states kernel it means that
the ACK arrived: the handshake is nearly complete.`,
	},
	{"LISTEN:CLOSE", "The listener was closed. New SYNs are refused, and the connections in its queue are reset."},
	{"SYN_SENT:ESTABLISHED", "The SYN-ACK arrived: the client's handshake is complete. DURATION is its round trip."},
	{"SYN_SENT:SYN_RECV", "A SYN arrived instead of a SYN-ACK: a simultaneous open."},
	{"SYN_SENT:CLOSE", "connect() failed: see the reason."},
	{
		"SYN_RECV:ESTABLISHED",
		`The ACK arrived: the server's handshake is complete. DURATION is a round trip. The connection is
now waiting for accept().`,
	},
	{"SYN_RECV:CLOSE", "The handshake did not complete: see the reason."},
	{"ESTABLISHED:FIN_WAIT1", "This side closes first, with close() or shutdown(). It will be the one in TIME_WAIT."},
	{"ESTABLISHED:CLOSE_WAIT", "The peer closes first. The local program now reads an end of file, and should close."},
	{"ESTABLISHED:CLOSE", "The connection was reset or timed out: see the reason."},
	{"FIN_WAIT1:FIN_WAIT2", "The peer's TCP has acknowledged the FIN; the peer's program has not closed yet."},
	{"FIN_WAIT1:CLOSING", "The peer's FIN crossed this side's."},
	{
		"FIN_WAIT2:TIME_WAIT",
		"The peer has closed, too: 60 s remain. With --states kernel this is reported as FIN_WAIT2 → CLOSE.",
	},
	{"FIN_WAIT2:CLOSE", `The connection was reset, data arrived although this side had closed, the peer did not close in
time, or there were too many sockets in TIME_WAIT: see the reason.`},
	{"CLOSING:TIME_WAIT", "The peer has acknowledged this side's FIN: 60 s remain."},
	{
		"CLOSE_WAIT:LAST_ACK",
		"The local program has closed at last. DURATION is how long that took after the peer closed.",
	},
	{"CLOSE_WAIT:CLOSE", `The local program reset the connection instead of closing it, or the peer reset it in the
meantime: see the reason.`},
	{"LAST_ACK:CLOSE", "The last ACK arrived: the connection is over. The other side is in TIME_WAIT, not this one."},
	{"TIME_WAIT:CLOSE", "The end: after 60 s, or because a new connection took its place."},
}

var reasons = []topic{
	{"normal", "Both sides closed, each with a FIN that was acknowledged; or a listener was closed."},
	{"refused", `An RST answered the SYN (ECONNREFUSED): nothing listens there, or a firewall rejects with RST.
ICMP port unreachable has a reason of its own, port_unreachable.
Source:    net/ipv4/tcp_input.c, tcp_reset`},
	{
		"port_unreachable",
		`ICMP port unreachable answered the SYN (ECONNREFUSED), and no RST arrived: a firewall rejects the
connection (REJECT sends this message by default).
Source:    net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach`,
	},
	{"no_port", `connect() found no free local port for this destination (EADDRNOTAVAIL). No SYN was sent.
Many:      all ports to one destination are in use, many perhaps in TIME_WAIT:
           sstrace ls --state time-wait
Sysctl:    net.ipv4.ip_local_port_range, tcp_tw_reuse
Source:    net/ipv4/inet_hashtables.c, __inet_hash_connect`},
	{"reset_by_peer", `An RST arrived (ECONNRESET; EPIPE in CLOSE_WAIT): the peer's program died, or closed with unread
data or with SO_LINGER 0; or a firewall sent the RST.
Source:    net/ipv4/tcp_input.c, tcp_reset`},
	{"reset_sent_unread", `The local program closed with unread data, so an RST was sent instead of a FIN.
Source:    RFC 2525 section 2.17; net/ipv4/tcp.c, __tcp_close`},
	{"reset_sent_linger", `The local program closed with SO_LINGER on and a linger time of 0, so an RST was sent.
Source:    net/ipv4/tcp.c, tcp_disconnect`},
	{
		"reset_sent_linger2",
		`The local program closed with a negative TCP_LINGER2, so an RST was sent, and the connection did
not stay in FIN_WAIT2 (TCPAbortOnLinger; TCPAbortOnData if the FIN was acknowledged only after
close()).
Source:    net/ipv4/tcp.c, __tcp_close; net/ipv4/tcp_input.c, tcp_rcv_state_process`,
	},
	{
		"reset_sent_late_data",
		`Data arrived after the local program had called close() or shutdown(SHUT_RDWR), so an RST was the
answer (TCPAbortOnData). The peer wrote before it had read the end of file.
Source:    RFC 9293 section 3.6.1; net/ipv4/tcp_input.c, tcp_rcv_state_process`,
	},
	{
		"reset_sent_syn",
		`A SYN inside the window arrived for a half-open connection, which ended with an RST: the peer, or
somebody in its name, started over.
Source:    RFC 9293 section 3.10.7.4; net/ipv4/tcp_minisocks.c, tcp_check_req (embryonic_reset)`,
	},
	{"timeout", `A SYN, data, a FIN or a zero-window probe was not acknowledged in time (ETIMEDOUT). This is also
the reason if SO_KEEPALIVE is on.
Sysctl:    net.ipv4.tcp_syn_retries, tcp_retries2, tcp_orphan_retries; the socket option
           TCP_USER_TIMEOUT
Source:    net/ipv4/tcp_timer.c, tcp_write_err`},
	{"keepalive", `Keep-alive probes were not answered, and nothing else was outstanding (ETIMEDOUT).
Sysctl:    net.ipv4.tcp_keepalive_time, tcp_keepalive_intvl, tcp_keepalive_probes; the socket
           options TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT
Source:    net/ipv4/tcp_timer.c, tcp_keepalive_timer`},
	{"unreachable", `ICMP reported that the destination is unreachable or prohibited, or there was no longer a route to
it. The error shows which: sstrace explain EHOSTUNREACH, for example. This ends a handshake at
once, but an established connection only if what it sends stays unacknowledged for all retries.
Source:    RFC 1122 section 4.2.3.9; net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c,
           tab_unreach`},
	{"aborted", `An administrator (ss -K) or a BPF program ended the connection (ECONNABORTED), or the local
program dissolved it with connect() to AF_UNSPEC, in any state. An MPTCP connection ends its
subflows this way. This is also the reason of a close() with SO_LINGER 0 in CLOSING or LAST_ACK:
the FIN is already sent, and nothing more is.
Source:    net/ipv4/tcp.c, tcp_abort, tcp_disconnect`},
	{"given_up", "The local program closed the socket before connect() had an answer."},
	{
		"handshake_abandoned",
		`The ACK of the SYN-ACK never arrived, despite all retries; or, with TCP_DEFER_ACCEPT, no data did.
If the ACK arrived and was dropped, the reason is accept_queue_full.
Sysctl:    net.ipv4.tcp_synack_retries
Source:    net/ipv4/inet_connection_sock.c, reqsk_timer_handler`,
	},
	{
		"accept_queue_full",
		`The ACK of the SYN-ACK arrived while the listener's accept queue was full. It was dropped until
the retries ended or, if tcp_abort_on_overflow is 1, answered with an RST.
Many:      the program accepts too slowly, or its backlog is too small: sstrace leaks, or
           sstrace ls --state listen
Sysctl:    net.ipv4.tcp_abort_on_overflow, tcp_synack_retries; net.core.somaxconn limits the
           backlog of listen()
Source:    net/ipv4/tcp_minisocks.c, tcp_check_req`,
	},
	{"listener_closed", "The listener was closed before accept(): the connection was reset, or its handshake dropped."},
	{"time_wait_expired", "The 60 s in TIME_WAIT are over."},
	{
		"time_wait_reused",
		`A new connection with the same addresses and ports replaced the one in TIME_WAIT: connect() took
its port (tcp_tw_reuse), or a SYN arrived that must belong to a new connection.`,
	},
	{"time_wait_overflow", "There was no TIME_WAIT, because tcp_max_tw_buckets sockets are already in it."},
	{"fin_wait2_timeout", "This side had closed, and the peer did not close within tcp_fin_timeout (60 s)."},
	{
		"too_many_orphans",
		`The local program had closed, and there were more such sockets than tcp_max_orphans allows, or TCP
was out of memory: the connection was reset (TCPAbortOnMemory).
Sysctl:    net.ipv4.tcp_max_orphans, tcp_mem
Source:    net/ipv4/tcp.c, __tcp_close, tcp_check_oom; net/ipv4/tcp_timer.c, tcp_out_of_resources`,
	},
	{"repaired", `The local program closed a socket in TCP_REPAIR, as CRIU does after it has saved the connection:
nothing was sent, and the peer does not notice.
Source:    net/ipv4/tcp.c, __tcp_close`},
	{"netns_gone", "The socket's network namespace was removed."},
	{"unknown", "None of the other reasons: sstrace does not guess."},
}
