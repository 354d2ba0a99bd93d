/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is known about a socket as it closes. */
#pragma once

#include "event.h"

/*
 * Sets the CLOSING_ bits of sk, which is leaving the state old. tp is sk, or null if sk is not a
 * TCP sock. The bits are collected in the memory of the record, which the verifier does not track.
 * Otherwise it would follow every combination of bits.
 */
static __always_inline void closing(volatile enum closing *bits, const struct sock *sk,
				    const struct tcp_sock *tp, int old, bool in_connect)
{
	unsigned long flags = sk->__sk_common.skc_flags;
	bool fin_came = has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_DONE));

	*bits = 0;
	if (sk->sk_shutdown == SHUTDOWN_MASK)
		*bits |= CLOSING_SHUT;
	if (sk->sk_shutdown & RCV_SHUTDOWN)
		*bits |= CLOSING_RECV_SHUT;
	if (has_flag(flags, bpf_core_enum_value(enum sock_flags, SOCK_LINGER)) &&
	    !sk->sk_lingertime)
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
			*bits |= CLOSING_TIME_WAIT_FULL;
	}
	if (!tp)
		return;
	if (tp->linger2 < 0)
		*bits |= CLOSING_NO_FIN_WAIT2;
	/*
	 * The queues have been purged (tcp_done_with_error in net/ipv4/tcp_input.c, __tcp_close in
	 * tcp.c), but these numbers are still valid.
	 */
	if (tp->write_seq != tp->snd_una)
		*bits |= CLOSING_UNACKED;
	if (tp->write_seq != tp->snd_nxt)
		*bits |= CLOSING_UNSENT;
	/* A FIN that has been read is included in both numbers. */
	if ((__s32)(tp->rcv_nxt - tp->copied_seq - fin_came) > 0)
		*bits |= CLOSING_UNREAD;
	if (BPF_CORE_READ_BITFIELD(tp, repair))
		*bits |= CLOSING_REPAIR;
	if (!tp->segs_out)
		*bits |= CLOSING_NO_SEGMENT;
}

#define SO_EE_ORIGIN_ICMP 2 /* include/uapi/linux/errqueue.h */
#define SO_EE_ORIGIN_ICMP6 3

/*
 * Returns the errno that ICMP reported while a connect() held the lock of sk, or 0. Such a message
 * does not close the socket (tcp_v4_err, tcp_v6_err), but the program gets the error. Reading
 * SO_ERROR clears sk_err_soft. From 6.0 on, the message is also in the error queue.
 */
static __always_inline int icmp_error(const struct sock *sk)
{
	const struct sk_buff *skb = sk->sk_error_queue.next;
	const struct sock_exterr_skb *queued =
		(const void *)skb + bpf_core_field_offset(struct sk_buff, cb);
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
