/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The state changes of socks. */
#pragma once

#include "closing.h"
#include "connect.h"
#include "diag.h"
#include "ring.h"

/* Request and timewait socks are looked at, too. */
const volatile bool want_mini = false;

/*
 * Did a process make this change by its own call, so that the current task is the owner? It then holds the socket's lock
 * (lock_sock); a softirq never works on a socket whose lock is owned (it leaves a backlog). What the owner of the lock
 * finds in that backlog is the peer's doing, so only these count:
 *   -> SYN_SENT, -> LISTEN: connect(), listen(). LISTEN -> CLOSE, -> FIN_WAIT1, -> LAST_ACK: close(), shutdown()
 *   (tcp_close_state in net/ipv4/tcp.c).
 *   SYN_SENT, ESTABLISHED or CLOSE_WAIT -> CLOSE: a close() that resets or gives up. __tcp_close shuts down both ways
 *   before, and in these states nothing else leaves both ways shut.
 */
static __always_inline bool by_task(const struct sock *sk, int old, int new)
{
	if (!sk->sk_lock.owned || old == new)
		return false;
	switch (new) {
	case TCP_SYN_SENT:
	case TCP_LISTEN:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return true;
	case TCP_CLOSE:
		return old == TCP_LISTEN || ((old == TCP_SYN_SENT || old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT) &&
					     sk->sk_shutdown == SHUTDOWN_MASK);
	}
	return false;
}

#define PF_KTHREAD                                                                                                     \
	0x00200000 /* include/linux/sched.h: a worker of MPTCP or io_uring closes what nobody called close() for */

static __always_inline void fill_change(void *ctx, struct event *e, const struct about *a, const struct sock *sk,
					int old, int new, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	/* A child whose remote end comes late gets its real cookie late, too: the one asked for now would be thrown away. */
	if (have_cookie && !(old == TCP_LISTEN && new == TCP_SYN_RECV && !a->rport))
		e->cookie = bpf_get_socket_cookie((void *)sk);
	else
		e->cookie = have_cookie ? 0 : sk->__sk_common.skc_cookie.counter;
	e->listener = 0;
	e->err = sk->sk_err;
	e->kind = kind;
	e->by_task = by_task(sk, old, new) && !(BPF_CORE_READ(task, flags) & PF_KTHREAD);
	if (e->by_task) {
		BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
		if (want_stacks && new == TCP_SYN_SENT)
			e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	} else {
		__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	}
}

/*
 * The initial sequence number of who sent the SYN, as its sock has just come through its handshake; 0: unknown. With TCP Fast Open more than
 * the SYN may be acknowledged or have come by now.
 */
static __always_inline __u32 initial_sequence(const struct tcp_sock *tp, int old, int new)
{
	if (!tp || new != TCP_ESTABLISHED)
		return 0;
	if (old == TCP_SYN_SENT && tp->bytes_acked) /* none in TCP_REPAIR */
		return tp->snd_una - (__u32)tp->bytes_acked;
	if (old == TCP_SYN_RECV)
		return tp->rcv_nxt - 1 - (__u32)tp->bytes_received;
	return 0;
}

static __always_inline int trace_close(void *ctx, struct cpu *cpu, const struct sock *sk, const struct tcp_sock *tp,
				       const struct about *a, int old, enum kind kind, __u16 retrans)
{
	struct connecting *inside = connecting(sk);
	struct closed *c;
	struct event *e;
	__u32 bits;

	c = (struct closed *)begin(cpu, a, sk, old, TCP_CLOSE, sizeof(*c));
	if (!c)
		return 0;
	if (inside && !sk->sk_err)
		inside->closed = (__u64)sk;
	e = &c->event;
	fill_change(ctx, e, a, sk, old, TCP_CLOSE, kind);
	closing(&e->closing, sk, tp, old, inside);
	bits = *(volatile __u32 *)&e->closing;
	e->retrans = retrans;
	if (old == TCP_SYN_SENT && !sk->sk_err)
		e->err_soft = icmp_error(sk);
	if (old == TCP_LISTEN && !(bits & CLOSING_SHUT) && destroys(a->lport, 0)) {
		e->flags |= FLAG_DESTROYED;
		e->by_task = 0;
	}
	c->is_tcp = tp && old != TCP_LISTEN;
	if (tp && old != TCP_LISTEN) {
		if (old == TCP_ESTABLISHED)
			e->srtt_us = tp->srtt_us;
		c->bytes_acked = tp->bytes_acked;
		c->bytes_received = tp->bytes_received;
		c->segs_out = tp->segs_out;
		c->segs_in = tp->segs_in;
		c->retrans = tp->total_retrans;
		c->srtt_us = tp->srtt_us;
		c->min_rtt_us = tp->rtt_min.s[0].v;
		BPF_CORE_READ_INTO(&c->cong, (const struct inet_connection_sock *)sk, icsk_ca_ops, name);
	} else {
		__builtin_memset(&c->bytes_acked, 0, sizeof(*c) - __builtin_offsetof(struct closed, bytes_acked));
	}
	submit(cpu, e);
	return 0;
}

/* A process that called listen(): when it exits, whoever it left the listener to is the owner. */
static __always_inline void note_listening(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader), bpf_get_current_pid_tgid() >> 32);
	__u8 yes = 1;

	bpf_map_update_elem(&listening, &pid, &yes, BPF_ANY);
}

static __always_inline int trace(void *ctx, struct cpu *cpu, const struct sock *sk, int old, int new, enum kind kind)
{
	const struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	struct connecting *inside;
	struct about a;
	struct event *e;
	__u16 retrans = 0;

	__sync_fetch_and_add(&cpu->seen, 1);
	if (old == TCP_SYN_RECV)
		cpu->ended = 0; /* its request's timer was cancelled: no RST did that */
	if (old == TCP_LISTEN && new == TCP_SYN_RECV)
		cpu->child_at = cpu->seen;
	if (tp && (old == TCP_SYN_SENT || old == TCP_SYN_RECV)) { /* a child begins with its request's number */
		retrans = tp->total_retrans;
		if (old == TCP_SYN_RECV && tp->data_segs_out)
			retrans = ~0; /* TCP Fast Open: some of it may be data */
	}
	read_sock(&a, sk);
	if (new == TCP_CLOSE)
		return trace_close(ctx, cpu, sk, tp, &a, old, kind, retrans);
	if (new == TCP_SYN_SENT) {
		inside = connecting(sk);
		if (inside)
			inside->changed = 1;
		a.port_stale = a.lport && !sk->__sk_common.skc_num; /* inet_put_port leaves inet_sport as it was */
	}
	e = begin(cpu, &a, sk, old, new, sizeof(*e));
	if (!e)
		return 0;
	fill_change(ctx, e, &a, sk, old, new, kind);
	e->retrans = retrans;
	e->isn = initial_sequence(tp, old, new);
	if (tp && old == TCP_ESTABLISHED)
		e->srtt_us = tp->srtt_us;
	if (want_mini && new == TCP_LISTEN && e->by_task)
		note_listening();
	submit(cpu, e);
	return 0;
}
