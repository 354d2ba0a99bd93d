/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Traces mini-socks (request and timewait socks) by their timers.
 *
 * The three programs run for every timer on the host, so they first dismiss the timers of others,
 * with two loads and three compares. They run with interrupts off, except timer_expire_entry, which
 * runs in the one softirq that runs timers. So no event that they would have to report can
 * interrupt them.
 */
#pragma once

#include "diag.h"
#include "ring.h"

/*
 * The addresses of the timer functions in the running kernel. They are set only for the rfc
 * vocabulary. No function has the address 0.
 */
const volatile __u64 reqsk_timer_handler = 0;
const volatile __u64 tw_timer_handler = 0;
const volatile __u64 tcp_write_timer = 0;

/*
 * The start and end of tcp_v4_err, and of tcp_v6_err, in the running kernel. They are set only for
 * the rfc vocabulary.
 */
const volatile __u64 icmp_handlers[4] = {};

/*
 * User space clears this after its first look at existing sockets. A timewait sock that begins
 * later is reported by its timer.
 */
volatile bool first_look = true;

/*
 * Reports an event of the mini-sock skc. For KIND_SYN_SENT_STARTED, skc is a full sock. user is the
 * sock that has the uid and cgroup: the listener of a request sock, or null for a timewait sock.
 */
static __always_inline int trace_mini(const struct sock_common *skc, const struct sock *user,
				      enum kind kind, int state, __u8 synack_timeouts,
				      enum flag flags)
{
	struct sock_info info;
	struct event *e;
	struct cpu *cpu = this_cpu();

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&info, skc, user);
	e = begin(cpu, &info, skc, kind, 0, state, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(skc, skc_cookie.counter);
	e->flags |= flags;
	if (state == TCP_SYN_RECV) {
		e->listener = (__u64)user;
		e->synack_timeouts = synack_timeouts;
		e->syn_retrans = BPF_CORE_READ((const struct request_sock *)skc, num_retrans);
		e->isn = BPF_CORE_READ((const struct tcp_request_sock *)skc, rcv_isn);
	} else if (kind == KIND_SYN_SENT_STARTED) {
		/* Nothing has been acknowledged yet. */
		e->isn = BPF_CORE_READ((const struct tcp_sock *)skc, snd_una);
	}
	if ((kind == KIND_REQUEST_CANCELLED || kind == KIND_TIME_WAIT_CANCELLED) &&
	    destroy_requested(info.lport, info.rport))
		e->flags |= FLAG_DESTROYED;
	submit(cpu, e);
	return 0;
}

static __always_inline void read_tuple(struct tuple *tuple, const struct sock_common *skc)
{
	struct sock_info info;

	read_common(&info, skc, 0);
	__builtin_memcpy(tuple->laddr, info.laddr, sizeof(tuple->laddr));
	__builtin_memcpy(tuple->raddr, info.raddr, sizeof(tuple->raddr));
	tuple->lport = info.lport;
	tuple->rport = info.rport;
	tuple->netns = info.netns;
	tuple->ifindex = info.ifindex;
	tuple->pad = 0;
}

/*
 * Puts skc into map, so that skb_dropped can find it, or removes it. count is the number of entries
 * in map.
 */
static __always_inline void watch(void *map, __u64 *count, const struct sock_common *skc,
				  bool start)
{
	struct tuple tuple;
	__u64 value = (__u64)skc;

	if (!start && !*count)
		return;
	read_tuple(&tuple, skc);
	if (start) {
		if (!bpf_map_update_elem(map, &tuple, &value, BPF_NOEXIST))
			__sync_fetch_and_add(count, 1);
		else
			/* This replaces an entry whose end was not seen. */
			bpf_map_update_elem(map, &tuple, &value, BPF_EXIST);
	} else if (!bpf_map_delete_elem(map, &tuple)) {
		__sync_fetch_and_add(count, -1);
	}
}

/* Starts or stops waiting for the FIN of a timewait sock in FIN_WAIT2. */
static __always_inline void watch_fin(const struct inet_timewait_sock *tw, bool start)
{
	watch(&fin_wait2, &fin_wait2_count, &tw->__tw_common, start);
}

/*
 * Returns FLAG_ACKED and FLAG_DEFERS if they apply. A listener that waits for data drops the ACK,
 * marks the request as acked, and makes no child (tcp_check_req in net/ipv4/tcp_minisocks.c). A
 * listener whose accept queue is full does the same.
 */
static __always_inline enum flag request_flags(const struct request_sock *req,
					       const struct sock *listener)
{
	enum flag flags = 0;

	if (BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		flags |= FLAG_ACKED;
	if (BPF_CORE_READ((const struct inet_connection_sock *)listener,
			  icsk_accept_queue.rskq_defer_accept))
		flags |= FLAG_DEFERS;
	return flags;
}

/*
 * Reports whether the accept queue of a listener is full, like sk_acceptq_is_full in
 * include/net/sock.h.
 */
static __always_inline bool queue_full(const struct sock *listener)
{
	return BPF_CORE_READ(listener, sk_ack_backlog) >
	       BPF_CORE_READ(listener, sk_max_ack_backlog);
}

/* Reports an event of the timer of a request sock. */
static __always_inline int trace_request(struct timer_list *timer, enum kind kind, enum flag flags)
{
	struct request_sock *req =
		(void *)timer - bpf_core_field_offset(struct request_sock, rsk_timer);
	const struct sock *listener = BPF_CORE_READ(req, __req_common.skc_listener);

	flags |= request_flags(req, listener);
	if (kind != KIND_REQUEST_STARTED && queue_full(listener))
		flags |= FLAG_QUEUE_FULL;
	if (kind == KIND_REQUEST_STARTED ? (flags & FLAG_DEFERS) && !(flags & FLAG_ACKED)
					 : !!deferred_count)
		watch(&deferred, &deferred_count, &req->__req_common, kind == KIND_REQUEST_STARTED);
	return trace_mini((void *)req, listener, kind, TCP_SYN_RECV,
			  BPF_CORE_READ_BITFIELD_PROBED(req, num_timeout), flags);
}

/* Reports an event of the timer of a timewait sock. */
static __always_inline int trace_timewait(struct timer_list *timer, enum kind kind)
{
	struct inet_timewait_sock *tw =
		(void *)timer - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	__u8 state = BPF_CORE_READ(tw, tw_substate);
	enum flag flags = 0;

	if (kind == KIND_TIME_WAIT_CANCELLED || state == TCP_FIN_WAIT2)
		watch_fin(tw, kind == KIND_TIME_WAIT_STARTED);
	if (kind == KIND_TIME_WAIT_CANCELLED &&
	    netns_gone(BPF_CORE_READ(tw, __tw_common.skc_net.net)))
		flags = FLAG_ABANDONED; /* inet_twsk_purge in net/ipv4/inet_timewait_sock.c */
	return trace_mini((void *)tw, 0, kind, state, 0, flags);
}

/*
 * Reports the local port of a connect(). The port has been chosen by the time that the timer for
 * the first SYN starts. Up to 6.19, that timer is icsk_retransmit_timer.
 */
static __always_inline int trace_syn(struct timer_list *timer)
{
	__u32 offset =
		bpf_core_field_exists(struct sock, tcp_retransmit_timer)
			? bpf_core_field_offset(struct sock, tcp_retransmit_timer)
			: bpf_core_field_offset(struct inet_connection_sock, icsk_retransmit_timer);
	const struct inet_connection_sock *icsk = (void *)timer - offset;
	const struct sock *sk = (void *)icsk;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT ||
	    BPF_CORE_READ(icsk, icsk_retransmits))
		return 0;
	return trace_mini((void *)sk, sk, KIND_SYN_SENT_STARTED, TCP_SYN_SENT, 0, 0);
}

/*
 * Notes a mini-sock whose timer was cancelled, for skb_dropped. If skc is null, it clears the note,
 * because the timer code has moved on.
 */
static __always_inline void note_cancelled(struct cpu *cpu, const struct sock_common *skc,
					   int state)
{
	cpu->cancelled = (__u64)skc;
	cpu->cancelled_state = state;
	if (skc)
		read_tuple(&cpu->cancelled_tuple, skc);
}

/*
 * Reports whether an ICMP handler is on the kernel's stack. ICMP can end a request sock
 * (tcp_req_err in net/ipv4/tcp_ipv4.c), and no tracepoint reports that. Walking the stack takes
 * about a microsecond, so this function is not called for the timer of a request that has just got
 * its child.
 */
static __noinline bool in_icmp_handler(void *ctx, struct cpu *cpu)
{
	long size = bpf_get_stack(ctx, cpu->frames, sizeof(cpu->frames), 0);

	for (__u32 i = 0; i < sizeof(cpu->frames) / sizeof(cpu->frames[0]); i++) {
		__u64 at = cpu->frames[i];

		if (size < 0 || i >= size / sizeof(cpu->frames[0]))
			break;
		if ((at >= icmp_handlers[0] && at < icmp_handlers[1]) ||
		    (at >= icmp_handlers[2] && at < icmp_handlers[3]))
			return true;
	}
	return false;
}
