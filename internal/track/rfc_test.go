package track

import (
	"fmt"
	"slices"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// The sequence number in the ACK of a handshake is the client's only if the server reports it. If
// both ends sent a SYN, it is the peer's.
func TestISN(t *testing.T) {
	for _, test := range []struct {
		name   string
		before []record.Record
		want   uint32
	}{
		{"passive open",
			[]record.Record{
				request(10, 100, record.RequestStarted), change(11, 7, 110, event.Listen, event.SynRecv),
			}, 77},
		{"simultaneous open", []record.Record{
			change(11, 7, 100, event.Close, event.SynSent), timer(11, 101, record.SynSentStarted, 0),
			change(11, 7, 110, event.SynSent, event.SynRecv),
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			last := change(11, 7, 120, event.SynRecv, event.Established)
			last.ISN = 77
			lines := track(t, new(RFC), append(slices.Clone(test.before), last)...)
			if e := lines[len(lines)-1]; e.New != event.Established || e.ISN != test.want {
				t.Errorf("last line %s: got ISN %d, want %d", line(&e), e.ISN, test.want)
			}
		})
	}
}

// Deferred begins with the ACK that the listener dropped in order to wait for data.
func TestDeferred(t *testing.T) {
	var got []string
	for _, e := range track(t, new(RFC),
		request(10, 10, record.RequestStarted),
		request(10, 14, record.RequestAcked),
		change(11, 7, 40, event.Listen, event.SynRecv),
		request(10, 41, record.RequestCancelled),
		change(11, 7, 44, event.SynRecv, event.Established),
		change(11, 7, 60, event.Established, event.CloseWait),
	) {
		got = append(got, fmt.Sprint(e.New, " ", e.Deferred))
	}
	if want := []string{"SYN_RECV 0", "ESTABLISHED 30", "CLOSE_WAIT 0"}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A connect() that fails without sending a SYN has its own line, with the id of its socket if that
// is known.
func TestConnectFailed(t *testing.T) {
	failed := change(30, 9, 50, 0, 0)
	failed.Type, failed.Kind, failed.Err, failed.Role = event.ConnectFailed, record.NoSyn, 113, event.Client
	again := failed
	again.Sk, again.Cookie = 11, 7
	var got []string
	for _, e := range track(t, new(RFC),
		change(11, 7, 40, event.SynRecv, event.Established), failed, again,
		change(11, 7, 60, event.Established, event.CloseWait),
	) {
		got = append(got, fmt.Sprint(e.Type, " ", e.ID, " ", e.New, " ", e.Reason))
	}
	want := []string{
		"change 1 ESTABLISHED ", "connect_failed 2  unreachable", "connect_failed 1  unreachable",
		"change 1 CLOSE_WAIT ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Without timers, only the full socket shows what happens to a connection. TIME_WAIT has no end.
func TestTimersUnavailable(t *testing.T) {
	for _, test := range []struct {
		name    string
		records []record.Record
		want    []string
		merged  uint64
	}{
		{"connect() does not wait for its port", []record.Record{
			change(11, 7, 100, event.Close, event.SynSent), change(11, 7, 110, event.SynSent, event.Established),
		}, []string{"1 CLOSE SYN_SENT 100 -1", "1 SYN_SENT ESTABLISHED 110 10"}, 0},
		{"FIN arrived", []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			withClosing(record.FinCame, 0, change(11, 7, 110, event.FinWait2, event.Close)),
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1", "1 FIN_WAIT2 TIME_WAIT 110 10"}, 0},
		{"orphan", []record.Record{
			change(11, 7, 100, event.FinWait1, event.FinWait2),
			withClosing(record.Orphan, 0, change(11, 7, 110, event.FinWait2, event.Close)),
		}, []string{"1 FIN_WAIT1 FIN_WAIT2 100 -1"}, 1},
		{"RST", []record.Record{withClosing(0, 104, change(11, 7, 110, event.FinWait2, event.Close))},
			[]string{"1 FIN_WAIT2 CLOSE 110 -1 reset_by_peer errno 104"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			check(t, &RFC{TimersUnavailable: true}, test.records, test.want, test.merged)
		})
	}
}

// A full socket in the snapshot replaces a request at the same address. The end of that request was
// lost.
func TestSnapshotEndsRequest(t *testing.T) {
	check(t, new(RFC), []record.Record{
		request(10, 100, record.RequestStarted),
		existing(withoutLocal(change(10, 7, 200, 0, event.Established))),
		change(11, 8, 300, event.Listen, event.SynRecv), // has the same tuple as the request
		change(11, 8, 310, event.SynRecv, event.Established),
	}, []string{"1 LISTEN SYN_RECV 100 -1", "3 LISTEN SYN_RECV 300 -1", "3 SYN_RECV ESTABLISHED 310 10"}, 0)
}

// A line waits for a few ms at most, and the lines behind it wait with it.
func TestPatience(t *testing.T) {
	var m RFC
	var got []int64
	emit := func(e *event.Event) error {
		got = append(got, e.Mono)
		return nil
	}
	for _, r := range []record.Record{
		withoutLocal(change(11, 7, 100, event.Close, event.SynSent)),
		change(12, 8, 200, event.Established, event.CloseWait),
	} {
		if err := m.Take(&r, emit); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 0 || m.Waiting() != 2 {
		t.Errorf("got lines of %d, and %d waiting records", got, m.Waiting())
	}
	if err := m.Settle(100+patience, emit); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []int64{100, 200}) || m.Waiting() != 0 {
		t.Errorf("got lines of %d, and %d waiting records", got, m.Waiting())
	}
}
