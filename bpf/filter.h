/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides which events are wanted. The filter here is only a sieve: it passes everything that may
 * match. internal/filter makes the final decision.
 */
#pragma once

#include "sock.h"
#include "state.h"

/*
 * All of these are set before loading. A filter that is off is a constant false, so the verifier
 * removes its code. The PORT_ bits are the bits in ports[]. There are only a few families and
 * protocols, so each has its own flag.
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
const volatile __u8 filter_ports = 0; /* the PORT_ bits to filter by */
const volatile bool filter_hosts = false;
const volatile bool filter_netns = false;
const volatile bool filter_uid = false;
const volatile bool filter_cgroup = false;

/* Filled in by user space before attaching. */
__u8 ports[65536];

/*
 * Set when LISTEN -> SYN_RECV is seen without a remote address. It means that this kernel (6.12 or
 * earlier) sets the address only afterwards.
 */
bool remote_comes_late;

/*
 * Reports whether the filter names the cgroup or an ancestor of it. The depth is limited for the
 * verifier. systemd nests about 6 levels deep.
 */
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

			bpf_probe_read_kernel(
				&up, sizeof(up),
				(const void *)cgrp +
					bpf_core_field_offset(struct cgroup, ancestors) +
					i * sizeof(up));
			id = BPF_CORE_READ(up, kn, id);
		} else {
			bpf_probe_read_kernel(&id, sizeof(id),
					      (const void *)cgrp + before_6_1 + i * sizeof(id));
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
 * Reports whether an event passes the filter. Four kinds of change pass although their own tuple
 * does not match, because the connection may:
 *   - CLOSE -> SYN_SENT of an unbound client, whose port is chosen after the change
 *   - LISTEN -> SYN_RECV up to 6.12, which has no remote address yet
 *   - the change after either, which supplies what the first one lacked
 *   - those of a listener, so that the owner of later connections is known
 */
static __noinline bool wanted(const struct sock_info *info, int old, int new)
{
	if (!((info->proto == IPPROTO_TCP && want_tcp) ||
	      (info->proto == IPPROTO_MPTCP && want_mptcp) ||
	      (info->proto == IPPROTO_SCTP && want_sctp)))
		return false;
	if (filter_netns && !bpf_map_lookup_elem(&netnses, &info->netns))
		return false;
	if (filter_uid && info->user_known && !bpf_map_lookup_elem(&uids, &info->uid))
		return false;
	if (filter_cgroup && info->user_known && !in_cgroups(info->cgroup))
		return false;

	if (new == TCP_LISTEN || (old == TCP_LISTEN && new == TCP_CLOSE))
		return true;
	if (old == TCP_LISTEN && !info->rport) {
		remote_comes_late = true;
		return true;
	}
	if (old == TCP_SYN_RECV && remote_comes_late)
		return true;

	if (!want_ipv4 || !want_ipv6) {
		bool ipv4 = info->family == AF_INET || is_mapped(info->raddr);

		if (ipv4 ? !want_ipv4 : !want_ipv6)
			return false;
	}
	if (filter_hosts && !host_wanted(info->laddr) && !host_wanted(info->raddr))
		return false;
	if (filter_ports && !ports_match(info->lport, info->rport)) {
		if (!(filter_ports & (PORT_EITHER | PORT_LOCAL)))
			return false;
		if ((filter_ports & PORT_REMOTE) && !(ports[info->rport] & PORT_REMOTE))
			return false;
		return (new == TCP_SYN_SENT && (!info->lport || info->port_stale)) ||
		       old == TCP_SYN_SENT;
	}
	return true;
}
