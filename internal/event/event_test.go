package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() Event {
	return Event{
		Type: Change, Seq: 41, Wall: 1795356131123456789, Mono: 1223321354948, CPU: 1, ID: 12, Cookie: 4711,
		Sk: 0xffff8881012e5340, NetNS: 4026531840, Family: IPv4, Proto: TCP,
		Local: netip.MustParseAddrPort("127.0.0.1:40602"), Remote: netip.MustParseAddrPort("127.0.0.1:7781"),
		Old: SynSent, New: Established, Dur: 57254, Origin: Tracepoint, Role: Client, Err: 104,
		OwnerPID: 17837, OwnerComm: "nc", OwnerVia: ViaConnect, TaskPID: 17837, TaskTID: 17838, TaskComm: "nc",
		SynRetrans: 2, UID: 1000, Cgroup: "/system.slice/redis.service", CgroupID: 4242,
	}
}

// Encoding an Event and decoding the result returns the same Event.
func TestRoundTrip(t *testing.T) {
	bound, hosts := sample(), sample()
	bound.Local, bound.IfIndex, bound.IfName = netip.MustParseAddrPort("[fe80::1]:8080"), 3, "eth\"0"
	bound.ISN, bound.Deferred = 1<<32-1, 5
	hosts.OwnerPID, hosts.TaskPID, hosts.TaskTID = 17837|HostPID, 17837|HostPID, 0
	least := Event{
		Type: Change, Seq: 1, ID: 1, Family: IPv6, Proto: MPTCP, Old: Close, New: Listen, Dur: Unknown,
		Origin: Tracepoint,
	}
	for _, e := range []Event{
		sample(), least, bound, hosts,
		{
			Type: ConnectFailed, Seq: 1, ID: 1, Family: IPv4, Proto: TCP, Role: Client, Reason: ReasonUnreachable,
			Err: 113, Dur: Unknown, SynRetrans: Unknown,
		},
		{
			Type: Change, Seq: 1, ID: 1, Family: IPv4, Proto: TCP, Old: FinWait2, New: TimeWait, Dur: 5,
			Origin: FromTimer, Closer: WeClosed, UID: NoUID, Totals: Totals{
				Known: true, BytesAcked: 1 << 40, BytesReceived: 3, SegsOut: 4, SegsIn: 5, Retrans: 6, SRTT: 7,
				SRTTOpen: 8, Cong: "cubic",
			},
		},
		{
			Type: Change, Seq: 1, ID: 1, Family: IPv4, Proto: TCP, Old: TimeWait, New: Close, Dur: 5,
			Origin: FromTimer, Closer: TheyClosed, Reason: ReasonTimeWaitExpired,
		},
		{
			Type: Accept, SynRetrans: Unknown, Seq: 1, ID: 1, Family: IPv4, Proto: TCP, Dur: 5, Role: Server,
			OwnerPID: 5, OwnerComm: "nc", OwnerVia: ViaAccept,
		},
		{
			Type: Socket, Seq: 1, Family: IPv4, Proto: TCP, New: CloseWait, Dur: Unknown, SynRetrans: Unknown,
			Role: Server, Status: &Status{
				RecvQueue: 1, SendQueue: 2, AtLeast: 3, Left: Unknown, Attached: AttachedDescriptor,
				Holders: []Holder{
					{PID: 1, FD: 3, Comm: "a\""}, {PID: 2, FD: 4, Comm: "b"},
					{PID: 2, FD: 0, Comm: "b", How: BySlot, Slot: 7},
				},
			},
		},
		{
			Type: Socket, Seq: 1, Family: IPv6, Proto: TCP, New: Listen, Dur: Unknown, SynRetrans: Unknown,
			Role: Listener, IfIndex: 3, IfName: "eth\x1b0", Status: &Status{
				V6Only: No, Attached: AttachedNothing, RecvQueue: 1, SendQueue: 128, AtLeast: Unknown, Left: Unknown,
				Holders: []Holder{},
			},
		},
		{
			Type: Socket, Seq: 1, Family: IPv4, Proto: TCP, New: SynRecv, Dur: 17, SynRetrans: 2, UID: NoUID,
			Status: &Status{RecvQueue: Unknown, SendQueue: Unknown, AtLeast: Unknown, Left: 5},
		},
		{Type: Lost, Seq: 2, Wall: 1, Mono: 5, Dur: Unknown, RingFull: 12},
		{Type: End, Seq: 3, Wall: 1, Mono: 5, Dur: Unknown, Balance: &Balance{1, 2, 3, 4, 5, 6, 7, 8, true}},
	} {
		line := e.AppendJSON(nil)
		var got Event
		if err := got.DecodeJSON(line); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, want %+v", got, e)
		}
	}
}

// The format is a contract. Any change that breaks this test also breaks programs that read the
// format.
func TestLines(t *testing.T) {
	e := sample()
	want := `{"v":1,"type":"change","seq":41,"ts":"2026-11-22T14:02:11.123456789Z","mono_ns":1223321354948,"cpu":1,` +
		`"id":12,"cookie":4711,"sk":"0xffff8881012e5340","netns":4026531840,"family":"ipv4","proto":"tcp",` +
		`"laddr":"127.0.0.1","lport":40602,"raddr":"127.0.0.1","rport":7781,"old":"SYN_SENT","new":"ESTABLISHED",` +
		`"dur_ns":57254,"origin":"tracepoint","role":"client","reason":null,"active_close":null,"err":104,` +
		`"owner_pid":17837,"owner_comm":"nc","owner_via":"connect","task_pid":17837,"task_comm":"nc","uid":1000,` +
		`"cgroup":"/system.slice/redis.service","cgroup_id":4242,"container":null,"unit":"redis.service",` +
		`"totals":null,"syn_retrans":2,"task_tid":17838,"ifindex":null,"ifname":null,"isn":null,"defer_ns":null,` +
		`"owner_host_pid":null,"task_host_pid":null}` + "\n"
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// The decoder accepts lines that AppendJSON would not write.
func TestDecodeOtherLines(t *testing.T) {
	e := sample()
	line := string(e.AppendJSON(nil))
	var got Event
	for name, line := range map[string]string{
		"keys of a later version": strings.Replace(
			line, `{`, `{"new_key":{"a":[1,2,{"b":"}\""}],"c":null},"other":-1.5e3,"third":[],`, 1,
		),
		"white space":       " " + strings.ReplaceAll(line, ",", " ,\t ") + "\r\n",
		"without null keys": strings.Replace(line, `"reason":null,`, "", 1),
		"escapes":           strings.Replace(line, `"nc"`, `"\u006e\u0063"`, 1),
	} {
		if err := got.DecodeJSON([]byte(line)); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%s: %v, got %+v", name, err, got)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	e := sample()
	line := string(e.AppendJSON(nil))
	for _, test := range []struct{ from, to, want string }{
		{`"lport":40602`, `"lport":65536`, `key "lport": column`},
		{`"lport":40602`, `"lport":-1`, "not a non-negative integer"},
		{`"lport":40602`, `"lport":1.5`, "not a non-negative integer"},
		{`"lport":40602`, `"lport":"1"`, "expected an integer"},
		{`"lport":40602`, `"lport":01`, "expected an integer"},
		{`"cookie":4711`, `"cookie":18446744073709551616`, "not a non-negative integer"},
		{`"dur_ns":57254`, `"dur_ns":9223372036854775808`, "too large"},
		{`"laddr":"127.0.0.1"`, `"laddr":"127.0.0"`, "127.0.0"},
		{`"laddr":"127.0.0.1"`, `"laddr":"fe80::1%\u001b[31m"`, "zone"},
		{`"sk":"0x`, `"sk":"`, "not a hexadecimal number"},
		{`"ts":"2026`, `"ts":"soon`, "not an RFC 3339 time"},
		{`"old":"SYN_SENT",`, ``, "a change without"},
		{`"v":1`, `"v":7`, "v is 7"},
		{`}`, `} {`, "more after the object"},
		{`}`, ``, "expected , or }"},
		{`"nc"`, "\"n\x00c\"", "control character"},
		{`"nc"`, `"n\qc"`, "bad escape"},
		{`"nc"`, `"n\u00zzc"`, `bad \u escape`},
	} {
		var got Event
		err := got.DecodeJSON([]byte(strings.Replace(line, test.from, test.to, 1)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.to, err, test.want)
		}
	}
}

func TestReadNamesTheLine(t *testing.T) {
	e := sample()
	line := string(e.AppendJSON(nil))
	lines, last := 0, error(nil)
	for _, err := range Read(strings.NewReader(line + line + line[:50])) {
		lines++
		last = err
	}
	if lines != 3 || !errors.Is(last, io.ErrUnexpectedEOF) || !strings.HasPrefix(last.Error(), "line 3") {
		t.Errorf("%d lines, %v", lines, last)
	}
	for _, err := range Read(strings.NewReader(strings.Repeat("x", 1<<17))) {
		if err == nil || !strings.Contains(err.Error(), "longer than 64 KiB") {
			t.Error(err)
		}
	}
}

// Strings are encoded in the same way as by encoding/json.
func FuzzString(f *testing.F) {
	for _, s := range []string{"nc", "a\"\\\n\x1b[31m\xff", "\u2028\u2029<&>", "\x7f\x00\b\f\r\t", "日本\xe6\x97"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		got := append(appendString(nil, s), '\n')
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("got %s, want %s", got, want.Bytes())
		}
	})
}

// Any line that can be decoded can be encoded again. The new line decodes to the same Event, and
// encoding/json decodes it to the same values.
func FuzzDecode(f *testing.F) {
	e := sample()
	f.Add(e.AppendJSON(nil))
	lost := Event{Type: Lost, Seq: 2, RingFull: 12}
	f.Add(lost.AppendJSON(nil))
	f.Add([]byte(`{"v":1,"type":"lost","seq":1,"ts":"2026-11-22T14:02:11Z","mono_ns":0,` +
		`"x":[{"a":"\ud83d\ude00\ud83d"}],"task_comm":"\ud800x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got, again Event
		if got.DecodeJSON(line) != nil {
			return
		}
		line = got.AppendJSON(nil)
		if err := again.DecodeJSON(line); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.Type != Change { // other types of lines may have keys that are not encoded again
			return
		}
		if !reflect.DeepEqual(again, got) {
			t.Fatalf("%+v is written as %+v", got, again)
		}
		var want struct {
			Seq      uint64    `json:"seq"`
			TS       time.Time `json:"ts"`
			Mono     int64     `json:"mono_ns"`
			Dur      *int64    `json:"dur_ns"`
			LPort    uint16    `json:"lport"`
			New      string    `json:"new"`
			TaskComm string    `json:"task_comm"`
			Cgroup   string    `json:"cgroup"`
		}
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		dur := int64(Unknown)
		if want.Dur != nil {
			dur = *want.Dur
		}
		if got.Seq != want.Seq || got.Wall != want.TS.UnixNano() || got.Mono != want.Mono || got.Dur != dur ||
			got.Local.Port() != want.LPort || got.New.String() != want.New || got.TaskComm != want.TaskComm ||
			got.Cgroup != want.Cgroup {
			t.Fatalf("%+v is written as %s", got, line)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	e := sample()
	buf := e.AppendJSON(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	e := sample()
	var v map[string]any
	if err := json.Unmarshal(e.AppendJSON(nil), &v); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	e := sample()
	line := e.AppendJSON(nil)
	d := decoder{names: make(map[string]string)}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.decode(line, &e); err != nil {
			b.Fatal(err)
		}
	}
}
