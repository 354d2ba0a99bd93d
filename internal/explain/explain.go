// Package explain says in words what the states, changes and reasons mean.
package explain

import (
	"fmt"
	"slices"
	"strings"
)

// topic is one thing to explain. Its lines are for a terminal, about 100 characters wide.
type topic struct {
	name string
	text string
}

// The states as client, server or whoever closes has them: RFC 9293 section 3.3.2, with what Linux makes of them.
var states = []topic{
	{"CLOSE", `No connection: before connect() or listen(), and after the end.
Side:      both
Next:      connect() → SYN_SENT, listen() → LISTEN
Source:    RFC 9293 section 3.3.2 (CLOSED); include/net/tcp_states.h`},
	{"LISTEN", `A server waits for connections.
Side:      server; the listener itself stays in it, each connection begins from it
Next:      a SYN makes a connection in SYN_RECV; close() → CLOSE
Normal:    as long as the server runs
Sysctl:    net.core.somaxconn bounds listen()'s backlog
Source:    RFC 9293 section 3.10.7.2; net/ipv4/inet_connection_sock.c`},
	{"SYN_SENT", `connect() has sent a SYN and waits for the answer.
Side:      client
Next:      SYN-ACK → ESTABLISHED; RST → CLOSE (refused); no answer → CLOSE (timeout); a SYN → SYN_RECV
Normal:    one round trip
Many:      a firewall drops the SYNs, or the server's accept queue is full, and drops them
Sysctl:    net.ipv4.tcp_syn_retries (6: about 2 minutes)
Source:    RFC 9293 section 3.10.7.3; net/ipv4/tcp_input.c, tcp_rcv_synsent_state_process`},
	{"SYN_RECV", `A SYN came, a SYN-ACK was sent, and its ACK is awaited: half-open.
Side:      server (a client only if both open at the same time)
Next:      ACK → ESTABLISHED; no ACK → CLOSE (handshake_abandoned)
Normal:    one round trip
Many:      a SYN flood, a network that loses the ACKs, or a full accept queue: the ACKs are dropped
Sysctl:    net.ipv4.tcp_synack_retries (5), tcp_max_syn_backlog, tcp_syncookies
Source:    RFC 9293 section 3.10.7.4; net/ipv4/inet_connection_sock.c, reqsk_timer_handler`},
	{"ESTABLISHED", `Both sides may send.
Side:      both
Next:      we close first → FIN_WAIT1; the peer does → CLOSE_WAIT; a reset → CLOSE
Normal:    as long as the programs need it
Many:      as many as there are users; if nobody uses them, look for a pool that only grows
Sysctl:    net.ipv4.tcp_keepalive_time, only with SO_KEEPALIVE; tcp_retries2 for lost peers
Source:    RFC 9293 section 3.3.2`},
	{"FIN_WAIT1", `We have closed first and sent a FIN; its ACK is awaited.
Side:      who closes first (active close)
Next:      ACK → FIN_WAIT2; a FIN → CLOSING; both in one → FIN_WAIT2, and TIME_WAIT at once
Normal:    one round trip, and the time to send what was still queued
Many:      peers that vanished, or that read no more (their window is 0)
Sysctl:    net.ipv4.tcp_orphan_retries, tcp_max_orphans
Source:    RFC 9293 section 3.6`},
	{"FIN_WAIT2", `Our FIN is acknowledged; the peer's is awaited.
Side:      who closes first
Next:      FIN → TIME_WAIT; after close() no FIN in time → CLOSE (fin_wait2_timeout)
Normal:    until the peer's program closes, too: here it is we who wait for them
Many:      the peers do not close: there they are in CLOSE_WAIT
Sysctl:    net.ipv4.tcp_fin_timeout (60 s), after close(); after shutdown() there is no limit
Source:    RFC 9293 section 3.6; net/ipv4/tcp.c, __tcp_close`},
	{"CLOSING", `Both sides have sent a FIN at the same time; ours is not acknowledged yet.
Side:      both: a simultaneous close
Next:      ACK → TIME_WAIT
Normal:    half a round trip; rare
Source:    RFC 9293 section 3.6, figure 13`},
	{"TIME_WAIT", `Both sides have closed; late segments are still awaited, and a lost last ACK is sent again.
Side:      who closed first. No process has it any more
Next:      after 60 s → CLOSE (time_wait_expired), or a new connection reuses it
Normal:    60 s, always (TCP_TIMEWAIT_LEN; twice the RFC's MSL would be 4 minutes)
Many:      this side opens and closes many connections; it is harmless until ports to one target run out
Sysctl:    net.ipv4.tcp_tw_reuse, tcp_max_tw_buckets, ip_local_port_range
Source:    RFC 9293 section 3.6.1; include/net/tcp.h; net/ipv4/tcp_minisocks.c`},
	{"CLOSE_WAIT", `The peer has closed; our program has not, yet.
Side:      who closes second (passive close)
Next:      close() → LAST_ACK; a reset → CLOSE
Normal:    as long as the program takes to read the end of file: milliseconds
Many:      our program forgets to close. No timeout ends it: some process still holds the descriptor
Sysctl:    none helps; sstrace leaks, or sstrace ls --state close-wait, finds every process that holds it
Source:    RFC 9293 section 3.6`},
	{"LAST_ACK", `We have closed second and sent our FIN; its ACK is awaited, the last one.
Side:      who closes second
Next:      ACK → CLOSE
Normal:    one round trip
Many:      peers that vanished after their own FIN
Sysctl:    net.ipv4.tcp_orphan_retries
Source:    RFC 9293 section 3.6`},
}

var edges = []topic{
	{"CLOSE:LISTEN", "listen() was called: a server is ready."},
	{"CLOSE:SYN_SENT", "connect() was called: a SYN is on its way."},
	{"LISTEN:SYN_RECV", "A SYN has arrived for this listener: a new connection, half-open. (With --states kernel: the ACK has, the handshake is nearly over.)"},
	{"LISTEN:CLOSE", "The listener was closed: new SYNs are refused, and what waited in its queue is reset."},
	{"SYN_SENT:ESTABLISHED", "The SYN-ACK has come: the client's handshake is over; DURATION is its round trip."},
	{"SYN_SENT:SYN_RECV", "A SYN has come instead of a SYN-ACK: both sides opened at the same time."},
	{"SYN_SENT:CLOSE", "The connect failed: REASON says refused, timeout, unreachable, or given_up."},
	{"SYN_RECV:ESTABLISHED", "The ACK has come: the server's handshake is over; DURATION is a round trip. The connection waits for accept() now."},
	{"SYN_RECV:CLOSE", "The handshake did not come to its end: see the reason."},
	{"ESTABLISHED:FIN_WAIT1", "We close first: close() or shutdown(). This side will have the TIME_WAIT."},
	{"ESTABLISHED:CLOSE_WAIT", "The peer closes first. Our program reads an end of file now, and should close."},
	{"ESTABLISHED:CLOSE", "The connection was reset or timed out: see the reason."},
	{"FIN_WAIT1:FIN_WAIT2", "The peer's TCP has our FIN; its program has not closed yet."},
	{"FIN_WAIT1:CLOSING", "The peer's FIN crossed ours."},
	{"FIN_WAIT2:TIME_WAIT", "The peer has closed, too: 60 s to go. (With --states kernel this is told as FIN_WAIT2 → CLOSE.)"},
	{"FIN_WAIT2:CLOSE", "Reset; or data came although we had closed; or the peer did not close in time; or there is no room for a TIME_WAIT: see the reason."},
	{"CLOSING:TIME_WAIT", "Our FIN is acknowledged: 60 s to go."},
	{"CLOSE_WAIT:LAST_ACK", "Our program has closed at last; DURATION is how long it took after the peer had."},
	{"CLOSE_WAIT:CLOSE", "Our program reset the connection instead of closing it, or the peer did meanwhile: see the reason."},
	{"LAST_ACK:CLOSE", "The last ACK has come: over, without TIME_WAIT, which the other side has."},
	{"TIME_WAIT:CLOSE", "The end: after 60 s, or because a new connection took its place."},
}

var reasons = []topic{
	{"normal", "Both sides closed, each with a FIN that was acknowledged; or a listener was closed."},
	{"refused", "The peer answered the SYN with RST: nobody listens there (ECONNREFUSED)."},
	{"reset_by_peer", "RST came (ECONNRESET; EPIPE in CLOSE_WAIT): the peer's program died, or closed with data unread, or with SO_LINGER 0; or a firewall sent it."},
	{"reset_sent_unread", "Our program closed while data that had come was unread, so RST was sent instead of FIN (RFC 2525 section 2.17; net/ipv4/tcp.c, __tcp_close)."},
	{"reset_sent_linger", "Our program closed with SO_LINGER on and its time 0, so RST was sent (net/ipv4/tcp.c, tcp_disconnect)."},
	{"timeout", "What was sent was not acknowledged in time (ETIMEDOUT): tcp_syn_retries, tcp_retries2, tcp_orphan_retries, or TCP_USER_TIMEOUT."},
	{"keepalive", "The peer did not answer keep-alive probes (ETIMEDOUT): tcp_keepalive_time, tcp_keepalive_intvl, tcp_keepalive_probes."},
	{"unreachable", "ICMP said so until TCP gave up, or there was no route any more (EHOSTUNREACH, ENETUNREACH)."},
	{"aborted", "An administrator ended it (ss -K: ECONNABORTED), or the program dissolved it with connect() to AF_UNSPEC."},
	{"given_up", "The program closed the socket before its connect() had an answer."},
	{"handshake_abandoned", "The ACK of our SYN-ACK never came, for all the retries (tcp_synack_retries); or it came while the accept queue was full, and was dropped."},
	{"listener_closed", "The listener was closed before anybody accepted the connection; it was reset, or its handshake dropped."},
	{"time_wait_expired", "60 s in TIME_WAIT are over."},
	{"time_wait_reused", "A new connection with the same addresses and ports took the place of the one in TIME_WAIT: by connect() (tcp_tw_reuse), or because a SYN came that must be new."},
	{"time_wait_overflow", "There was no TIME_WAIT: tcp_max_tw_buckets are there already."},
	{"fin_wait2_timeout", "We had closed, and the peer did not within tcp_fin_timeout (60 s)."},
	{"reset_sent_late_data", "Data came after our program had closed, so RST was the answer (TCPAbortOnData; RFC 9293 section 3.6.1; net/ipv4/tcp_input.c, tcp_rcv_state_process). The peer wrote before it had read our end of file."},
	{"unknown", "None of these: sstrace does not guess. A connection in TIME_WAIT whose network namespace goes is among them."},
}

// Topics lists all that can be explained.
func Topics() []string {
	var names []string
	for _, t := range slices.Concat(states, reasons, edges) {
		names = append(names, t.name)
	}
	return names
}

// Explain explains a state, a change OLD:NEW or a reason; all states for "". An unknown one is an error that names the known.
func Explain(what string) (string, error) {
	if what == "" {
		var b strings.Builder
		for i, s := range states {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(s.String())
		}
		return b.String(), nil
	}
	want := plain(what)
	for _, t := range slices.Concat(states, reasons, edges) {
		if plain(t.name) == want {
			return t.String(), nil
		}
	}
	return "", fmt.Errorf("nothing is known of %q; there are %s", what, strings.Join(Topics(), " "))
}

// plain makes CLOSE_WAIT, close-wait and TCP_CLOSE_WAIT the same.
func plain(name string) string {
	name = strings.ToLower(strings.NewReplacer("_", "", "-", "", "→", ":", " ", "").Replace(name))
	return strings.TrimPrefix(name, "tcp")
}

func (t topic) String() string {
	return t.name + "\n  " + strings.ReplaceAll(t.text, "\n", "\n  ") + "\n"
}
