package track

import (
	"math"
	"net/netip"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/record"
)

// change returns a change of a full socket as the kernel side reports it.
func change(sk, cookie uint64, mono int64, from, to event.State) record.Record {
	return record.Record{Event: event.Event{
		Type: event.Change, Sk: sk, Cookie: cookie, Mono: mono, Old: from, New: to, Family: event.IPv4,
		Proto: event.TCP,
		Local: netip.MustParseAddrPort("127.0.0.1:7781"), Remote: netip.MustParseAddrPort("127.0.0.1:40602"),
	}}
}

// timer returns a record of a mini-socket's timer, with the same tuple as change.
func timer(sk uint64, mono int64, kind record.Kind, state event.State) record.Record {
	r := change(sk, 0, mono, 0, state)
	r.Kind, r.Mini, r.Origin = kind, true, event.FromTimer
	if state == event.SynRecv {
		r.Listener = 99
	}
	return r
}

func request(sk uint64, mono int64, kind record.Kind) record.Record {
	return timer(sk, mono, kind, event.SynRecv)
}

func timeWait(sk uint64, mono int64, kind record.Kind) record.Record {
	return timer(sk, mono, kind, event.TimeWait)
}

// bySecond marks r as a record from the kernel side's second program.
func bySecond(r record.Record) record.Record {
	r.Kind = record.SecondChange
	return r
}

// ownedBy marks r as the result of a system call by a process.
func ownedBy(pid uint32, r record.Record) record.Record {
	r.OwnerPID, r.OwnerComm = pid, "p"
	return r
}

// retransmitted returns r for a request whose SYN-ACK was sent twice.
func retransmitted(r record.Record) record.Record {
	r.Retries = 1
	return r
}

// withoutRemote removes the remote end and the cookie from r. Up to Linux 6.12, a child has
// neither.
func withoutRemote(r record.Record) record.Record {
	r.Remote, r.Cookie = netip.AddrPort{}, 0
	return r
}

// withoutLocal removes the local end from r.
func withoutLocal(r record.Record) record.Record {
	r.Local = netip.AddrPort{}
	return r
}

func onCPU(cpu uint32, r record.Record) record.Record {
	r.CPU = cpu
	return r
}

func withFlags(flags record.Flags, r record.Record) record.Record {
	r.Flags |= flags
	return r
}

func withLosses(losses uint64, r record.Record) record.Record {
	r.Losses = losses
	return r
}

// existing makes r the record of a socket that is older than the trace.
func existing(r record.Record) record.Record {
	r.Type, r.Kind = event.Socket, record.Existing
	return r
}

// track passes records to a tracker and returns the lines.
func track(t *testing.T, tr Tracker, records ...record.Record) (lines []event.Event) {
	t.Helper()
	emit := func(e *event.Event) error {
		if e.Type != event.Socket {
			lines = append(lines, *e)
		}
		return nil
	}
	for _, r := range records {
		if err := tr.Take(&r, emit); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Settle(math.MaxInt64, emit); err != nil {
		t.Fatal(err)
	}
	if n := tr.Waiting(); n != 0 {
		t.Errorf("got %d waiting records after the end, want 0", n)
	}
	return lines
}

// inBoth runs a test in both vocabularies.
func inBoth(t *testing.T, test func(t *testing.T, tr Tracker)) {
	t.Run("kernel", func(t *testing.T) { test(t, new(Kernel)) })
	t.Run("rfc", func(t *testing.T) { test(t, new(RFC)) })
}

func BenchmarkKernel(b *testing.B) {
	records := []record.Record{
		change(0, 0, 10, event.Close, event.SynSent), change(0, 0, 20, event.SynSent, event.Established),
		change(0, 0, 30, event.Established, event.FinWait1),
		change(0, 0, 40, event.FinWait1, event.FinWait2), change(0, 0, 50, event.FinWait2, event.Close),
	}
	var k Kernel
	emit := func(*event.Event) error { return nil }
	b.ReportAllocs()
	i := uint64(0)
	var r record.Record
	for b.Loop() {
		r = records[i%5]
		r.Sk, r.Cookie = i/5%1000, i/5+1
		if err := k.Take(&r, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkRFC(b *testing.B) {
	records := []record.Record{
		request(10, 0, record.RequestStarted), change(11, 7, 1, event.Listen, event.SynRecv),
		request(10, 2, record.RequestCancelled),
		change(11, 7, 3, event.SynRecv, event.Established), change(11, 7, 4, event.Established, event.FinWait1),
		change(11, 7, 5, event.FinWait1, event.FinWait2), timeWait(20, 6, record.TimeWaitStarted),
		change(11, 7, 7, event.FinWait2, event.Close),
		timeWait(20, 8, record.TimeWaitCancelled), timeWait(20, 9, record.TimeWaitExpired),
	}
	var m RFC
	emit := func(*event.Event) error { return nil }
	b.ReportAllocs()
	i := 0
	var r record.Record
	for b.Loop() {
		r = records[i%len(records)]
		r.Mono += int64(i)
		if err := m.Take(&r, emit); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
