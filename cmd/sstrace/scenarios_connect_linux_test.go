package main

import (
	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// connectScenarios are connect() calls that fail.
var connectScenarios = []scenario{
	{
		name: "refused",
		traffic: func(h *host) {
			c := h.socket(unix.AF_INET)
			c.refused()
			c.close()
		},
		want: clientOnly("CLOSE", event.ReasonRefused),
	},
	{
		name:    "refused twice with one socket",
		since:   kernelVersion{5, 12},
		traffic: refusedTwice,
		want: paths{
			rfc:    []string{"client CLOSE SYN_SENT CLOSE (refused) SYN_SENT CLOSE (refused)"},
			kernel: []string{"client CLOSE SYN_SENT CLOSE SYN_SENT CLOSE"},
		},
	},
	{
		// Without cookies, nothing shows that both attempts use the same socket.
		name:    "refused twice with one socket without a cookie",
		before:  kernelVersion{5, 12},
		traffic: refusedTwice,
		want: paths{
			rfc:    []string{"client CLOSE SYN_SENT CLOSE (refused)", "client CLOSE SYN_SENT CLOSE (refused)"},
			kernel: []string{"client CLOSE SYN_SENT CLOSE", "client CLOSE SYN_SENT CLOSE"},
		},
	},
	{
		name: "full accept queue drops the SYN",
		traffic: func(h *host) {
			l := h.listen(loopbackAddr, 0) // a queue for one connection
			first := h.dial(loopbackAddr)
			h.awaitStates(2, unix.BPF_TCP_ESTABLISHED)
			second := h.socket(unix.AF_INET)
			second.timesOut(loopbackAddr)
			second.close()
			resetBoth(l.accept(), first)
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, clientReset + " (reset_by_peer)", serverReset + " (reset_sent_linger)",
				"client CLOSE SYN_SENT CLOSE (timeout)",
			},
			kernel: []string{ordinaryListener, clientReset, serverReset, "client CLOSE SYN_SENT CLOSE"},
		},
	},
	{
		name: "connect to a black hole",
		traffic: onWire(func(w *wire) {
			c := w.h.socket(unix.AF_INET)
			c.timesOut(peerAddr)
			c.close()
		}),
		want: clientOnly("CLOSE", event.ReasonTimedOut),
	},
	{
		name: "ICMP host unreachable",
		traffic: onWire(func(w *wire) {
			c := w.connect()
			w.unreachable(w.receive(syn))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("CLOSE", event.ReasonUnreachable),
	},
	{
		name: "connect given up",
		traffic: onWire(func(w *wire) {
			c := w.connect()
			w.receive(syn)
			c.close()
		}),
		want: clientOnly("CLOSE", event.ReasonGivenUp),
	},
}

// refused connects to a port at which nobody listens.
func (s sock) refused() {
	if err := unix.Connect(s.fd, mustSockaddr(loopbackAddr)); err != unix.ECONNREFUSED {
		s.h.t.Errorf("connect: got %v, want %v", err, unix.ECONNREFUSED)
	}
}

func refusedTwice(h *host) {
	c := h.socket(unix.AF_INET)
	c.refused()
	c.refused()
	c.close()
}

// timesOut connects to an address that does not answer.
func (s sock) timesOut(addr string) {
	s.option(unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1)
	if err := unix.Connect(s.fd, mustSockaddr(addr)); err != unix.ETIMEDOUT {
		s.h.t.Errorf("connect: got %v, want %v", err, unix.ETIMEDOUT)
	}
}

// handshakeScenarios are the server's ends of handshakes, most of which fail.
var handshakeScenarios = []scenario{
	{
		name: "abandoned handshake",
		traffic: onWire(func(w *wire) {
			w.h.sysctl("tcp_synack_retries", "1")
			l := w.h.listen(hostAddr, 8)
			w.knock()
			w.receive(syn | ack)
			w.h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
			l.close()
		}),
		want: halfOpenOnly(event.ReasonHandshakeAbandoned),
	},
	{
		name: "listener closed during the handshake",
		traffic: onWire(func(w *wire) {
			l := w.h.listen(hostAddr, 8)
			w.knock()
			l.close()
			w.h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
		}),
		want: halfOpenOnly(event.ReasonListenerClosed),
	},
	{
		name: "SYN arrives twice",
		traffic: onWire(func(w *wire) {
			w.h.sysctl("tcp_invalid_ratelimit", "0") // answer every retransmitted SYN
			l := w.h.listen(hostAddr, 8)
			w.knock()
			w.send(w.knock().reply(ack))
			l.acceptAndReset()
			l.close()
		}),
		want: serverOnly("ESTABLISHED CLOSE", event.ReasonResetSentLinger),
	},
	{
		name: "reset during the handshake",
		traffic: onWire(func(w *wire) {
			l := w.h.listen(hostAddr, 8)
			w.send(w.knock().reply(rst))
			w.h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
			l.close()
		}),
		want: halfOpenOnly(event.ReasonResetByPeer),
	},
	{
		name:    "handshake aborted by ss -K",
		since:   kernelVersion{5, 15},
		traffic: onWire(handshakeDestroyed),
		want:    halfOpenOnly(event.ReasonAborted),
	},
	{
		name:    "handshake aborted by ss -K, unseen", // see destroy_requested in bpf/diag.h
		before:  kernelVersion{5, 15},
		traffic: onWire(handshakeDestroyed),
		want:    halfOpenOnly(event.ReasonUnexplained),
	},
	{
		name: "reset of a Fast Open connection in SYN_RECV",
		traffic: onWire(func(w *wire) {
			w.h.sysctl("tcp_fastopen", fastOpenWithoutCookie)
			l := w.h.listen(hostAddr, 8)
			first := synTo(peerAddr, hostAddr)
			first.data = 1
			w.send(first)
			s := l.accept()
			reset := w.receive(syn | ack).reply(rst)
			reset.seq = first.seq + 2
			w.send(reset)
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}),
		want: serverOnly("CLOSE", event.ReasonResetByPeer),
	},
	{
		name:    "accept queue full at the ACK",
		traffic: onWire(acceptQueueFull),
		want: paths{
			rfc: []string{
				rfcListener, "server LISTEN SYN_RECV CLOSE (accept_queue_full)",
				serverReset + " (reset_sent_linger)", serverReset + " (reset_sent_linger)",
				serverReset + " (reset_sent_linger)",
			},
			kernel: []string{ordinaryListener, serverReset, serverReset, serverReset},
		},
	},
	{
		name:      "full SYN queue drops the SYN",
		traffic:   onWire(synQueueFull),
		want:      halfOpenOnly(event.ReasonResetByPeer),
		anyNumber: true,
	},
}

func handshakeDestroyed(w *wire) {
	l := w.h.listen(hostAddr, 8)
	w.knock()
	w.h.destroy("syn-recv", "src", hostAddr)
	w.h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
	l.close()
}

func acceptQueueFull(w *wire) {
	h := w.h
	h.sysctl("tcp_synack_retries", "1")
	l := h.listen(hostAddr, 2) // full with three connections
	knock := func(port uint16) segment {
		w.send(synTo(peerAddr, hostAddr).fromPort(port))
		return w.receive(syn | ack)
	}
	for port := range uint16(2) {
		w.send(knock(40001 + port).reply(ack))
	}
	third, fourth := knock(40003), knock(40004)
	w.send(third.reply(ack))
	h.awaitStates(3, unix.BPF_TCP_ESTABLISHED)
	w.send(fourth.reply(ack)) // this ACK is dropped
	h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
	for range 3 {
		l.acceptAndReset()
	}
	l.close()
}

func synQueueFull(w *wire) {
	h := w.h
	h.sysctl("tcp_syncookies", "0")
	l := h.listen(hostAddr, 1)
	before := h.netstat("TCPReqQFullDrop")
	// Kernels disagree on whether a queue of 1 is full with 1 or with 2 connections.
	for port := uint16(40001); h.netstat("TCPReqQFullDrop") == before && port < 40100; port++ {
		w.send(synTo(peerAddr, hostAddr).fromPort(port))
	}
	for n := h.inStates(unix.BPF_TCP_SYN_RECV); n > 0; n-- {
		w.send(w.receive(syn | ack).reply(rst))
	}
	h.awaitStates(0, unix.BPF_TCP_SYN_RECV)
	l.close()
}

// timeoutScenarios are established connections whose peer falls silent.
var timeoutScenarios = []scenario{
	{
		name: "user timeout",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 500)
			c.write("nobody acknowledges this")
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("ESTABLISHED CLOSE", event.ReasonTimedOut),
	},
	{
		name: "keep-alive",
		traffic: onWire(func(w *wire) {
			l := w.h.listen(hostAddr, 8)
			w.send(w.knock().reply(ack))
			s := l.accept()
			s.option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
			s.option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
			s.option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 1)
			s.option(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		}),
		want: serverOnly("ESTABLISHED CLOSE", event.ReasonKeepaliveTimeout),
	},
}
