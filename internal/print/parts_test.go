package print

import (
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
		Why(event.ReasonRefused, 111): "refused ECONNREFUSED", Why(event.ReasonNormal, 0): "normal", Why(0, 0): "-", Why(0, 7): "errno 7",
		Process(0, "nc"): "-", Process(7, "\x1b"): `7/\x1b`, State(event.Established, false): "ESTABLISHED", State(event.Established, true): "\x1b[32mESTABLISHED\x1b[0m",
		State(event.FinWait1, true): "FIN_WAIT1", Alarm("failed", true): "\x1b[31mfailed\x1b[0m", Alarm("lost", false): "lost", Visible("a\nb"): `a\nb`,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Gap(&lost, false); !strings.HasSuffix(got, " --- 12 changes lost here, the ring buffer was full: a filter or a larger --buffer helps ---\n") {
		t.Errorf("got %q", got)
	}
}
