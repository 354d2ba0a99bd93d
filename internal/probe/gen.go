//go:build linux

package probe

// The objects are committed, so that a build needs only Go. `make generate` rebuilds them, and
// `make verify` compares the result with the committed files. enums writes the enumerations of
// struct event for internal/record.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter" -tags linux -target bpfel -type event -type closed -type cpu -type host_key -type device bpf ../../bpf/sstrace.bpf.c
//go:generate go run ./enums bpf_bpfel.o ../record/enums.go ../../bpf/event.h
