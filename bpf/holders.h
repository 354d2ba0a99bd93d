/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Programs that iterate over descriptors, to find the holders of the sockets that exist. */
#pragma once

#include "existing.h"

static __always_inline bool is_internet(const struct sock *sk)
{
	__u16 proto = BPF_CORE_READ(sk, sk_protocol),
	      family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) &&
	       (proto == IPPROTO_TCP || proto == IPPROTO_MPTCP || proto == IPPROTO_SCTP);
}

#define ANON_INODE_FS_MAGIC 0x09041934 /* include/uapi/linux/magic.h */

/*
 * Returns the io_uring of a file, or null. Files in this file system are named only by the kernel.
 */
static __always_inline struct io_ring_ctx *ring_of(const struct file *file)
{
	const char want[] = "[io_uring]";
	char name[sizeof(want) - 1] = {};

	if (file->f_path.dentry->d_name.len != sizeof(name) ||
	    file->f_inode->i_sb->s_magic != ANON_INODE_FS_MAGIC)
		return 0;
	bpf_probe_read_kernel(name, sizeof(name), file->f_path.dentry->d_name.name);
	for (__u32 i = 0; i < sizeof(name); i++)
		if (name[i] != want[i])
			return 0;
	return file->private_data;
}

/* Returns the number of slots in the table of an io_uring. */
static __always_inline __u32 slots_of(struct io_ring_ctx *ring)
{
	struct io_ring_ctx___before_6_13 *old = (void *)ring;

	if (bpf_core_field_exists(ring->file_table.data)) /* from 6.13 */
		return BPF_CORE_READ(ring, file_table.data.nr);
	if (bpf_core_field_exists(old->file_table.files)) /* from 5.13 */
		return BPF_CORE_READ(old, nr_user_files);
	return 0;
}

/*
 * Fills in the process that has a descriptor. Returns false if the process has just exited, or has
 * no number in pid_namespace.
 */
static __always_inline bool fill_holder(struct holder_found *found, struct task_struct *task,
					__u32 fd)
{
	found->pid = local_tgid(task);
	found->fd = fd;
	__builtin_memcpy(found->comm, task->group_leader->comm, sizeof(found->comm));
	return found->pid;
}

/* Values for struct holder_found that take the place of a slot: */
#define SLOT_NONE -1 /* the descriptor is a socket */
#define SLOT_TABLE -2 /* the descriptor is not a socket, but an io_uring that has slots */

#define SLOTS_AT_ONCE 64

/*
 * The sockets in the tables of io_urings. They are not written like other holders, because a table
 * may have a million of them, and everything written for one file must fit into 32 KiB
 * (bpf_seq_read). Instead, the iterator puts them here in batches. After each read, user space
 * takes the batch and sets ring_found to 0. While a batch has not been taken, or the table has more
 * sockets, the iterator returns 1 (EAGAIN), and so visits the same file again.
 */
volatile __u32 ring_found SEC(".data.rings") = 0; /* whether ring_socks is filled in */
struct holder_found ring_holder SEC(".data.rings") = {}; /* their holder, with the first slot */
__u64 ring_socks[SLOTS_AT_ONCE] SEC(".data.rings") = {}; /* by slot; 0: none */

/* The ring of ring_holder if there is more in its table, and the slot to continue from. */
struct {
	__u64 ring;
	__u32 slot;
	__u32 pad;
} ring_next SEC(".data.rings") = {};

/*
 * Puts the next sockets of a ring's table into ring_socks. Returns 1 if it must be called again.
 * The body of the loop has no unnecessary branches, because the verifier walks each path through
 * it.
 */
static __always_inline int collect_slots(struct io_ring_ctx *ring,
					 const struct holder_found *holder)
{
	__u32 slots = slots_of(ring), first = 0;

	if (!slots)
		return 0;
	if (ring_found)
		return 1;
	if (ring_next.ring == (__u64)ring && ring_holder.pid == holder->pid &&
	    ring_holder.fd == holder->fd)
		first = ring_next.slot;
	ring_holder = *holder;
	ring_holder.slot = first;
	for (__u32 i = 0; i < SLOTS_AT_ONCE; i++) {
		struct file *file = direct_file_of(ring, first + i);
		__u64 is_socket = (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) == S_IFSOCK;
		struct socket *socket = BPF_CORE_READ(file, private_data);

		ring_socks[i] = -is_socket & (__u64)BPF_CORE_READ(socket, sk);
	}
	ring_found = 1;
	ring_next.ring = (__u64)ring;
	ring_next.slot = first + SLOTS_AT_ONCE;
	if (ring_next.slot < slots)
		return 1;
	ring_next.ring = 0;
	return 0;
}

/*
 * Writes every descriptor on the host that is a socket. User space matches the descriptors to
 * sockets by sk. An O_PATH descriptor has no private_data. This program also writes every io_uring
 * that has its own table, as SLOT_TABLE. Few hosts have such an io_uring, so `slots` is loaded only
 * when it is needed.
 */
SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct holder_found found = { .slot = SLOT_NONE };
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	if ((file->f_inode->i_mode & S_IFMT) == S_IFSOCK) {
		socket = file->private_data;
		sk = BPF_CORE_READ(socket, sk);
		if (!sk || !is_internet(sk))
			return 0;
		found.sk = (__u64)sk;
		found.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	} else {
		struct io_ring_ctx *ring = ring_of(file);

		if (!ring || !slots_of(ring))
			return 0;
		found.slot = SLOT_TABLE;
	}
	if (fill_holder(&found, task, ctx->fd))
		bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

/* Finds every socket in the table of an io_uring. It writes nothing: see ring_found. */
SEC("iter/task_file")
int slots(struct bpf_iter__task_file *ctx)
{
	struct holder_found found = {};
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct io_ring_ctx *ring;

	if (!task || !file || (file->f_inode->i_mode & S_IFMT) == S_IFSOCK)
		return 0;
	ring = ring_of(file);
	if (!ring || !fill_holder(&found, task, ctx->fd))
		return 0;
	return collect_slots(ring, &found);
}

/*
 * Writes the sockets that have a descriptor but are in no table that iter/tcp walks: bound sockets
 * in CLOSE, and MPTCP sockets. The port of a bound MPTCP socket is that of the subflow that it
 * created for bind().
 */
SEC("iter/task_file")
int unlisted(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct sock_found found;
	const struct sock *sk;
	__u16 proto;
	bool closed;

	if (!ctx->task || !file || (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	sk = BPF_CORE_READ((struct socket *)file->private_data, sk);
	if (!sk || !is_internet(sk))
		return 0;
	proto = BPF_CORE_READ(sk, sk_protocol);
	closed = BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE;
	if (closed && (!list_bound || !BPF_CORE_READ(sk, __sk_common.skc_num)))
		return 0;
	if (bpf_core_type_exists(struct mptcp_sock) && proto == IPPROTO_MPTCP) {
		if (list_mptcp) {
			read_mptcp(&found, sk);
			bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
		}
		if (!closed)
			return 0;
		sk = BPF_CORE_READ((const struct mptcp_sock *)sk, first);
		if (!sk || !BPF_CORE_READ(sk, __sk_common.skc_num))
			return 0;
		read_probed(&found, sk);
		found.mptcp = (__u64)BPF_CORE_READ((struct socket *)file->private_data, sk);
		found.attached = ATTACHED_DESCRIPTOR;
	} else if (proto == IPPROTO_TCP && closed) {
		read_probed(&found, sk);
	} else {
		return 0;
	}
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}
