package main

import (
	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// resetScenarios are established connections that end with a reset.
var resetScenarios = []scenario{
	{
		name: "reset by SO_LINGER",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			resetBoth(c, s)
			l.close()
		},
		want: resets(event.ReasonResetSentLinger, event.ReasonResetByPeer),
	},
	{
		name: "reset by unread data",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.write("nobody reads this")
			s.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
			l.close()
		},
		want: resets(event.ReasonResetByPeer, event.ReasonResetSentUnread),
	},
	{
		name: "reset in CLOSE_WAIT",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.shutdown(unix.SHUT_WR)
			s.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			resetBoth(s, c)
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, activeClient + " (reset_by_peer)",
				"server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE (reset_sent_linger)",
			},
			kernel: []string{
				ordinaryListener, activeClient, "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE",
			},
		},
	},
	{
		name: "data after close()",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			c.close()
			h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			s.write("too late")
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			l.close()
		},
		want: paths{
			rfc: []string{
				rfcListener, activeClient + " (reset_sent_late_data)",
				"server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE (reset_by_peer)",
			},
			kernel: []string{
				ordinaryListener, activeClient, "server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE",
			},
		},
	},
	{
		name: "data with the ACK of the FIN, after close()",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.close()
			late := w.receive(fin).reply(ack)
			late.data = 4
			w.send(late)
			w.receive(rst)
			w.h.awaitStates(0, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2)
		}),
		want: clientOnly("ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", event.ReasonResetSentLateData),
	},
	{
		name: "reset by the peer in CLOSE_WAIT",
		traffic: onWire(func(w *wire) {
			c, last := w.dial()
			w.send(last.reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE_WAIT)
			reset := last.reply(rst)
			reset.seq++
			w.send(reset)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("ESTABLISHED CLOSE_WAIT CLOSE", event.ReasonResetByPeer),
	},
	{
		name: "reset by the peer in FIN_WAIT1",
		traffic: onWire(func(w *wire) {
			c, last := w.dial()
			c.shutdown(unix.SHUT_WR)
			w.receive(fin)
			w.send(last.reply(rst))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("ESTABLISHED FIN_WAIT1 CLOSE", event.ReasonResetByPeer),
	},
	{
		name: "reset by the peer in FIN_WAIT2",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.shutdown(unix.SHUT_WR)
			last := w.receive(fin)
			w.send(last.reply(ack))
			c.reach(unix.BPF_TCP_FIN_WAIT2)
			w.send(last.reply(rst))
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", event.ReasonResetByPeer),
	},
	{
		name: "reset by the peer in orphaned FIN_WAIT2",
		traffic: onWire(func(w *wire) {
			c, _ := w.dial()
			c.close()
			last := w.receive(fin)
			w.send(last.reply(ack))
			w.h.awaitStates(1, unix.BPF_TCP_FIN_WAIT2)
			w.send(last.reply(rst | ack))
			w.h.awaitStates(0, unix.BPF_TCP_FIN_WAIT2)
		}),
		want: clientOnly("ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE", event.ReasonResetByPeer),
	},
	{
		name: "reset by the peer in CLOSING",
		traffic: onWire(func(w *wire) {
			c, last := w.dial()
			c.shutdown(unix.SHUT_WR)
			w.receive(fin)
			crossing := last.reply(fin | ack) // does not acknowledge the host's FIN
			w.send(crossing)
			c.reach(unix.BPF_TCP_CLOSING)
			crossing.flags = rst
			crossing.seq++
			w.send(crossing)
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		}),
		want: clientOnly("ESTABLISHED FIN_WAIT1 CLOSING CLOSE", event.ReasonResetByPeer),
	},
	{
		name: "reset by the peer in LAST_ACK",
		traffic: onWire(func(w *wire) {
			c, last := w.dial()
			w.send(last.reply(fin | ack))
			c.reach(unix.BPF_TCP_CLOSE_WAIT)
			c.close()
			w.send(w.receive(fin).reply(rst | ack))
			w.h.awaitStates(0, unix.BPF_TCP_LAST_ACK)
		}),
		want: clientOnly("ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE", event.ReasonResetByPeer),
	},
}

// abortScenarios are connections that are ended without anything from the peer.
var abortScenarios = []scenario{
	{
		name: "disconnected",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			h.must("disconnect", connectUnspec(c.fd))
			s.reach(unix.BPF_TCP_CLOSE)
			s.close()
			c.close()
			l.close()
		},
		want: resets(event.ReasonAborted, event.ReasonResetByPeer),
	},
	{
		name: "aborted by ss -K",
		traffic: func(h *host) {
			l, c, s := h.connection(loopbackAddr, loopbackAddr)
			h.destroy("established", "src", loopbackAddr)
			s.reach(unix.BPF_TCP_CLOSE)
			c.reach(unix.BPF_TCP_CLOSE)
			s.close()
			c.close()
			l.close()
		},
		want: resets(event.ReasonResetByPeer, event.ReasonAborted),
	},
	{
		name: "listener closed with a connection in its queue",
		traffic: func(h *host) {
			l := h.listen(loopbackAddr, 8)
			c := h.dial(loopbackAddr)
			h.awaitStates(2, unix.BPF_TCP_ESTABLISHED)
			l.close()
			c.reach(unix.BPF_TCP_CLOSE)
			c.close()
		},
		want: resets(event.ReasonResetByPeer, event.ReasonListenerClosed),
	},
	{name: "subflows of MPTCP", traffic: mptcpSubflows, want: resets(event.ReasonResetByPeer, event.ReasonAborted)},
}

func mptcpSubflows(h *host) {
	mptcp := func() sock {
		s := sock{h: h}
		var err error
		h.do(func() {
			s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		})
		if err != nil {
			h.t.Skipf("this kernel has no MPTCP: %v", err)
		}
		return s
	}
	at := mustSockaddr(loopbackAddr)
	l, c := mptcp(), mptcp()
	h.must("reuse", unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	h.must("bind", unix.Bind(l.fd, at))
	h.must("listen", unix.Listen(l.fd, 8))
	h.must("connect", unix.Connect(c.fd, at))
	s := l.accept()
	c.write("hello")
	s.read(5)
	s.reset()
	s.close()
	h.awaitStates(0, unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSE_WAIT)
	c.close()
	l.close()
}
