/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The system call connect().
 *
 * It fails without a change of state if there is no route (tcp_v4_connect, tcp_v6_connect), or if a
 * program in the cgroup or a security module refuses it. Its result also explains why a socket that
 * went to SYN_SENT came back within the same call.
 *
 * Some calls are not attempts to connect: a call that only asks for the result of an earlier
 * connect(), and a call on a socket that is in use. So only a call on an unconnected socket counts.
 */
#pragma once

#include "ring.h"

#define EINPROGRESS 115
#define ERESTARTSYS 512 /* include/linux/errno.h: interrupted; the call may be restarted */
#define AF_UNSPEC 0

/* Whether the programs on entry to and exit from connect() are attached. */
const volatile bool trace_connects = false;

/*
 * Returns the connect() by which the current task is changing the state of sk, or null if no
 * connect() makes the change.
 */
static __always_inline struct connecting *connecting(const struct sock *sk)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct connecting *c;

	if (!trace_connects || !sk->sk_lock.owned)
		return 0;
	c = bpf_map_lookup_elem(&connects, &thread);
	/* An entry for another socket is left over from a connect() whose return was not seen. */
	return c && (c->sk == (__u64)sk || is_subflow(sk)) ? c : 0;
}

/* struct sockaddr_in or struct sockaddr_in6 */
struct sockaddr_any {
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

/*
 * Reports a connect() that returned err. The kind is KIND_NO_SYN, with the address that was
 * requested, or KIND_CONNECT_RETURNED.
 */
static __always_inline int trace_connect(struct sock *sk, const struct sockaddr_any *to, int err,
					 enum kind kind)
{
	struct cpu *cpu = this_cpu();
	struct sock_info info;
	struct event *e;

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&info, &sk->__sk_common, sk);
	info.proto = BPF_CORE_READ(sk, sk_protocol);
	if (kind == KIND_NO_SYN && (to->family == AF_INET || to->family == AF_INET6)) {
		info.rport = bpf_ntohs(to->port);
		if (to->family == AF_INET6)
			__builtin_memcpy(info.raddr, to->v6, sizeof(info.raddr));
		else
			map_ipv4(info.raddr, to->v4);
	}
	/*
	 * For KIND_CONNECT_RETURNED, the change to CLOSE has cleared the tuple. That change passed
	 * the filter.
	 */
	if (kind == KIND_NO_SYN && !wanted(&info, 0, 0)) {
		__sync_fetch_and_add(&cpu->filtered, 1);
		return 0;
	}
	e = reserve(cpu, &info, sk, kind, 0, 0, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->connect_err = err;
	set_owner(e);
	submit(cpu, e);
	return 0;
}

/* Notes that the current task enters connect(). */
static __always_inline int note_connect(struct sys_enter *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct file *file = file_of(ctx->args[0]);
	struct connecting c = { .addr = ctx->args[1] };
	struct sock *sk = sock_of(file);
	struct socket *socket;
	__u16 family, proto;

	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	proto = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) ||
	    (proto != IPPROTO_TCP && proto != IPPROTO_MPTCP))
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	c.sk = (__u64)sk;
	c.was_unconnected = BPF_CORE_READ(socket, state) == SS_UNCONNECTED &&
			    BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE;
	bpf_map_update_elem(&connects, &thread, &c, BPF_ANY);
	return 0;
}

/* Reports the result of a connect() if it shows something that no state change shows. */
static __always_inline int trace_connect_result(struct sys_exit *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct connecting *found = bpf_map_lookup_elem(&connects, &thread);
	struct sockaddr_any to = {};
	struct connecting c;
	int err = -ctx->ret;

	if (!found)
		return 0;
	c = *found;
	bpf_map_delete_elem(&connects, &thread);
	if (c.closed)
		return trace_connect((void *)c.closed, &to, err, KIND_CONNECT_RETURNED);
	if (c.sent_syn || !c.was_unconnected || err <= 0 || err == EINPROGRESS ||
	    err >= ERESTARTSYS)
		return 0;
	/* A sockaddr_in is shorter than this, and may end at the end of a page. */
	if (bpf_probe_read_user(&to, sizeof(to), (void *)c.addr))
		bpf_probe_read_user(&to, 8, (void *)c.addr);
	if (to.family == AF_UNSPEC)
		return 0;
	return trace_connect((void *)c.sk, &to, err, KIND_NO_SYN);
}
