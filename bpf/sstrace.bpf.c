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

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* One state change as the kernel tells it. internal/probe reads it in place: see record.go before changing a member. */
struct event {
	__u64 mono_ns; /* CLOCK_MONOTONIC, the only clock read of this change */
	__u64 sk;
	__u64 cookie; /* 0: this kernel gives none */
	__u64 cgroup_id; /* 0: unknown */
	__u64 losses; /* changes that found the ring full, host-wide, before this one */
	__u32 netns;
	__u32 uid;
	__u32 cpu;
	__u32 task_pid; /* thread group of the current task, whoever that is */
	__s32 err; /* sk_err */
	__u16 family;
	__u16 proto;
	__u16 lport; /* host byte order, as rport; 0: not known yet */
	__u16 rport;
	__u8 old_state;
	__u8 new_state;
	__u8 by_task; /* the current task made this change by its own call: it is the owner */
	__u8 is_second; /* by change_missed */
	__u8 laddr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 raddr[16];
	__u8 task_comm[16]; /* the thread's */
	__u8 owner_comm[16]; /* the process's, set if by_task */
};

_Static_assert(sizeof(struct event) == 136, "struct event: no holes, and in step with record.go");

/* A socket that is older than the tracer, or a process that holds one: what the iterators write. */
struct sock_found {
	__u64 mono_ns;
	__u64 sk;
	__u64 cookie;
	__u64 cgroup_id;
	__u32 netns;
	__u32 uid;
	__u32 holder_pid; /* 0 from iter/tcp; from iter/task_file the rest is 0, but sk and netns */
	__u32 holder_fd;
	__u32 accept_backlog; /* listen()'s, and inherited by accepted sockets; 0 in a client */
	__u16 family;
	__u16 proto;
	__u16 lport;
	__u16 rport;
	__u8 state;
	__u8 pad[3];
	__u8 laddr[16];
	__u8 raddr[16];
	__u8 holder_comm[16];
};

_Static_assert(sizeof(struct sock_found) == 112, "struct sock_found: no holes, and in step with snapshot.go");

/* For bpf2go's -type: a struct that no map names is not in the object's BTF unless something points to it. */
const struct event *unused_event __attribute__((unused));
const struct sock_found *unused_sock_found __attribute__((unused));

/*
 * Set before loading. A filter that is off is a constant false, and the verifier removes its code.
 * Ports: bits of ports[]. Families and protocols are few, so they are flags.
 */
enum {
	PORT_EITHER = 1 << 0,
	PORT_LOCAL = 1 << 1,
	PORT_REMOTE = 1 << 2,
};

const volatile bool have_cookie = true; /* bpf_get_socket_cookie in tracing programs: from 5.12 */
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

/* A change that `change` took and `change_missed` has not checked yet. */
struct taken {
	__u64 sk;
	__u64 states;
};

#define TAKEN_DEPTH 4 /* task, softirq, hardirq, and one to spare */

struct cpu {
	__u64 seen; /* = filtered + emitted + ring_full once no program runs */
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 covered; /* changes that `change` missed and `change_missed` took */
	__u32 depth;
	__u32 pad;
	struct taken taken[TAKEN_DEPTH];
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

/* Both ends of a socket, read the way the tracepoint does (TP_fast_assign in include/trace/events/sock.h). */
struct tuple {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u16 family;
};

static __always_inline void map_ipv4(__u8 *to, __be32 addr)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &addr, 4);
}

/*
 * inet_sock's members need a probe read (a direct load is "access beyond struct sock"). Its port is asked, not skc_num,
 * which is already 0 at the last change.
 */
static __always_inline void read_tuple(struct tuple *t, const struct sock *sk)
{
	const struct inet_sock *inet = (const struct inet_sock *)sk;

	t->family = sk->__sk_common.skc_family;
	t->lport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	t->rport = bpf_ntohs(sk->__sk_common.skc_dport);
	if (t->family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		bpf_core_read(&t->laddr, sizeof(t->laddr), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&t->raddr, sizeof(t->raddr), &sk->__sk_common.skc_v6_daddr);
	} else {
		map_ipv4(t->laddr, BPF_CORE_READ(inet, inet_saddr));
		map_ipv4(t->raddr, sk->__sk_common.skc_daddr);
	}
}

static __always_inline const struct cgroup *cgroup_of(const struct sock *sk)
{
	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	const struct sock_cgroup_data___before_5_16 *data = (const void *)&sk->sk_cgrp_data;
	__u64 val = BPF_CORE_READ(data, val);

	return val & 1 ? 0 : (const struct cgroup *)(val & ~3ULL);
}

static __always_inline __u64 cgroup_id(const struct sock *sk)
{
	const struct cgroup *cgrp = cgroup_of(sk);

	return cgrp ? BPF_CORE_READ(cgrp, kn, id) : 0;
}

/* The socket's cgroup or one above it is asked for. Depth is bounded for the verifier; systemd nests 6 deep or so. */
static __always_inline bool in_cgroups(const struct sock *sk)
{
	const struct cgroup *cgrp = cgroup_of(sk);
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
static __always_inline bool wanted(const struct sock *sk, const struct tuple *t, __u16 proto, int old, int new)
{
	if (!((proto == IPPROTO_TCP && want_tcp) || (proto == IPPROTO_MPTCP && want_mptcp) ||
	      (proto == IPPROTO_SCTP && want_sctp)))
		return false;

	if (filter_netns) {
		__u32 inum = sk->__sk_common.skc_net.net->ns.inum;

		if (!bpf_map_lookup_elem(&netnses, &inum))
			return false;
	}
	if (filter_uid) {
		__u32 uid = sk->sk_uid.val;

		if (!bpf_map_lookup_elem(&uids, &uid))
			return false;
	}
	if (filter_cgroup && !in_cgroups(sk))
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
		return (new == TCP_SYN_SENT && !t->lport) || old == TCP_SYN_SENT;
	}
	return true;
}

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

/* Filter, reserve, fill, submit. seen counts first and one of the other three last: when they balance, nobody is here. */
static __always_inline int trace(struct cpu *cpu, const struct sock *sk, int old, int new, bool is_second)
{
	struct tuple t;
	struct event *e;
	__u64 flags = BPF_RB_NO_WAKEUP;
	__u16 proto = sk->sk_protocol;

	__sync_fetch_and_add(&cpu->seen, 1);
	read_tuple(&t, sk);
	if (!wanted(sk, &t, proto, old, new)) {
		__sync_fetch_and_add(&cpu->filtered, 1);
		return 0;
	}

	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&losses, 1);
		__sync_fetch_and_add(&cpu->ring_full, 1);
		return 0;
	}
	e->mono_ns = bpf_ktime_get_ns();
	e->sk = (__u64)sk;
	/* A child whose remote end comes late gets its real cookie late, too: the one asked for now would be thrown away. */
	if (have_cookie && !(old == TCP_LISTEN && new == TCP_SYN_RECV && !t.rport))
		e->cookie = bpf_get_socket_cookie((void *)sk);
	else
		e->cookie = have_cookie ? 0 : sk->__sk_common.skc_cookie.counter;
	e->cgroup_id = cgroup_id(sk);
	e->losses = *(volatile __u64 *)&losses;
	e->netns = sk->__sk_common.skc_net.net->ns.inum;
	e->uid = sk->sk_uid.val;
	e->cpu = bpf_get_smp_processor_id();
	e->task_pid = bpf_get_current_pid_tgid() >> 32;
	e->err = sk->sk_err;
	e->family = t.family;
	e->proto = proto;
	e->lport = t.lport;
	e->rport = t.rport;
	e->old_state = old;
	e->new_state = new;
	e->by_task = by_task(sk, old, new);
	e->is_second = is_second;
	__builtin_memcpy(e->laddr, t.laddr, sizeof(e->laddr));
	__builtin_memcpy(e->raddr, t.raddr, sizeof(e->raddr));
	bpf_get_current_comm(e->task_comm, sizeof(e->task_comm));
	if (e->by_task) {
		struct task_struct *task = (void *)bpf_get_current_task(); /* its _btf sibling is from 5.11 */

		BPF_CORE_READ_INTO(&e->owner_comm, task, group_leader, comm);
	} else {
		__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	}

	if (reader_waiting) {
		reader_waiting = 0;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(e, flags);
	__sync_fetch_and_add(&cpu->emitted, 1);
	return 0;
}

/*
 * The kernel skips a tracing program that is already running on this CPU (bpf_trace_run's prog->active, from 6.1). A
 * softirq that interrupts `change` and changes a state itself would thus be lost, told by recursion_misses only. So a second,
 * tiny program stands behind the first on the same tracepoint. The first pushes what it takes; the second pops it, or finds
 * that the first was skipped, and then takes the change itself. Interrupts nest, so it is a stack, and only its top counts:
 * what was left below by a second program that was skipped itself must not be taken for a change of later. Then it may
 * happen (where an interrupt comes just before the pop, or, from 7.0, a task is preempted between the two programs) that a
 * change is taken twice: the second record says so (is_second), and user space drops it if it has the first.
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
	barrier();
}

static __always_inline bool pop(struct cpu *cpu, const struct sock *sk, int old, int new)
{
	__u32 top = cpu->depth - 1;

	if (top >= TAKEN_DEPTH || cpu->taken[top].sk != (__u64)sk || cpu->taken[top].states != states(old, new))
		return false;
	cpu->depth = top;
	return true;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change, const struct sock *sk, const int old, const int new)
{
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!cpu)
		return 0;
	push(cpu, sk, old, new);
	return trace(cpu, sk, old, new, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(change_missed, const struct sock *sk, const int old, const int new)
{
	__u32 zero = 0;
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);

	if (!cpu || pop(cpu, sk, old, new))
		return 0;
	__sync_fetch_and_add(&cpu->covered, 1);
	return trace(cpu, sk, old, new, true);
}

/* Every full socket of the network namespace of whoever opens the iterator; request and timewait socks are skipped. */
SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sock_found found = {};
	struct tuple t;
	struct sock *sk;

	if (!skc || skc->skc_state == TCP_NEW_SYN_RECV || skc->skc_state == TCP_TIME_WAIT)
		return 0;
	sk = (struct sock *)skc;
	read_tuple(&t, sk);
	found.mono_ns = bpf_ktime_get_ns();
	found.sk = (__u64)sk;
	found.cookie = have_cookie ? bpf_get_socket_cookie(skc) : BPF_CORE_READ(skc, skc_cookie.counter);
	found.cgroup_id = cgroup_id(sk);
	found.netns = BPF_CORE_READ(skc, skc_net.net, ns.inum);
	found.uid = BPF_CORE_READ(sk, sk_uid.val);
	found.accept_backlog = BPF_CORE_READ(sk, sk_max_ack_backlog);
	found.family = t.family;
	found.proto = BPF_CORE_READ(sk, sk_protocol);
	found.lport = t.lport;
	found.rport = t.rport;
	found.state = skc->skc_state;
	__builtin_memcpy(found.laddr, t.laddr, sizeof(found.laddr));
	__builtin_memcpy(found.raddr, t.raddr, sizeof(found.raddr));
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/*
 * Every file descriptor of the host that is a socket; user space joins them by sk. A socket's file has a socket's inode
 * mode and its struct socket in private_data (net/socket.c, sock_alloc_file); an O_PATH descriptor has no private_data.
 */
SEC("iter/task_file")
int holders(struct bpf_iter__task_file *ctx)
{
	struct sock_found found = {};
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;
	__u16 proto, family;

	if (!task || !file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = file->private_data;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	proto = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) ||
	    (proto != IPPROTO_TCP && proto != IPPROTO_MPTCP && proto != IPPROTO_SCTP))
		return 0;
	found.sk = (__u64)sk;
	found.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	found.holder_pid = task->tgid;
	found.holder_fd = ctx->fd;
	BPF_CORE_READ_INTO(&found.holder_comm, task, group_leader, comm);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}
