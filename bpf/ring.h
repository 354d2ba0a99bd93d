/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reserves, fills in and submits the records of the ring buffer. */
#pragma once

#include "event.h"
#include "filter.h"

/* Whether to record the user-space stack of connect() and accept(). */
const volatile bool want_stacks = false;

/*
 * User space sets this before it sleeps on an empty ring. The next event clears it and wakes the
 * reader. While it is 0, no one is woken: under load, the reader naps briefly and then finds a
 * batch.
 */
volatile __u32 reader_waiting;

/*
 * The number of changes that found the ring full. Each record carries the count at its time, so
 * user space knows between which two records of a socket something may be missing. This is exact:
 * the lock of a socket serialises its changes, so each change sees the increments of all earlier
 * ones.
 */
__u64 losses;

#define HOST_PID (1U << 31) /* like HostPID in internal/event */

/*
 * Returns the number of a task in sstrace's own PID namespace. pid is the number in the kernel. If
 * the task has no number in that namespace, the result is pid, marked with HOST_PID. This is a
 * global function, so that the verifier checks it once, and not on each path that leads to it.
 */
__noinline __u32 pid_or_host(__u64 task_address, __u32 pid)
{
	const struct task_struct *task = (const void *)task_address;
	__u32 local;

	if (!pid_namespace || !pid)
		return pid;
	local = local_pid(BPF_CORE_READ(task, thread_pid));
	return local ? local : pid | HOST_PID;
}

/*
 * Notes the name of a device that a socket is bound to. The index of a device has no meaning
 * outside its network namespace, and its name may change. This is a global function: see
 * pid_or_host.
 */
__noinline int note_device(__u64 net_address, __u32 netns, __u32 ifindex)
{
	const struct net *net = (const void *)net_address;
	struct device key = { .netns = netns, .ifindex = ifindex };
	const struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	const struct hlist_node *node = BPF_CORE_READ(&heads[ifindex % NETDEV_HASHENTRIES], first);
	char name[16];

	for (int i = 0; i < 16 && node; i++) {
		const struct net_device *dev =
			(const void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(dev, ifindex) == (int)ifindex) {
			bpf_core_read(&name, sizeof(name), &dev->name);
			bpf_map_update_elem(&devices, &key, &name, BPF_ANY);
			return 0;
		}
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

/*
 * Returns this CPU's element of the map. It always exists, but the verifier demands a check for
 * null.
 */
static __always_inline struct cpu *this_cpu(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

/*
 * Reserves a record of size bytes, and fills in the members that all kinds have in common. The rest
 * of struct event is 0 or unknown. Returns null if the ring is full.
 */
static __always_inline struct event *reserve(struct cpu *cpu, const struct sock_info *info,
					     const void *sk, enum kind kind, int old, int new,
					     const __u64 size)
{
	/* bpf_get_current_task_btf() exists only from 5.11 on. */
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 pid = pid_tgid >> 32, tid = pid_tgid;
	struct event *e;

	if (pid_namespace) {
		pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader), pid);
		tid = pid_or_host((__u64)task, tid);
	}
	if (info->ifindex)
		note_device((__u64)info->net, info->netns, info->ifindex);
	e = bpf_ringbuf_reserve(&events, size, 0);
	if (!e) {
		__sync_fetch_and_add(&losses, 1);
		__sync_fetch_and_add(&cpu->ring_full, 1);
		return 0;
	}
	e->mono_ns = bpf_ktime_get_ns();
	e->sk = (__u64)sk;
	e->cookie = 0;
	e->cgroup_id = cgroup_id(info->cgroup);
	e->losses = *(volatile __u64 *)&losses;
	e->listener = 0;
	e->netns = info->netns;
	e->uid = info->uid;
	e->cpu = bpf_get_smp_processor_id();
	e->syn_retrans = 0;
	e->task_pid = pid;
	e->task_tid = tid;
	e->sk_err = 0;
	e->stack = -1;
	e->ifindex = info->ifindex;
	e->isn = 0;
	e->srtt_us = 0;
	e->icmp_err = 0;
	e->closing = 0;
	e->flags = info->port_stale ? FLAG_PORT_STALE : 0;
	e->is_owner = 0;
	e->kind = kind;
	e->synack_timeouts = 0;
	e->segment_flags = 0;
	e->connect_err = 0;
	e->family = info->family;
	e->proto = info->proto;
	e->lport = info->lport;
	e->rport = info->rport;
	e->old_state = old;
	e->new_state = new;
	__builtin_memcpy(e->laddr, info->laddr, sizeof(e->laddr));
	__builtin_memcpy(e->raddr, info->raddr, sizeof(e->raddr));
	bpf_get_current_comm(e->task_comm, sizeof(e->task_comm));
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	return e;
}

/*
 * Reserves a record if the event passes the filter; otherwise it counts the event as filtered. A
 * program counts seen first, and filtered, emitted or ring_full last. If the counts balance, no
 * program is running.
 */
static __always_inline struct event *begin(struct cpu *cpu, const struct sock_info *info,
					   const void *sk, enum kind kind, int old, int new,
					   const __u64 size)
{
	if (wanted(info, old, new))
		return reserve(cpu, info, sk, kind, old, new, size);
	__sync_fetch_and_add(&cpu->filtered, 1);
	return 0;
}

/* Makes the process of the current task the owner. */
static __always_inline void set_owner(struct event *e)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	e->is_owner = 1;
	BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
}

/* Submits a record, and wakes the reader if it is waiting. */
static __always_inline void submit(struct cpu *cpu, struct event *e)
{
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (reader_waiting) {
		reader_waiting = 0;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(e, flags);
	__sync_fetch_and_add(&cpu->emitted, 1);
}
