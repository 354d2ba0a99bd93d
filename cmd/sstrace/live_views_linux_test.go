package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// ls and leaks show the current state of the situations whose ends the other tests check.
func TestLiveViews(t *testing.T) {
	for _, test := range []struct {
		name, deeds string
		state       event.State
		held        bool   // this process has a descriptor of it
		timed       bool   // a kernel timer will end it
		leak        string // what leaks prints about it; "": nothing
	}{
		{"the SYN is not answered", "connect", event.SynSent, true, false, "    held by "},
		{"the ACK is not sent", "listen, SYN in", event.SynRecv, false, false, "    held by no process: the kernel will end it\n"},
		{"the accept queue is full", "listen, SYN in, accept queue full, ACK in", event.SynRecv, false, false, "accept queue full: 1 waiting, backlog 0\n"},
		{"the listener waits for data", "listen, TCP_DEFER_ACCEPT, SYN in, ACK in", event.SynRecv, false, false, "    held by no process: the kernel will end it\n"},
		{"the peer has closed", ways["CLOSE_WAIT"], event.CloseWait, true, false, "end of file unread\n"},
		{"an orphan in FIN_WAIT2", ways["FIN_WAIT2"] + ", close", event.FinWait2, false, true, ""},
		{"an orphan in FIN_WAIT2 that is a full socket", ways["FIN_WAIT2"] + ", TCP_LINGER2 61, close", event.FinWait2, false, true, ""},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			t.Run(test.name+" "+family, func(t *testing.T) {
				p := newEndpoint(t, family)
				p.h.socket(unix.AF_INET) // so that ls finds the thread's namespace
				p.h.sysctl("tcp_synack_retries", "5")
				p.h.sysctl("tcp_syn_retries", "6")
				p.do(test.deeds)
				e := find(t, p.h.list(t), event.TCP, p.host.String(), p.peer.String())
				if e.New != test.state || (len(e.Status.Holders) == 1 && e.Status.Holders[0].PID == uint32(os.Getpid())) != test.held {
					t.Errorf("ls: %+v, %+v", e, e.Status)
				}
				if left := e.Status.Left != event.Unknown; left != test.timed {
					t.Errorf("ls: %d ns are left", e.Status.Left)
				}
				ends := p.host.String() + " ↔ " + p.peer.String()
				var text string
				await(t, "leaks", func() bool { // an age is only as exact as a jiffy
					limit := test.state.String() + "=1ns"
					text = sstrace(t, "", "leaks", "--once", "--older", limit, "--netns", p.h.netns()).stdout
					return strings.Contains(text, ends) == (test.leak != "")
				})
				if !strings.Contains(text, test.leak) {
					t.Errorf("leaks: no %q in\n%s", test.leak, text)
				}
			})
		}
	}
}

// A socket that connects again has another port. leaks knows this port, although the kernel chose
// it after the change of state.
func TestLeaksOfConnectAgain(t *testing.T) {
	for _, version := range []string{"IPv4", "IPv6"} {
		t.Run(version, func(t *testing.T) {
			p := newEndpoint(t, version)
			p.h.sysctl("tcp_syn_retries", "6")
			run := p.h.leaks(t, "--older", "SYN_SENT=1s")
			a := &again{sock: p.h.socket(family(p.host)), to: p.host}
			a.connect(unix.ECONNREFUSED)
			p.h.must("nonblock", unix.SetNonblock(a.fd, true))
			a.to = netip.AddrPortFrom(p.peer.Addr(), 80)
			a.connect(unix.EINPROGRESS)
			found := run.next()
			if found.State != "SYN_SENT" || found.LPort != a.ports[1] || found.Age == nil || len(found.Holders) != 1 || found.Holders[0].FD != a.fd {
				t.Errorf("ports %d, got %+v", a.ports, found)
			}
			if a.ports[0] == a.ports[1] {
				t.Errorf("the same port twice: this tests little")
			}
		})
	}
}
