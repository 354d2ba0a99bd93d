//go:build linux

package listing

// The object is committed: see internal/probe/gen.go. It is a small one, because loading it takes
// much of the time of a listing.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" -tags linux -target bpfel -type sock_found list ../../bpf/list.bpf.c
