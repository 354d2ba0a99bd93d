// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel side: every TCP state change of the host becomes one struct event in the ring buffer, or is counted
 * as filtered or lost. Nothing is decided here but what to leave out; ages, owners and names are user space's work.
 *
 * Only tracepoints and iterators are used, so that it also runs where kprobes, fentry and LSM programs are refused.
 */
#include "../vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "existing.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * What a record tells. A connection whose handshake is not over (request sock), or that only waits for its end (timewait sock),
 * is no struct sock, and the tracepoint does not show it; but both kinds of mini-sock live by a timer.
 */
enum kind {
	CHANGE, /* the tracepoint's change of a sock */
	REQUEST_TIMER_STARTED, /* the SYN arrived, or the SYN-ACK was sent again */
	REQUEST_TIMER_CANCELLED, /* the ACK arrived; or first half of what follows */
	REQUEST_TIMER_EXPIRED,
	TIMEWAIT_TIMER_STARTED, /* new_state is its substate: FIN_WAIT2 or TIME_WAIT */
	TIMEWAIT_TIMER_CANCELLED,
	TIMEWAIT_TIMER_EXPIRED,
	SYN_TIMER_STARTED, /* a connect() has sent its SYN: now its local port is known */
	CHANGE_SECOND, /* a CHANGE, by change_missed */
	ACCEPTED, /* accept() has given the socket to the current task */
	MINI_RESET, /* the segment that ended the mini-sock whose timer was cancelled just before */
	ACCEPTED_PERHAPS, /* ACCEPTED, if nobody has told so before: see io_uring_completed */
	REQUEST_ACKED, /* the ACK came and was dropped, because the listener waits for data (TCP_DEFER_ACCEPT) */
	NO_SYN, /* connect() failed and changed no state; err is its errno */
	CONNECT_RETURNED, /* connect() returns, and the socket has closed inside it; err is its errno, or 0 */
	PROCESS_EXITED, /* a process that called listen() has exited */
	RESET_SENT, /* a sock that a segment has just closed answers it with RST */
};

/* What a record's flags say of its socket. */
enum {
	FLAG_PORT_STALE = 1 << 0, /* it has no local port: lport is the one of its last connection */
	FLAG_ACKED = 1 << 1, /* of a request sock: the ACK has come, and was dropped */
	FLAG_DEFERS = 1 << 2, /* of a request sock: its listener waits for data (TCP_DEFER_ACCEPT) */
	FLAG_QUEUE_FULL = 1 << 3, /* of a request sock: its listener's accept queue is full */
	FLAG_BY_ICMP = 1 << 4, /* of a request sock: ICMP ended it */
	FLAG_DESTROYED = 1 << 5, /* the current task asked to destroy it (ss -K) */
	FLAG_NETNS_GONE = 1 << 6, /* of a timewait sock: no process is in its network namespace any more */
};

/* One state change as the kernel tells it. internal/probe reads it in place: see record.go before changing a member. */
struct event {
	__u64 mono_ns; /* CLOCK_MONOTONIC, the only clock read of this change */
	__u64 sk;
	__u64 cookie; /* 0: this kernel gives none */
	__u64 cgroup_id; /* 0: unknown */
	__u64 losses; /* changes that found the ring full, host-wide, before this one */
	__u64 listener; /* of a request sock: its listener's address */
	__u32 netns;
	__u32 uid;
	__u16 cpu;
	__u16 retrans; /* SYNs or SYN-ACKs sent again, as an open ends; of a request sock: SYN-ACKs; ~0: unknown */
	__u32 task_pid; /* thread group of the current task, whoever that is */
	__u32 task_tid; /* the thread */
	__s32 err; /* sk_err */
	__s32 stack; /* of the thread in user space, in stacks; negative: not asked for, or not to be had */
	__u32 ifindex; /* of the device that the socket is bound to; 0: none */
	__u32 isn; /* the client's initial sequence number, at both ends; 0: unknown */
	__u32 srtt_us; /* times 8, of a change from ESTABLISHED; 0: unknown */
	__s32 err_soft; /* of a change from SYN_SENT to CLOSE without sk_err: what ICMP said before; 0: nothing */
	__u32 closing; /* of a change to CLOSE: the CLOSING_ bits */
	__u8 family;
	__u8 flags; /* the FLAG_ bits */
	__u16 proto;
	__u16 lport; /* host byte order, as rport; 0: not known yet */
	__u16 rport;
	__u8 old_state;
	__u8 new_state;
	__u8 by_task; /* the current task made this change by its own call: it is the owner */
	__u8 kind;
	__u8 retries; /* of a request sock: how often its SYN-ACK was sent again */
	__u8 tcp_flags; /* of MINI_RESET: those of the segment */
	__u8 pad[2];
	__u8 laddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 task_comm[16]; /* the thread's */
	__u8 owner_comm[16]; /* the process's, set if by_task */
};

_Static_assert(sizeof(struct event) == 176, "struct event: no holes, and in step with record.go");

/* The record of a change to CLOSE has, behind it, what struct tcp_sock counted: tcp_info has the same (include/uapi/linux/tcp.h). */
struct closed {
	struct event event;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 retrans;
	__u32 srtt_us; /* times 8; 0: none */
	__u32 min_rtt_us; /* ~0: none */
	__u32 is_tcp; /* else all of it is 0 */
	char cong[16];
};

_Static_assert(sizeof(struct closed) == sizeof(struct event) + 56,
	       "struct closed: no holes, and in step with record.go");

/* For bpf2go's -type: a struct that no map names is not in the object's BTF unless something points to it. */
const struct event *unused_event __attribute__((unused));
const struct closed *unused_closed __attribute__((unused));
const struct sock_found *unused_sock_found __attribute__((unused));
const struct holder_found *unused_holder_found __attribute__((unused));

/* What a socket is like as it closes: it tells why, where sk_err alone does not. */
enum {
	CLOSING_SHUT = 1 << 0, /* shut down both ways: close() */
	CLOSING_LINGER0 = 1 << 1, /* SO_LINGER with time 0: close() resets */
	CLOSING_KEEPALIVE = 1 << 2, /* SO_KEEPALIVE */
	CLOSING_UNACCEPTED = 1 << 3, /* no process ever had it */
	CLOSING_ORPHAN = 1 << 4, /* no process has it any more */
	CLOSING_FIN_CAME = 1 << 5, /* the peer's */
	CLOSING_TIMEWAIT_FULL = 1 << 6, /* no more timewait socks are allowed, or it is not known */
	CLOSING_NO_FIN_WAIT2 = 1 << 7, /* TCP_LINGER2 below 0: an orphan does not wait for a FIN */
	CLOSING_UNREAD = 1 << 8, /* data came that no process has read */
	CLOSING_REPAIR = 1 << 9, /* TCP_REPAIR is on */
	CLOSING_IN_CONNECT = 1 << 10, /* the current task closes it in its own connect() */
	CLOSING_UNACKED =
		1 << 11, /* something that was sent, or is to be sent, has not been acknowledged: a SYN, data, a FIN */
	CLOSING_NETNS_GONE = 1 << 12, /* no process is in its network namespace any more */
	CLOSING_RECV_SHUT = 1 << 13, /* nothing will be received any more: close(), shutdown(), or the peer's FIN */
	CLOSING_OWNED = 1 << 14, /* its lock is owned: the change is made by a system call on it */
	CLOSING_NO_SYN = 1 << 15, /* no segment was sent */
	CLOSING_UNSENT = 1 << 16, /* data or a FIN have not been sent */
};

/*
 * Set before loading. A filter that is off is a constant false, and the verifier removes its code.
 * Ports: bits of ports[]. Families and protocols are few, so they are flags.
 */
enum {
	PORT_EITHER = 1 << 0,
	PORT_LOCAL = 1 << 1,
	PORT_REMOTE = 1 << 2,
};

const volatile bool want_tcp = true;
const volatile bool want_mptcp = false;
const volatile bool want_sctp = false;
const volatile bool want_ipv4 = true;
const volatile bool want_ipv6 = true;
const volatile __u8 filter_ports = 0; /* which of the PORT_ bits are asked */
const volatile bool filter_hosts = false;
const volatile bool filter_netns = false;
const volatile bool filter_uid = false;
const volatile bool filter_cgroup = false;

/* The timers' functions in the running kernel, for the rfc vocabulary alone; 0 is no function's address. */
const volatile __u64 reqsk_timer_handler = 0;
const volatile __u64 tw_timer_handler = 0;
const volatile __u64 tcp_write_timer = 0;

/* Request and timewait socks are looked at, too. */
const volatile bool want_mini = false;

/* How many arguments io_uring:io_uring_complete has here: 3, from 6.15 on, or 7. */
const volatile __u8 io_uring_complete_args = 0;

/* bpf_task_pt_regs: from 5.15. */
const volatile bool have_task_pt_regs = false;

/* From 7.0 a task may be preempted while it runs a tracepoint's programs, or between two of them, and go on on another CPU. */
const volatile bool preemptible = false;

/* The code of the ICMP handlers in the running kernel, for the rfc vocabulary alone. */
const volatile __u64 icmp_handlers[4] = {}; /* tcp_v4_err from, to, tcp_v6_err from, to */

/* The programs at the beginning and end of connect() are attached. */
const volatile bool trace_connects = false;

/* The stack in user space of who connects and who accepts. */
const volatile bool want_stacks = false;

/* User space fills it before attaching. */
__u8 ports[65536];

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

/* This kernel gives an accepted socket its remote end only after LISTEN -> SYN_RECV (up to 6.12); set when seen. */
bool remote_comes_late;

/* What finds a connection that has no socket. */
struct ends {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u32 netns;
	__u32 ifindex;
	__u32 pad;
};

/* A change that `change` took and `change_missed` has not checked yet. */
struct taken {
	__u64 sk;
	__u64 states;
	__u64 seen; /* how many this CPU had seen before it */
};

#define FRESH                                                                                                          \
	4 /* a note that is older, in changes of its CPU, is stale: a socket cannot make the same change again within so few */
#define TAKEN_DEPTH 4 /* task, softirq, hardirq, and one to spare */

struct cpu {
	__u64 seen; /* = filtered + emitted + ring_full once no program runs */
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 covered; /* changes that `change` missed and `change_missed` took */
	__u32 depth; /* of taken */
	__u32 inside; /* `change` runs: interrupts find it skipped */
	struct taken taken[TAKEN_DEPTH];
	__u64 ended; /* the mini-sock whose timer was cancelled last, until its timer does something else */
	struct ends ended_ends;
	__u32 ended_state; /* TCP_SYN_RECV of a request sock, else the substate */
	__u64 child_at; /* seen, when a request's child was made last: its timer is cancelled next */
	__u64 frames[24]; /* of the kernel's stack, while one program looks at it */
};

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

/* A connect() that has not returned. */
struct connecting {
	__u64 addr; /* in user space */
	__u64 sk;
	__u32 fresh; /* the socket was unconnected before it */
	__u32 changed; /* it has come to SYN_SENT */
	__u64 closed; /* and this one to CLOSE again */
};

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

struct device {
	__u32 netns;
	__u32 ifindex;
};

/* The names of devices that sockets are bound to. Inserted: with a record of such a socket. Deleted: the oldest, for a new one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct device);
	__type(value, char[16]);
} devices SEC(".maps");

/* User space clears it after its first look: timewait socks that begin later are told by their timers. */
volatile bool first_look = true;

/* Stacks in user space, each once. Inserted: by whoever connects or accepts, if that is asked for. Deleted: never; a full map costs stacks, nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, 127 * sizeof(__u64)); /* kernel.perf_event_max_stack */
} stacks SEC(".maps");

struct host_key {
	__u32 prefix_len;
	__u8 addr[16];
};

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

/* Whom a record is about. */
struct about {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u16 family;
	__u16 proto;
	__u32 netns;
	__u32 uid;
	__u32 ifindex;
	bool user_known; /* uid and cgroup are: a timewait sock has none */
	bool port_stale; /* lport is the one of the socket's last connection */
	const struct cgroup *cgroup;
	const struct net *net;
};

/*
 * A sock, read the way the tracepoint does (TP_fast_assign in include/trace/events/sock.h). There, inet_sock's members need a
 * probe read (a direct load is "access beyond struct sock"). Its port is asked, not skc_num, which is already 0 at the last
 * change.
 */
static __always_inline void read_sock(struct about *a, const struct sock *sk)
{
	const struct inet_sock *inet = (const struct inet_sock *)sk;

	a->family = sk->__sk_common.skc_family;
	a->lport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	a->rport = bpf_ntohs(sk->__sk_common.skc_dport);
	if (a->family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(&a->laddr, sizeof(a->laddr), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&a->raddr, sizeof(a->raddr), &sk->__sk_common.skc_v6_daddr);
	} else {
		map_ipv4(a->laddr, BPF_CORE_READ(inet, inet_saddr));
		map_ipv4(a->raddr, sk->__sk_common.skc_daddr);
	}
	a->proto = sk->sk_protocol;
	a->netns = sk->__sk_common.skc_net.net->ns.inum;
	a->ifindex = sk->__sk_common.skc_bound_dev_if;
	a->net = a->ifindex ? BPF_CORE_READ(sk, __sk_common.skc_net.net) : 0; /* a number, for note_device */
	a->uid = sk->sk_uid.val;
	a->cgroup = cgroup_of(sk);
	a->user_known = true;
	a->port_stale = false;
}

/* The same of what begins with a sock_common, by probe reads alone. user: whose uid and cgroup it has; a timewait sock has none. */
static __always_inline void read_common(struct about *a, const struct sock_common *skc, const struct sock *user)
{
	const struct net *net = BPF_CORE_READ(skc, skc_net.net);

	a->family = BPF_CORE_READ(skc, skc_family);
	a->lport = BPF_CORE_READ(skc, skc_num);
	a->rport = bpf_ntohs(BPF_CORE_READ(skc, skc_dport));
	if (a->family == AF_INET6 && bpf_core_field_exists(skc->skc_v6_daddr)) {
		bpf_core_read(&a->laddr, sizeof(a->laddr), &skc->skc_v6_rcv_saddr);
		bpf_core_read(&a->raddr, sizeof(a->raddr), &skc->skc_v6_daddr);
	} else {
		map_ipv4(a->laddr, BPF_CORE_READ(skc, skc_rcv_saddr));
		map_ipv4(a->raddr, BPF_CORE_READ(skc, skc_daddr));
	}
	a->proto = IPPROTO_TCP;
	a->net = net;
	a->netns = BPF_CORE_READ(net, ns.inum);
	a->ifindex = BPF_CORE_READ(skc, skc_bound_dev_if);
	a->port_stale = false;
	a->user_known = user;
	a->uid = user ? BPF_CORE_READ(user, sk_uid.val) : 0;
	a->cgroup = user ? cgroup_of(user) : 0;
}

/* The cgroup or one above it is asked for. Depth is bounded for the verifier; systemd nests 6 deep or so. */
static __noinline bool in_cgroups(const struct cgroup *cgrp)
{
	__u32 before_6_1;

	if (!cgrp)
		return false;
	before_6_1 = bpf_core_field_offset(struct cgroup___before_6_1, ancestor_ids);
	for (int i = 0; i < 32; i++) {
		__u64 id = 0;

		if (i > BPF_CORE_READ(cgrp, level))
			break;
		if (bpf_core_field_exists(cgrp->ancestors)) {
			const struct cgroup *up = 0;

			bpf_probe_read_kernel(&up, sizeof(up),
					      (const void *)cgrp + bpf_core_field_offset(struct cgroup, ancestors) +
						      i * sizeof(up));
			id = BPF_CORE_READ(up, kn, id);
		} else {
			bpf_probe_read_kernel(&id, sizeof(id), (const void *)cgrp + before_6_1 + i * sizeof(id));
		}
		if (bpf_map_lookup_elem(&cgroups, &id))
			return true;
	}
	return false;
}

static __always_inline bool is_mapped(const __u8 *addr)
{
	const __u64 *half = (const __u64 *)addr;

	return half[0] == 0 && (half[1] & 0xffffffff) == bpf_htonl(0xffff);
}

static __always_inline bool host_wanted(const __u8 *addr)
{
	struct host_key key = { .prefix_len = 128 };

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&hosts, &key);
}

static __always_inline bool ports_match(__u16 lport, __u16 rport)
{
	__u8 local = ports[lport], remote = ports[rport];

	if ((filter_ports & PORT_EITHER) && !((local | remote) & PORT_EITHER))
		return false;
	if ((filter_ports & PORT_LOCAL) && !(local & PORT_LOCAL))
		return false;
	if ((filter_ports & PORT_REMOTE) && !(remote & PORT_REMOTE))
		return false;
	return true;
}

/*
 * Does a filter leave this change in? A sieve: it passes all that may match, and internal/filter decides. Four kinds
 * pass although their own tuple does not match, because the connection may:
 *   - CLOSE -> SYN_SENT of an unbound client, whose port is chosen after the change;
 *   - LISTEN -> SYN_RECV up to 6.12, which has no remote end yet;
 *   - the change after either, which tells user space what the first one lacked;
 *   - a listener's own, so that the owner of the connections to come is known.
 */
static __noinline bool wanted(const struct about *t, int old, int new)
{
	if (!((t->proto == IPPROTO_TCP && want_tcp) || (t->proto == IPPROTO_MPTCP && want_mptcp) ||
	      (t->proto == IPPROTO_SCTP && want_sctp)))
		return false;
	if (filter_netns && !bpf_map_lookup_elem(&netnses, &t->netns))
		return false;
	if (filter_uid && t->user_known && !bpf_map_lookup_elem(&uids, &t->uid))
		return false;
	if (filter_cgroup && t->user_known && !in_cgroups(t->cgroup))
		return false;

	if (new == TCP_LISTEN || (old == TCP_LISTEN && new == TCP_CLOSE))
		return true;
	if (old == TCP_LISTEN && !t->rport) {
		remote_comes_late = true;
		return true;
	}
	if (old == TCP_SYN_RECV && remote_comes_late)
		return true;

	if (!want_ipv4 || !want_ipv6) {
		bool ipv4 = t->family == AF_INET || is_mapped(t->raddr);

		if (ipv4 ? !want_ipv4 : !want_ipv6)
			return false;
	}
	if (filter_hosts && !host_wanted(t->laddr) && !host_wanted(t->raddr))
		return false;
	if (filter_ports && !ports_match(t->lport, t->rport)) {
		if (!(filter_ports & (PORT_EITHER | PORT_LOCAL)))
			return false;
		if ((filter_ports & PORT_REMOTE) && !(ports[t->rport] & PORT_REMOTE))
			return false;
		return (new == TCP_SYN_SENT && (!t->lport || t->port_stale)) || old == TCP_SYN_SENT;
	}
	return true;
}

#define RCV_SHUTDOWN 1
#define SHUTDOWN_MASK 3

/*
 * Did a process make this change by its own call, so that the current task is the owner? It then holds the socket's lock
 * (lock_sock); a softirq never works on a socket whose lock is owned (it leaves a backlog). What the owner of the lock
 * finds in that backlog is the peer's doing, so only these count:
 *   -> SYN_SENT, -> LISTEN: connect(), listen(). LISTEN -> CLOSE, -> FIN_WAIT1, -> LAST_ACK: close(), shutdown()
 *   (tcp_close_state in net/ipv4/tcp.c).
 *   SYN_SENT, ESTABLISHED or CLOSE_WAIT -> CLOSE: a close() that resets or gives up. __tcp_close shuts down both ways
 *   before, and in these states nothing else leaves both ways shut.
 */
static __always_inline bool by_task(const struct sock *sk, int old, int new)
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
		return old == TCP_LISTEN || ((old == TCP_SYN_SENT || old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT) &&
					     sk->sk_shutdown == SHUTDOWN_MASK);
	}
	return false;
}

static __always_inline bool has_flag(unsigned long flags, __u64 bit)
{
	return flags >> bit & 1;
}

/* A subflow belongs to its MPTCP socket, not to a process. */
static __always_inline bool is_subflow(const struct sock *sk)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;

	return bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ(tp, is_mptcp);
}

/* As inet_twsk_alloc in net/ipv4/inet_timewait_sock.c asks. */
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

/* No process is in net any more, as check_net in include/net/net_namespace.h asks. */
static __always_inline bool netns_gone(const struct net *net)
{
	const struct net___before_5_11 *old = (const void *)net;

	if (bpf_core_field_exists(net->ns.__ns_ref))
		return !BPF_CORE_READ(net, ns.__ns_ref.refs.counter);
	if (bpf_core_field_exists(net->ns.count))
		return !BPF_CORE_READ(net, ns.count.refs.counter);
	return bpf_core_field_exists(old->count) && !BPF_CORE_READ(old, count.refs.counter);
}

/*
 * tp is sk, or 0 if that is none of TCP. The bits are collected in the record, which the verifier
 * does not track: it would follow each combination of them.
 */
static __always_inline void closing(volatile __u32 *bits, const struct sock *sk, const struct tcp_sock *tp, int old,
				    bool in_connect)
{
	unsigned long flags = sk->__sk_common.skc_flags;
	bool fin_came = has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_DONE));

	*bits = 0;
	if (sk->sk_shutdown == SHUTDOWN_MASK)
		*bits |= CLOSING_SHUT;
	if (sk->sk_shutdown & RCV_SHUTDOWN)
		*bits |= CLOSING_RECV_SHUT;
	if (has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_LINGER)) && !sk->sk_lingertime)
		*bits |= CLOSING_LINGER0;
	if (has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN)))
		*bits |= CLOSING_KEEPALIVE;
	if (sk->sk_lock.owned)
		*bits |= CLOSING_OWNED;
	if (in_connect)
		*bits |= CLOSING_IN_CONNECT;
	if (has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_DEAD))) {
		*bits |= CLOSING_ORPHAN;
		if (netns_gone(sk->__sk_common.skc_net.net))
			*bits |= CLOSING_NETNS_GONE;
	} else if (!sk->sk_socket && !is_subflow(sk)) {
		*bits |= CLOSING_UNACCEPTED;
	}
	if (old == TCP_FIN_WAIT2 || old == TCP_CLOSING) {
		if (fin_came)
			*bits |= CLOSING_FIN_CAME;
		else if (timewait_full(sk))
			*bits |= CLOSING_TIMEWAIT_FULL;
	}
	if (!tp)
		return;
	if (tp->linger2 < 0)
		*bits |= CLOSING_NO_FIN_WAIT2;
	/* Its queues are empty by now (tcp_done_with_error in net/ipv4/tcp_input.c, __tcp_close in tcp.c), but not these numbers. */
	if (tp->write_seq != tp->snd_una)
		*bits |= CLOSING_UNACKED;
	if (tp->write_seq != tp->snd_nxt)
		*bits |= CLOSING_UNSENT;
	if ((__s32)(tp->rcv_nxt - tp->copied_seq - fin_came) > 0) /* a FIN that was read counts in both */
		*bits |= CLOSING_UNREAD;
	if (BPF_CORE_READ_BITFIELD(tp, repair))
		*bits |= CLOSING_REPAIR;
	if (!tp->segs_out)
		*bits |= CLOSING_NO_SYN;
}

#define SO_EE_ORIGIN_ICMP 2 /* include/uapi/linux/errqueue.h */
#define SO_EE_ORIGIN_ICMP6 3

/*
 * What ICMP reported while a connect() held the socket's lock. It does not close the socket then
 * (tcp_v4_err, tcp_v6_err), but the program gets the error. Reading SO_ERROR clears sk_err_soft;
 * from 6.0 the message is also in the error queue.
 */
static __always_inline int icmp_error(const struct sock *sk)
{
	const struct sk_buff *skb = sk->sk_error_queue.next;
	const struct sock_exterr_skb *queued = (const void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	__u8 origin;

	if (sk->sk_err_soft)
		return sk->sk_err_soft;
	if (!sk->sk_error_queue.qlen)
		return 0;
	origin = BPF_CORE_READ(queued, ee.ee_origin);
	if (origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return BPF_CORE_READ(queued, ee.ee_errno);
}

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

#define PF_KTHREAD                                                                                                     \
	0x00200000 /* include/linux/sched.h: a worker of MPTCP or io_uring closes what nobody called close() for */

static __always_inline void fill_change(void *ctx, struct event *e, const struct about *a, const struct sock *sk,
					int old, int new, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	/* A child whose remote end comes late gets its real cookie late, too: the one asked for now would be thrown away. */
	if (have_cookie && !(old == TCP_LISTEN && new == TCP_SYN_RECV && !a->rport))
		e->cookie = bpf_get_socket_cookie((void *)sk);
	else
		e->cookie = have_cookie ? 0 : sk->__sk_common.skc_cookie.counter;
	e->listener = 0;
	e->err = sk->sk_err;
	e->kind = kind;
	e->by_task = by_task(sk, old, new) && !(BPF_CORE_READ(task, flags) & PF_KTHREAD);
	if (e->by_task) {
		BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
		if (want_stacks && new == TCP_SYN_SENT)
			e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	} else {
		__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	}
}

#define ECONNRESET 104
#define TCP_FLAG_RST 4

/* The file behind a file descriptor of the current task, or 0. */
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

#define SOCK_DESTROY 21 /* include/uapi/linux/sock_diag.h */
#define NETLINK_SOCK_DIAG 4 /* include/uapi/linux/netlink.h */

/*
 * The current task is inside sendmsg() or sendto() with a request to destroy the socket with these
 * ports, as ss -K does (struct inet_diag_req_v2 behind a struct nlmsghdr; sock_diag_destroy in
 * net/core/sock_diag.c). A softirq may run on top of it, so what else explains an end comes first.
 * A request by another system call is not recognized.
 */
static __noinline bool destroys(__u16 lport, __u16 rport)
{
	struct {
		__u32 len;
		__u16 type;
		__u16 flags;
		__u32 seq;
		__u32 pid;
		__u8 family;
		__u8 protocol;
		__u8 ext;
		__u8 pad;
		__u32 states;
		__be16 sport;
		__be16 dport;
	} message;
	unsigned long fd, arg;
	struct pt_regs *regs;
	struct sock *sk;
	bool is_sendmsg;

	if (!have_task_pt_regs)
		return false;
	regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	if (bpf_core_field_exists(regs->orig_ax)) { /* x86-64: arch/x86/entry/syscalls/syscall_64.tbl */
		unsigned long nr = BPF_CORE_READ(regs, orig_ax);

		if (nr != 44 && nr != 46)
			return false;
		is_sendmsg = nr == 46;
		fd = BPF_CORE_READ(regs, di);
		arg = BPF_CORE_READ(regs, si);
	} else { /* arm64: include/uapi/asm-generic/unistd.h */
		struct pt_regs___arm64 *arm64 = (void *)regs;
		int nr = BPF_CORE_READ(arm64, syscallno);

		if (nr != 206 && nr != 211)
			return false;
		is_sendmsg = nr == 211;
		fd = BPF_CORE_READ(arm64, orig_x0);
		arg = BPF_CORE_READ(arm64, regs[1]);
	}
	sk = sock_of(file_of(fd));
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) != AF_NETLINK ||
	    BPF_CORE_READ(sk, sk_protocol) != NETLINK_SOCK_DIAG)
		return false;
	if (is_sendmsg && (bpf_probe_read_user(&arg, sizeof(arg), (void *)arg + 16) || /* struct user_msghdr: msg_iov */
			   bpf_probe_read_user(&arg, sizeof(arg), (void *)arg)))
		return false;
	return !bpf_probe_read_user(&message, sizeof(message), (void *)arg) && message.type == SOCK_DESTROY &&
	       bpf_ntohs(message.sport) == lport && bpf_ntohs(message.dport) == rport;
}

/*
 * The initial sequence number of who sent the SYN, as its sock has just come through its handshake; 0: unknown. With TCP Fast Open more than
 * the SYN may be acknowledged or have come by now.
 */
static __always_inline __u32 initial_sequence(const struct tcp_sock *tp, int old, int new)
{
	if (!tp || new != TCP_ESTABLISHED)
		return 0;
	if (old == TCP_SYN_SENT && tp->bytes_acked) /* none in TCP_REPAIR */
		return tp->snd_una - (__u32)tp->bytes_acked;
	if (old == TCP_SYN_RECV)
		return tp->rcv_nxt - 1 - (__u32)tp->bytes_received;
	return 0;
}

/* The connect() that the current task is in, as it changes sk by itself; or 0. */
static __always_inline struct connecting *connecting(const struct sock *sk)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct connecting *c;

	if (!trace_connects || !sk->sk_lock.owned)
		return 0;
	c = bpf_map_lookup_elem(&connects, &thread);
	/* One of another socket is left from a connect() whose return the kernel did not show. */
	return c && (c->sk == (__u64)sk || is_subflow(sk)) ? c : 0;
}

static __always_inline int trace_close(void *ctx, struct cpu *cpu, const struct sock *sk, const struct tcp_sock *tp,
				       const struct about *a, int old, enum kind kind, __u16 retrans)
{
	struct connecting *inside = connecting(sk);
	struct closed *c;
	struct event *e;
	__u32 bits;

	c = (struct closed *)begin(cpu, a, sk, old, TCP_CLOSE, sizeof(*c));
	if (!c)
		return 0;
	if (inside && !sk->sk_err)
		inside->closed = (__u64)sk;
	e = &c->event;
	fill_change(ctx, e, a, sk, old, TCP_CLOSE, kind);
	closing(&e->closing, sk, tp, old, inside);
	bits = *(volatile __u32 *)&e->closing;
	e->retrans = retrans;
	if (old == TCP_SYN_SENT && !sk->sk_err)
		e->err_soft = icmp_error(sk);
	if (old == TCP_LISTEN && !(bits & CLOSING_SHUT) && destroys(a->lport, 0)) {
		e->flags |= FLAG_DESTROYED;
		e->by_task = 0;
	}
	c->is_tcp = tp && old != TCP_LISTEN;
	if (tp && old != TCP_LISTEN) {
		if (old == TCP_ESTABLISHED)
			e->srtt_us = tp->srtt_us;
		c->bytes_acked = tp->bytes_acked;
		c->bytes_received = tp->bytes_received;
		c->segs_out = tp->segs_out;
		c->segs_in = tp->segs_in;
		c->retrans = tp->total_retrans;
		c->srtt_us = tp->srtt_us;
		c->min_rtt_us = tp->rtt_min.s[0].v;
		BPF_CORE_READ_INTO(&c->cong, (const struct inet_connection_sock *)sk, icsk_ca_ops, name);
	} else {
		__builtin_memset(&c->bytes_acked, 0, sizeof(*c) - __builtin_offsetof(struct closed, bytes_acked));
	}
	submit(cpu, e);
	return 0;
}

/* A process that called listen(): when it exits, whoever it left the listener to is the owner. */
static __always_inline void note_listening(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 pid = pid_or_host((__u64)BPF_CORE_READ(task, group_leader), bpf_get_current_pid_tgid() >> 32);
	__u8 yes = 1;

	bpf_map_update_elem(&listening, &pid, &yes, BPF_ANY);
}

static __always_inline int trace(void *ctx, struct cpu *cpu, const struct sock *sk, int old, int new, enum kind kind)
{
	const struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	struct connecting *inside;
	struct about a;
	struct event *e;
	__u16 retrans = 0;

	__sync_fetch_and_add(&cpu->seen, 1);
	if (old == TCP_SYN_RECV)
		cpu->ended = 0; /* its request's timer was cancelled: no RST did that */
	if (old == TCP_LISTEN && new == TCP_SYN_RECV)
		cpu->child_at = cpu->seen;
	if (tp && (old == TCP_SYN_SENT || old == TCP_SYN_RECV)) { /* a child begins with its request's number */
		retrans = tp->total_retrans;
		if (old == TCP_SYN_RECV && tp->data_segs_out)
			retrans = ~0; /* TCP Fast Open: some of it may be data */
	}
	read_sock(&a, sk);
	if (new == TCP_CLOSE)
		return trace_close(ctx, cpu, sk, tp, &a, old, kind, retrans);
	if (new == TCP_SYN_SENT) {
		inside = connecting(sk);
		if (inside)
			inside->changed = 1;
		a.port_stale = a.lport && !sk->__sk_common.skc_num; /* inet_put_port leaves inet_sport as it was */
	}
	e = begin(cpu, &a, sk, old, new, sizeof(*e));
	if (!e)
		return 0;
	fill_change(ctx, e, &a, sk, old, new, kind);
	e->retrans = retrans;
	e->isn = initial_sequence(tp, old, new);
	if (tp && old == TCP_ESTABLISHED)
		e->srtt_us = tp->srtt_us;
	if (want_mini && new == TCP_LISTEN && e->by_task)
		note_listening();
	submit(cpu, e);
	return 0;
}

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

/*
 * Mini-socks. The three programs hang on every timer of the host, so the first thing is to leave: two loads and three compares for
 * a timer that is not ours. They run with interrupts off, or (timer_expire_entry) in the one softirq that runs timers: nothing
 * nests in them that they would have to tell.
 */
static __always_inline int trace_mini(const struct sock_common *skc, const struct sock *user, enum kind kind, int state,
				      __u8 retries, __u8 flags)
{
	struct about a;
	struct event *e;
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, skc, user);
	e = begin(cpu, &a, skc, 0, state, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(skc, skc_cookie.counter);
	e->listener = (__u64)user;
	e->err = 0;
	e->kind = kind;
	e->retries = retries;
	e->flags |= flags;
	if (state == TCP_SYN_RECV) {
		e->retrans = BPF_CORE_READ((const struct request_sock *)skc, num_retrans);
		e->isn = BPF_CORE_READ((const struct tcp_request_sock *)skc, rcv_isn);
	} else if (kind == SYN_TIMER_STARTED) {
		e->isn = BPF_CORE_READ((const struct tcp_sock *)skc, snd_una); /* nothing is acknowledged yet */
	}
	e->by_task = 0;
	if ((kind == REQUEST_TIMER_CANCELLED || kind == TIMEWAIT_TIMER_CANCELLED) && destroys(a.lport, a.rport))
		e->flags |= FLAG_DESTROYED;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	submit(cpu, e);
	return 0;
}

static __always_inline void read_ends(struct ends *ends, const struct sock_common *skc)
{
	struct about a;

	read_common(&a, skc, 0);
	__builtin_memcpy(ends->laddr, a.laddr, sizeof(ends->laddr));
	__builtin_memcpy(ends->raddr, a.raddr, sizeof(ends->raddr));
	ends->lport = a.lport;
	ends->rport = a.rport;
	ends->netns = a.netns;
	ends->ifindex = a.ifindex;
	ends->pad = 0;
}

/* Remember skc for skb_dropped, in map, of which count is the number; or forget it. */
static __always_inline void watch(void *map, __u64 *count, const struct sock_common *skc, bool start)
{
	struct ends ends;
	__u64 value = (__u64)skc;

	if (!start && !*count)
		return;
	read_ends(&ends, skc);
	if (start) {
		if (!bpf_map_update_elem(map, &ends, &value, BPF_NOEXIST))
			__sync_fetch_and_add(count, 1);
		else
			bpf_map_update_elem(map, &ends, &value, BPF_EXIST); /* one that was not seen to end */
	} else if (!bpf_map_delete_elem(map, &ends)) {
		__sync_fetch_and_add(count, -1);
	}
}

/* A timewait sock in FIN_WAIT2 waits for the FIN. */
static __always_inline void watch_fin(const struct inet_timewait_sock *tw, bool start)
{
	watch(&fin_wait2, &fin_wait2_count, &tw->__tw_common, start);
}

/*
 * What a request's record says beside its tuple. A listener that waits for data drops the ACK, notes that it came, and makes no child (tcp_check_req in
 * net/ipv4/tcp_minisocks.c); and so does one whose accept queue is full.
 */
static __always_inline __u8 request_flags(const struct request_sock *req, const struct sock *listener)
{
	__u8 flags = 0;

	if (BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		flags |= FLAG_ACKED;
	if (BPF_CORE_READ((const struct inet_connection_sock *)listener, icsk_accept_queue.rskq_defer_accept))
		flags |= FLAG_DEFERS;
	return flags;
}

/* The accept queue of listener is full, as sk_acceptq_is_full in include/net/sock.h asks. */
static __always_inline bool queue_full(const struct sock *listener)
{
	return BPF_CORE_READ(listener, sk_ack_backlog) > BPF_CORE_READ(listener, sk_max_ack_backlog);
}

static __always_inline int trace_request(struct timer_list *timer, enum kind kind, __u8 flags)
{
	struct request_sock *req = (void *)timer - bpf_core_field_offset(struct request_sock, rsk_timer);
	const struct sock *listener = BPF_CORE_READ(req, __req_common.skc_listener);

	flags |= request_flags(req, listener);
	if (kind != REQUEST_TIMER_STARTED && queue_full(listener))
		flags |= FLAG_QUEUE_FULL;
	if (kind == REQUEST_TIMER_STARTED ? (flags & FLAG_DEFERS) && !(flags & FLAG_ACKED) : !!deferred_count)
		watch(&deferred, &deferred_count, &req->__req_common, kind == REQUEST_TIMER_STARTED);
	return trace_mini((void *)req, listener, kind, TCP_SYN_RECV, BPF_CORE_READ_BITFIELD_PROBED(req, num_timeout),
			  flags);
}

static __always_inline int trace_timewait(struct timer_list *timer, enum kind kind)
{
	struct inet_timewait_sock *tw = (void *)timer - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	__u8 state = BPF_CORE_READ(tw, tw_substate), flags = 0;

	if (kind == TIMEWAIT_TIMER_CANCELLED || state == TCP_FIN_WAIT2)
		watch_fin(tw, kind == TIMEWAIT_TIMER_STARTED);
	if (kind == TIMEWAIT_TIMER_CANCELLED && netns_gone(BPF_CORE_READ(tw, __tw_common.skc_net.net)))
		flags = FLAG_NETNS_GONE; /* inet_twsk_purge in net/ipv4/inet_timewait_sock.c */
	return trace_mini((void *)tw, 0, kind, state, 0, flags);
}

/* A connect() has chosen its port by the time it arms the timer for its first SYN. */
static __always_inline int trace_syn(struct timer_list *timer)
{
	__u32 offset = bpf_core_field_exists(struct sock, tcp_retransmit_timer)
			       ? bpf_core_field_offset(struct sock, tcp_retransmit_timer)
			       : bpf_core_field_offset(struct inet_connection_sock, icsk_retransmit_timer);
	const struct inet_connection_sock *icsk = (void *)timer - offset;
	const struct sock *sk = (void *)icsk;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT || BPF_CORE_READ(icsk, icsk_retransmits))
		return 0;
	return trace_mini((void *)sk, sk, SYN_TIMER_STARTED, TCP_SYN_SENT, 0, 0);
}

/* Remember a mini-sock whose timer is cancelled, for skb_dropped; or, with 0, forget it: its timer goes on. */
static __always_inline void note_cancelled(struct cpu *cpu, const struct sock_common *skc, int state)
{
	cpu->ended = (__u64)skc;
	cpu->ended_state = state;
	if (skc)
		read_ends(&cpu->ended_ends, skc);
}

/*
 * ICMP ends a request sock (tcp_req_err in net/ipv4/tcp_ipv4.c), and no tracepoint reports it, but
 * the handler is on the kernel's stack. A walk of the stack takes a microsecond, so it is not for
 * the timers of requests that have just got their child.
 */
static __noinline bool in_icmp_handler(void *ctx, struct cpu *cpu)
{
	long size = bpf_get_stack(ctx, cpu->frames, sizeof(cpu->frames), 0);

	for (__u32 i = 0; i < sizeof(cpu->frames) / sizeof(cpu->frames[0]); i++) {
		__u64 at = cpu->frames[i];

		if (size < 0 || i >= size / sizeof(cpu->frames[0]))
			break;
		if ((at >= icmp_handlers[0] && at < icmp_handlers[1]) ||
		    (at >= icmp_handlers[2] && at < icmp_handlers[3]))
			return true;
	}
	return false;
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

/* The ends of the connection that a received TCP segment belongs to, and its flags; -1 if it is none, or cannot be told. */
static __always_inline int read_segment(struct ends *ends, const struct sk_buff *skb)
{
	const unsigned char *ip = skb->head + skb->network_header, *tcp = skb->head + skb->transport_header;
	__u8 flags, protocol;
	__be16 ports[2];
	__be32 v4[2];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_probe_read_kernel(v4, sizeof(v4), ip + 12) || bpf_probe_read_kernel(&protocol, 1, ip + 9))
			return -1;
		map_ipv4(ends->raddr, v4[0]);
		map_ipv4(ends->laddr, v4[1]);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_probe_read_kernel(ends->raddr, sizeof(ends->raddr), ip + 8) ||
		    bpf_probe_read_kernel(ends->laddr, sizeof(ends->laddr), ip + 24))
			return -1;
		protocol = IPPROTO_TCP; /* behind extension headers: the ends decide */
	} else {
		return -1;
	}
	if (protocol != IPPROTO_TCP || !skb->dev || bpf_probe_read_kernel(ports, sizeof(ports), tcp) ||
	    bpf_probe_read_kernel(&flags, 1, tcp + 13))
		return -1;
	ends->rport = bpf_ntohs(ports[0]);
	ends->lport = bpf_ntohs(ports[1]);
	ends->netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	return flags;
}

/* But for the device: a sock that is bound to one is among those that any segment of it belongs to. */
static __always_inline bool same_ends(const struct ends *a, const struct ends *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] && x[4] == y[4];
}

/*
 * A mini-sock is gone by the time that the segment which ended it is dropped, so its ends are
 * reported as they were noted.
 */
static __always_inline int trace_dropped(struct cpu *cpu, __u8 tcp_flags)
{
	struct about a = { .family = AF_INET6, .proto = IPPROTO_TCP };
	struct event *e;

	__builtin_memcpy(a.laddr, cpu->ended_ends.laddr, sizeof(a.laddr));
	__builtin_memcpy(a.raddr, cpu->ended_ends.raddr, sizeof(a.raddr));
	a.lport = cpu->ended_ends.lport;
	a.rport = cpu->ended_ends.rport;
	a.netns = cpu->ended_ends.netns;
	__sync_fetch_and_add(&cpu->seen, 1);
	e = begin(cpu, &a, (void *)cpu->ended, 0, 0, sizeof(*e));
	if (!e) {
		cpu->ended = 0;
		return 0;
	}
	e->ifindex = cpu->ended_ends.ifindex;
	e->cookie = 0;
	e->listener = 0;
	e->err = 0;
	e->kind = MINI_RESET;
	e->tcp_flags = tcp_flags;
	e->by_task = 0;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	cpu->ended = 0;
	submit(cpu, e);
	return 0;
}

/* What is in map for the connection of a segment: of a sock bound to no device, or to one that it came through. */
static __always_inline void *find_watched(void *map, struct ends *ends, const struct sk_buff *skb)
{
	__u64 *found = bpf_map_lookup_elem(map, ends);

	if (found)
		return (void *)*found;
	ends->ifindex = skb->dev ? skb->dev->ifindex : 0; /* that of a VRF, if there is one */
	found = bpf_map_lookup_elem(map, ends);
	if (found)
		return (void *)*found;
	ends->ifindex = skb->skb_iif;
	found = bpf_map_lookup_elem(map, ends);
	if (found)
		return (void *)*found;
	ends->ifindex = 0;
	return 0;
}

/* The FIN that a timewait sock in FIN_WAIT2 waits for has come, if it is in TIME_WAIT now. */
static __always_inline int fin_came(struct ends *ends, const struct sk_buff *skb)
{
	struct inet_timewait_sock *tw = find_watched(&fin_wait2, ends, skb);

	if (!tw || BPF_CORE_READ(tw, tw_substate) != TCP_TIME_WAIT)
		return 0;
	/* Two CPUs may be here with two FINs. */
	if (bpf_map_delete_elem(&fin_wait2, ends))
		return 0;
	__sync_fetch_and_add(&fin_wait2_count, -1);
	return trace_mini((void *)tw, 0, TIMEWAIT_TIMER_STARTED, TCP_TIME_WAIT, 0, 0);
}

/* The ACK of a handshake whose listener waits for data has come, if the request sock says so now. */
static __always_inline int ack_came(struct ends *ends, const struct sk_buff *skb)
{
	struct request_sock *req = find_watched(&deferred, ends, skb);

	if (!req || !BPF_CORE_READ_BITFIELD_PROBED((const struct inet_request_sock *)req, acked))
		return 0;
	if (bpf_map_delete_elem(&deferred, ends))
		return 0;
	__sync_fetch_and_add(&deferred_count, -1);
	return trace_mini((void *)req, BPF_CORE_READ(req, __req_common.skc_listener), REQUEST_ACKED, TCP_SYN_RECV, 0,
			  0);
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

/* A process has taken sk from its listener's queue. */
static __noinline int trace_accepted(void *ctx, struct sock *sk, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct about a;
	struct event *e;
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	__u16 family;

	if (!cpu || !sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, &sk->__sk_common, sk);
	a.lport = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	a.proto = BPF_CORE_READ(sk, sk_protocol);
	e = begin(cpu, &a, sk, 0, BPF_CORE_READ(sk, __sk_common.skc_state), sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->listener = 0;
	e->err = 0;
	e->kind = kind;
	e->by_task = 1;
	BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
	if (want_stacks)
		e->stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	submit(cpu, e);
	return 0;
}

/* A process has taken the socket of sk from its listener's queue: of an MPTCP connection also its subflow, which alone is there for who asks for TCP. */
static __always_inline int trace_accept(void *ctx, struct sock *sk)
{
	const struct mptcp_sock *msk = (const void *)sk;

	trace_accepted(ctx, sk, ACCEPTED);
	if (sk && bpf_core_type_exists(struct mptcp_sock) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		trace_accepted(ctx, BPF_CORE_READ(msk, first), ACCEPTED);
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

/* struct sockaddr_in, struct sockaddr_in6 */
struct address {
	__u16 family;
	__be16 port;
	union {
		__be32 v4;
		struct {
			__u32 flow;
			__u8 v6[16];
		};
	};
};

static __always_inline int trace_connect(struct sock *sk, const struct address *to, int err, enum kind kind)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	struct about a;
	struct event *e;

	if (!cpu)
		return 0;
	__sync_fetch_and_add(&cpu->seen, 1);
	read_common(&a, &sk->__sk_common, sk);
	a.proto = BPF_CORE_READ(sk, sk_protocol);
	if (kind == NO_SYN && (to->family == AF_INET || to->family == AF_INET6)) {
		a.rport = bpf_ntohs(to->port);
		if (to->family == AF_INET6)
			__builtin_memcpy(a.raddr, to->v6, sizeof(a.raddr));
		else
			map_ipv4(a.raddr, to->v4);
	}
	if (kind == NO_SYN && !wanted(&a, 0, 0)) { /* a CLOSE that connect() made was wanted, and took the tuple away */
		__sync_fetch_and_add(&cpu->filtered, 1);
		return 0;
	}
	e = reserve(cpu, &a, sk, 0, 0, sizeof(*e));
	if (!e)
		return 0;
	e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	e->listener = 0;
	e->err = err;
	e->kind = kind;
	e->by_task = 1;
	BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
	submit(cpu, e);
	return 0;
}

#define EINPROGRESS 115
#define ERESTARTSYS 512 /* include/linux/errno.h: a signal came, and the call may begin again */
#define AF_UNSPEC 0

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

#define IORING_OP_ACCEPT 13
#define IORING_CQE_F_BUFFER 1
#define IORING_CQE_F_MORE 2

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
