// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What sstrace ls needs of the kernel side. It has an object of its own, a small part of the other one, for much of what a listing takes is loading.
 */
#include "existing.h"
#include "holders.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Every socket of the network namespace of whoever opens the iterator, listeners first. */
SEC("iter/tcp")
int sockets(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct sock_found found = {};

	if (skc && read_existing(&found, skc))
		write_existing(ctx->meta->seq, &found);
	return 0;
}
