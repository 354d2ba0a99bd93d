/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* accept() and io_uring. */
#pragma once

#include "ring.h"

/* How many arguments io_uring:io_uring_complete has here: 3, from 6.15 on, or 7. */
const volatile __u8 io_uring_complete_args = 0;

/* A process has taken sk from its listener's queue. */
static __noinline int trace_accepted(void *ctx, struct sock *sk, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct about a;
	struct event *e;
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	__u16 family;

	if (!cpu || !sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, &sk->__sk_common, sk);
	a.lport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	a.proto = BPF_CORE_READ(sk, sk_protocol);
	e = begin(cpu, &a, sk, 0, BPF_CORE_READ(sk, __sk_common.skc_state), sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->listener = 0;
	e->err = 0;
	e->kind = kind;
	e->by_task = 1;
	BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
	if (want_stacks)
		e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	submit(cpu, e);
	return 0;
}

/* A process has taken the socket of sk from its listener's queue: of an MPTCP connection also its subflow, which alone is there for who asks for TCP. */
static __always_inline int trace_accept(void *ctx, struct sock *sk)
{
	const struct mptcp_sock *msk = (const void *)sk;

	trace_accepted(ctx, sk, ACCEPTED);
	if (sk && bpf_core_type_exists(struct mptcp_sock) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		trace_accepted(ctx, BPF_CORE_READ(msk, first), ACCEPTED);
	return 0;
}

#define IORING_OP_ACCEPT 13
#define IORING_CQE_F_BUFFER 1
#define IORING_CQE_F_MORE 2
