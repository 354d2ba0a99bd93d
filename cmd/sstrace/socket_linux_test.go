package main

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock is a TCP socket, used through its file descriptor. This lets the tests choose each system
// call, which package net would not.
type sock struct {
	h  *host
	fd int
}

func (h *host) socket(family int) (s sock) {
	h.do(func() {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		h.must("socket", err)
		s = sock{h, fd}
	})
	return s
}

func sockaddr(a netip.AddrPort, family int) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// mustSockaddr returns addr as a socket address of the same family.
func mustSockaddr(addr string) unix.Sockaddr {
	a := netip.MustParseAddrPort(addr)
	return sockaddr(a, family(a))
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// listen opens a listener on addr, such as "127.0.0.1:7781". If the port is 0, the kernel chooses
// one.
func (h *host) listen(addr string, backlog int) sock {
	a := netip.MustParseAddrPort(addr)
	s := h.socket(family(a))
	s.option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	h.must("bind", unix.Bind(s.fd, sockaddr(a, family(a))))
	h.must("listen", unix.Listen(s.fd, backlog))
	return s
}

// fixedPort returns a client socket that is always bound to the same port.
func (h *host) fixedPort() sock {
	s := h.socket(unix.AF_INET)
	s.option(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	h.must("bind", unix.Bind(s.fd, mustSockaddr("127.0.0.1:40602")))
	return s
}

// dial connects to addr.
func (h *host) dial(addr string) sock {
	a := netip.MustParseAddrPort(addr)
	s := h.socket(family(a))
	h.must("connect", unix.Connect(s.fd, sockaddr(a, family(a))))
	return s
}

// established makes a connection to l at addr and returns both ends.
func (h *host) established(l sock, addr string) (client, server sock) {
	client = h.dial(addr)
	return client, l.accept()
}

// connection opens a listener and a connection to it.
func (h *host) connection(listen, dial string) (listener, client, server sock) {
	listener = h.listen(listen, 8)
	client, server = h.established(listener, dial)
	return listener, client, server
}

// closeBoth closes first. It closes second once second has received the FIN.
func closeBoth(first, second sock) {
	first.close()
	second.reach(unix.BPF_TCP_CLOSE_WAIT)
	second.close()
}

// resetBoth makes first reset the connection. It closes second once second has received the reset.
func resetBoth(first, second sock) {
	first.reset()
	first.close()
	second.reach(unix.BPF_TCP_CLOSE)
	second.close()
}

func (s sock) accept() sock {
	fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
	s.h.must("accept", err)
	return sock{s.h, fd}
}

// acceptAndReset accepts a connection and resets it.
func (s sock) acceptAndReset() {
	server := s.accept()
	server.reset()
	server.close()
}

func (s sock) close()           { s.h.must("close", unix.Close(s.fd)) }
func (s sock) shutdown(how int) { s.h.must("shutdown", unix.Shutdown(s.fd, how)) }

func (s sock) option(level, name, value int) {
	s.h.must("setsockopt", unix.SetsockoptInt(s.fd, level, name, value))
}

func (s sock) write(text string) {
	_, err := unix.Write(s.fd, []byte(text))
	s.h.must("write", err)
}

// read waits for n bytes.
func (s sock) read(n int) {
	for buf := make([]byte, n); n > 0; {
		got, err := unix.Read(s.fd, buf[:n])
		if s.h.must("read", err); err != nil || got == 0 {
			return
		}
		n -= got
	}
}

// file returns a duplicate that a process can inherit.
func (s sock) file() *os.File {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	s.h.must("dup", err)
	f := os.NewFile(uintptr(fd), "socket")
	s.h.t.Cleanup(func() { f.Close() })
	return f
}

// reset makes the next close() reset the connection.
func (s sock) reset() {
	s.h.must("linger", unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}

// reach waits until the socket is in this state in the kernel.
func (s sock) reach(state uint8) {
	await(s.h.t, "state of a socket", func() bool {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err != nil || info.State == state
	})
}

// ends returns the addresses of a socket and its cookie.
func (s sock) ends() (local, remote netip.AddrPort, cookie uint64) {
	get := func(sa unix.Sockaddr, err error) netip.AddrPort {
		s.h.must("name", err)
		switch a := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
		return netip.AddrPort{}
	}
	cookie, err := unix.GetsockoptUint64(s.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	s.h.must("cookie", err)
	return get(unix.Getsockname(s.fd)), get(unix.Getpeername(s.fd)), cookie
}

// connectUnspec dissolves a socket's association, as connect(2) describes.
func connectUnspec(fd int) error {
	var unspec [16]byte
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	return nil
}
