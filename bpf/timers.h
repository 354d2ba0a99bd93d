/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Mini-socks, by their timers. */
#pragma once

#include "diag.h"
#include "ring.h"

/* The timers' functions in the running kernel, for the rfc vocabulary alone; 0 is no function's address. */
const volatile __u64 reqsk_timer_handler = 0;
const volatile __u64 tw_timer_handler = 0;
const volatile __u64 tcp_write_timer = 0;

/* The code of the ICMP handlers in the running kernel, for the rfc vocabulary alone. */
const volatile __u64 icmp_handlers[4] = {}; /* tcp_v4_err from, to, tcp_v6_err from, to */

/* User space clears it after its first look: timewait socks that begin later are told by their timers. */
volatile bool first_look = true;

/*
 * Mini-socks. The three programs hang on every timer of the host, so the first thing is to leave: two loads and three compares for
 * a timer that is not ours. They run with interrupts off, or (timer_expire_entry) in the one softirq that runs timers: nothing
 * nests in them that they would have to tell.
 */
static __always_inline int trace_mini(const struct sock_common *skc, const struct sock *user, enum kind kind, int state,
				      __u8 retries, __u8 flags)
{
	struct about a;
	struct event *e;
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, skc, user);
	e = begin(cpu, &a, skc, 0, state, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(skc, skc_cookie.counter);
	e->listener = (__u64)user;
	e->err = 0;
	e->kind = kind;
	e->retries = retries;
	e->flags |= flags;
	if (state == TCP_SYN_RECV) {
		e->retrans = BPF_CORE_READ((const struct request_sock *)skc, num_retrans);
		e->isn = BPF_CORE_READ((const struct tcp_request_sock *)skc, rcv_isn);
	} else if (kind == SYN_TIMER_STARTED) {
		e->isn = BPF_CORE_READ((const struct tcp_sock *)skc, snd_una); /* nothing is acknowledged yet */
	}
	e->by_task = 0;
	if ((kind == REQUEST_TIMER_CANCELLED || kind == TIMEWAIT_TIMER_CANCELLED) && destroys(a.lport, a.rport))
		e->flags |= FLAG_DESTROYED;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	submit(cpu, e);
	return 0;
}

static __always_inline void read_ends(struct ends *ends, const struct sock_common *skc)
{
	struct about a;

	read_common(&a, skc, 0);
	__builtin_memcpy(ends->laddr, a.laddr, sizeof(ends->laddr));
	__builtin_memcpy(ends->raddr, a.raddr, sizeof(ends->raddr));
	ends->lport = a.lport;
	ends->rport = a.rport;
	ends->netns = a.netns;
	ends->ifindex = a.ifindex;
	ends->pad = 0;
}

/* Remember skc for skb_dropped, in map, of which count is the number; or forget it. */
static __always_inline void watch(void *map, __u64 *count, const struct sock_common *skc, bool start)
{
	struct ends ends;
	__u64 value = (__u64)skc;

	if (!start && !*count)
		return;
	read_ends(&ends, skc);
	if (start) {
		if (!bpf_map_update_elem(map, &ends, &value, BPF_NOEXIST))
			__sync_fetch_and_add(count, 1);
		else
			bpf_map_update_elem(map, &ends, &value, BPF_EXIST); /* one that was not seen to end */
	} else if (!bpf_map_delete_elem(map, &ends)) {
		__sync_fetch_and_add(count, -1);
	}
}

/* A timewait sock in FIN_WAIT2 waits for the FIN. */
static __always_inline void watch_fin(const struct inet_timewait_sock *tw, bool start)
{
	watch(&fin_wait2, &fin_wait2_count, &tw->__tw_common, start);
}

/*
 * What a request's record says beside its tuple. A listener that waits for data drops the ACK, notes that it came, and makes no child (tcp_check_req in
 * net/ipv4/tcp_minisocks.c); and so does one whose accept queue is full.
 */
static __always_inline __u8 request_flags(const struct request_sock *req, const struct sock *listener)
{
	__u8 flags = 0;

	if (BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		flags |= FLAG_ACKED;
	if (BPF_CORE_READ((const struct inet_connection_sock *)listener, icsk_accept_queue.rskq_defer_accept))
		flags |= FLAG_DEFERS;
	return flags;
}

/* The accept queue of listener is full, as sk_acceptq_is_full in include/net/sock.h asks. */
static __always_inline bool queue_full(const struct sock *listener)
{
	return BPF_CORE_READ(listener, sk_ack_backlog) > BPF_CORE_READ(listener, sk_max_ack_backlog);
}

static __always_inline int trace_request(struct timer_list *timer, enum kind kind, __u8 flags)
{
	struct request_sock *req = (void *)timer - bpf_core_field_offset(struct request_sock, rsk_timer);
	const struct sock *listener = BPF_CORE_READ(req, __req_common.skc_listener);

	flags |= request_flags(req, listener);
	if (kind != REQUEST_TIMER_STARTED && queue_full(listener))
		flags |= FLAG_QUEUE_FULL;
	if (kind == REQUEST_TIMER_STARTED ? (flags & FLAG_DEFERS) && !(flags & FLAG_ACKED) : !!deferred_count)
		watch(&deferred, &deferred_count, &req->__req_common, kind == REQUEST_TIMER_STARTED);
	return trace_mini((void *)req, listener, kind, TCP_SYN_RECV, BPF_CORE_READ_BITFIELD_PROBED(req, num_timeout),
			  flags);
}

static __always_inline int trace_timewait(struct timer_list *timer, enum kind kind)
{
	struct inet_timewait_sock *tw = (void *)timer - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	__u8 state = BPF_CORE_READ(tw, tw_substate), flags = 0;

	if (kind == TIMEWAIT_TIMER_CANCELLED || state == TCP_FIN_WAIT2)
		watch_fin(tw, kind == TIMEWAIT_TIMER_STARTED);
	if (kind == TIMEWAIT_TIMER_CANCELLED && netns_gone(BPF_CORE_READ(tw, __tw_common.skc_net.net)))
		flags = FLAG_NETNS_GONE; /* inet_twsk_purge in net/ipv4/inet_timewait_sock.c */
	return trace_mini((void *)tw, 0, kind, state, 0, flags);
}

/* A connect() has chosen its port by the time it arms the timer for its first SYN. */
static __always_inline int trace_syn(struct timer_list *timer)
{
	__u32 offset = bpf_core_field_exists(struct sock, tcp_retransmit_timer)
			       ? bpf_core_field_offset(struct sock, tcp_retransmit_timer)
			       : bpf_core_field_offset(struct inet_connection_sock, icsk_retransmit_timer);
	const struct inet_connection_sock *icsk = (void *)timer - offset;
	const struct sock *sk = (void *)icsk;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT || BPF_CORE_READ(icsk, icsk_retransmits))
		return 0;
	return trace_mini((void *)sk, sk, SYN_TIMER_STARTED, TCP_SYN_SENT, 0, 0);
}

/* Remember a mini-sock whose timer is cancelled, for skb_dropped; or, with 0, forget it: its timer goes on. */
static __always_inline void note_cancelled(struct cpu *cpu, const struct sock_common *skc, int state)
{
	cpu->ended = (__u64)skc;
	cpu->ended_state = state;
	if (skc)
		read_ends(&cpu->ended_ends, skc);
}

/*
 * ICMP ends a request sock (tcp_req_err in net/ipv4/tcp_ipv4.c), and no tracepoint reports it, but
 * the handler is on the kernel's stack. A walk of the stack takes a microsecond, so it is not for
 * the timers of requests that have just got their child.
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
