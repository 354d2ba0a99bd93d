/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Each change is taken exactly once. */
#pragma once

#include "change.h"

/* From 7.0 a task may be preempted while it runs a tracepoint's programs, or between two of them, and go on on another CPU. */
const volatile bool preemptible = false;

/*
 * The kernel skips a tracing program that is already running on this CPU (bpf_trace_run's prog->active, from 6.1). A
 * softirq that interrupts `change` and changes a state itself would thus be lost, told by recursion_misses only. So a second,
 * tiny program stands behind the first on the same tracepoint. The first notes what it takes; the second finds that, or that
 * the first was skipped, and then takes the change itself.
 *
 * The notes are a stack on each CPU, for interrupts nest. Some are left there by second programs that were skipped themselves; so they
 * are not asked where it is clear without them (while `change` is interrupted, it was skipped), and not believed when they are stale. It
 * may also happen, where an interrupt comes at the very edge of a program, that a change is taken twice: the second record says so
 * (CHANGE_SECOND), and user space drops it if it has the first.
 *
 * Where programs are preemptible, all changes on a CPU skip a program in which a task is preempted there. Then two more programs stand
 * behind, and the notes are found by sock, wherever the task goes on. A change is lost only if tasks are preempted inside each of them.
 */
static __always_inline __u64 states(int old, int new)
{
	return (__u64)old << 8 | (__u64) new;
}

/* The depth goes up before the entry is written, so that an interrupt between the two writes above it. */
static __always_inline void push(struct cpu *cpu, const struct sock *sk, int old, int new)
{
	__u32 depth = cpu->depth;

	if (depth >= TAKEN_DEPTH) { /* full of what nobody popped: the oldest goes */
		for (int i = 0; i + 1 < TAKEN_DEPTH; i++)
			cpu->taken[i] = cpu->taken[i + 1];
		depth = TAKEN_DEPTH - 1;
	}
	cpu->depth = depth + 1;
	barrier();
	cpu->taken[depth].sk = (__u64)sk;
	cpu->taken[depth].states = states(old, new);
	cpu->taken[depth].seen = cpu->seen;
	barrier();
}

static __always_inline bool pop(struct cpu *cpu, const struct sock *sk, int old, int new)
{
	for (__u32 i = TAKEN_DEPTH; i-- > 0;) {
		struct taken *taken = &cpu->taken[i];

		if (i < cpu->depth && taken->sk == (__u64)sk && taken->states == states(old, new) &&
		    cpu->seen - taken->seen <= FRESH) {
			cpu->depth = i;
			return true;
		}
	}
	return false;
}

static __always_inline int take(void *ctx, const struct sock *sk, int old, int new, enum kind kind)
{
	__u64 key = (__u64)sk, value = states(old, new);
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!cpu)
		return 0;
	if (kind == CHANGE_SECOND)
		__sync_fetch_and_add(&cpu->covered, 1);
	if (preemptible) {
		bpf_map_update_elem(&taken_by_sock, &key, &value, BPF_ANY);
	} else if (kind == CHANGE) {
		cpu->inside = 1;
		barrier();
		push(cpu, sk, old, new);
		trace(ctx, cpu, sk, old, new, kind);
		barrier();
		cpu->inside = 0;
		return 0;
	}
	return trace(ctx, cpu, sk, old, new, kind);
}

static __always_inline int take_missed(void *ctx, const struct sock *sk, int old, int new)
{
	__u64 *value, key = (__u64)sk;
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (preemptible) {
		value = bpf_map_lookup_elem(&taken_by_sock, &key);
		/* One with other states was left by an earlier change, whose last program was skipped. */
		if (value && *value == states(old, new))
			return 0;
	} else if (!cpu || (!cpu->inside && pop(cpu, sk, old, new))) {
		return 0;
	}
	return take(ctx, sk, old, new, CHANGE_SECOND);
}
