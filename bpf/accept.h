/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Finds out which process accepts a connection with accept(), accept4() or io_uring.
 *
 * The system calls return a file descriptor. An io_uring request returns either a descriptor of the
 * process, whose worker threads share its files, or a slot of the ring's own table. A completion of
 * a multishot request does not carry its request (io_req_post_cqe in io_uring/io_uring.c). So it
 * may belong to any other kind of request. Its result may then be a mask, or a number that happens
 * to be the descriptor of a connection. User space therefore believes it only for a connection that
 * is established and has not been accepted yet.
 */
#pragma once

#include "ring.h"

#define IORING_OP_ACCEPT 13
#define IORING_CQE_F_BUFFER 1
#define IORING_CQE_F_MORE 2

/*
 * The number of arguments of io_uring:io_uring_complete in the running kernel: 3 from 6.15 on, 7
 * before.
 */
const volatile __u8 io_uring_complete_args = 0;

/* Reports that the current process has taken sk from its listener's queue. */
static __noinline int trace_accepted(void *ctx, struct sock *sk, enum kind kind)
{
	struct sock_info info;
	struct event *e;
	struct cpu *cpu = this_cpu();
	__u16 family;

	if (!cpu || !sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&info, &sk->__sk_common, sk);
	info.lport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	info.proto = BPF_CORE_READ(sk, sk_protocol);
	e = begin(cpu, &info, sk, kind, 0, BPF_CORE_READ(sk, __sk_common.skc_state), sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	set_owner(e);
	if (want_stacks)
		e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	submit(cpu, e);
	return 0;
}

/*
 * Reports that the current process has taken the socket of sk from its listener's queue. For an
 * MPTCP connection, it also reports the first subflow. If only TCP is traced, nothing but the
 * subflow is of interest.
 */
static __always_inline int trace_accept(void *ctx, struct sock *sk)
{
	const struct mptcp_sock *msk = (const void *)sk;

	trace_accepted(ctx, sk, KIND_ACCEPTED);
	if (sk && bpf_core_type_exists(struct mptcp_sock) &&
	    BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		trace_accepted(ctx, BPF_CORE_READ(msk, first), KIND_ACCEPTED);
	return 0;
}

/* Reports a completed accept request of io_uring. ctx has the arguments of io_uring_complete. */
static __always_inline int trace_io_uring(__u64 *ctx)
{
	struct io_ring_ctx *ring = (void *)ctx[0];
	struct io_kiocb *req = (void *)ctx[1];
	__u32 flags, slot;
	__s32 res;

	if (io_uring_complete_args == 3) {
		struct io_uring_cqe *cqe = (void *)ctx[2];

		res = cqe->res;
		flags = cqe->flags;
	} else {
		res = ctx[3];
		flags = ctx[4];
	}
	if (res < 0)
		return 0;
	if (!req) {
		if ((flags & (IORING_CQE_F_MORE | IORING_CQE_F_BUFFER)) != IORING_CQE_F_MORE)
			return 0;
		trace_accepted(ctx, sock_of(file_of(res)), KIND_ACCEPTED_PERHAPS);
		return trace_accepted(ctx, sock_of(direct_file_of(ring, res)),
				      KIND_ACCEPTED_PERHAPS);
	}
	if (BPF_CORE_READ(req, opcode) != IORING_OP_ACCEPT)
		return 0;
	/* Slots are counted from 1. With ~0 the kernel chooses one, and the result is its index. */
	slot = BPF_CORE_READ((struct io_accept *)req, file_slot);
	if (!slot)
		return trace_accepted(ctx, sock_of(file_of(res)), KIND_ACCEPTED);
	return trace_accepted(ctx, sock_of(direct_file_of(ring, slot == ~0U ? res : slot - 1)),
			      KIND_ACCEPTED);
}
