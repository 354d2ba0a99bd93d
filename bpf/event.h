/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The records in the ring buffer. internal/probe reads them in place. */
#pragma once

#include "existing.h"

/*
 * What a record tells. A connection whose handshake is not over (request sock), or that only waits for its end (timewait sock),
 * is no struct sock, and the tracepoint does not show it; but both kinds of mini-sock live by a timer.
 */
enum kind {
	CHANGE, /* the tracepoint's change of a sock */
	REQUEST_TIMER_STARTED, /* the SYN arrived, or the SYN-ACK was sent again */
	REQUEST_TIMER_CANCELLED, /* the ACK arrived; or first half of what follows */
	REQUEST_TIMER_EXPIRED,
	TIMEWAIT_TIMER_STARTED, /* new_state is its substate: FIN_WAIT2 or TIME_WAIT */
	TIMEWAIT_TIMER_CANCELLED,
	TIMEWAIT_TIMER_EXPIRED,
	SYN_TIMER_STARTED, /* a connect() has sent its SYN: now its local port is known */
	CHANGE_SECOND, /* a CHANGE, by change_missed */
	ACCEPTED, /* accept() has given the socket to the current task */
	MINI_RESET, /* the segment that ended the mini-sock whose timer was cancelled just before */
	ACCEPTED_PERHAPS, /* ACCEPTED, if nobody has told so before: see io_uring_completed */
	REQUEST_ACKED, /* the ACK came and was dropped, because the listener waits for data (TCP_DEFER_ACCEPT) */
	NO_SYN, /* connect() failed and changed no state; err is its errno */
	CONNECT_RETURNED, /* connect() returns, and the socket has closed inside it; err is its errno, or 0 */
	PROCESS_EXITED, /* a process that called listen() has exited */
	RESET_SENT, /* a sock that a segment has just closed answers it with RST */
};

/* What a record's flags say of its socket. */
enum {
	FLAG_PORT_STALE = 1 << 0, /* it has no local port: lport is the one of its last connection */
	FLAG_ACKED = 1 << 1, /* of a request sock: the ACK has come, and was dropped */
	FLAG_DEFERS = 1 << 2, /* of a request sock: its listener waits for data (TCP_DEFER_ACCEPT) */
	FLAG_QUEUE_FULL = 1 << 3, /* of a request sock: its listener's accept queue is full */
	FLAG_BY_ICMP = 1 << 4, /* of a request sock: ICMP ended it */
	FLAG_DESTROYED = 1 << 5, /* the current task asked to destroy it (ss -K) */
	FLAG_NETNS_GONE = 1 << 6, /* of a timewait sock: no process is in its network namespace any more */
};

/* What a socket is like as it closes: it tells why, where sk_err alone does not. */
enum {
	CLOSING_SHUT = 1 << 0, /* shut down both ways: close() */
	CLOSING_LINGER0 = 1 << 1, /* SO_LINGER with time 0: close() resets */
	CLOSING_KEEPALIVE = 1 << 2, /* SO_KEEPALIVE */
	CLOSING_UNACCEPTED = 1 << 3, /* no process ever had it */
	CLOSING_ORPHAN = 1 << 4, /* no process has it any more */
	CLOSING_FIN_CAME = 1 << 5, /* the peer's */
	CLOSING_TIMEWAIT_FULL = 1 << 6, /* no more timewait socks are allowed, or it is not known */
	CLOSING_NO_FIN_WAIT2 = 1 << 7, /* TCP_LINGER2 below 0: an orphan does not wait for a FIN */
	CLOSING_UNREAD = 1 << 8, /* data came that no process has read */
	CLOSING_REPAIR = 1 << 9, /* TCP_REPAIR is on */
	CLOSING_IN_CONNECT = 1 << 10, /* the current task closes it in its own connect() */
	CLOSING_UNACKED =
		1 << 11, /* something that was sent, or is to be sent, has not been acknowledged: a SYN, data, a FIN */
	CLOSING_NETNS_GONE = 1 << 12, /* no process is in its network namespace any more */
	CLOSING_RECV_SHUT = 1 << 13, /* nothing will be received any more: close(), shutdown(), or the peer's FIN */
	CLOSING_OWNED = 1 << 14, /* its lock is owned: the change is made by a system call on it */
	CLOSING_NO_SYN = 1 << 15, /* no segment was sent */
	CLOSING_UNSENT = 1 << 16, /* data or a FIN have not been sent */
};

/* One state change as the kernel tells it. internal/probe reads it in place: see record.go before changing a member. */
struct event {
	__u64 mono_ns; /* CLOCK_MONOTONIC, the only clock read of this change */
	__u64 sk;
	__u64 cookie; /* 0: this kernel gives none */
	__u64 cgroup_id; /* 0: unknown */
	__u64 losses; /* changes that found the ring full, host-wide, before this one */
	__u64 listener; /* of a request sock: its listener's address */
	__u32 netns;
	__u32 uid;
	__u16 cpu;
	__u16 retrans; /* SYNs or SYN-ACKs sent again, as an open ends; of a request sock: SYN-ACKs; ~0: unknown */
	__u32 task_pid; /* thread group of the current task, whoever that is */
	__u32 task_tid; /* the thread */
	__s32 err; /* sk_err */
	__s32 stack; /* of the thread in user space, in stacks; negative: not asked for, or not to be had */
	__u32 ifindex; /* of the device that the socket is bound to; 0: none */
	__u32 isn; /* the client's initial sequence number, at both ends; 0: unknown */
	__u32 srtt_us; /* times 8, of a change from ESTABLISHED; 0: unknown */
	__s32 err_soft; /* of a change from SYN_SENT to CLOSE without sk_err: what ICMP said before; 0: nothing */
	__u32 closing; /* of a change to CLOSE: the CLOSING_ bits */
	__u8 family;
	__u8 flags; /* the FLAG_ bits */
	__u16 proto;
	__u16 lport; /* host byte order, as rport; 0: not known yet */
	__u16 rport;
	__u8 old_state;
	__u8 new_state;
	__u8 by_task; /* the current task made this change by its own call: it is the owner */
	__u8 kind;
	__u8 retries; /* of a request sock: how often its SYN-ACK was sent again */
	__u8 tcp_flags; /* of MINI_RESET: those of the segment */
	__u8 pad[2];
	__u8 laddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 task_comm[16]; /* the thread's */
	__u8 owner_comm[16]; /* the process's, set if by_task */
};

_Static_assert(sizeof(struct event) == 176, "struct event: no holes, and in step with record.go");

/* The record of a change to CLOSE has, behind it, what struct tcp_sock counted: tcp_info has the same (include/uapi/linux/tcp.h). */
struct closed {
	struct event event;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 retrans;
	__u32 srtt_us; /* times 8; 0: none */
	__u32 min_rtt_us; /* ~0: none */
	__u32 is_tcp; /* else all of it is 0 */
	char cong[16];
};

_Static_assert(sizeof(struct closed) == sizeof(struct event) + 56,
	       "struct closed: no holes, and in step with record.go");

/* For bpf2go's -type: a struct that no map names is not in the object's BTF unless something points to it. */
const struct event *unused_event __attribute__((unused));
const struct closed *unused_closed __attribute__((unused));
const struct sock_found *unused_sock_found __attribute__((unused));
const struct holder_found *unused_holder_found __attribute__((unused));
