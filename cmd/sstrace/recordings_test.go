package main

import _ "embed"

var (
	// recorded is a recording of three changes. Other changes were lost in between.
	//go:embed testdata/recorded.ndjson
	recorded string

	// bound is a recording of sockets that need more than their addresses to be identified. One is
	// a link-local connection that waited for data. Its processes have no ID in sstrace's PID
	// namespace. Another one is a connect() from a VRF that sent no SYN.
	//go:embed testdata/bound.ndjson
	bound string

	// listed is a listing of sockets. Everything is known about one, nothing about another, and one
	// has a malicious name.
	//go:embed testdata/listed.ndjson
	listed string

	// paired is a recording of a server and a client. The connections use IPv4, IPv6 and mapped
	// addresses. Some are closed by either end, some are reset and some refused. One connects a
	// socket to itself, and one is never accepted.
	//go:embed testdata/pair.ndjson
	paired string
)
