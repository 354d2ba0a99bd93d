package text

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sstrace/internal/event"
)

func TestTime(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0ns", 999: "999ns", 1000: "1.00µs", 9994: "9.99µs", 9996: "10.0µs", 57254: "57.3µs",
		99940: "99.9µs", 99960: "100µs", 999_400: "999µs", 999_600: "1.00ms", 1_041_234_567: "1.04s",
		59_949_000_000: "59.9s", 59_951_000_000: "1m00s", 3599_499_000_000: "59m59s", 3599_501_000_000: "1h00m",
		100 * 86400 * 1e9: "100d00h",
	} {
		if got := Time(ns); got != want {
			t.Errorf("%d: got %s, want %s", ns, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 999_499: "999 kB",
		999_501: "1.00 MB", 1_048_576: "1.05 MB", 1<<64 - 1: "18.4 EB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestFormats(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, test := range []struct{ name, got, want string }{
		{"reason and error", Reason(event.ReasonRefused, 111), "refused ECONNREFUSED"},
		{"reason", Reason(event.ReasonNormal, 0), "normal"},
		{"no reason", Reason(0, 0), "-"},
		{"unnamed error", Reason(0, 7), "errno 7"},
		{"no process", Process(0, "nc"), "-"},
		{"hostile process", Process(7, "\x1b"), `7/\x1b`},
		{"host process", Process(7|event.HostPID, "nc"), "host:7/nc"},
		{"state", State(event.Established, false), "ESTABLISHED"},
		{"colored state", State(event.Established, true), "\x1b[32mESTABLISHED\x1b[0m"},
		{"state without color", State(event.FinWait1, true), "FIN_WAIT1"},
		{"alarm", Alarm("lost", false), "lost"},
		{"colored alarm", Alarm("failed", true), "\x1b[31mfailed\x1b[0m"},
		{"one", Count(1, "handshake"), "1 handshake"},
		{"several", Count(2, "handshake"), "2 handshakes"},
		{"none", Count(0, "handshake"), "0 handshakes"},
		{"group", Group("a\nb"), `a\nb`},
		{"unknown group", Group(""), "-"},
		{"container", Group(id), id[:12]},
		{"no container", Group(strings.ToUpper(id)), strings.ToUpper(id)},
		{"time of day", TimeOfDay(1.5e9, time.Second), time.Unix(1, 0).Format("15:04:05")},
		{"time of day with milliseconds", TimeOfDay(1.5e9, 1500*time.Millisecond),
			time.Unix(1, 5e8).Format("15:04:05.000")},
		{"lost in a period", LostInPeriod(3),
			"--- 3 changes lost in this period, the ring buffer was full: a filter or a larger --buffer helps ---\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.got != test.want {
				t.Errorf("got %q, want %q", test.got, test.want)
			}
		})
	}
}

func TestLost(t *testing.T) {
	const want = " --- 12 changes lost here, the ring buffer was full: a filter or a larger --buffer helps ---\n"
	if got := Lost(&event.Event{Type: event.Lost, RingFull: 12}, false); !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q at its end", got, want)
	}
}

func TestWidths(t *testing.T) {
	w := Widths{Address: IPv4Width, Process: 18}
	for _, step := range []struct {
		name string
		fit  func()
		want Widths
	}{
		{"short address", func() { w.FitAddress(10) }, Widths{IPv4Width, 18}},
		{"long address", func() { w.FitAddress(IPv4Width + 1) }, Widths{IPv6Width, 18}},
		{"longer address", func() { w.FitAddress(IPv6Width + 9) }, Widths{IPv6Width + 9, 18}},
		{"address after a long one", func() { w.FitAddress(10) }, Widths{IPv6Width + 9, 18}},
		{"short process", func() { w.FitProcess(18, 1) }, Widths{IPv6Width + 9, 18}},
		{"long process", func() { w.FitProcess(19, 1) }, Widths{IPv6Width + 9, OwnerWidth}},
		{"PID of our namespace", func() { w.FitHostProcess(1) }, Widths{IPv6Width + 9, OwnerWidth}},
		{"host PID", func() { w.FitHostProcess(1 | event.HostPID) }, Widths{IPv6Width + 9, OwnerWidth + len(hostMark)}},
	} {
		if step.fit(); w != step.want {
			t.Errorf("%s: got %v, want %v", step.name, w, step.want)
		}
	}
}

// If an address is ambiguous without its device, the text includes the device. * is the wildcard
// for both families.
func TestAddresses(t *testing.T) {
	eth0 := event.Event{IfIndex: 3, IfName: "eth0"}
	for _, test := range []struct {
		name                  string
		local, remote         string
		e                     event.Event
		wantLocal, wantRemote string
		wantDevice            string // the local address with its device
	}{
		{"link-local", "fe80::1", "fe80::2", eth0, "[fe80::1%eth0]:80", "[fe80::2%eth0]:90", "[fe80::1%eth0]:80"},
		{"device without name", "fe80::1", "fe80::2", event.Event{IfIndex: 3}, "[fe80::1%3]:80", "[fe80::2%3]:90",
			"[fe80::1%3]:80"},
		{"no device", "fe80::1", "fe80::2", event.Event{}, "[fe80::1]:80", "[fe80::2]:90", "[fe80::1]:80"},
		{"hostile device", "fe80::1", "fe80::2", event.Event{IfIndex: 3, IfName: "e\x1b"},
			`[fe80::1%e\x1b]:80`, `[fe80::2%e\x1b]:90`, `[fe80::1%e\x1b]:80`},
		{"global IPv6", "2001:db8::1", "2001:db8::2", eth0, "[2001:db8::1]:80", "[2001:db8::2]:90",
			"[2001:db8::1%eth0]:80"},
		{"IPv4", "192.0.2.1", "192.0.2.2", eth0, "192.0.2.1:80", "192.0.2.2:90", "192.0.2.1%eth0:80"},
		{"wildcard of both families", "::", "",
			event.Event{Status: &event.Status{V6Only: event.No}, IfIndex: 3, IfName: "eth0"},
			"*:80", "-:90", "*%eth0:80"},
		{"wildcard of IPv6", "::", "", event.Event{Status: &event.Status{V6Only: event.Yes}}, "[::]:80", "-:90",
			"[::]:80"},
		{"wildcard, families unknown", "::", "", event.Event{Status: &event.Status{}}, "[::]:80", "-:90", "[::]:80"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := func(text string, port uint16) netip.AddrPort {
				a, _ := netip.ParseAddr(text) // "" means an unknown address
				return netip.AddrPortFrom(a, port)
			}
			e := test.e
			e.Local, e.Remote = addr(test.local, 80), addr(test.remote, 90)
			if got := Local(&e); got != test.wantLocal {
				t.Errorf("local address: got %q, want %q", got, test.wantLocal)
			}
			if got := Remote(&e); got != test.wantRemote {
				t.Errorf("remote address: got %q, want %q", got, test.wantRemote)
			}
			if got := string(AppendLocal(nil, &e, true)); got != test.wantDevice {
				t.Errorf("local address with device: got %q, want %q", got, test.wantDevice)
			}
		})
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"nc": "nc", "a\\b": `a\\b`, "\x1b[31m": `\x1b[31m`, "a\nb\tc": `a\nb\tc`, "\xff\xfe": `\xff\xfe`,
		"\u202e": `\u202e`, "日本": "日本", "\x7f\x00": `\x7f\x00`, "it's": "it's",
	} {
		if got := Visible(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
