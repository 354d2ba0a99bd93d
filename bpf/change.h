/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The state changes of socks. */
#pragma once

#include "closing.h"
#include "connect.h"
#include "diag.h"
#include "owner.h"
#include "ring.h"

/* Fills in the members that the records of all state changes have. */
static __always_inline void fill_change(void *ctx, struct event *e, const struct sock_info *info,
					const struct sock *sk, int old, int new)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	/*
	 * If a child gets its remote address late, it also gets its final cookie late. A cookie
	 * requested now would be discarded.
	 */
	if (!have_cookie)
		e->cookie = sk->__sk_common.skc_cookie.counter;
	else if (!(old == TCP_LISTEN && new == TCP_SYN_RECV && !info->rport))
		e->cookie = bpf_get_socket_cookie((void *)sk);
	e->sk_err = sk->sk_err;
	if (made_by_task(sk, old, new) && !(BPF_CORE_READ(task, flags) & PF_KTHREAD)) {
		set_owner(e);
		if (want_stacks && new == TCP_SYN_SENT)
			e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	}
}

/*
 * Returns the initial sequence number of the end that sent the SYN, or 0 if it is unknown. It is
 * known at the end of the handshake. With TCP Fast Open, more than the SYN may have been
 * acknowledged or received by then.
 */
static __always_inline __u32 initial_sequence(const struct tcp_sock *tp, int old, int new)
{
	if (!tp || new != TCP_ESTABLISHED)
		return 0;
	if (old == TCP_SYN_SENT && tp->bytes_acked) /* 0 with TCP_REPAIR */
		return tp->snd_una - (__u32)tp->bytes_acked;
	if (old == TCP_SYN_RECV)
		return tp->rcv_nxt - 1 - (__u32)tp->bytes_received;
	return 0;
}

/* Reports a change to CLOSE. tp is sk, or null if sk is not a TCP sock. */
static __always_inline int trace_close(void *ctx, struct cpu *cpu, const struct sock *sk,
				       const struct tcp_sock *tp, const struct sock_info *info,
				       int old, enum kind kind, __u16 syn_retrans)
{
	struct connecting *inside = connecting(sk);
	struct closed *c;
	struct event *e;
	enum closing bits;

	c = (struct closed *)begin(cpu, info, sk, kind, old, TCP_CLOSE, sizeof(*c));
	if (!c)
		return 0;
	if (inside && !sk->sk_err)
		inside->closed = (__u64)sk;
	e = &c->event;
	fill_change(ctx, e, info, sk, old, TCP_CLOSE);
	closing(&e->closing, sk, tp, old, inside);
	bits = *(volatile enum closing *)&e->closing;
	e->syn_retrans = syn_retrans;
	if (old == TCP_SYN_SENT && !sk->sk_err)
		e->icmp_err = icmp_error(sk);
	if (old == TCP_LISTEN && !(bits & CLOSING_SHUT) && destroy_requested(info->lport, 0)) {
		e->flags |= FLAG_DESTROYED;
		e->is_owner = 0;
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
		BPF_CORE_READ_INTO(&c->cong, (const struct inet_connection_sock *)sk, icsk_ca_ops,
				   name);
	} else {
		__builtin_memset(&c->bytes_acked, 0,
				 sizeof(*c) - __builtin_offsetof(struct closed, bytes_acked));
	}
	submit(cpu, e);
	return 0;
}

/* Reports the change of sk from old to new. */
static __always_inline int trace(void *ctx, struct cpu *cpu, const struct sock *sk, int old,
				 int new, enum kind kind)
{
	const struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	struct connecting *inside;
	struct sock_info info;
	struct event *e;
	__u16 syn_retrans = 0;

	__sync_fetch_and_add(&cpu->seen, 1);
	if (old == TCP_SYN_RECV)
		cpu->cancelled = 0; /* its request's timer: no segment ended the request */
	if (old == TCP_LISTEN && new == TCP_SYN_RECV)
		cpu->child_at = cpu->seen;
	/* A child inherits this number from its request. */
	if (tp && (old == TCP_SYN_SENT || old == TCP_SYN_RECV)) {
		syn_retrans = tp->total_retrans;
		if (old == TCP_SYN_RECV && tp->data_segs_out)
			syn_retrans = ~0; /* TCP Fast Open: some of them may be data */
	}
	read_sock(&info, sk);
	if (new == TCP_CLOSE)
		return trace_close(ctx, cpu, sk, tp, &info, old, kind, syn_retrans);
	if (new == TCP_SYN_SENT) {
		inside = connecting(sk);
		if (inside)
			inside->sent_syn = 1;
		/* inet_put_port clears skc_num but not inet_sport. */
		info.port_stale = info.lport && !sk->__sk_common.skc_num;
	}
	e = begin(cpu, &info, sk, kind, old, new, sizeof(*e));
	if (!e)
		return 0;
	fill_change(ctx, e, &info, sk, old, new);
	e->syn_retrans = syn_retrans;
	e->isn = initial_sequence(tp, old, new);
	if (tp && old == TCP_ESTABLISHED)
		e->srtt_us = tp->srtt_us;
	if (want_mini && new == TCP_LISTEN && e->is_owner)
		note_listening();
	submit(cpu, e);
	return 0;
}
