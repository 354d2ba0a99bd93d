/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The filter. */
#pragma once

#include "sock.h"
#include "state.h"

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

/* User space fills it before attaching. */
__u8 ports[65536];

/* This kernel gives an accepted socket its remote end only after LISTEN -> SYN_RECV (up to 6.12); set when seen. */
bool remote_comes_late;

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
