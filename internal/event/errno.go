package event

// Errno describes an error number that the kernel leaves in a TCP socket or that connect() returns.
type Errno struct {
	Number int32  // as in Linux's include/uapi/asm-generic/errno-base.h and errno.h, on any system
	Name   string // ECONNREFUSED
	Reason Reason // what it means by itself on a change to CLOSE; ReasonUnexplained if that is unknown
	Text   string // what the kernel means by it, in one sentence
	Source string // where it comes from, in Linux 6.18
}

// errnos holds every errno that Linux 6.18 can leave in sk_err or sk_err_soft of a TCP socket, or
// return from its connect(), in numerical order. When the retries are exhausted, tcp_write_err()
// (net/ipv4/tcp_timer.c) turns sk_err_soft into sk_err, so a connection can also end with an error
// from a route lookup.
//
// BPF programs attached to a cgroup (bpf_set_retval) and seccomp filters can make connect() return
// any other number.
var errnos = []Errno{
	{1, "EPERM", ReasonUnreachable,
		"An IPsec policy blocks the route, or a BPF program of the cgroup denied the connect().",
		"net/xfrm/xfrm_policy.c, xfrm_lookup_with_ifid; kernel/bpf/cgroup.c, " +
			"__cgroup_bpf_run_filter_sock_addr"},
	{4, "EINTR", ReasonUnexplained,
		"A signal interrupted a blocking connect() that has a time limit (SO_SNDTIMEO); the handshake " +
			"continues.",
		"include/net/sock.h, sock_intr_errno; net/ipv4/af_inet.c, __inet_stream_connect"},
	{9, "EBADF", ReasonUnexplained,
		"connect() was called with a descriptor that is not open.",
		"net/socket.c, __sys_connect"},
	{11, "EAGAIN", ReasonUnreachable,
		"An IPsec policy applies to the route, and its security association is not negotiated yet " +
			"(net.core.xfrm_larval_drop=0).",
		"net/xfrm/xfrm_policy.c, xfrm_lookup_with_ifid"},
	{12, "ENOMEM", ReasonUnexplained,
		"The kernel had no memory for the local port that connect() chose.",
		"net/ipv4/inet_hashtables.c, __inet_hash_connect"},
	{13, "EACCES", ReasonUnreachable,
		"ICMPv6 reported that the destination is administratively prohibited, fails a policy or has a reject " +
			"route; or a local route prohibits it, or a security module denied the connect().",
		"net/ipv6/icmp.c, tab_unreach; net/ipv4/fib_semantics.c, fib_props; net/ipv6/route.c, " +
			"ip6_rt_type_to_error; security/security.c, security_socket_connect"},
	{14, "EFAULT", ReasonUnexplained,
		"The address that was passed to connect() is not in readable memory.",
		"net/socket.c, move_addr_to_kernel"},
	{19, "ENODEV", ReasonUnreachable,
		"The device to which the socket is bound no longer exists.",
		"net/ipv4/route.c, ip_route_output_key_hash_rcu"},
	{22, "EINVAL", ReasonUnreachable,
		"The route is a blackhole; or connect() was called with an address that is too short, or with a link-" +
			"local one without its device.",
		"net/ipv4/fib_semantics.c, fib_props; net/ipv6/route.c, ip6_rt_type_to_error; net/ipv4/tcp_ipv4.c, " +
			"tcp_v4_connect; net/ipv6/tcp_ipv6.c, tcp_v6_connect"},
	{32, "EPIPE", ReasonResetByPeer,
		"An RST arrived in CLOSE_WAIT: the peer had already closed its side.",
		"net/ipv4/tcp_input.c, tcp_reset"},
	{64, "ENONET", ReasonUnreachable,
		"ICMP reported that the host is isolated.",
		"net/ipv4/icmp.c, icmp_err_convert"},
	{71, "EPROTO", ReasonUnreachable,
		"ICMP or ICMPv6 reported a parameter problem in a header, or ICMPv6 an error that Linux does not " +
			"know.",
		"net/ipv4/tcp_ipv4.c, tcp_v4_err; net/ipv6/icmp.c, icmpv6_err_convert"},
	{74, "EBADMSG", ReasonUnexplained,
		"Kernel TLS could not decrypt a record, or the data of an MPTCP subflow does not match its mapping.",
		"net/tls/tls_sw.c, tls_err_abort; net/mptcp/subflow.c, subflow_check_data_avail"},
	{88, "ENOTSOCK", ReasonUnexplained,
		"connect() was called with a descriptor that is not a socket.",
		"net/socket.c, __sys_connect"},
	{90, "EMSGSIZE", ReasonUnreachable,
		"ICMP reported that a segment is too big for the path.",
		"net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert"},
	{92, "ENOPROTOOPT", ReasonUnreachable,
		"ICMP reported that the host does not speak TCP (protocol unreachable).",
		"net/ipv4/icmp.c, icmp_err_convert"},
	{95, "EOPNOTSUPP", ReasonUnreachable,
		"ICMP reported that the source route failed.",
		"net/ipv4/icmp.c, icmp_err_convert"},
	{97, "EAFNOSUPPORT", ReasonUnexplained,
		"connect() was called with an address of a family other than the socket's.",
		"net/ipv4/tcp_ipv4.c, tcp_v4_connect; net/ipv6/tcp_ipv6.c, tcp_v6_connect"},
	{99, "EADDRNOTAVAIL", ReasonNoPort,
		"connect() found no local port that is free for this destination (net.ipv4.ip_local_port_range), or " +
			"the bound port already has a connection with these addresses and ports.",
		"net/ipv4/inet_hashtables.c, __inet_hash_connect, __inet_check_established"},
	{101, "ENETUNREACH", ReasonUnreachable,
		"No route leads to the destination, here or, by ICMP, on the way; or connect() was called with a " +
			"broadcast or multicast address.",
		"net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach; net/ipv4/fib_semantics.c, " +
			"fib_props; net/ipv4/tcp_ipv4.c, tcp_v4_connect"},
	{103, "ECONNABORTED", ReasonAborted,
		"An administrator ended the connection (ss -K, SOCK_DESTROY) or a BPF program did (bpf_sock_destroy).",
		"net/ipv4/tcp_diag.c, tcp_diag_destroy; net/core/filter.c, bpf_sock_destroy"},
	{104, "ECONNRESET", ReasonResetByPeer,
		"An RST arrived.",
		"net/ipv4/tcp_input.c, tcp_reset"},
	{105, "ENOBUFS", ReasonUnexplained,
		"The kernel had no memory for the SYN or for the route.",
		"net/ipv4/tcp_output.c, tcp_connect; net/ipv4/route.c, __mkroute_output"},
	{106, "EISCONN", ReasonUnexplained,
		"connect() was called on a socket that is already connected or listening.",
		"net/ipv4/af_inet.c, __inet_stream_connect"},
	{110, "ETIMEDOUT", ReasonTimedOut,
		"What was sent was not acknowledged in time, or keep-alive probes were not answered (keepalive).",
		"net/ipv4/tcp_timer.c, tcp_write_err"},
	{111, "ECONNREFUSED", ReasonRefused,
		"An RST answered the SYN, or ICMP reported that the port is unreachable (port_unreachable).",
		"net/ipv4/tcp_input.c, tcp_reset; net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach"},
	{112, "EHOSTDOWN", ReasonUnreachable,
		"ICMP reported that the host is unknown.",
		"net/ipv4/icmp.c, icmp_err_convert"},
	{113, "EHOSTUNREACH", ReasonUnreachable,
		"ICMP reported that the host is unreachable or prohibited or that the time to live was exceeded; or a " +
			"local route is unreachable, or the neighbour did not answer ARP or ND.",
		"net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert; net/ipv4/route.c, " +
			"ipv4_link_failure; net/ipv4/fib_semantics.c, fib_props"},
	{114, "EALREADY", ReasonUnexplained,
		"connect() was called again while a non-blocking connect() is under way.",
		"net/ipv4/af_inet.c, __inet_stream_connect"},
	{115, "EINPROGRESS", ReasonUnexplained,
		"A non-blocking connect() has sent its SYN and is waiting for the answer: not a failure.",
		"net/ipv4/af_inet.c, __inet_stream_connect"},
	{129, "EKEYREJECTED", ReasonUnexplained,
		"The socket has TCP-AO keys, and none of them is for this destination.",
		"net/ipv4/tcp_output.c, tcp_connect"},
}

// Errnos returns all known errnos, in numerical order.
func Errnos() []Errno { return errnos }

// ErrnoName returns the name of number, or "" if it is unknown.
func ErrnoName(number int32) string {
	if e := findErrno(number); e != nil {
		return e.Name
	}
	return ""
}

// ErrnoReason returns the reason that number in sk_err means by itself on a change to CLOSE, or
// ReasonUnexplained.
func ErrnoReason(number int32) Reason {
	if e := findErrno(number); e != nil {
		return e.Reason
	}
	return ReasonUnexplained
}

func findErrno(number int32) *Errno {
	for i := range errnos {
		if errnos[i].Number == number {
			return &errnos[i]
		}
	}
	return nil
}
