/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sockets that exist, and who holds them, as two iterators tell it. Where the verifier knows a pointer's type, members are loaded, not asked
 * for by a call: there may be a million.
 */
#pragma once

const volatile bool have_cookie = true; /* bpf_get_socket_cookie in tracing programs: from 5.12. Set before loading. */

/* A socket that exists, as iter/tcp tells it. */
struct sock_found {
	__u64 mono_ns;
	__u64 sk;
	__u64 cookie;
	__u64 cgroup_id;
	__u64 listener; /* of a request sock */
	__u64 synack_us; /* of a request sock: CLOCK_MONOTONIC when the first SYN-ACK was sent */
	__u64 jiffies; /* of a timewait sock: jiffies_64 at mono_ns, which tells what a jiffy is */
	__u64 active_us; /* CLOCK_MONOTONIC when a segment was handled last; 0: not known, as in a mini-sock */
	__u32 left; /* jiffies until the timer of a timewait sock ends it; ~0: none */
	__u32 netns;
	__u32 uid;
	__u32 recv_queue; /* bytes unread; of a listener: connections that wait for accept() */
	__u32 send_queue; /* bytes not acknowledged */
	__u32 accept_backlog; /* listen()'s, and inherited by accepted sockets; 0 in a client */
	__u16 retrans; /* of a request sock: SYN-ACKs sent again */
	__u16 family;
	__u16 proto;
	__u16 lport;
	__u16 rport;
	__u8 state;
	__u8 is_mini; /* a request or timewait sock */
	__u8 laddr[16];
	__u8 raddr[16];
};

_Static_assert(sizeof(struct sock_found) == 136, "struct sock_found: no holes, and in step with snapshot.go");

/* A file descriptor that is a socket, as iter/task_file tells it. */
struct holder_found {
	__u64 sk;
	__u32 netns; /* of the socket */
	__u32 pid;
	__u32 fd;
	__u32 pad;
	__u8 comm[16];
};

_Static_assert(sizeof(struct holder_found) == 40, "struct holder_found: no holes, and in step with snapshot.go");

static __always_inline void map_ipv4(__u8 *to, __be32 addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &addr, 4);
}

static __always_inline const struct cgroup *cgroup_of(const struct sock *sk)
{
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	const struct sock_cgroup_data___before_5_16 *data = (const void *)&sk->sk_cgrp_data;
	__u64 val = BPF_CORE_READ(data, val);

	return val & 1 ? 0 : (const struct cgroup *)(val & ~3ULL);
}

static __always_inline __u64 cgroup_id(const struct cgroup *cgrp)
{
	return cgrp ? BPF_CORE_READ(cgrp, kn, id) : 0;
}

/* Reads a socket that iter/tcp has come to. */
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
	if (found->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		__builtin_memcpy(found->laddr, &skc->skc_v6_rcv_saddr, sizeof(found->laddr));
		__builtin_memcpy(found->raddr, &skc->skc_v6_daddr, sizeof(found->raddr));
	} else {
		map_ipv4(found->laddr, skc->skc_rcv_saddr);
		map_ipv4(found->raddr, skc->skc_daddr);
	}
	found->state = skc->skc_state;
	if (found->state == TCP_TIME_WAIT) {
		struct inet_timewait_sock *tw = (void *)skc;

		found->is_mini = true;
		found->jiffies = bpf_jiffies64();
		found->state = BPF_CORE_READ(tw, tw_substate);
		found->left = BPF_CORE_READ(tw, tw_timer.expires) - (unsigned long)found->jiffies;
		if (found->left > 1U << 31) /* is about to end */
			found->left = 0;
	} else if (found->state == TCP_NEW_SYN_RECV) {
		const struct sock *listener = BPF_CORE_READ(skc, skc_listener);

		found->is_mini = true;
		found->state = TCP_SYN_RECV;
		found->listener = (__u64)listener;
		found->retrans = BPF_CORE_READ((struct request_sock *)skc, num_retrans);
		found->synack_us = BPF_CORE_READ((struct tcp_request_sock *)skc, snt_synack);
		if (listener) {
			found->uid = BPF_CORE_READ(listener, sk_uid.val);
			found->cgroup_id = cgroup_id(cgroup_of(listener));
		}
	} else {
		struct tcp_sock *tp = bpf_skc_to_tcp_sock(skc);
		struct sock *sk = (void *)tp;

		if (!tp)
			return false; /* never: no other has such a state */
		if (have_cookie) /* it has none before somebody asks */
			found->cookie = bpf_get_socket_cookie(skc);
		found->proto = sk->sk_protocol;
		found->lport = bpf_ntohs(((struct inet_sock *)tp)->inet_sport);
		found->uid = sk->sk_uid.val;
		found->cgroup_id = bpf_core_field_exists(sk->sk_cgrp_data.cgroup) ? sk->sk_cgrp_data.cgroup->kn->id
										  : cgroup_id(cgroup_of(sk));
		found->accept_backlog = sk->sk_max_ack_backlog;
		if (found->state == TCP_LISTEN) {
			found->recv_queue = sk->sk_ack_backlog;
		} else { /* as tcp_diag_get_info in net/ipv4/tcp_diag.c */
			__s32 unread = tp->rcv_nxt - tp->copied_seq;

			found->recv_queue = unread > 0 ? unread : 0; /* below 0 while a FIN is read past */
			found->send_queue = tp->write_seq - tp->snd_una;
			found->active_us = tp->tcp_mstamp;
		}
	}
	return true;
}

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* Every file descriptor of the host that is a socket; user space joins them by sk. An O_PATH descriptor has no private_data. */
SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct holder_found found = {};
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;
	__u16 proto, family;

	if (!task || !file || (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	socket = file->private_data;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	proto = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) ||
	    (proto != IPPROTO_TCP && proto != IPPROTO_MPTCP && proto != IPPROTO_SCTP))
		return 0;
	found.sk = (__u64)sk;
	found.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	found.pid = task->tgid;
	found.fd = ctx->fd;
	__builtin_memcpy(found.comm, task->group_leader->comm, sizeof(found.comm));
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}
