package main

import _ "embed"

var (
	// recorded is a recording of three changes, between which changes were lost.
	//go:embed testdata/recorded.ndjson
	recorded string

	// bound is a recording of sockets that more than their addresses identify: a link-local
	// connection that waited for data, whose processes have no ID in sstrace's PID namespace, and a
	// connect() from a VRF that sent no SYN.
	//go:embed testdata/bound.ndjson
	bound string

	// listed is a listing of sockets: one of which everything is known, one of which nothing is,
	// and one with a malicious name.
	//go:embed testdata/listed.ndjson
	listed string

	// paired is a recording of a server and a client: connections over IPv4, IPv6 and mapped
	// addresses, closed by either end, reset, and refused, one of a socket with itself, and one
	// that nobody accepts.
	//go:embed testdata/pair.ndjson
	paired string
)
