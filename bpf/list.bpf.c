// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel side of sstrace ls. It is an object of its own, a small part of the other one, because
 * loading is much of the time that a listing takes. What is found is decided in existing.h and
 * holders.h.
 */
#include "existing.h"
#include "holders.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Keeps the type in the object's BTF, from which bpf2go makes the struct in Go. */
const struct sock_found *const unused_sock_found = 0;

/*
 * Writes every socket of the network namespace of the process that opens the iterator, listeners
 * first.
 */

SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sock_found found = {};

	if (skc && read_existing(&found, skc))
		write_existing(ctx->meta->seq, &found);
	return 0;
}
