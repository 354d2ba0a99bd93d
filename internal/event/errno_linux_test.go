package event

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers and names match the system's. Each occurs once, and they are in order.
func TestErrnosAreTheSystems(t *testing.T) {
	for i, e := range Errnos() {
		name := unix.ErrnoName(unix.Errno(e.Number))
		if name == "ENOTSUP" { // the C library's other name for the number
			name = "EOPNOTSUPP"
		}
		if name != e.Name {
			t.Errorf("%d: got %s, want %s", e.Number, name, e.Name)
		}
		if i > 0 && Errnos()[i-1].Number >= e.Number {
			t.Errorf("%s is not in order", e.Name)
		}
		if ErrnoName(e.Number) != e.Name || ErrnoReason(e.Number) != e.Reason {
			t.Errorf("%+v: found as %q, %v", e, ErrnoName(e.Number), ErrnoReason(e.Number))
		}
		if !slices.Contains(Reasons(), e.Reason) || e.Text == "" || e.Source == "" {
			t.Errorf("%+v is incomplete", e)
		}
	}
	if name, reason := ErrnoName(0), ErrnoReason(0); name != "" || reason != ReasonUnexplained {
		t.Errorf("0: %q, %v", name, reason)
	}
}

// Whatever error ICMP sets for an unreachable destination (icmp_err_convert in net/ipv4/icmp.c,
// tab_unreach and icmpv6_err_convert in net/ipv6/icmp.c), the reason is the same. An unreachable
// port is the exception, because its error is the same as that of a RST.
func TestICMPErrnos(t *testing.T) {
	for _, err := range []unix.Errno{
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENOPROTOOPT, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.EHOSTDOWN,
		unix.ENONET, unix.EACCES, unix.EPROTO,
	} {
		if got := ErrnoReason(int32(err)); got != ReasonUnreachable {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := ErrnoReason(int32(unix.ECONNREFUSED)); got != ReasonRefused {
		t.Errorf("ECONNREFUSED: %v", got)
	}
}
