// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel side: every TCP state change of the host becomes one struct event in the ring buffer, or is counted
 * as filtered or lost. Nothing is decided here but what to leave out; ages, owners and names are user space's work.
 *
 * Only tracepoints and iterators are used, so that it also runs where kprobes, fentry and LSM programs are refused.
 */
#include "event.h"
#include "state.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Inserted: by the kernel side only. Deleted: never, never reset. Read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

/* Inserted: by both programs. Consumed by internal/probe; its size is set before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} events SEC(".maps");

/*
 * Where programs are preemptible: the changes that a program took and those behind it have not all looked for yet, by sock, whose
 * lock serialises its changes. Inserted: by the program that takes a change. Deleted: by the last one. A few at a time.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} taken_by_sock SEC(".maps");

/*
 * Timewait socks in FIN_WAIT2, by their ends. Inserted: when their timer starts. Deleted: when it is cancelled, or the FIN has come. A full
 * map costs the moment of a FIN_WAIT2 -> TIME_WAIT, nothing else.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); /* allocated before: the timers' programs run with a lock held and interrupts off */
	__type(key, struct ends);
	__type(value, __u64);
} fin_wait2 SEC(".maps");

/* How many are in it. */
__u64 fin_wait2_count;

/*
 * Request socks whose listener waits for data, by their ends. Inserted: when their timer starts. Deleted: when it is cancelled, or the ACK has
 * come. A full map costs the moment of that ACK, nothing else.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct ends);
	__type(value, __u64);
} deferred SEC(".maps");

__u64 deferred_count;

/* By thread. Inserted: as connect() begins. Deleted: as it returns; where the kernel did not show that, by and by. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct connecting);
} connects SEC(".maps");

/* The processes that called listen(). Inserted: then, and by user space for those that had done so before. Deleted: when they exit. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u8);
} listening SEC(".maps");

/* The names of devices that sockets are bound to. Inserted: with a record of such a socket. Deleted: the oldest, for a new one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct device);
	__type(value, char[16]);
} devices SEC(".maps");

/* Stacks in user space, each once. Inserted: by whoever connects or accepts, if that is asked for. Deleted: never; a full map costs stacks, nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 127 * sizeof(__u64)); /* kernel.perf_event_max_stack */
} stacks SEC(".maps");

/* These four: inserted by user space before attaching, deleted never. */
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

/* These use the maps above. */
#include "accept.h"
#include "change.h"
#include "once.h"
#include "segments.h"
#include "timers.h"

#include "holders.h"

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change, const struct sock *sk, const int old, const int new)
{
	return take(ctx, sk, old, new, CHANGE);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change_missed, const struct sock *sk, const int old, const int new)
{
	return take_missed(ctx, sk, old, new);
}

/* These two only where programs are preemptible. */
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
	__u32 zero = 0;
	struct cpu *cpu;

	if (function == tcp_write_timer)
		return trace_syn(timer);
	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return 0;
	note_cancelled(cpu, 0, 0);
	return function == reqsk_timer_handler ? trace_request(timer, REQUEST_TIMER_STARTED, 0)
					       : trace_timewait(timer, TIMEWAIT_TIMER_STARTED);
}

SEC("tp_btf/timer_cancel")
int BPF_PROG(timer_cancelled, struct timer_list *timer)
{
	__u64 function = (__u64)timer->function;
	struct inet_timewait_sock *tw;
	__u32 zero = 0;
	struct cpu *cpu;
	__u8 flags = 0;

	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return 0;
	if (function == reqsk_timer_handler) {
		note_cancelled(cpu, (void *)timer - bpf_core_field_offset(struct request_sock, rsk_timer),
			       TCP_SYN_RECV);
		if (cpu->child_at != cpu->seen && in_icmp_handler(ctx, cpu))
			flags = FLAG_BY_ICMP;
		return trace_request(timer, REQUEST_TIMER_CANCELLED, flags);
	}
	tw = (void *)timer - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	note_cancelled(cpu, (void *)tw, BPF_CORE_READ(tw, tw_substate));
	return trace_timewait(timer, TIMEWAIT_TIMER_CANCELLED);
}

SEC("tp_btf/timer_expire_entry")
int BPF_PROG(timer_expired, struct timer_list *timer)
{
	__u64 function = (__u64)timer->function;
	__u32 zero = 0;
	struct cpu *cpu;

	if (function != reqsk_timer_handler && function != tw_timer_handler)
		return 0;
	cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return 0;
	note_cancelled(cpu, 0, 0);
	return function == reqsk_timer_handler ? trace_request(timer, REQUEST_TIMER_EXPIRED, 0)
					       : trace_timewait(timer, TIMEWAIT_TIMER_EXPIRED);
}

/*
 * Some things only a segment shows, and it is always dropped after that (tcp_v4_rcv, tcp_v6_rcv:
 * discard_it).
 *
 * The FIN that a timewait sock in FIN_WAIT2 waits for makes it TIME_WAIT, and starts its timer again. But a timer that stays in the same
 * bucket of the wheel (2 s wide at 60 s and 250 Hz) is only written to, and no tracepoint tells (__mod_timer in kernel/time/timer.c).
 *
 * A listener that waits for data (TCP_DEFER_ACCEPT) drops the ACK of the handshake.
 *
 * And a segment ends a mini-sock, whose timer is cancelled, which alone does not show why: an RST;
 * a SYN in SYN_RECV; an ACK in SYN_RECV while the accept queue is full, with tcp_abort_on_overflow;
 * data in FIN_WAIT2 after close(), which are answered with RST (TCP_TW_RST in tcp_v4_rcv). Full
 * socks: see reset_sent.
 */
SEC("tp_btf/kfree_skb")
int BPF_PROG(skb_dropped, struct sk_buff *skb)
{
	struct ends ends = {};
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	int flags;

	if (!cpu || (!fin_wait2_count && !deferred_count && !cpu->ended))
		return 0;
	flags = read_segment(&ends, skb);
	if (flags < 0)
		return 0;
	if (cpu->ended && same_ends(&ends, &cpu->ended_ends) &&
	    ((flags & TCP_FLAG_RST) || cpu->ended_state != TCP_TIME_WAIT))
		return trace_dropped(cpu, flags);
	if (deferred_count)
		ack_came(&ends, skb);
	return fin_wait2_count ? fin_came(&ends, skb) : 0;
}

/*
 * A closed sock shows neither which segment closed it nor whether one came at all: an RST and data
 * that come too late leave the same error (tcp_reset in net/ipv4/tcp_input.c), and none if no
 * process has the sock (tcp_rcv_state_process), as its timer leaves none either. But only data are
 * answered with RST (tcp_v4_do_rcv, tcp_v6_do_rcv), and right after that. From 6.10 on sk may be 0:
 * an answer of no sock.
 */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(reset_sent, const struct sock *sk, const struct sk_buff *skb)
{
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	struct about a;
	struct event *e;

	if (!cpu || !sk || !skb || sk->__sk_common.skc_state != TCP_CLOSE)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_sock(&a, sk);
	e = begin(cpu, &a, sk, 0, 0, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = sk->__sk_common.skc_cookie.counter;
	e->listener = 0;
	e->err = 0;
	e->kind = RESET_SENT;
	e->by_task = 0;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	submit(cpu, e);
	return 0;
}

/*
 * accept() and accept4() give a connection to a process; the file descriptor that they return tells which. These are classic tracepoints,
 * the only ones that hang on these system calls alone. The kernel skips such a program while another BPF program runs on its CPU; but
 * this is task context, where none does.
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

/*
 * connect() fails without a change of state where there is no route (tcp_v4_connect,
 * tcp_v6_connect), or a program in the cgroup or a security module refuses it. What it returns also
 * explains why a socket that went to SYN_SENT came back in the same call. But a connect() that only
 * asks what became of an earlier one, or of a socket that is not free, is no attempt: the socket
 * was unconnected before.
 */
SEC("tracepoint/syscalls/sys_enter_connect")
int connect_begins(struct sys_enter *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct file *file = file_of(ctx->args[0]);
	struct connecting c = { .addr = ctx->args[1] };
	struct sock *sk = sock_of(file);
	struct socket *socket;
	__u16 family, proto;

	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	proto = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) || (proto != IPPROTO_TCP && proto != IPPROTO_MPTCP))
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	c.sk = (__u64)sk;
	c.fresh =
		BPF_CORE_READ(socket, state) == SS_UNCONNECTED && BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE;
	bpf_map_update_elem(&connects, &thread, &c, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int connect_returns(struct sys_exit *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct connecting *found = bpf_map_lookup_elem(&connects, &thread);
	struct address to = {};
	struct connecting c;
	int err = -ctx->ret;

	if (!found)
		return 0;
	c = *found;
	bpf_map_delete_elem(&connects, &thread);
	if (c.closed)
		return trace_connect((void *)c.closed, &to, err, CONNECT_RETURNED);
	if (c.changed || !c.fresh || err <= 0 || err == EINPROGRESS || err >= ERESTARTSYS)
		return 0;
	if (bpf_probe_read_user(&to, sizeof(to), (void *)c.addr)) /* a sockaddr_in may end where a page does */
		bpf_probe_read_user(&to, 8, (void *)c.addr);
	if (to.family == AF_UNSPEC)
		return 0;
	return trace_connect((void *)c.sk, &to, err, NO_SYN);
}

/*
 * A process that called listen() may leave the listener to its children, as a daemon does. Only the last of its threads counts. What it
 * still has open is closed after this.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exited, struct task_struct *task)
{
	__u32 zero = 0, pid;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
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
	e->task_pid = pid;
	e->stack = -1;
	e->kind = PROCESS_EXITED;
	submit(cpu, e);
	return 0;
}

/*
 * io_uring accepts without that system call. The result of such a request is a file descriptor of the process, whose worker threads have the same files; or a
 * slot of the ring's own table. One of a multishot request comes without the request (io_req_post_cqe in io_uring/io_uring.c). It may be any
 * other request's then, and its result a mask or a number that happens to be a connection's descriptor. So user space believes it only
 * of a connection that was established and not accepted yet.
 */
SEC("tp_btf/io_uring_complete")
int io_uring_completed(__u64 *ctx)
{
	struct io_ring_ctx *ring = (void *)ctx[0];
	struct io_kiocb *req = (void *)ctx[1];
	__u32 flags, slot;
	__s32 res;

	if (io_uring_complete_args == 3) {
		struct io_uring_cqe *cqe = (void *)ctx[2];

		res = cqe->res;
		flags = cqe->flags;
	} else {
		res = ctx[3];
		flags = ctx[4];
	}
	if (res < 0)
		return 0;
	if (!req) {
		if ((flags & (IORING_CQE_F_MORE | IORING_CQE_F_BUFFER)) != IORING_CQE_F_MORE)
			return 0;
		trace_accepted(ctx, sock_of(file_of(res)), ACCEPTED_PERHAPS);
		return trace_accepted(ctx, sock_of(direct_file_of(ring, res)), ACCEPTED_PERHAPS);
	}
	if (BPF_CORE_READ(req, opcode) != IORING_OP_ACCEPT)
		return 0;
	slot = BPF_CORE_READ((struct io_accept *)req, file_slot); /* counted from 1; ~0: any, and the result tells */
	if (!slot)
		return trace_accepted(ctx, sock_of(file_of(res)), ACCEPTED);
	return trace_accepted(ctx, sock_of(direct_file_of(ring, slot == ~0U ? res : slot - 1)), ACCEPTED);
}

/* Every socket of the network namespace of whoever opens the iterator, listeners first; mini-socks if they are wanted. */
SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sock_found found = {};

	if (!skc)
		return 0;
	if (!read_existing(&found, skc) || (found.is_mini && !want_mini))
		return 0;
	if (found.is_mini && found.state == TCP_FIN_WAIT2 && tw_timer_handler && first_look) {
		struct inet_timewait_sock *tw = (void *)skc;

		watch_fin(tw, true);
		if (!BPF_CORE_READ(tw, tw_timer.entry.pprev)) /* it has ended meanwhile */
			watch_fin(tw, false);
	}
	write_existing(ctx->meta->seq, &found);
	return 0;
}
