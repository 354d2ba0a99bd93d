/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Takes each change exactly once.
 *
 * The kernel skips a tracing program that is already running on this CPU (prog->active in
 * bpf_trace_run, from 6.1). If a softirq interrupts `change` and makes a change itself, that change
 * would be lost, and only recursion_misses would show it. So a second, tiny program,
 * `change_missed`, follows the first on the same tracepoint. The first program leaves a note of
 * each change that it takes. The second returns if it finds the note. If the first was skipped,
 * there is no note, and the second takes the change itself.
 *
 * Interrupts nest, so the notes form a stack on each CPU. A note is left behind if the second
 * program was skipped, too. So notes are not consulted when the answer is known without them: while
 * `change` is interrupted, the kernel skips it. And stale notes are not trusted. If an interrupt
 * arrives at the very edge of a program, a change may be taken twice. The second record is marked
 * (KIND_SECOND_CHANGE), and user space drops it if it has the first.
 *
 * If programs are preemptible, a task may be preempted inside a program. Until it continues, every
 * change on that CPU skips the program. Two more programs then follow, and the notes are found by
 * sock, on whichever CPU the task continues. A change is lost only if tasks are preempted inside
 * every one of the programs.
 */
#pragma once

#include "change.h"

/*
 * Whether a task may be preempted inside a tracepoint's programs, or between two of them, and
 * continue on another CPU (from 7.0).
 */
const volatile bool preemptible = false;

static __always_inline __u64 states(int old, int new)
{
	return (__u64)old << 8 | (__u64) new;
}

/*
 * Leaves a note. The depth is raised before the entry is written, so that an interrupt between
 * these two steps writes its own note above this one.
 */
static __always_inline void push(struct cpu *cpu, const struct sock *sk, int old, int new)
{
	__u32 depth = cpu->depth;

	if (depth >= TAKEN_DEPTH) { /* full of old notes: drop the oldest */
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

/* Removes the note of a change, and all notes above it. Reports whether there was such a note. */
static __always_inline bool pop(struct cpu *cpu, const struct sock *sk, int old, int new)
{
	for (__u32 i = TAKEN_DEPTH; i-- > 0;) {
		struct taken *taken = &cpu->taken[i];

		if (i < cpu->depth && taken->sk == (__u64)sk && taken->states == states(old, new) &&
		    cpu->seen - taken->seen <= MAX_NOTE_AGE) {
			cpu->depth = i;
			return true;
		}
	}
	return false;
}

/* Takes a change: leaves a note and reports it. */
static __always_inline int take(void *ctx, const struct sock *sk, int old, int new, enum kind kind)
{
	__u64 key = (__u64)sk, value = states(old, new);
	struct cpu *cpu = this_cpu();

	if (!cpu)
		return 0;
	if (kind == KIND_SECOND_CHANGE)
		__sync_fetch_and_add(&cpu->covered, 1);
	if (preemptible) {
		bpf_map_update_elem(&taken_by_sock, &key, &value, BPF_ANY);
	} else if (kind == KIND_CHANGE) {
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

/* Takes a change unless there is a note about it. */
static __always_inline int take_missed(void *ctx, const struct sock *sk, int old, int new)
{
	__u64 *value, key = (__u64)sk;
	struct cpu *cpu = this_cpu();

	if (preemptible) {
		value = bpf_map_lookup_elem(&taken_by_sock, &key);
		/* A note with other states is left from a change whose last program was skipped. */
		if (value && *value == states(old, new))
			return 0;
	} else if (!cpu || (!cpu->inside && pop(cpu, sk, old, new))) {
		return 0;
	}
	return take(ctx, sk, old, new, KIND_SECOND_CHANGE);
}
