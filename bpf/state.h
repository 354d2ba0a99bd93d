/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs remember: the types of the maps. */
#pragma once

#include "kernel.h"

/* What finds a connection that has no socket. */
struct ends {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u32 netns;
	__u32 ifindex;
	__u32 pad;
};

/* A change that `change` took and `change_missed` has not checked yet. */
struct taken {
	__u64 sk;
	__u64 states;
	__u64 seen; /* how many this CPU had seen before it */
};

#define FRESH                                                                                                          \
	4 /* a note that is older, in changes of its CPU, is stale: a socket cannot make the same change again within so few */
#define TAKEN_DEPTH 4 /* task, softirq, hardirq, and one to spare */

struct cpu {
	__u64 seen; /* = filtered + emitted + ring_full once no program runs */
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 covered; /* changes that `change` missed and `change_missed` took */
	__u32 depth; /* of taken */
	__u32 inside; /* `change` runs: interrupts find it skipped */
	struct taken taken[TAKEN_DEPTH];
	__u64 ended; /* the mini-sock whose timer was cancelled last, until its timer does something else */
	struct ends ended_ends;
	__u32 ended_state; /* TCP_SYN_RECV of a request sock, else the substate */
	__u64 child_at; /* seen, when a request's child was made last: its timer is cancelled next */
	__u64 frames[24]; /* of the kernel's stack, while one program looks at it */
};

/* A connect() that has not returned. */
struct connecting {
	__u64 addr; /* in user space */
	__u64 sk;
	__u32 fresh; /* the socket was unconnected before it */
	__u32 changed; /* it has come to SYN_SENT */
	__u64 closed; /* and this one to CLOSE again */
};

struct device {
	__u32 netns;
	__u32 ifindex;
};

struct host_key {
	__u32 prefix_len;
	__u8 addr[16];
};
