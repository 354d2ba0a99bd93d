/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* connect() */
#pragma once

#include "ring.h"

/* The programs at the beginning and end of connect() are attached. */
const volatile bool trace_connects = false;

/* The connect() that the current task is in, as it changes sk by itself; or 0. */
static __always_inline struct connecting *connecting(const struct sock *sk)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct connecting *c;

	if (!trace_connects || !sk->sk_lock.owned)
		return 0;
	c = bpf_map_lookup_elem(&connects, &thread);
	/* One of another socket is left from a connect() whose return the kernel did not show. */
	return c && (c->sk == (__u64)sk || is_subflow(sk)) ? c : 0;
}

/* struct sockaddr_in, struct sockaddr_in6 */
struct address {
	__u16 family;
	__be16 port;
	union {
		__be32 v4;
		struct {
			__u32 flow;
			__u8 v6[16];
		};
	};
};

static __always_inline int trace_connect(struct sock *sk, const struct address *to, int err, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	struct about a;
	struct event *e;

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, &sk->__sk_common, sk);
	a.proto = BPF_CORE_READ(sk, sk_protocol);
	if (kind == NO_SYN && (to->family == AF_INET || to->family == AF_INET6)) {
		a.rport = bpf_ntohs(to->port);
		if (to->family == AF_INET6)
			__builtin_memcpy(a.raddr, to->v6, sizeof(a.raddr));
		else
			map_ipv4(a.raddr, to->v4);
	}
	if (kind == NO_SYN && !wanted(&a, 0, 0)) { /* a CLOSE that connect() made was wanted, and took the tuple away */
		__sync_fetch_and_add(&cpu->filtered, 1);
		return 0;
	}
	e = reserve(cpu, &a, sk, 0, 0, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->listener = 0;
	e->err = err;
	e->kind = kind;
	e->by_task = 1;
	BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
	submit(cpu, e);
	return 0;
}

#define EINPROGRESS 115
#define ERESTARTSYS 512 /* include/linux/errno.h: a signal came, and the call may begin again */
#define AF_UNSPEC 0
