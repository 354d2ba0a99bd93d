package text

import (
	"net/netip"
	"strings"
	"testing"

	"sstrace/internal/event"
)

func TestTime(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0ns", 999: "999ns", 1000: "1.00µs", 9994: "9.99µs", 9996: "10.0µs", 57254: "57.3µs", 99940: "99.9µs", 99960: "100µs", 999_400: "999µs", 999_600: "1.00ms",
		1_041_234_567: "1.04s", 59_949_000_000: "59.9s", 59_951_000_000: "1m00s", 3599_499_000_000: "59m59s", 3599_501_000_000: "1h00m", 100 * 86400 * 1e9: "100d00h",
	} {
		if got := Time(ns); got != want {
			t.Errorf("%d ns are %s, want %s", ns, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 999_499: "999 kB", 999_501: "1.00 MB", 1_048_576: "1.05 MB", 1<<64 - 1: "18.4 EB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

func TestParts(t *testing.T) {
	lost := event.Event{Type: event.Lost, RingFull: 12}
	for got, want := range map[string]string{
		Reason(event.ReasonRefused, 111): "refused ECONNREFUSED", Reason(event.ReasonNormal, 0): "normal", Reason(0, 0): "-", Reason(0, 7): "errno 7",
		Process(0, "nc"): "-", Process(7, "\x1b"): `7/\x1b`, State(event.Established, false): "ESTABLISHED", State(event.Established, true): "\x1b[32mESTABLISHED\x1b[0m",
		State(event.FinWait1, true): "FIN_WAIT1", Alarm("failed", true): "\x1b[31mfailed\x1b[0m", Alarm("lost", false): "lost", Visible("a\nb"): `a\nb`,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Lost(&lost, false); !strings.HasSuffix(got, " --- 12 changes lost here, the ring buffer was full: a filter or a larger --buffer helps ---\n") {
		t.Errorf("got %q", got)
	}
}

// Where an address alone does not tell a socket's end, the device does; and * is a wildcard for both families.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		local, remote string
		e             event.Event
		want          [3]string // the ends, and the local one with its device
	}{
		{"fe80::1", "fe80::2", event.Event{IfIndex: 3, IfName: "eth0"}, [3]string{"[fe80::1%eth0]:80", "[fe80::2%eth0]:90", "[fe80::1%eth0]:80"}},
		{"fe80::1", "fe80::2", event.Event{IfIndex: 3}, [3]string{"[fe80::1%3]:80", "[fe80::2%3]:90", "[fe80::1%3]:80"}},
		{"fe80::1", "fe80::2", event.Event{}, [3]string{"[fe80::1]:80", "[fe80::2]:90", "[fe80::1]:80"}},
		{"fe80::1", "fe80::2", event.Event{IfIndex: 3, IfName: "e\x1b"}, [3]string{`[fe80::1%e\x1b]:80`, `[fe80::2%e\x1b]:90`, `[fe80::1%e\x1b]:80`}},
		{"2001:db8::1", "2001:db8::2", event.Event{IfIndex: 3, IfName: "eth0"}, [3]string{"[2001:db8::1]:80", "[2001:db8::2]:90", "[2001:db8::1%eth0]:80"}},
		{"192.0.2.1", "192.0.2.2", event.Event{IfIndex: 3, IfName: "eth0"}, [3]string{"192.0.2.1:80", "192.0.2.2:90", "192.0.2.1%eth0:80"}},
		{"::", "", event.Event{Status: &event.Status{V6Only: event.No}, IfIndex: 3, IfName: "eth0"}, [3]string{"*:80", "-:90", "*%eth0:80"}},
		{"::", "", event.Event{Status: &event.Status{V6Only: event.Yes}}, [3]string{"[::]:80", "-:90", "[::]:80"}},
		{"::", "", event.Event{Status: &event.Status{}}, [3]string{"[::]:80", "-:90", "[::]:80"}},
	} {
		addr := func(text string) (a netip.Addr) {
			a, _ = netip.ParseAddr(text) // "" is an unknown one
			return a
		}
		e := test.e
		e.Local, e.Remote = netip.AddrPortFrom(addr(test.local), 80), netip.AddrPortFrom(addr(test.remote), 90)
		if got := [3]string{Local(&e), Remote(&e), string(AppendLocal(nil, &e, true))}; got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"nc": "nc", "a\\b": `a\\b`, "\x1b[31m": `\x1b[31m`, "a\nb\tc": `a\nb\tc`, "\xff\xfe": `\xff\xfe`, "\u202e": `\u202e`, "日本": "日本", "\x7f\x00": `\x7f\x00`, "it's": "it's",
	} {
		if got := Visible(in); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}
