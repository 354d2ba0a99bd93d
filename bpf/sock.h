/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What each record and the filter need of a socket. */
#pragma once

#include "kernel.h"

/* Whom a record is about. */
struct about {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u16 family;
	__u16 proto;
	__u32 netns;
	__u32 uid;
	__u32 ifindex;
	bool user_known; /* uid and cgroup are: a timewait sock has none */
	bool port_stale; /* lport is the one of the socket's last connection */
	const struct cgroup *cgroup;
	const struct net *net;
};

/*
 * A sock, read the way the tracepoint does (TP_fast_assign in include/trace/events/sock.h). There, inet_sock's members need a
 * probe read (a direct load is "access beyond struct sock"). Its port is asked, not skc_num, which is already 0 at the last
 * change.
 */
static __always_inline void read_sock(struct about *a, const struct sock *sk)
{
	const struct inet_sock *inet = (const struct inet_sock *)sk;

	a->family = sk->__sk_common.skc_family;
	a->lport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	a->rport = bpf_ntohs(sk->__sk_common.skc_dport);
	if (a->family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(&a->laddr, sizeof(a->laddr), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&a->raddr, sizeof(a->raddr), &sk->__sk_common.skc_v6_daddr);
	} else {
		map_ipv4(a->laddr, BPF_CORE_READ(inet, inet_saddr));
		map_ipv4(a->raddr, sk->__sk_common.skc_daddr);
	}
	a->proto = sk->sk_protocol;
	a->netns = sk->__sk_common.skc_net.net->ns.inum;
	a->ifindex = sk->__sk_common.skc_bound_dev_if;
	a->net = a->ifindex ? BPF_CORE_READ(sk, __sk_common.skc_net.net) : 0; /* a number, for note_device */
	a->uid = sk->sk_uid.val;
	a->cgroup = cgroup_of(sk);
	a->user_known = true;
	a->port_stale = false;
}

/* The same of what begins with a sock_common, by probe reads alone. user: whose uid and cgroup it has; a timewait sock has none. */
static __always_inline void read_common(struct about *a, const struct sock_common *skc, const struct sock *user)
{
	const struct net *net = BPF_CORE_READ(skc, skc_net.net);

	a->family = BPF_CORE_READ(skc, skc_family);
	a->lport = BPF_CORE_READ(skc, skc_num);
	a->rport = bpf_ntohs(BPF_CORE_READ(skc, skc_dport));
	if (a->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		bpf_core_read(&a->laddr, sizeof(a->laddr), &skc->skc_v6_rcv_saddr);
		bpf_core_read(&a->raddr, sizeof(a->raddr), &skc->skc_v6_daddr);
	} else {
		map_ipv4(a->laddr, BPF_CORE_READ(skc, skc_rcv_saddr));
		map_ipv4(a->raddr, BPF_CORE_READ(skc, skc_daddr));
	}
	a->proto = IPPROTO_TCP;
	a->net = net;
	a->netns = BPF_CORE_READ(net, ns.inum);
	a->ifindex = BPF_CORE_READ(skc, skc_bound_dev_if);
	a->port_stale = false;
	a->user_known = user;
	a->uid = user ? BPF_CORE_READ(user, sk_uid.val) : 0;
	a->cgroup = user ? cgroup_of(user) : 0;
}
