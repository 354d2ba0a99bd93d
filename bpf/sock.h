/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the filter and every record need to know about a socket. */
#pragma once

#include "kernel.h"

#define UID_UNKNOWN ~0U /* INVALID_UID in include/linux/uidgid.h */

struct sock_info {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u16 family;
	__u16 proto;
	__u32 netns;
	__u32 uid;
	__u32 ifindex;
	bool user_known; /* a timewait sock has neither uid nor cgroup */
	bool port_stale; /* lport is left from the socket's previous connection */
	const struct cgroup *cgroup;
	const struct net *net; /* set only if ifindex is not 0 */
};

/*
 * Reads a sock in the same way as the tracepoint (TP_fast_assign in include/trace/events/sock.h).
 * The members of inet_sock need a probe read here: the verifier rejects a direct load as "access
 * beyond struct sock". The local port is read from inet_sport, because skc_num is already 0 at the
 * last change.
 */
static __always_inline void read_sock(struct sock_info *info, const struct sock *sk)
{
	const struct inet_sock *inet = (const struct inet_sock *)sk;

	info->family = sk->__sk_common.skc_family;
	info->lport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	info->rport = bpf_ntohs(sk->__sk_common.skc_dport);
	if (info->family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(&info->laddr, sizeof(info->laddr), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&info->raddr, sizeof(info->raddr), &sk->__sk_common.skc_v6_daddr);
	} else {
		map_ipv4(info->laddr, BPF_CORE_READ(inet, inet_saddr));
		map_ipv4(info->raddr, sk->__sk_common.skc_daddr);
	}
	info->proto = sk->sk_protocol;
	info->netns = sk->__sk_common.skc_net.net->ns.inum;
	info->ifindex = sk->__sk_common.skc_bound_dev_if;
	/* A plain number, because that is what note_device takes. */
	info->net = info->ifindex ? BPF_CORE_READ(sk, __sk_common.skc_net.net) : 0;
	info->uid = sk->sk_uid.val;
	info->cgroup = cgroup_of(sk);
	info->user_known = true;
	info->port_stale = false;
}

/*
 * Reads any structure that begins with a sock_common, using only probe reads. The uid and the
 * cgroup are taken from user. user is null for a timewait sock, which has neither.
 */
static __always_inline void read_common(struct sock_info *info, const struct sock_common *skc,
					const struct sock *user)
{
	const struct net *net = BPF_CORE_READ(skc, skc_net.net);

	info->family = BPF_CORE_READ(skc, skc_family);
	info->lport = BPF_CORE_READ(skc, skc_num);
	info->rport = bpf_ntohs(BPF_CORE_READ(skc, skc_dport));
	if (info->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		bpf_core_read(&info->laddr, sizeof(info->laddr), &skc->skc_v6_rcv_saddr);
		bpf_core_read(&info->raddr, sizeof(info->raddr), &skc->skc_v6_daddr);
	} else {
		map_ipv4(info->laddr, BPF_CORE_READ(skc, skc_rcv_saddr));
		map_ipv4(info->raddr, BPF_CORE_READ(skc, skc_daddr));
	}
	info->proto = IPPROTO_TCP;
	info->net = net;
	info->netns = BPF_CORE_READ(net, ns.inum);
	info->ifindex = BPF_CORE_READ(skc, skc_bound_dev_if);
	info->port_stale = false;
	info->user_known = user;
	info->uid = user ? BPF_CORE_READ(user, sk_uid.val) : UID_UNKNOWN;
	info->cgroup = user ? cgroup_of(user) : 0;
}
