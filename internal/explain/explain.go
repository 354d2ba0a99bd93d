// Package explain says in words what the states, changes, reasons and errnos mean.
package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
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
Many:      our program forgets to close. No timeout ends it: a descriptor of it is still open, in a process, in the
           table of an io_uring, or in flight over a UNIX socket
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
	{"SYN_SENT:CLOSE", "The connect failed: see the reason."},
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
	{"refused", `RST answered the SYN (ECONNREFUSED): nobody listens there, or a firewall rejects with RST.
ICMP port unreachable has a reason of its own, port_unreachable.
Source:    net/ipv4/tcp_input.c, tcp_reset`},
	{"port_unreachable", `ICMP port unreachable answered the SYN (ECONNREFUSED): a firewall rejects (REJECT sends it by default), and no RST came.
Source:    net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach`},
	{"no_port", `connect() found no free local port for this destination (EADDRNOTAVAIL). No SYN was sent.
Many:      all ports to one target are in use, many perhaps in TIME_WAIT: sstrace ls --state time-wait
Sysctl:    net.ipv4.ip_local_port_range, tcp_tw_reuse
Source:    net/ipv4/inet_hashtables.c, __inet_hash_connect`},
	{"reset_by_peer", `RST came (ECONNRESET; EPIPE in CLOSE_WAIT): the peer's program died, or closed with data unread, or with SO_LINGER 0;
or a firewall sent it.
Source:    net/ipv4/tcp_input.c, tcp_reset`},
	{"reset_sent_unread", `Our program closed while data that had arrived were unread, so RST was sent instead of FIN.
Source:    RFC 2525 section 2.17; net/ipv4/tcp.c, __tcp_close`},
	{"reset_sent_linger", `Our program closed with SO_LINGER on and its time 0, so RST was sent.
Source:    net/ipv4/tcp.c, tcp_disconnect`},
	{"reset_sent_linger2", `Our program closed with TCP_LINGER2 below 0: the connection does not stay in FIN_WAIT2, and RST was sent
(TCPAbortOnLinger; TCPAbortOnData if the FIN was acknowledged only after close()).
Source:    net/ipv4/tcp.c, __tcp_close; net/ipv4/tcp_input.c, tcp_rcv_state_process`},
	{"reset_sent_late_data", `Data came after our program had called close() or shutdown(SHUT_RDWR), so RST was the answer (TCPAbortOnData).
The peer wrote before it had read our end of file.
Source:    RFC 9293 section 3.6.1; net/ipv4/tcp_input.c, tcp_rcv_state_process`},
	{"reset_sent_syn", `A SYN inside the window came to a half-open connection, which RST ended: the peer, or somebody in its name, began anew.
Source:    RFC 9293 section 3.10.7.4; net/ipv4/tcp_minisocks.c, tcp_check_req (embryonic_reset)`},
	{"timeout", `A SYN, data, a FIN or a zero-window probe was not acknowledged in time (ETIMEDOUT), also where SO_KEEPALIVE is on.
Sysctl:    net.ipv4.tcp_syn_retries, tcp_retries2, tcp_orphan_retries; and the option TCP_USER_TIMEOUT
Source:    net/ipv4/tcp_timer.c, tcp_write_err`},
	{"keepalive", `Keep-alive probes were not answered while nothing else was outstanding (ETIMEDOUT).
Sysctl:    net.ipv4.tcp_keepalive_time, tcp_keepalive_intvl, tcp_keepalive_probes; and the options TCP_KEEPIDLE and so on
Source:    net/ipv4/tcp_timer.c, tcp_keepalive_timer`},
	{"unreachable", `ICMP reported that the destination is unreachable or prohibited, or no route led there any more. The error shows which:
sstrace explain EHOSTUNREACH, and so on.
A handshake ends at once; an established connection only when what it sends is not acknowledged for all the retries.
Source:    RFC 1122 section 4.2.3.9; net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach`},
	{"aborted", `An administrator (ss -K) or a BPF program ended it (ECONNABORTED), or our program dissolved it with connect() to AF_UNSPEC,
in whatever state. A subflow is ended so by its MPTCP connection. So ends a close() with SO_LINGER 0 in CLOSING or LAST_ACK: the FIN
is sent already, and nothing more is.
Source:    net/ipv4/tcp.c, tcp_abort, tcp_disconnect`},
	{"given_up", "The program closed the socket before its connect() had an answer."},
	{"handshake_abandoned", `The ACK of our SYN-ACK never came, for all the retries; or, with TCP_DEFER_ACCEPT, no data did.
If the ACK came and was dropped, the reason is accept_queue_full.
Sysctl:    net.ipv4.tcp_synack_retries
Source:    net/ipv4/inet_connection_sock.c, reqsk_timer_handler`},
	{"accept_queue_full", `The ACK of our SYN-ACK came while the listener's accept queue was full. It was dropped until the retries ended, or
answered with RST if tcp_abort_on_overflow is 1.
Many:      the program accepts too slowly, or its backlog is too small: sstrace leaks, or sstrace ls --state listen
Sysctl:    net.ipv4.tcp_abort_on_overflow, tcp_synack_retries; net.core.somaxconn bounds listen()'s backlog
Source:    net/ipv4/tcp_minisocks.c, tcp_check_req`},
	{"listener_closed", "The listener was closed before anybody accepted the connection; it was reset, or its handshake dropped."},
	{"time_wait_expired", "60 s in TIME_WAIT are over."},
	{"time_wait_reused", "A new connection with the same addresses and ports took the place of the one in TIME_WAIT: by connect() (tcp_tw_reuse), or because a SYN came that must be new."},
	{"time_wait_overflow", "There was no TIME_WAIT: tcp_max_tw_buckets are there already."},
	{"fin_wait2_timeout", "We had closed, and the peer did not within tcp_fin_timeout (60 s)."},
	{"too_many_orphans", `Our program had closed, and there were more such sockets than tcp_max_orphans allows, or TCP was out of memory: reset
(TCPAbortOnMemory).
Sysctl:    net.ipv4.tcp_max_orphans, tcp_mem
Source:    net/ipv4/tcp.c, __tcp_close, tcp_check_oom; net/ipv4/tcp_timer.c, tcp_out_of_resources`},
	{"repaired", `Our program closed a socket in TCP_REPAIR, as CRIU does after it has saved the connection: nothing was sent, and the peer
does not notice.
Source:    net/ipv4/tcp.c, __tcp_close`},
	{"netns_gone", "Its network namespace was removed."},
	{"unknown", "None of these: sstrace does not guess."},
}

// errnos returns a topic for each errno.
func errnos() []topic {
	var all []topic
	for _, e := range event.Errnos() {
		text := fmt.Sprintf("%s\nNumber:    %d\n", e.Text, e.Number)
		if e.Reason != event.ReasonUnexplained {
			text += fmt.Sprintf("Reason:    %v\n", e.Reason)
		}
		all = append(all, topic{e.Name, text + "Source:    " + e.Source})
	}
	return all
}

func topics() []topic { return slices.Concat(states, reasons, edges, errnos()) }

// Topics lists all that can be explained.
func Topics() []string {
	var names []string
	for _, t := range topics() {
		names = append(names, t.name)
	}
	return names
}

// Explain explains a state, a change OLD:NEW, a reason, or an errno by its name or number; all states for "". An unknown one is an error that names the known.
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
	if n, err := strconv.ParseInt(strings.TrimPrefix(want, "errno"), 10, 32); err == nil {
		want = plain(event.ErrnoName(int32(n)))
	}
	for _, t := range topics() {
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
