/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The keys and values of the maps: what the programs remember between events. */
#pragma once

#include "kernel.h"

/* Identifies a connection that has no sock. */
struct tuple {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u32 netns;
	__u32 ifindex; /* the device that the connection is bound to; 0: none */
	__u32 pad;
};

/* A change that `change` has taken, and that `change_missed` has not checked yet. */
struct taken {
	__u64 sk;
	__u64 states;
	__u64 seen; /* the value of seen on this CPU before this change */
};

/*
 * The age beyond which a note is stale, in changes on its CPU. A socket cannot repeat a change
 * while so few others happen.
 */
#define MAX_NOTE_AGE 4
#define TAKEN_DEPTH 4 /* task, softirq, hardirq, and one to spare */

/* The counters of a CPU, which are never reset, and the notes of that CPU. */
struct cpu {
	__u64 seen; /* = filtered + emitted + ring_full whenever no program runs */
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 covered; /* changes taken by `change_missed` because the kernel skipped `change` */
	__u32 depth; /* the depth of taken */
	__u32 inside; /* `change` is running, so the kernel skips it for an interrupt */
	struct taken taken[TAKEN_DEPTH];
	__u64 cancelled; /* mini-sock whose timer was the last cancelled; 0: no longer relevant */
	struct tuple cancelled_tuple;
	__u32 cancelled_state; /* TCP_SYN_RECV for a request sock, otherwise the substate */
	__u64 child_at; /* seen when a request got its child; the request's timer is next */
	__u64 frames[24]; /* scratch space for in_icmp_handler */
};

/* A connect() that has not returned. */
struct connecting {
	__u64 addr; /* its struct sockaddr, in user space */
	__u64 sk;
	__u32 was_unconnected; /* before this call */
	__u32 sent_syn; /* sk entered SYN_SENT */
	__u64 closed; /* the sock that went back to CLOSE; 0: none */
};

struct device {
	__u32 netns;
	__u32 ifindex;
};

struct host_key {
	__u32 prefix_len;
	__u8 addr[16];
};
