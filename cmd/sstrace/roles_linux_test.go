package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func init() {
	roles["connect"] = connectMany
	roles["connect-once"] = connectOnce
	roles["listen"] = listenOnce
}

// exitOn ends a role with a message.
func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tcpSocket(a netip.AddrPort) int {
	fd, err := unix.Socket(family(a), unix.SOCK_STREAM, 0)
	exitOn(err)
	return fd
}

// connectMany is a process that connects to its first argument as often as its second says, with a
// new connection for each request.
func connectMany() {
	to := netip.MustParseAddrPort(os.Args[1])
	n, err := strconv.Atoi(os.Args[2])
	exitOn(err)
	buf := make([]byte, 16)
	for range n {
		fd := tcpSocket(to)
		exitOn(unix.Connect(fd, sockaddr(to, family(to))))
		_, err := unix.Write(fd, []byte("PING\r\n"))
		exitOn(err)
		_, err = unix.Read(fd, buf)
		exitOn(err)
		exitOn(unix.Close(fd))
	}
}

// connectOnce is a process that connects to its argument and ends.
func connectOnce() {
	to := netip.MustParseAddrPort(os.Args[1])
	exitOn(unix.Connect(tcpSocket(to), sockaddr(to, family(to))))
}

// listenOnce is a process that opens a listener on its argument and ends.
func listenOnce() {
	at := netip.MustParseAddrPort(os.Args[1])
	fd := tcpSocket(at)
	exitOn(unix.Bind(fd, sockaddr(at, family(at))))
	exitOn(unix.Listen(fd, 1))
}
