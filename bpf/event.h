/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The records in the ring buffer. internal/probe reads them in place, and its tests compare every
 * offset with the object's BTF. Go also gets the enumerations through BTF: see
 * internal/probe/gen.go.
 */
#pragma once

#include "existing.h"

/*
 * The kinds of record. A connection is a request sock during its handshake. It is a timewait sock
 * in TIME_WAIT and, after close(), in FIN_WAIT2. Neither of these mini-socks is a struct sock, so
 * the tracepoint does not show them. But each has a timer while it exists. A timer that expires, or
 * that is restarted while it runs, is cancelled first.
 */
enum kind : __u8 {
	KIND_CHANGE, /* a full socket changed its state */
	KIND_REQUEST_STARTED, /* the SYN arrived, or the SYN-ACK was retransmitted */
	KIND_REQUEST_CANCELLED, /* the ACK arrived, or the timer is about to expire or restart */
	KIND_REQUEST_EXPIRED, /* the SYN-ACK timed out */
	KIND_TIME_WAIT_STARTED, /* the new state is the substate: FIN_WAIT2 or TIME_WAIT */
	KIND_TIME_WAIT_CANCELLED, /* it ended early, or the timer is about to expire or restart */
	KIND_TIME_WAIT_EXPIRED, /* it ended */
	KIND_SYN_SENT_STARTED, /* connect() sent its SYN, so it has chosen a port */
	KIND_SECOND_CHANGE, /* a change that the second program took: see bpf/once.h */
	KIND_ACCEPTED, /* accept() returned the socket to the current task */
	KIND_RESET, /* a segment ended the mini-sock whose timer was the last cancelled */
	KIND_ACCEPTED_PERHAPS, /* accepted by io_uring, if not reported yet: see bpf/accept.h */
	KIND_REQUEST_ACKED, /* the ACK was dropped: the listener waits for data */
	KIND_NO_SYN, /* connect() failed and changed no state */
	KIND_CONNECT_RETURNED, /* connect() returned after closing the socket itself */
	KIND_PROCESS_EXITED, /* a process that had called listen() exited */
	KIND_RESET_SENT, /* a segment closed the socket, which answered with RST */
};

/* What a record says about its socket. */
enum flag : __u8 {
	FLAG_PORT_STALE = 1 << 0, /* unbound: the local port is left from the previous connection */
	FLAG_ACKED = 1 << 1, /* request sock: the ACK arrived and was dropped */
	FLAG_DEFERS = 1 << 2, /* request sock: the listener waits for data (TCP_DEFER_ACCEPT) */
	FLAG_QUEUE_FULL = 1 << 3, /* request sock: the listener's accept queue is full */
	FLAG_BY_ICMP = 1 << 4, /* request sock: an ICMP message ended it */
	FLAG_DESTROYED = 1 << 5, /* the current task asked for the socket to be destroyed (ss -K) */
	FLAG_ABANDONED = 1 << 6, /* timewait sock: no process is left in its network namespace */
};

/* The state of a socket as it closes. It shows why the socket closes if sk_err alone does not. */
enum closing : __u32 {
	CLOSING_SHUT = 1 << 0, /* shut down in both directions, as close() does */
	CLOSING_LINGER0 = 1 << 1, /* SO_LINGER with a time of 0: close() sends RST */
	CLOSING_KEEPALIVE = 1 << 2, /* SO_KEEPALIVE */
	CLOSING_UNACCEPTED = 1 << 3, /* no process ever held it */
	CLOSING_ORPHAN = 1 << 4, /* no process holds it any more */
	CLOSING_FIN_CAME = 1 << 5, /* the peer's FIN arrived */
	CLOSING_TIME_WAIT_FULL = 1 << 6, /* there are too many timewait socks, or this is unknown */
	CLOSING_NO_FIN_WAIT2 = 1 << 7, /* TCP_LINGER2 below 0: an orphan does not wait for a FIN */
	CLOSING_UNREAD = 1 << 8, /* it received data that no process has read */
	CLOSING_REPAIR = 1 << 9, /* TCP_REPAIR is on */
	CLOSING_IN_CONNECT = 1 << 10, /* the current task closes it in its own connect() */
	CLOSING_UNACKED = 1 << 11, /* a SYN, data or a FIN is unacknowledged, or unsent */
	CLOSING_NETNS_GONE = 1 << 12, /* no process is left in its network namespace */
	CLOSING_RECV_SHUT =
		1 << 13, /* it no longer receives: close(), shutdown(), or the peer's FIN */
	CLOSING_OWNED = 1 << 14, /* its lock is owned: a system call on it is making the change */
	CLOSING_NO_SEGMENT = 1 << 15, /* it has sent no segment */
	CLOSING_UNSENT = 1 << 16, /* data or a FIN is unsent */
};

/*
 * An event. A member that does not apply to the kind of the event is 0, or "unknown" if the member
 * has such a value.
 */
struct event {
	__u64 mono_ns; /* CLOCK_MONOTONIC, read once per event */
	__u64 sk; /* the address of the sock or mini-sock */
	__u64 cookie; /* 0: this kernel has no cookies */
	__u64 cgroup_id; /* 0: unknown */
	__u64 losses; /* changes lost to a full ring before this one, on the whole host */
	__u64 listener; /* for a request sock: the address of its listener */
	__u32 netns;
	__u32 uid; /* ~0: unknown */
	__u16 cpu;
	__u16 syn_retrans; /* SYNs or SYN-ACKs retransmitted in SYN_SENT or SYN_RECV; ~0: unknown */
	__u32 task_pid; /* process ID of the current task, whether or not it is the owner */
	__u32 task_tid; /* its thread ID */
	__s32 sk_err; /* for a state change */
	__s32 stack; /* the thread's user-space stack, in stacks; negative: unknown */
	__u32 ifindex; /* the device that the socket is bound to; 0: none */
	__u32 isn; /* the client's initial sequence number, at both ends; 0: unknown */
	__u32 srtt_us; /* for a change from ESTABLISHED, times 8; 0: unknown */
	__s32 icmp_err; /* for SYN_SENT -> CLOSE without sk_err: what ICMP reported; 0: nothing */
	enum closing closing; /* for a change to CLOSE */
	__u8 family;
	enum flag flags;
	__u16 proto;
	__u16 lport; /* in host byte order, like rport; 0: not known yet */
	__u16 rport;
	__u8 old_state;
	__u8 new_state;
	__u8 is_owner; /* the current task made the change, or got the socket, by its own call */
	enum kind kind;
	__u8 synack_timeouts; /* for a request sock */
	__u8 segment_flags; /* for KIND_RESET: the flags in the segment's TCP header */
	__u16 connect_err; /* for KIND_NO_SYN and KIND_CONNECT_RETURNED: the errno; 0: success */
	__u8 laddr[16]; /* IPv4 addresses as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 task_comm[16]; /* the name of the thread */
	__u8 owner_comm[16]; /* the name of the process, if is_owner is set */
};

_Static_assert(sizeof(struct event) == 176, "struct event: no holes, and in step with record.go");

/*
 * The record of a change to CLOSE. It adds the numbers that struct tcp_sock counted, which tcp_info
 * also has (include/uapi/linux/tcp.h).
 */
struct closed {
	struct event event;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 retrans;
	__u32 srtt_us; /* times 8; 0: not measured */
	__u32 min_rtt_us; /* ~0: not measured */
	__u32 is_tcp; /* otherwise all of these are 0 */
	char cong[16];
};

_Static_assert(sizeof(struct closed) == sizeof(struct event) + 56,
	       "struct closed: no holes, and in step with record.go");

/*
 * For bpf2go -type: a struct that is not named by any map is in the BTF only if a pointer refers to
 * it.
 */
const struct event *unused_event __attribute__((unused));
const struct closed *unused_closed __attribute__((unused));
const struct sock_found *unused_sock_found __attribute__((unused));
const struct holder_found *unused_holder_found __attribute__((unused));
