/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Records are reserved, filled in and submitted here. */
#pragma once

#include "event.h"
#include "filter.h"

/* The stack in user space of who connects and who accepts. */
const volatile bool want_stacks = false;

/*
 * User space sets it before it sleeps with an empty ring; the next change clears it and wakes the reader. While
 * it is 0 nobody is woken: under load the reader naps for a moment and finds a batch.
 */
volatile __u32 reader_waiting;

/*
 * Changes that found the ring full. Each record carries the count of its moment, so that user space knows between
 * which two records of a socket anything may be missing: a socket's changes are serialised by its lock, hence a later
 * change of it sees every earlier increment.
 */
__u64 losses;

#define HOST_PID (1U << 31) /* as HostPID in internal/event */

/*
 * What sstrace's own PID namespace calls a task, which is pid for the kernel; or that with HOST_PID, if it has no number there. As a global
 * function it is verified once, not on each path to it.
 */
__noinline __u32 pid_or_host(__u64 task_address, __u32 pid)
{
	const struct task_struct *task = (const void *)task_address;
	__u32 here;

	if (!pid_namespace || !pid)
		return pid;
	here = number_here(BPF_CORE_READ(task, thread_pid));
	return here ? here : pid | HOST_PID;
}

#define DEVICE_HASH 256 /* NETDEV_HASHENTRIES in include/linux/netdevice.h */

/* Note the name of a device that a socket is bound to: its number means nothing outside its network namespace, and its name may change. */
__noinline int note_device(__u64 net_address, __u32 netns, __u32 ifindex)
{
	const struct net *net = (const void *)net_address;
	struct device key = { .netns = netns, .ifindex = ifindex };
	const struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	const struct hlist_node *node = BPF_CORE_READ(&heads[ifindex % DEVICE_HASH], first);
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

/* Reserve, and fill in what all kinds have. */
static __always_inline struct event *reserve(struct cpu *cpu, const struct about *a, const void *sk, int old, int new,
					     const __u64 size)
{
	struct task_struct *task = (void *)bpf_get_current_task(); /* its _btf sibling is from 5.11 */
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 pid = pid_tgid >> 32, tid = pid_tgid;
	struct event *e;

	if (pid_namespace) {
		pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader), pid);
		tid = pid_or_host((__u64)task, tid);
	}
	if (a->ifindex)
		note_device((__u64)a->net, a->netns, a->ifindex);
	e = bpf_ringbuf_reserve(&events, size, 0);
	if (!e) {
		__sync_fetch_and_add(&losses, 1);
		__sync_fetch_and_add(&cpu->ring_full, 1);
		return 0;
	}
	e->mono_ns = bpf_ktime_get_ns();
	e->sk = (__u64)sk;
	e->cgroup_id = cgroup_id(a->cgroup);
	e->losses = *(volatile __u64 *)&losses;
	e->netns = a->netns;
	e->uid = a->uid;
	e->cpu = bpf_get_smp_processor_id();
	e->retrans = 0;
	e->task_pid = pid;
	e->task_tid = tid;
	e->stack = -1;
	e->ifindex = a->ifindex;
	e->isn = 0;
	e->srtt_us = 0;
	e->err_soft = 0;
	e->closing = 0;
	e->flags = a->port_stale ? FLAG_PORT_STALE : 0;
	e->retries = 0;
	e->tcp_flags = 0;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	e->family = a->family;
	e->proto = a->proto;
	e->lport = a->lport;
	e->rport = a->rport;
	e->old_state = old;
	e->new_state = new;
	__builtin_memcpy(e->laddr, a->laddr, sizeof(e->laddr));
	__builtin_memcpy(e->raddr, a->raddr, sizeof(e->raddr));
	bpf_get_current_comm(e->task_comm, sizeof(e->task_comm));
	return e;
}

/* Filter, and reserve what passes. seen counts first and one of the other three last: when they balance, nobody is here. */
static __always_inline struct event *begin(struct cpu *cpu, const struct about *a, const void *sk, int old, int new,
					   const __u64 size)
{
	if (wanted(a, old, new))
		return reserve(cpu, a, sk, old, new, size);
	__sync_fetch_and_add(&cpu->filtered, 1);
	return 0;
}

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
