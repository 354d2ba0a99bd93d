/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that bpf/ reads. They are written by hand, and contain only the members that are
 * used, in any order. With preserve_access_index, clang records each access by name, and the loader
 * (CO-RE) inserts the offset in the running kernel. A type whose shape has changed is declared once
 * more with a ___suffix, which CO-RE ignores when it looks up the name.
 */
#ifndef VMLINUX_H
#define VMLINUX_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
enum { false, true };

/* include/uapi/linux/bpf.h. This is user-space API, so the values are the same on every kernel. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_STACK_TRACE = 7,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST };

enum { BPF_F_NO_PREALLOC = 1 << 0, BPF_F_USER_STACK = 1 << 8 };

enum { BPF_RB_NO_WAKEUP = 1 << 0, BPF_RB_FORCE_WAKEUP = 1 << 1 };

/* include/net/tcp_states.h. The numbers are user-space API (bpf_sock_ops, inet_diag). */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

/* include/uapi/linux/if_ether.h */
enum {
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86dd,
};

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	AF_NETLINK = 16,
	IPPROTO_TCP = 6,
	IPPROTO_SCTP = 132,
	IPPROTO_MPTCP = 262,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct ns_common {
	__u32 inum;
	refcount_t __ns_ref; /* from 6.18 */
	refcount_t count; /* from 5.11 to 6.17 */
};

struct inet_timewait_death_row {
	refcount_t tw_refcount; /* from 5.18 */
	int sysctl_max_tw_buckets;
};

struct inet_timewait_death_row___before_5_18 {
	atomic_t tw_count;
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row;
	int sysctl_tcp_fin_timeout;
};

struct netns_ipv4___from_5_18_to_6_0 {
	struct inet_timewait_death_row *tcp_death_row;
};

struct hlist_node {
	struct hlist_node *next;
	struct hlist_node **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
	struct netns_ipv4 ipv4;
};

struct net___before_5_11 {
	refcount_t count;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[]; /* from 6.1 */
};

struct cgroup___before_6_1 {
	__u64 ancestor_ids[];
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* from 5.16 */
};

struct sock_cgroup_data___before_5_16 {
	__u64 val; /* the same pointer; bit 0: cgroup v1's net_cls or net_prio is in use */
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_ipv6only : 1;
	int skc_bound_dev_if; /* ir_iif in a request sock */
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags; /* in a sock: bits of enum sock_flags */
	struct sock *skc_listener; /* in a request sock */
};

struct timer_list {
	struct hlist_node entry;
	unsigned long expires;
	void (*function)(struct timer_list *);
};

typedef struct {
	int owned;
} socket_lock_t;

struct socket;

struct sk_buff_head {
	struct sk_buff *next;
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	__u8 sk_shutdown;
	__u16 sk_protocol;
	int sk_err;
	int sk_err_soft;
	struct sk_buff_head sk_error_queue;
	kuid_t sk_uid;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
	struct timer_list sk_timer; /* up to 6.19: keep-alive, and an orphan in FIN_WAIT2 */
	struct timer_list tcp_retransmit_timer; /* from 7.0 */
	struct socket *sk_socket;
	unsigned long sk_lingertime;
};

/* include/net/sock.h. CO-RE inserts the numbers of the running kernel. */
enum sock_flags {
	SOCK_DEAD,
	SOCK_DONE,
	SOCK_KEEPOPEN,
	SOCK_LINGER,
};

struct inet_sock {
	__be32 inet_saddr;
	__be16 inet_sport;
};

struct request_sock_queue {
	__u8 rskq_defer_accept;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	struct timer_list icsk_retransmit_timer; /* up to 6.19 */
	struct timer_list icsk_keepalive_timer; /* from 7.0 */
	__u32 icsk_rto;
	void *icsk_ulp_data;
	__u8 icsk_retransmits;
	const struct tcp_congestion_ops *icsk_ca_ops;
};

struct request_sock {
	struct sock_common __req_common;
	__u8 num_retrans;
	__u8 num_timeout : 7;
	struct timer_list rsk_timer;
};

struct inet_request_sock {
	__u16 acked : 1;
};

struct tcp_request_sock {
	__u64 snt_synack;
	__u32 rcv_isn;
};

struct inet_timewait_sock {
	struct sock_common __tw_common;
	volatile unsigned char tw_substate;
	struct timer_list tw_timer;
};

struct tcp_congestion_ops {
	char name[16];
};

struct minmax_sample {
	__u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_sock {
	int linger2;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u64 tcp_mstamp;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 segs_out;
	__u32 segs_in;
	__u32 data_segs_out;
	__u32 total_retrans;
	__u32 srtt_us;
	struct minmax rtt_min;
	__u8 repair : 1;
	bool is_mptcp; /* it is a subflow; only with CONFIG_MPTCP */
};

/* The icsk_ulp_data of a subflow. It exists only with CONFIG_MPTCP. */
struct mptcp_subflow_context {
	struct sock *conn; /* the MPTCP socket */
};

struct mptcp_sock {
	struct sock *first; /* the first subflow; null once it is gone */
};

typedef enum {
	SS_UNCONNECTED = 1,
} socket_state;

struct socket {
	socket_state state;
	struct file *file;
	struct sock *sk;
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
	void *private_data;
};

struct net_device {
	possible_net_t nd_net;
	int ifindex;
	char name[16];
	struct hlist_node index_hlist;
};

struct sock_extended_err {
	__u32 ee_errno;
	__u8 ee_origin;
};

struct sock_exterr_skb { /* sk_buff.cb in an error queue */
	struct sock_extended_err ee;
};

struct sk_buff {
	struct net_device *dev;
	int skb_iif;
	char cb[48];
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[]; /* from the initial namespace to the process's own */
};

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	int tgid;
	unsigned int flags;
	struct pid *thread_pid;
	struct signal_struct *signal;
	struct files_struct *files;
	char comm[16];
	struct task_struct *group_leader;
};

struct pt_regs {
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
};

struct io_uring_cqe {
	__s32 res;
	__u32 flags;
};

struct io_kiocb {
	__u8 opcode;
};

struct io_accept { /* a struct io_kiocb whose opcode is IORING_OP_ACCEPT starts with this */
	__u32 file_slot;
};

struct io_rsrc_node {
	unsigned long file_ptr;
};

struct io_rsrc_data {
	unsigned int nr;
	struct io_rsrc_node **nodes;
};

struct io_file_table {
	struct io_rsrc_data data; /* from 6.13 */
};

struct io_ring_ctx {
	struct io_file_table file_table;
};

struct io_fixed_file {
	unsigned long file_ptr;
};

struct io_file_table___before_6_13 {
	struct io_fixed_file *files;
};

struct io_ring_ctx___before_6_13 {
	struct io_file_table___before_6_13 file_table;
	unsigned int nr_user_files;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* The record of a syscalls/sys_enter_* tracepoint, as its format file in tracefs describes it. */
struct sys_enter {
	__u64 common;
	__s32 nr;
	__u64 args[6];
};

/* The record of a syscalls/sys_exit_* tracepoint. */
struct sys_exit {
	__u64 common;
	__s32 nr;
	__s64 ret;
};

#endif
