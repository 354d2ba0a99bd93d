/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What only a segment shows. */
#pragma once

#include "timers.h"

#define ECONNRESET 104
#define TCP_FLAG_RST 4

/* The ends of the connection that a received TCP segment belongs to, and its flags; -1 if it is none, or cannot be told. */
static __always_inline int read_segment(struct ends *ends, const struct sk_buff *skb)
{
	const unsigned char *ip = skb->head + skb->network_header, *tcp = skb->head + skb->transport_header;
	__u8 flags, protocol;
	__be16 ports[2];
	__be32 v4[2];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_probe_read_kernel(v4, sizeof(v4), ip + 12) || bpf_probe_read_kernel(&protocol, 1, ip + 9))
			return -1;
		map_ipv4(ends->raddr, v4[0]);
		map_ipv4(ends->laddr, v4[1]);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_probe_read_kernel(ends->raddr, sizeof(ends->raddr), ip + 8) ||
		    bpf_probe_read_kernel(ends->laddr, sizeof(ends->laddr), ip + 24))
			return -1;
		protocol = IPPROTO_TCP; /* behind extension headers: the ends decide */
	} else {
		return -1;
	}
	if (protocol != IPPROTO_TCP || !skb->dev || bpf_probe_read_kernel(ports, sizeof(ports), tcp) ||
	    bpf_probe_read_kernel(&flags, 1, tcp + 13))
		return -1;
	ends->rport = bpf_ntohs(ports[0]);
	ends->lport = bpf_ntohs(ports[1]);
	ends->netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	return flags;
}

/* But for the device: a sock that is bound to one is among those that any segment of it belongs to. */
static __always_inline bool same_ends(const struct ends *a, const struct ends *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

/*
 * A mini-sock is gone by the time that the segment which ended it is dropped, so its ends are
 * reported as they were noted.
 */
static __always_inline int trace_dropped(struct cpu *cpu, __u8 tcp_flags)
{
	struct about a = { .family = AF_INET6, .proto = IPPROTO_TCP };
	struct event *e;

	__builtin_memcpy(a.laddr, cpu->ended_ends.laddr, sizeof(a.laddr));
	__builtin_memcpy(a.raddr, cpu->ended_ends.raddr, sizeof(a.raddr));
	a.lport = cpu->ended_ends.lport;
	a.rport = cpu->ended_ends.rport;
	a.netns = cpu->ended_ends.netns;
	__sync_fetch_and_add(&cpu->seen, 1);
	e = begin(cpu, &a, (void *)cpu->ended, 0, 0, sizeof(*e));
	if (!e) {
		cpu->ended = 0;
		return 0;
	}
	e->ifindex = cpu->ended_ends.ifindex;
	e->cookie = 0;
	e->listener = 0;
	e->err = 0;
	e->kind = MINI_RESET;
	e->tcp_flags = tcp_flags;
	e->by_task = 0;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	cpu->ended = 0;
	submit(cpu, e);
	return 0;
}

/* What is in map for the connection of a segment: of a sock bound to no device, or to one that it came through. */
static __always_inline void *find_watched(void *map, struct ends *ends, const struct sk_buff *skb)
{
	__u64 *found = bpf_map_lookup_elem(map, ends);

	if (found)
		return (void *)*found;
	ends->ifindex = skb->dev ? skb->dev->ifindex : 0; /* that of a VRF, if there is one */
	found = bpf_map_lookup_elem(map, ends);
	if (found)
		return (void *)*found;
	ends->ifindex = skb->skb_iif;
	found = bpf_map_lookup_elem(map, ends);
	if (found)
		return (void *)*found;
	ends->ifindex = 0;
	return 0;
}

/* The FIN that a timewait sock in FIN_WAIT2 waits for has come, if it is in TIME_WAIT now. */
static __always_inline int fin_came(struct ends *ends, const struct sk_buff *skb)
{
	struct inet_timewait_sock *tw = find_watched(&fin_wait2, ends, skb);

	if (!tw || BPF_CORE_READ(tw, tw_substate) != TCP_TIME_WAIT)
		return 0;
	/* Two CPUs may be here with two FINs. */
	if (bpf_map_delete_elem(&fin_wait2, ends))
		return 0;
	__sync_fetch_and_add(&fin_wait2_count, -1);
	return trace_mini((void *)tw, 0, TIMEWAIT_TIMER_STARTED, TCP_TIME_WAIT, 0, 0);
}

/* The ACK of a handshake whose listener waits for data has come, if the request sock says so now. */
static __always_inline int ack_came(struct ends *ends, const struct sk_buff *skb)
{
	struct request_sock *req = find_watched(&deferred, ends, skb);

	if (!req || !BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		return 0;
	if (bpf_map_delete_elem(&deferred, ends))
		return 0;
	__sync_fetch_and_add(&deferred_count, -1);
	return trace_mini((void *)req, BPF_CORE_READ(req, __req_common.skc_listener), REQUEST_ACKED, TCP_SYN_RECV, 0,
			  0);
}
