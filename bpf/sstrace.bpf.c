// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel side. Every TCP state change of the host becomes one struct event in the ring buffer,
 * or is counted as filtered or lost. The only decision made here is what to leave out. Ages, owners
 * and names are up to user space.
 *
 * Only tracepoints and iterators are used, so it also runs where kprobes, fentry and LSM programs
 * are refused.
 *
 * This file has the maps and the programs. The headers have the rest:
 *
 *   event.h     the records in the ring buffer
 *   state.h     the keys and values of the maps
 *   filter.h    which events are wanted
 *   ring.h      reserves and submits records
 *   change.h    state changes of socks, with closing.h (why), connect.h and owner.h
 *   once.h      takes each change exactly once
 *   timers.h    request and timewait socks, with segments.h
 *   accept.h    accept() and io_uring
 *   diag.h      SOCK_DESTROY
 *   existing.h  reads the sockets that exist, for iterators here and in holders.h
 *   kernel.h    accessors for kernel structures
 */
#include "event.h"
#include "state.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Inserted: never; each CPU has its own element. Deleted: never. User space only reads the map. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* Inserted: with each event. Consumed: by internal/probe, which sets its size before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} events SEC(".maps");

/*
 * If programs are preemptible: changes that a program has taken, and that not all of the programs
 * after it have looked up yet. The key is the sock, whose lock serialises its changes. Inserted: by
 * the program that takes a change. Deleted: by the last program. There are only a few entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} taken_by_sock SEC(".maps");

/*
 * Timewait socks in FIN_WAIT2, by tuple. The map is allocated in advance, because the programs on
 * timers run with a lock held and interrupts off. Inserted: when the timer of the sock starts.
 * Deleted: when the timer is cancelled, or when the FIN has arrived. If the map is full, only the
 * time of FIN_WAIT2 -> TIME_WAIT is lost.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tuple);
	__type(value, __u64);
} fin_wait2 SEC(".maps");

__u64 fin_wait2_count; /* the number of entries in fin_wait2 */

/*
 * Request socks whose listener waits for data, by tuple. Inserted: when the timer of the sock
 * starts. Deleted: when the timer is cancelled, or when the ACK has arrived. If the map is full,
 * only the time of that ACK is lost.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tuple);
	__type(value, __u64);
} deferred SEC(".maps");

__u64 deferred_count; /* the number of entries in deferred */

/*
 * Calls of connect() that have not returned, by thread. Inserted: on entry. Deleted: on exit. If
 * the exit was not seen, the entry is deleted once it is the oldest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct connecting);
} connects SEC(".maps");

/*
 * The processes that called listen(). Inserted: by that call; user space inserts those that called
 * it earlier. Deleted: when the process exits.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} listening SEC(".maps");

/*
 * The names of devices that sockets are bound to. Inserted: with an event of such a socket.
 * Deleted: the oldest entry makes room for a new one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct device);
	__type(value, char[16]);
} devices SEC(".maps");

/*
 * User-space stacks, each stored once. Inserted: by connect() and accept(), if want_stacks is set.
 * Deleted: never. If the map is full, only stacks are lost.
 */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 127 * sizeof(__u64)); /* the default of kernel.perf_event_max_stack */
} stacks SEC(".maps");

/* The values that the filter names. Inserted: by user space before attaching. Deleted: never. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct host_key);
	__type(value, __u8);
} hosts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} netnses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u8);
} cgroups SEC(".maps");

/* These headers use the maps. */
#include "accept.h"
#include "change.h"
#include "connect.h"
#include "holders.h" /* also has programs: the iterators over descriptors */
#include "once.h"
#include "owner.h"
#include "segments.h"
#include "timers.h"

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change, const struct sock *sk, const int old, const int new)
{
	return take(ctx, sk, old, new, KIND_CHANGE);
}

/* Runs right after `change`, because it is attached later: see once.h. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change_missed, const struct sock *sk, const int old, const int new)
{
	return take_missed(ctx, sk, old, new);
}

/* These two are attached only where programs are preemptible. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change_missed_2, const struct sock *sk, const int old, const int new)
{
	return take_missed(ctx, sk, old, new);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change_missed_3, const struct sock *sk, const int old, const int new)
{
	__u64 key = (__u64)sk;

	take_missed(ctx, sk, old, new);
	bpf_map_delete_elem(&taken_by_sock, &key);
	return 0;
}

SEC("tp_btf/timer_start")
int BPF_PROG(timer_started, struct timer_list *timer)
{
	__u64 function = (__u64)timer->function;
	struct cpu *cpu;

	if (function == tcp_write_timer)
		return trace_syn(timer);
	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = this_cpu();
	if (!cpu)
		return 0;
	note_cancelled(cpu, 0, 0);
	return function == reqsk_timer_handler ? trace_request(timer, KIND_REQUEST_STARTED, 0)
					       : trace_timewait(timer, KIND_TIME_WAIT_STARTED);
}

SEC("tp_btf/timer_cancel")
int BPF_PROG(timer_cancelled, struct timer_list *timer)
{
	__u64 function = (__u64)timer->function;
	struct inet_timewait_sock *tw;
	struct request_sock *req;
	struct cpu *cpu;
	enum flag flags = 0;

	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = this_cpu();
	if (!cpu)
		return 0;
	if (function == reqsk_timer_handler) {
		req = (void *)timer - bpf_core_field_offset(struct request_sock, rsk_timer);
		note_cancelled(cpu, (void *)req, TCP_SYN_RECV);
		if (cpu->child_at != cpu->seen && in_icmp_handler(ctx, cpu))
			flags = FLAG_BY_ICMP;
		return trace_request(timer, KIND_REQUEST_CANCELLED, flags);
	}
	tw = (void *)timer - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	note_cancelled(cpu, (void *)tw, BPF_CORE_READ(tw, tw_substate));
	return trace_timewait(timer, KIND_TIME_WAIT_CANCELLED);
}

SEC("tp_btf/timer_expire_entry")
int BPF_PROG(timer_expired, struct timer_list *timer)
{
	__u64 function = (__u64)timer->function;
	struct cpu *cpu;

	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = this_cpu();
	if (!cpu)
		return 0;
	note_cancelled(cpu, 0, 0);
	return function == reqsk_timer_handler ? trace_request(timer, KIND_REQUEST_EXPIRED, 0)
					       : trace_timewait(timer, KIND_TIME_WAIT_EXPIRED);
}

/* Returns before it looks at the packet if there is nothing to look for: see segments.h. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(skb_dropped, struct sk_buff *skb)
{
	struct tuple tuple = {};
	struct cpu *cpu = this_cpu();
	int flags;

	if (!cpu || (!fin_wait2_count && !deferred_count && !cpu->cancelled))
		return 0;
	flags = read_segment(&tuple, skb);
	if (flags < 0)
		return 0;
	if (cpu->cancelled && same_tuple(&tuple, &cpu->cancelled_tuple) &&
	    ((flags & TCP_FLAG_RST) || cpu->cancelled_state != TCP_TIME_WAIT))
		return trace_dropped(cpu, flags);
	if (deferred_count)
		trace_deferred_ack(&tuple, skb);
	return fin_wait2_count ? trace_fin(&tuple, skb) : 0;
}

SEC("tp_btf/tcp_send_reset")
int BPF_PROG(reset_sent, const struct sock *sk, const struct sk_buff *skb)
{
	return trace_reset_sent(sk, skb);
}

/*
 * These are classic tracepoints, because no other kind can be limited to one system call. The
 * kernel skips such a program while another BPF program runs on its CPU. But no other one runs when
 * a task is at these points.
 */
SEC("tracepoint/syscalls/sys_exit_accept")
int accepted(struct sys_exit *ctx)
{
	return ctx->ret < 0 ? 0 : trace_accept(ctx, sock_of(file_of(ctx->ret)));
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int accepted4(struct sys_exit *ctx)
{
	return ctx->ret < 0 ? 0 : trace_accept(ctx, sock_of(file_of(ctx->ret)));
}

SEC("tracepoint/syscalls/sys_enter_connect")
int connect_begins(struct sys_enter *ctx)
{
	return note_connect(ctx);
}

SEC("tracepoint/syscalls/sys_exit_connect")
int connect_returns(struct sys_exit *ctx)
{
	return trace_connect_result(ctx);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exited, struct task_struct *task)
{
	return trace_exit(task);
}

/* This does not use BPF_PROG, because the number of arguments depends on the kernel. */
SEC("tp_btf/io_uring_complete")
int io_uring_completed(__u64 *ctx)
{
	return trace_io_uring(ctx);
}

/*
 * Writes every socket of the network namespace of the process that opens the iterator, listeners
 * first. Mini-socks are included if they are traced.
 */
SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sock_found found = {};

	if (!skc || !read_existing(&found, skc) || (found.is_mini && !want_mini))
		return 0;
	if (found.is_mini && found.state == TCP_FIN_WAIT2 && tw_timer_handler && first_look) {
		struct inet_timewait_sock *tw = (void *)skc;

		watch_fin(tw, true);
		if (!BPF_CORE_READ(tw, tw_timer.entry.pprev)) /* it has ended in the meantime */
			watch_fin(tw, false);
	}
	write_existing(ctx->meta->seq, &found);
	return 0;
}
