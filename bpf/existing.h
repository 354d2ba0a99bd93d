/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads the sockets that exist, and their holders, for iterators. There may be a million sockets.
 * So wherever the verifier knows the type of a pointer, members are loaded directly, without a
 * call.
 */
#pragma once

#include "kernel.h"

/* All of these are set before the object is loaded. */
const volatile bool have_cookie = true; /* bpf_get_socket_cookie in tracing programs: from 5.12 */
const volatile bool list_mptcp = false; /* also list MPTCP sockets */
const volatile bool list_bound = false; /* also list bound sockets in CLOSE */

/* What a socket is attached to. */
enum attached : __u8 {
	ATTACHED_UNKNOWN,
	ATTACHED_NOTHING, /* an orphan or a mini-sock: the kernel ends it */
	ATTACHED_QUEUE, /* its listener's accept queue */
	ATTACHED_KERNEL, /* a struct socket without a file, opened by the kernel for itself */
	ATTACHED_DESCRIPTOR, /* a file that at least one descriptor refers to */
};

/* A socket that exists. Times are CLOCK_MONOTONIC. */
struct sock_found {
	__u64 mono_ns;
	__u64 sk;
	__u64 cookie;
	__u64 cgroup_id;
	__u64 listener; /* for a request sock */
	__u64 mptcp; /* for a subflow: its MPTCP socket, whose holders hold the subflow */
	__u64 synack_us; /* for a request sock: when the first SYN-ACK was sent */
	__u64 jiffies; /* with left: jiffies_64 at mono_ns, from which the length of a jiffy follows
			*/
	__u64 active_us; /* when a segment was last handled; 0: unknown, as for a mini-sock */
	__u32 left; /* jiffies until a timer ends it; ~0: no timer will */
	__u32 fin_timeout; /* for an orphan in FIN_WAIT2: net.ipv4.tcp_fin_timeout, in jiffies */
	__s32 fin_linger; /* for an orphan in FIN_WAIT2: TCP_LINGER2 */
	__u32 rto; /* for an orphan in FIN_WAIT2: the retransmission timeout */
	__u32 netns;
	__u32 uid;
	__u32 recv_queue; /* unread bytes; for a listener: connections waiting for accept() */
	__u32 send_queue; /* unacknowledged bytes */
	__u32 accept_backlog; /* from listen(), inherited by accepted sockets; 0 for a client */
	__u32 ifindex; /* the device that it is bound to; 0: none */
	__u32 ifname_of; /* the index of the device whose name ifname is */
	__u16 retrans; /* for a request sock: SYN-ACKs retransmitted */
	__u16 family;
	__u16 proto;
	__u16 lport; /* in host byte order, like rport */
	__u16 rport;
	__u8 state;
	__u8 is_mini; /* a request or timewait sock */
	__u8 v6only; /* for an IPv6 socket: IPV6_V6ONLY */
	enum attached attached;
	__u8 no_role; /* accept_backlog does not tell a client from a server */
	__u8 pad[5];
	__u8 laddr[16]; /* IPv4 addresses as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 ifname[16];
};

_Static_assert(sizeof(struct sock_found) == 184,
	       "struct sock_found: no holes, and in step with internal/listing");

/* A descriptor that is a socket, or a slot of an io_uring's own table (a direct descriptor). */
struct holder_found {
	__u64 sk;
	__u32 netns; /* the network namespace of the socket */
	__u32 pid;
	__u32 fd;
	__s32 slot; /* the slot, if fd is an io_uring; or SLOT_NONE or SLOT_TABLE: see holders.h */
	__u8 comm[16];
};

_Static_assert(sizeof(struct holder_found) == 40,
	       "struct holder_found: no holes, and in step with internal/listing");

/*
 * Reads the device that a socket is bound to. The name is right only if ifname_of equals ifindex:
 * on a host with thousands of devices, some are too far down their hash chain. The check is left to
 * user space, because a branch here would make the verifier walk all the code that follows once
 * more.
 */
static __always_inline void read_device(struct sock_found *found, const struct net *net,
					__u32 ifindex)
{
	struct hlist_head *heads;
	struct hlist_node *node = 0;

	found->ifindex = ifindex;
	if (!ifindex)
		return;
	heads = BPF_CORE_READ(net, dev_index_head);
	bpf_probe_read_kernel(&node, sizeof(node), heads + ifindex % NETDEV_HASHENTRIES);
	for (int i = 0; i < 4; i++) {
		struct net_device *dev =
			(void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		bpf_core_read(&found->ifname, sizeof(found->ifname), &dev->name);
		bpf_core_read(&found->ifname_of, sizeof(found->ifname_of), &dev->ifindex);
		if (found->ifname_of == ifindex)
			return;
		bpf_core_read(&node, sizeof(node), &node->next);
	}
}

/* Returns what a full socket is attached to. flags is the skc_flags of the socket. */
static __always_inline enum attached attached(const struct socket *socket, const struct file *file,
					      unsigned long flags)
{
	if (socket)
		return file ? ATTACHED_DESCRIPTOR : ATTACHED_KERNEL;
	return flags >> bpf_core_enum_value(enum sock_flags, SOCK_DEAD) & 1 ? ATTACHED_NOTHING
									    : ATTACHED_QUEUE;
}

/*
 * Returns the MPTCP socket of a subflow, or null. A listener's subflow counts, too. A connection
 * made without MPTCP is not a subflow.
 */
static __always_inline struct sock *mptcp_of(const struct tcp_sock *tp)
{
	const struct mptcp_subflow_context *subflow;

	if (!bpf_core_field_exists(tp->is_mptcp) ||
	    !bpf_core_type_exists(struct mptcp_subflow_context) || !BPF_CORE_READ(tp, is_mptcp))
		return 0;
	subflow = BPF_CORE_READ((const struct inet_connection_sock *)tp, icsk_ulp_data);
	return BPF_CORE_READ(subflow, conn);
}

/*
 * Reads the values that determine how long an orphan stays in FIN_WAIT2: see finWait2Left in
 * internal/listing.
 */
static __always_inline void read_fin_wait2(struct sock_found *found, struct tcp_sock *tp)
{
	struct inet_connection_sock *icsk = (void *)tp;
	struct sock *sk = (void *)tp;
	const struct timer_list *timer = bpf_core_field_exists(icsk->icsk_keepalive_timer)
						 ? &icsk->icsk_keepalive_timer
						 : &sk->sk_timer;

	found->jiffies = bpf_jiffies64();
	if (BPF_CORE_READ(timer, entry.pprev))
		found->left = BPF_CORE_READ(timer, expires) - (unsigned long)found->jiffies;
	found->fin_timeout =
		BPF_CORE_READ(sk, __sk_common.skc_net.net, ipv4.sysctl_tcp_fin_timeout);
	found->fin_linger = tp->linger2;
	found->rto = icsk->icsk_rto;
}

static __always_inline void read_timewait(struct sock_found *found, struct inet_timewait_sock *tw)
{
	found->is_mini = true;
	found->attached = ATTACHED_NOTHING;
	found->jiffies = bpf_jiffies64();
	found->state = BPF_CORE_READ(tw, tw_substate);
	found->left = BPF_CORE_READ(tw, tw_timer.expires) - (unsigned long)found->jiffies;
	if (found->left > 1U << 31) /* the timer is about to run */
		found->left = 0;
}

static __always_inline void read_request(struct sock_found *found, struct sock_common *skc)
{
	const struct sock *listener = BPF_CORE_READ(skc, skc_listener);

	found->is_mini = true;
	found->attached = ATTACHED_NOTHING;
	found->state = TCP_SYN_RECV;
	found->listener = (__u64)listener;
	found->retrans = BPF_CORE_READ((struct request_sock *)skc, num_retrans);
	found->synack_us = BPF_CORE_READ((struct tcp_request_sock *)skc, snt_synack);
	if (listener) {
		found->uid = BPF_CORE_READ(listener, sk_uid.val);
		found->cgroup_id = cgroup_id(cgroup_of(listener));
	}
}

static __always_inline void read_full(struct sock_found *found, struct sock_common *skc,
				      struct tcp_sock *tp)
{
	struct sock *sk = (void *)tp;
	struct socket *socket;

	if (have_cookie) /* a socket has no cookie until someone asks for one */
		found->cookie = bpf_get_socket_cookie(skc);
	found->proto = sk->sk_protocol;
	found->lport = bpf_ntohs(((struct inet_sock *)tp)->inet_sport);
	found->uid = sk->sk_uid.val;
	found->cgroup_id = bpf_core_field_exists(sk->sk_cgrp_data.cgroup)
				   ? sk->sk_cgrp_data.cgroup->kn->id
				   : cgroup_id(cgroup_of(sk));
	found->accept_backlog = sk->sk_max_ack_backlog;
	found->v6only = BPF_CORE_READ_BITFIELD(skc, skc_ipv6only);
	socket = sk->sk_socket;
	found->attached = attached(socket, socket ? socket->file : 0, skc->skc_flags);
	found->mptcp = (__u64)mptcp_of(tp);
	if (found->mptcp) {
		const struct sock *mptcp = (void *)found->mptcp;

		socket = BPF_CORE_READ(mptcp, sk_socket);
		found->attached = attached(socket, BPF_CORE_READ(socket, file),
					   BPF_CORE_READ(mptcp, __sk_common.skc_flags));
	}
	if (found->state == TCP_LISTEN) {
		found->recv_queue = sk->sk_ack_backlog;
	} else { /* like tcp_diag_get_info in net/ipv4/tcp_diag.c */
		__s32 unread = tp->rcv_nxt - tp->copied_seq;

		found->recv_queue = unread > 0 ? unread : 0; /* below 0 once a FIN has been read */
		found->send_queue = tp->write_seq - tp->snd_una;
		found->active_us = tp->tcp_mstamp;
	}
	if (found->state == TCP_FIN_WAIT2 && found->attached == ATTACHED_NOTHING && !found->mptcp)
		read_fin_wait2(found, tp);
}

/*
 * Reads a socket that iter/tcp visits. The code that the verifier must walk more than once is at
 * the end.
 */
static __always_inline bool read_existing(struct sock_found *found, struct sock_common *skc)
{
	found->mono_ns = bpf_ktime_get_ns();
	found->sk = (__u64)skc;
	found->cookie = skc->skc_cookie.counter;
	found->left = ~0;
	found->netns = skc->skc_net.net->ns.inum;
	found->family = skc->skc_family;
	found->proto = IPPROTO_TCP;
	found->lport = skc->skc_num;
	found->rport = bpf_ntohs(skc->skc_dport);
	read_device(found, skc->skc_net.net, skc->skc_bound_dev_if);
	found->state = skc->skc_state;
	if (found->state == TCP_TIME_WAIT) {
		read_timewait(found, (void *)skc);
	} else if (found->state == TCP_NEW_SYN_RECV) {
		read_request(found, skc);
	} else {
		struct tcp_sock *tp = bpf_skc_to_tcp_sock(skc);

		if (!tp)
			return false; /* never happens: nothing else has such a state */
		read_full(found, skc, tp);
	}
	if (found->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		__builtin_memcpy(found->laddr, &skc->skc_v6_rcv_saddr, sizeof(found->laddr));
		__builtin_memcpy(found->raddr, &skc->skc_v6_daddr, sizeof(found->raddr));
	} else {
		map_ipv4(found->laddr, skc->skc_rcv_saddr);
		map_ipv4(found->raddr, skc->skc_daddr);
	}
	return true;
}

/* Reads a full socket that iter/tcp does not visit, by probe reads. */
static __always_inline void read_probed(struct sock_found *found, const struct sock *sk)
{
	const struct sock_common *skc = &sk->__sk_common;
	const struct socket *socket = BPF_CORE_READ(sk, sk_socket);

	__builtin_memset(found, 0, sizeof(*found));
	found->mono_ns = bpf_ktime_get_ns();
	found->sk = (__u64)sk;
	found->cookie = BPF_CORE_READ(skc, skc_cookie.counter);
	found->left = ~0;
	found->netns = BPF_CORE_READ(skc, skc_net.net, ns.inum);
	found->family = BPF_CORE_READ(skc, skc_family);
	found->proto = BPF_CORE_READ(sk, sk_protocol);
	found->lport = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	found->rport = bpf_ntohs(BPF_CORE_READ(skc, skc_dport));
	if (found->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		bpf_core_read(found->laddr, sizeof(found->laddr), &skc->skc_v6_rcv_saddr);
		bpf_core_read(found->raddr, sizeof(found->raddr), &skc->skc_v6_daddr);
	} else {
		map_ipv4(found->laddr, BPF_CORE_READ(skc, skc_rcv_saddr));
		map_ipv4(found->raddr, BPF_CORE_READ(skc, skc_daddr));
	}
	read_device(found, BPF_CORE_READ(skc, skc_net.net), BPF_CORE_READ(skc, skc_bound_dev_if));
	found->state = BPF_CORE_READ(skc, skc_state);
	found->v6only = BPF_CORE_READ_BITFIELD_PROBED(skc, skc_ipv6only);
	found->uid = BPF_CORE_READ(sk, sk_uid.val);
	found->cgroup_id = cgroup_id(cgroup_of(sk));
	found->attached =
		attached(socket, BPF_CORE_READ(socket, file), BPF_CORE_READ(skc, skc_flags));
}

/*
 * Reads an MPTCP socket. Its queues are those of its subflows, and are not read. There is one
 * exception: a listener's subflow has the queue of connections that wait for accept()
 * (mptcp_diag_get_info in net/mptcp/mptcp_diag.c). The backlog of the MPTCP socket is 0 even if the
 * socket was accepted, but the backlog of its first subflow is right.
 */
static __always_inline void read_mptcp(struct sock_found *found, const struct sock *sk)
{
	const struct sock *first = BPF_CORE_READ((const struct mptcp_sock *)sk, first);

	read_probed(found, sk);
	found->no_role = !first;
	if (first) {
		found->accept_backlog = BPF_CORE_READ(first, sk_max_ack_backlog);
		found->recv_queue = BPF_CORE_READ(first, sk_ack_backlog);
	}
}

/*
 * Writes a socket. If the socket is a first subflow, its MPTCP socket follows. If the first subflow
 * is gone, the MPTCP socket follows each of the other subflows.
 */
static __always_inline void write_existing(struct seq_file *seq, struct sock_found *found)
{
	const struct mptcp_sock *mptcp = (const void *)found->mptcp;
	__u64 first;

	bpf_seq_write(seq, found, sizeof(*found));
	if (!list_mptcp || !bpf_core_type_exists(struct mptcp_sock) || !mptcp)
		return;
	first = (__u64)BPF_CORE_READ(mptcp, first);
	if (first && first != found->sk)
		return;
	read_mptcp(found, (const void *)mptcp);
	bpf_seq_write(seq, found, sizeof(*found));
}
