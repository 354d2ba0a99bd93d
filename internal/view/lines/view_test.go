package lines

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
)

func change(local, remote string) event.Event {
	return event.Event{
		Type: event.Change, ID: 1, Wall: 1795356131123456789, Mono: 5e9, Family: event.IPv4, Proto: event.TCP,
		Old: event.SynSent, New: event.Established, Dur: 57254,
		Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		OwnerPID: 4194304, OwnerComm: "redis-server", OwnerVia: event.ViaConnect,
	}
}

func lines(t *testing.T, format, clock string, color bool, events ...event.Event) []string {
	t.Helper()
	var out bytes.Buffer
	eventtest.Feed(t, New(&out, format, clock, color), events...)
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// records returns the CSV records of events. Each maps keys to values.
func records(t *testing.T, events ...event.Event) []map[string]string {
	t.Helper()
	text := strings.Join(lines(t, "csv", "wall", false, events...), "\n")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var records []map[string]string
	for _, row := range rows[1:] {
		record := make(map[string]string)
		for i, key := range rows[0] {
			record[key] = row[i]
		}
		records = append(records, record)
	}
	return records
}

func checkRecord(t *testing.T, got, want map[string]string) {
	t.Helper()
	for key, want := range want {
		if got, ok := got[key]; !ok || got != want {
			t.Errorf("%s: got %q, %v; want %q", key, got, ok, want)
		}
	}
}

func TestCSV(t *testing.T) {
	e := change("127.0.0.1:1", "[::1]:2")
	e.OwnerComm, e.TaskComm, e.TaskPID, e.TaskTID = `a"b,c`, "x\ny", 8471|event.HostPID, 8472|event.HostPID
	e.IfIndex, e.IfName, e.ISN, e.Deferred = 3, "a,b\n", 1<<32-1, 5
	e.Totals = event.Totals{Known: true, SRTTOpen: 35}
	got := records(t, e, event.Event{Type: event.Lost, RingFull: 12})
	checkRecord(t, got[0], map[string]string{
		"seq": "1", "owner_comm": `a"b,c`, "task_comm": `x\ny`, "raddr": "::1", "rport": "2", "dur_ns": "57254",
		"cookie": "", "reason": "", "ring_full": "", "ifindex": "3", "ifname": `a,b\n`, "isn": "4294967295",
		"defer_ns": "5", "srtt_us": "", "srtt_open_us": "35", "owner_pid": "4194304", "owner_host_pid": "",
		"task_pid": "", "task_tid": "", "task_host_pid": "8471",
	})
	checkRecord(t, got[1], map[string]string{"type": "lost", "ring_full": "12", "seq": "2"})
}

// A connect() that sent no SYN has neither an old nor a new state.
func TestConnectFailed(t *testing.T) {
	e := change("127.0.0.1:1", "127.0.0.1:2")
	e.Type, e.Old, e.New, e.Dur, e.Local = event.ConnectFailed, 0, 0, event.Unknown, netip.AddrPort{}
	e.Reason, e.Err = event.ReasonUnreachable, 113
	got := strings.Join(strings.Fields(lines(t, "text", "wall", false, e)[1])[1:], " ")
	if want := "- (connect) → (failed) - 127.0.0.1:2 4194304/redis-server unreachable EHOSTUNREACH"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	checkRecord(t, records(t, e)[0], map[string]string{
		"type": "connect_failed", "old": "", "new": "", "dur_ns": "", "queue_ns": "", "origin": "",
		"reason": "unreachable", "err": "113", "laddr": "", "rport": "2", "syn_retrans": "",
	})
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken")
	if err := New(failingWriter{broken}, "text", "wall", false).Begin(); !errors.Is(err, broken) {
		t.Errorf("header: got %v, want %v", err, broken)
	}
	v := New(failingWriter{broken}, "ndjson", "wall", false)
	var err error
	all := slices.Repeat([]event.Event{change("127.0.0.1:1", "127.0.0.1:2")}, 1000) // too many for the buffer
	for i := range all {
		if err = v.Take(&all[i]); err != nil {
			break
		}
	}
	if !errors.Is(err, broken) {
		t.Errorf("lines: got %v, want %v", err, broken)
	}
}

func BenchmarkPrint(b *testing.B) {
	for _, format := range Formats {
		b.Run(format, func(b *testing.B) {
			v := New(io.Discard, format, "wall", false)
			e := change("127.0.0.1:1", "127.0.0.1:2")
			b.ReportAllocs()
			for b.Loop() {
				if err := v.Take(&e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
