package ndjson

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sstrace/internal/event"
)

// All kinds of lines share one sequence of numbers. Text stays in its place among them.
func TestLines(t *testing.T) {
	var out strings.Builder
	l := NewLines(&out)
	type line struct {
		Head
		Tuple
		Device
		Owner
	}
	known := &line{
		NewHead("test", 0, 1),
		NewTuple(netip.MustParseAddrPort("[fe80::1]:80"), netip.MustParseAddrPort("[fe80::2]:90")),
		NewDevice(3, "eth0"), NewOwner(7, "<nc>", event.ViaConnect),
	}
	host := &line{Head: NewHead("test", 0, 1), Owner: NewOwner(7|event.HostPID, "nc", 0)}
	host.Tuple, host.Device = NewTuple(netip.AddrPort{}, netip.AddrPort{}), NewDevice(0, "")
	unknown := &line{Head: NewHead("test", 0, 1), Owner: NewOwner(0, "", 0)}
	write := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write(l.JSON(known))
	write(l.Text("text\n"))
	write(l.JSON(host))
	if out.Len() != 0 {
		t.Errorf("written before Flush: %q", &out)
	}
	write(l.Block([]byte("block\n")))
	write(l.JSON(unknown))
	write(l.Flush())
	const head = `{"v":1,"type":"test","seq":`
	const when = `,"ts":"1970-01-01T00:00:00.000000000Z","mono_ns":1,`
	const noAddresses = `"laddr":null,"lport":null,"raddr":null,"rport":null,"ifindex":null,"ifname":null,`
	want := head + "1" + when +
		`"laddr":"fe80::1","lport":80,"raddr":"fe80::2","rport":90,"ifindex":3,"ifname":"eth0",` +
		`"owner_pid":7,"owner_host_pid":null,"owner_comm":"<nc>","owner_via":"connect"}` + "\n" +
		"text\n" +
		head + "2" + when + noAddresses +
		`"owner_pid":null,"owner_host_pid":7,"owner_comm":"nc","owner_via":null}` + "\n" +
		"block\n" +
		head + "3" + when + noAddresses +
		`"owner_pid":null,"owner_host_pid":null,"owner_comm":null,"owner_via":null}` + "\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken")
	l := NewLines(failingWriter{broken})
	if err := l.Flush(); err != nil {
		t.Errorf("Flush of nothing: got %v, want nil", err)
	}
	if err := l.Text(strings.Repeat(" ", flushAt)); !errors.Is(err, broken) {
		t.Errorf("full buffer: got %v, want %v", err, broken)
	}
}
