package main

import (
	"time"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// orderlyScenarios are connections that both ends close.
var orderlyScenarios = []scenario{
	{
		name: "client closes first",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			closeBoth(c, s)
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		name: "server closes first",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			closeBoth(s, c)
			l.close()
		},
		want: serverClosesFirst,
	},
	{
		name:   "IPv6",
		family: event.IPv6,
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr6, loopbackAddr6)
			closeBoth(c, s)
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		name:    "listener opened and closed",
		traffic: func(h *host) { h.listen(loopbackAddr, 8).close() },
		want:    paths{rfc: []string{rfcListener}, kernel: []string{ordinaryListener}},
	},
	{
		name: "half-close",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			s.write("still speaking")
			s.shutdown(unix.SHUT_WR)
			c.reach(unix.BPF_TCP_CLOSE) // shutdown() leaves a TIME_WAIT of another kind
			c.close()
			s.close()
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		// The SYN and the FIN of a socket that is connected to itself cross.
		name: "simultaneous open and close",
		traffic: func(h *host) {
			s := h.socket(unix.AF_INET)
			self := mustSockaddr(loopbackAddr)
			h.must("bind", unix.Bind(s.fd, self))
			h.must("connect", unix.Connect(s.fd, self))
			s.close()
		},
		want: paths{
			rfc:    []string{"client CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING TIME_WAIT"},
			kernel: []string{"client CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE"},
		},
	},
	{
		name: "FIN and its ACK in one segment",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.shutdown(unix.SHUT_WR)
			w.send(w.receive(fin).reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: paths{rfc: []string{rfcActiveClient}, kernel: []string{activeClient}},
	},
	{
		name: "SYN cookie",
		traffic: func(h *host) {
			h.sysctl("tcp_syncookies", "2") // always
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			closeBoth(c, s)
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		name: "TCP Fast Open",
		traffic: func(h *host) {
			h.sysctl("tcp_fastopen", fastOpenWithoutCookie)
			l := h.listen(loopbackAddr, 8)
			c := h.socket(unix.AF_INET)
			h.must("sendto", unix.Sendto(c.fd, []byte("hello"), unix.MSG_FASTOPEN, mustSockaddr(loopbackAddr)))
			s := l.accept()
			s.read(5)
			closeBoth(c, s)
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		name: "older than the trace",
		older: func(h *host) func() {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.close()
			h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			return func() {
				s.close()
				h.awaitStates(1, unix.BPF_TCP_TIME_WAIT)
				l.close()
			}
		},
		want: paths{
			rfc: []string{
				" FIN_WAIT2 TIME_WAIT", "server CLOSE_WAIT LAST_ACK CLOSE (normal)", "listener LISTEN CLOSE (normal)",
			},
			kernel: []string{"server CLOSE_WAIT LAST_ACK CLOSE", "listener LISTEN CLOSE"},
		},
	},
}

// timeWaitScenarios are about what remains after no process has the socket any more: FIN_WAIT2 and
// TIME_WAIT.
var timeWaitScenarios = []scenario{
	{
		name: "orphaned FIN_WAIT2 times out",
		traffic: func(h *host) {
			h.sysctl("tcp_fin_timeout", "1")
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.close()
			h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			h.awaitStates(0, unix.BPF_TCP_FIN_WAIT2)
			s.close() // its FIN is answered with a reset
			h.awaitStates(0, unix.BPF_TCP_LAST_ACK)
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, activeClient + " (fin_wait2_timeout)", passiveServer + " (reset_by_peer)",
			},
			kernel: []string{ordinaryListener, activeClient, passiveServer},
		},
	},
	{
		name: "orphaned FIN_WAIT2 receives its FIN",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.close()
			h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			s.close()
			h.awaitStates(1, unix.BPF_TCP_TIME_WAIT)
			l.close()
		},
		want: clientClosesFirst,
	},
	{
		name: "too many in TIME_WAIT",
		traffic: func(h *host) {
			h.sysctl("tcp_max_tw_buckets", "0")
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		},
		want: paths{
			rfc:    []string{rfcListener, activeClient + " (time_wait_overflow)", rfcPassiveServer},
			kernel: []string{ordinaryListener, activeClient, passiveServer},
		},
	},
	{
		name: "TIME_WAIT reused by connect()",
		traffic: func(h *host) {
			h.sysctl("tcp_tw_reuse", "1")
			l := h.listen(loopbackAddr, 8)
			closeBoth(h.connectFromPort(l))
			resetBoth(swap(h.connectFromPort(l)))
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, rfcActiveClient + " CLOSE (time_wait_reused)", rfcPassiveServer,
				clientReset + " (reset_by_peer)", serverReset + " (reset_sent_linger)",
			},
			kernel: []string{ordinaryListener, activeClient, passiveServer, clientReset, serverReset},
		},
	},
	{
		name: "TIME_WAIT reused by a SYN",
		traffic: func(h *host) {
			l := h.listen(loopbackAddr, 8)
			closeBoth(swap(h.connectFromPort(l)))
			h.awaitStates(0, unix.BPF_TCP_LAST_ACK)
			resetBoth(swap(h.connectFromPort(l)))
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, rfcPassiveClient, rfcActiveServer + " CLOSE (time_wait_reused)",
				clientReset + " (reset_by_peer)", serverReset + " (reset_sent_linger)",
			},
			kernel: []string{ordinaryListener, passiveClient, activeServer, clientReset, serverReset},
		},
	},
	{
		name:  "TIME_WAIT aborted by ss -K",
		since: kernelVersion{6, 0}, // tcp_abort in net/ipv4/tcp.c
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			closeBoth(c, s)
			h.awaitStates(1, unix.BPF_TCP_TIME_WAIT)
			h.destroy("time-wait", "dst", loopbackAddr)
			h.awaitStates(0, unix.BPF_TCP_TIME_WAIT)
			l.close()
		},
		want: paths{
			rfc:    []string{rfcListener, rfcActiveClient + " CLOSE (aborted)", rfcPassiveServer},
			kernel: []string{ordinaryListener, activeClient, passiveServer},
		},
	},
	{
		name: "TIME_WAIT ended by a reset",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.close()
			last := w.receive(fin)
			w.send(last.reply(ack))
			w.h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			w.send(last.reply(fin | ack))
			w.h.awaitStates(1, unix.BPF_TCP_TIME_WAIT)
			reset := last.reply(rst)
			reset.seq++
			w.send(reset)
			w.h.awaitStates(0, unix.BPF_TCP_TIME_WAIT)
		}),
		want: paths{rfc: []string{rfcActiveClient + " CLOSE (reset_by_peer)"}, kernel: []string{activeClient}},
	},
	{
		name: "the whole of TIME_WAIT",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			closeBoth(c, s)
			h.awaitStates(1, unix.BPF_TCP_TIME_WAIT)
			// TIME_WAIT lasts a minute, and await waits no longer than that.
			for i := 0; i < 1000 && h.inStates(unix.BPF_TCP_TIME_WAIT) == 1; i++ {
				time.Sleep(100 * time.Millisecond)
			}
			l.close()
		},
		want: paths{
			rfc:    []string{rfcListener, rfcActiveClient + " CLOSE (time_wait_expired)", rfcPassiveServer},
			kernel: []string{ordinaryListener, activeClient, passiveServer},
		},
	},
}

// connectFromPort connects to l, always from the same port. If that port is still in TIME_WAIT, it
// can be reused only after a second.
func (h *host) connectFromPort(l sock) (client, server sock) {
	c := h.fixedPort()
	await(h.t, "connect", func() bool { return unix.Connect(c.fd, mustSockaddr(loopbackAddr)) == nil })
	return c, l.accept()
}

func swap(a, b sock) (sock, sock) { return b, a }
