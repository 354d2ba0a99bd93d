/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which process a socket belongs to. */
#pragma once

#include "ring.h"

/*
 * A flag of struct task_struct (include/linux/sched.h). Kernel workers of MPTCP and io_uring close
 * sockets for which no process called close().
 */
#define PF_KTHREAD 0x00200000

/* Whether request and timewait socks are traced. */
const volatile bool want_mini = false;

/*
 * Reports whether a process made this change by its own call, so that the current task is the
 * owner.
 *
 * Such a process holds the lock of the socket (lock_sock); a softirq never works on a socket whose
 * lock is owned but leaves a backlog. What the owner of the lock finds in the backlog is the peer's
 * doing, so only these changes count:
 *
 *   - to SYN_SENT by connect(), and to LISTEN by listen()
 *   - to FIN_WAIT1 and LAST_ACK, and from LISTEN to CLOSE, by close() or shutdown()
 *   - from SYN_SENT, ESTABLISHED or CLOSE_WAIT to CLOSE, by a close() that resets or gives up
 *
 * See tcp_close_state and __tcp_close in net/ipv4/tcp.c. __tcp_close shuts down both ways first; in
 * the three states of the last item nothing else leaves both ways shut.
 */
static __always_inline bool made_by_task(const struct sock *sk, int old, int new)
{
	if (!sk->sk_lock.owned || old == new)
		return false;
	switch (new) {
	case TCP_SYN_SENT:
	case TCP_LISTEN:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return true;
	case TCP_CLOSE:
		return old == TCP_LISTEN ||
		       ((old == TCP_SYN_SENT || old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT) &&
			sk->sk_shutdown == SHUTDOWN_MASK);
	}
	return false;
}

/*
 * Notes that the current process called listen(). When the process exits, the listener belongs to
 * any process that inherited it.
 */
static __always_inline void note_listening(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader),
				bpf_get_current_pid_tgid() >> 32);
	__u8 yes = 1;

	bpf_map_update_elem(&listening, &pid, &yes, BPF_ANY);
}

/*
 * Reports the exit of a process that called listen(). Such a process may leave the listener to its
 * children, as a daemon does. Only the exit of the last thread counts. The open files of the
 * process are closed afterwards.
 */
static __always_inline int trace_exit(struct task_struct *task)
{
	__u32 pid;
	struct cpu *cpu = this_cpu();
	struct event *e;

	if (!cpu || task->signal->live.counter)
		return 0;
	pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader), task->tgid);
	if (bpf_map_delete_elem(&listening, &pid))
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&losses, 1);
		__sync_fetch_and_add(&cpu->ring_full, 1);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->mono_ns = bpf_ktime_get_ns();
	e->losses = *(volatile __u64 *)&losses;
	e->cpu = bpf_get_smp_processor_id();
	e->uid = UID_UNKNOWN;
	e->task_pid = pid;
	e->stack = -1;
	e->kind = KIND_PROCESS_EXITED;
	submit(cpu, e);
	return 0;
}
