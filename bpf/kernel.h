/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Accessors for kernel structures. Both objects use them. They hide the differences between kernel
 * versions. A probe read (BPF_CORE_READ) through a null pointer yields 0.
 */
#pragma once

#include "../vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/*
 * The inode of the PID namespace in which process IDs are reported; 0: the initial one. It is set
 * before loading.
 */
const volatile __u32 pid_namespace = 0;

/* Stores addr as the IPv4-mapped IPv6 address ::ffff:a.b.c.d. */
static __always_inline void map_ipv4(__u8 *to, __be32 addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &addr, 4);
}

/*
 * Returns the cgroup of sk, or null. Before 5.16, the same word may instead hold the data of cgroup
 * v1's net_cls and net_prio.
 */
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

/* Returns the number of pid in pid_namespace, or 0 if it has none there. */
static __always_inline __u32 local_pid(const struct pid *pid)
{
	__u32 level = BPF_CORE_READ(pid, level);

	for (__u32 i = 0; i <= 32; i++) { /* MAX_PID_NS_LEVEL */
		const struct upid *number = (const void *)pid +
					    bpf_core_field_offset(struct pid, numbers) +
					    i * bpf_core_type_size(struct upid);

		if (i > level)
			break;
		if (BPF_CORE_READ(number, ns, ns.inum) == pid_namespace)
			return BPF_CORE_READ(number, nr);
	}
	return 0;
}

/* Returns the process ID of a task in pid_namespace, or 0 if it has none there. */
static __always_inline __u32 local_tgid(const struct task_struct *task)
{
	return pid_namespace ? local_pid(BPF_CORE_READ(task, group_leader, thread_pid))
			     : BPF_CORE_READ(task, tgid);
}

#define NETDEV_HASHENTRIES 256 /* include/linux/netdevice.h: buckets of net.dev_index_head */
#define RCV_SHUTDOWN 1 /* include/net/sock.h */
#define SHUTDOWN_MASK 3

/* Reports whether bit is set in flags, the skc_flags of a socket: see enum sock_flags. */
static __always_inline bool has_flag(unsigned long flags, __u64 bit)
{
	return flags >> bit & 1;
}

/* Reports whether sk is a subflow. A subflow belongs to its MPTCP socket, not to a process. */
static __always_inline bool is_subflow(const struct sock *sk)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;

	return bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ(tp, is_mptcp);
}

/*
 * Reports whether no more timewait socks are allowed. It also returns true if that cannot be
 * determined. The kernel does the same test in inet_twsk_alloc in net/ipv4/inet_timewait_sock.c.
 */
static __always_inline bool timewait_full(const struct sock *sk)
{
	const struct net *net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	const struct netns_ipv4___from_5_18_to_6_0 *by_pointer = (const void *)&net->ipv4;
	const struct inet_timewait_death_row *row;
	int count;

	if (bpf_core_field_exists(by_pointer->tcp_death_row))
		row = BPF_CORE_READ(by_pointer, tcp_death_row);
	else
		row = &net->ipv4.tcp_death_row;
	if (bpf_core_field_exists(row->tw_refcount)) {
		count = BPF_CORE_READ(row, tw_refcount.refs.counter) - 1;
	} else {
		const struct inet_timewait_death_row___before_5_18 *old = (const void *)row;

		if (!bpf_core_field_exists(old->tw_count))
			return true;
		count = BPF_CORE_READ(old, tw_count.counter);
	}
	return count >= BPF_CORE_READ(row, sysctl_max_tw_buckets);
}

/*
 * Reports whether net has no process left. It is the opposite of check_net in
 * include/net/net_namespace.h.
 */
static __always_inline bool netns_gone(const struct net *net)
{
	const struct net___before_5_11 *old = (const void *)net;

	if (bpf_core_field_exists(net->ns.__ns_ref))
		return !BPF_CORE_READ(net, ns.__ns_ref.refs.counter);
	if (bpf_core_field_exists(net->ns.count))
		return !BPF_CORE_READ(net, ns.count.refs.counter);
	return bpf_core_field_exists(old->count) && !BPF_CORE_READ(old, count.refs.counter);
}

#define S_IFMT 0170000 /* include/uapi/linux/stat.h */
#define S_IFSOCK 0140000

/*
 * Returns the sock of a file, or null if the file is not a socket. The file of a socket has an
 * inode with the mode S_IFSOCK, and its private_data is the struct socket (sock_alloc_file in
 * net/socket.c).
 */
static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* Returns the file of a descriptor of the current task, or null. */
static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **fds, *file = 0;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	fds = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), fds + fd);
	return file;
}

/*
 * Returns the file in a slot of an io_uring's own table (a direct descriptor), or null. This
 * function must not be inlined: in a loop, clang would hoist relocations out of the branches that
 * guard them.
 */
static __noinline struct file *direct_file_of(struct io_ring_ctx *ring, __u32 slot)
{
	unsigned long file = 0;

	if (bpf_core_field_exists(ring->file_table.data)) { /* from 6.13 */
		struct io_rsrc_node **nodes = BPF_CORE_READ(ring, file_table.data.nodes), *node = 0;

		if (slot >= BPF_CORE_READ(ring, file_table.data.nr))
			return 0;
		bpf_probe_read_kernel(&node, sizeof(node), nodes + slot);
		file = BPF_CORE_READ(node, file_ptr);
	} else {
		struct io_ring_ctx___before_6_13 *old = (void *)ring;

		if (!bpf_core_field_exists(old->file_table.files) ||
		    slot >= BPF_CORE_READ(old, nr_user_files))
			return 0;
		bpf_probe_read_kernel(&file, sizeof(file),
				      BPF_CORE_READ(old, file_table.files) + slot);
	}
	return (struct file *)(file & ~7UL); /* the low bits are flags */
}
