/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Events that only a segment reveals. The kernel always drops such a segment afterwards
 * (tcp_v4_rcv, tcp_v6_rcv: discard_it), so a program on skb:kfree_skb sees it.
 *
 * The FIN that a timewait sock in FIN_WAIT2 waits for moves the sock to TIME_WAIT and restarts its
 * timer. But if the timer stays in the same bucket of the wheel (2 s wide at 60 s and 250 Hz), the
 * kernel only writes to it, and no tracepoint shows that (__mod_timer in kernel/time/timer.c).
 *
 * A listener that waits for data (TCP_DEFER_ACCEPT) drops the ACK of the handshake.
 *
 * A segment may end a mini-sock, and the cancelled timer alone does not show why. Such a segment is
 * an RST; a SYN in SYN_RECV; an ACK in SYN_RECV while the accept queue is full, with
 * tcp_abort_on_overflow; or data in FIN_WAIT2 after close(), which are answered with RST
 * (TCP_TW_RST in tcp_v4_rcv).
 */
#pragma once

#include "timers.h"

#define TCP_FLAG_RST 4

/*
 * Reads the tuple of a received TCP segment, except for ifindex, and returns the flags in the TCP
 * header. Returns -1 if the packet is not a TCP segment or cannot be read.
 */
static __always_inline int read_segment(struct tuple *tuple, const struct sk_buff *skb)
{
	const unsigned char *ip = skb->head + skb->network_header,
			    *tcp = skb->head + skb->transport_header;
	__u8 flags, protocol;
	__be16 ports[2];
	__be32 v4[2];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_probe_read_kernel(v4, sizeof(v4), ip + 12) ||
		    bpf_probe_read_kernel(&protocol, 1, ip + 9))
			return -1;
		map_ipv4(tuple->raddr, v4[0]);
		map_ipv4(tuple->laddr, v4[1]);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_probe_read_kernel(tuple->raddr, sizeof(tuple->raddr), ip + 8) ||
		    bpf_probe_read_kernel(tuple->laddr, sizeof(tuple->laddr), ip + 24))
			return -1;
		protocol = IPPROTO_TCP; /* there may be extension headers: the tuple decides */
	} else {
		return -1;
	}
	if (protocol != IPPROTO_TCP || !skb->dev ||
	    bpf_probe_read_kernel(ports, sizeof(ports), tcp) ||
	    bpf_probe_read_kernel(&flags, 1, tcp + 13))
		return -1;
	tuple->rport = bpf_ntohs(ports[0]);
	tuple->lport = bpf_ntohs(ports[1]);
	tuple->netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	return flags;
}

/* Compares everything except ifindex. A sock has an ifindex, but a segment does not. */
static __always_inline bool same_tuple(const struct tuple *a, const struct tuple *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

/*
 * Reports the segment that ended a mini-sock. By the time the segment is dropped, the sock is gone,
 * so the tuple in the note is reported.
 */
static __always_inline int trace_dropped(struct cpu *cpu, __u8 flags)
{
	struct sock_info info = { .family = AF_INET6, .proto = IPPROTO_TCP, .uid = UID_UNKNOWN };
	struct event *e;

	__builtin_memcpy(info.laddr, cpu->cancelled_tuple.laddr, sizeof(info.laddr));
	__builtin_memcpy(info.raddr, cpu->cancelled_tuple.raddr, sizeof(info.raddr));
	info.lport = cpu->cancelled_tuple.lport;
	info.rport = cpu->cancelled_tuple.rport;
	info.netns = cpu->cancelled_tuple.netns;
	__sync_fetch_and_add(&cpu->seen, 1);
	e = begin(cpu, &info, (void *)cpu->cancelled, KIND_RESET, 0, 0, sizeof(*e));
	if (!e) {
		cpu->cancelled = 0;
		return 0;
	}
	e->ifindex = cpu->cancelled_tuple.ifindex;
	e->segment_flags = flags;
	cpu->cancelled = 0;
	submit(cpu, e);
	return 0;
}

/*
 * Returns the sock in map for the connection of a segment. The sock is bound to no device, or to a
 * device that the segment came through. Sets tuple->ifindex to that of the entry.
 */
static __always_inline void *find_watched(void *map, struct tuple *tuple, const struct sk_buff *skb)
{
	__u64 *found = bpf_map_lookup_elem(map, tuple);

	if (found)
		return (void *)*found;
	tuple->ifindex = skb->dev ? skb->dev->ifindex : 0; /* the VRF, if any */
	found = bpf_map_lookup_elem(map, tuple);
	if (found)
		return (void *)*found;
	tuple->ifindex = skb->skb_iif;
	found = bpf_map_lookup_elem(map, tuple);
	if (found)
		return (void *)*found;
	tuple->ifindex = 0;
	return 0;
}

/*
 * Reports the arrival of the FIN that a timewait sock in FIN_WAIT2 waits for. The FIN has arrived
 * if the sock is now in TIME_WAIT.
 */
static __always_inline int trace_fin(struct tuple *tuple, const struct sk_buff *skb)
{
	struct inet_timewait_sock *tw = find_watched(&fin_wait2, tuple, skb);

	if (!tw || BPF_CORE_READ(tw, tw_substate) != TCP_TIME_WAIT)
		return 0;
	/* Two FINs may bring two CPUs here. */
	if (bpf_map_delete_elem(&fin_wait2, tuple))
		return 0;
	__sync_fetch_and_add(&fin_wait2_count, -1);
	return trace_mini((void *)tw, 0, KIND_TIME_WAIT_STARTED, TCP_TIME_WAIT, 0, 0);
}

/*
 * Reports the arrival of a handshake's ACK at a listener that waits for data. The ACK has arrived
 * if the request sock is now marked as acked.
 */
static __always_inline int trace_deferred_ack(struct tuple *tuple, const struct sk_buff *skb)
{
	struct request_sock *req = find_watched(&deferred, tuple, skb);

	if (!req || !BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		return 0;
	if (bpf_map_delete_elem(&deferred, tuple))
		return 0;
	__sync_fetch_and_add(&deferred_count, -1);
	return trace_mini((void *)req, BPF_CORE_READ(req, __req_common.skc_listener),
			  KIND_REQUEST_ACKED, TCP_SYN_RECV, 0, 0);
}

/*
 * Reports an RST by which a sock answers the segment that has just closed it.
 *
 * A closed sock does not show whether a segment closed it, or which one. An RST and data that come
 * too late both leave the same error (tcp_reset in net/ipv4/tcp_input.c). If no process has the
 * sock, both leave no error (tcp_rcv_state_process), and neither does its timer. But only data are
 * answered with RST, and this happens right afterwards (tcp_v4_do_rcv, tcp_v6_do_rcv). From 6.10
 * on, sk may be null, if no sock is answering.
 */
static __always_inline int trace_reset_sent(const struct sock *sk, const struct sk_buff *skb)
{
	struct cpu *cpu = this_cpu();
	struct sock_info info;
	struct event *e;

	if (!cpu || !sk || !skb || sk->__sk_common.skc_state != TCP_CLOSE)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_sock(&info, sk);
	e = begin(cpu, &info, sk, KIND_RESET_SENT, 0, 0, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = sk->__sk_common.skc_cookie.counter;
	submit(cpu, e);
	return 0;
}
