/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SOCK_DESTROY, the request by which ss -K ends a socket. */
#pragma once

#include "kernel.h"

/* Whether bpf_task_pt_regs exists (from 5.15 on). */
const volatile bool have_task_pt_regs = false;

#define SOCK_DESTROY 21 /* include/uapi/linux/sock_diag.h */
#define NETLINK_SOCK_DIAG 4 /* include/uapi/linux/netlink.h */
#define MSG_IOV 16 /* the offset of msg_iov in struct user_msghdr (include/linux/socket.h) */
#define X86_64_SENDTO 44 /* arch/x86/entry/syscalls/syscall_64.tbl */
#define X86_64_SENDMSG 46
#define ARM64_SENDTO 206 /* include/uapi/asm-generic/unistd.h */
#define ARM64_SENDMSG 211

/*
 * Reports whether the current task is inside sendmsg() or sendto() with a request to destroy the
 * socket that has these ports. The request is a struct inet_diag_req_v2 that follows a struct
 * nlmsghdr (sock_diag_destroy in net/core/sock_diag.c). A request made by another system call is
 * not recognised. A softirq may interrupt such a task, so any other explanation for the end of the
 * socket takes precedence.
 */
static __noinline bool destroy_requested(__u16 lport, __u16 rport)
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
	if (bpf_core_field_exists(regs->orig_ax)) {
		unsigned long nr = BPF_CORE_READ(regs, orig_ax);

		if (nr != X86_64_SENDTO && nr != X86_64_SENDMSG)
			return false;
		is_sendmsg = nr == X86_64_SENDMSG;
		fd = BPF_CORE_READ(regs, di);
		arg = BPF_CORE_READ(regs, si);
	} else {
		struct pt_regs___arm64 *arm64 = (void *)regs;
		int nr = BPF_CORE_READ(arm64, syscallno);

		if (nr != ARM64_SENDTO && nr != ARM64_SENDMSG)
			return false;
		is_sendmsg = nr == ARM64_SENDMSG;
		fd = BPF_CORE_READ(arm64, orig_x0);
		arg = BPF_CORE_READ(arm64, regs[1]);
	}
	sk = sock_of(file_of(fd));
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) != AF_NETLINK ||
	    BPF_CORE_READ(sk, sk_protocol) != NETLINK_SOCK_DIAG)
		return false;
	if (is_sendmsg && (bpf_probe_read_user(&arg, sizeof(arg), (void *)arg + MSG_IOV) ||
			   bpf_probe_read_user(&arg, sizeof(arg), (void *)arg)))
		return false;
	return !bpf_probe_read_user(&message, sizeof(message), (void *)arg) &&
	       message.type == SOCK_DESTROY && bpf_ntohs(message.sport) == lport &&
	       bpf_ntohs(message.dport) == rport;
}
