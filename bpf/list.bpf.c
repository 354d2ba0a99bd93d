// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel side of sstrace ls. It is a separate object, a small part of the other one, because
 * loading takes up much of the time of a listing. existing.h and holders.h decide what is found.
 */
#include "existing.h"
#include "holders.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Keeps the type in the object's BTF, from which bpf2go generates the struct in Go. */
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
