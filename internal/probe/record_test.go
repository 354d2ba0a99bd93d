//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"unsafe"

	"sstrace/internal/event"
	"sstrace/internal/filter"
	"sstrace/internal/linux"
	"sstrace/internal/record"
	"sstrace/internal/track"
	"sstrace/internal/view/lines"
)

func sample() bpfEvent {
	r := bpfEvent{
		MonoNs: 1223321354948, Sk: 0xffff8881012e5340, Cookie: 4711, Netns: 4026531840, Uid: 1000, Cpu: 1,
		TaskPid: 17837, Family: 2, Proto: 6, Lport: 40602, Rport: 7781, OldState: 2, NewState: 1,
		Laddr: netip.MustParseAddr("::ffff:127.0.0.1").As16(), Raddr: netip.MustParseAddr("::ffff:127.0.0.1").As16(),
	}
	copy(r.TaskComm[:], "nc")
	return r
}

func bytesOf(r *bpfEvent) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(r)), recordSize))
}

func TestDecode(t *testing.T) {
	r := sample()
	raw := bytesOf(&r)
	if _, err := decode(raw[:recordSize-1]); err == nil {
		t.Error("decode accepts a record that is too short")
	}
	got, err := decode(append(raw, 1, 2, 3, 4, 5, 6, 7, 8)) // as in a struct that extends event
	if err != nil || *got != r {
		t.Errorf("got %+v, %v; want %+v", got, err, r)
	}
}

// The meaning of a record's error depends on its kind. It is either the socket's error or the one
// that connect() returned.
func TestRecordErr(t *testing.T) {
	r := sample()
	r.SkErr, r.ConnectErr = 104, 113
	names := &namer{Names: linux.NewNames()}
	for kind, want := range map[record.Kind]int32{
		record.Change: 104, record.SecondChange: 104, record.NoSyn: 113, record.ConnectReturned: 113,
	} {
		r.Kind = uint8(kind)
		if got := names.record(&r).Err; got != want {
			t.Errorf("kind %d: got %d, want %d", kind, got, want)
		}
	}
}

// The cast returns the same values as encoding/binary.
func FuzzDecode(f *testing.F) {
	r := sample()
	f.Add(bytesOf(&r))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decode(raw)
		var want bpfEvent
		if _, wantErr := binary.Decode(raw, binary.NativeEndian, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("decode returned the error %v, encoding/binary %v", err, wantErr)
		}
		if err == nil && *got != want {
			t.Fatalf("got %+v, encoding/binary decodes %+v", *got, want)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBinaryDecode(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := binary.Decode(raw, binary.NativeEndian, &r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecordToLine measures everything that the reader does with a change, from a record in
// the ring to a line of output.
func BenchmarkRecordToLine(b *testing.B) {
	r := sample()
	raw := bytesOf(&r)
	names := &namer{Names: linux.NewNames()}
	var tracker track.Kernel
	var clock linux.Clock
	var f filter.Filter
	p := lines.New(io.Discard, "ndjson", "wall", false)
	pass := func(e *event.Event) error { return f.Pass(e, p.Take) }
	var e record.Record
	b.ReportAllocs()
	for b.Loop() {
		r, err := decode(raw)
		if err != nil {
			b.Fatal(err)
		}
		e = names.record(r)
		e.Wall = clock.Wall(e.Mono)
		if err := tracker.Take(&e, pass); err != nil {
			b.Fatal(err)
		}
	}
}
