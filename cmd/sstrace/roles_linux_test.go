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

// exitOn ends the process with a message if err is not nil.
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

// connectMany makes repeated connections to the address in its first argument, one for each
// request. The second argument is the number of connections.
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

// connectOnce connects to the address in its argument and exits.
func connectOnce() {
	to := netip.MustParseAddrPort(os.Args[1])
	exitOn(unix.Connect(tcpSocket(to), sockaddr(to, family(to))))
}

// listenOnce opens a listener on the address in its argument and exits.
func listenOnce() {
	at := netip.MustParseAddrPort(os.Args[1])
	fd := tcpSocket(at)
	exitOn(unix.Bind(fd, sockaddr(at, family(at))))
	exitOn(unix.Listen(fd, 1))
}
