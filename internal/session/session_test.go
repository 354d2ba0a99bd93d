package session

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/filter"
)

// source returns prepared lines, followed by an error or a balance.
type source struct {
	lines   []event.Event
	idle    bool // call Idle after the last line
	err     error
	balance *event.Balance
	endErr  error
	stopped bool
}

func (s *source) Events(idle func(int64) error) iter.Seq2[*event.Event, error] {
	return func(yield func(*event.Event, error) bool) {
		for i := range s.lines {
			if !yield(&s.lines[i], nil) {
				return
			}
		}
		err := s.err
		if s.idle {
			err = errors.Join(err, idle(7))
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func (s *source) Stop() { s.stopped = true }

func (s *source) End() (*event.Event, error) {
	return &event.Event{Type: event.End, Balance: s.balance}, s.endErr
}

// view records which methods are called.
type view struct {
	calls []string
	fail  string // the call that should fail
}

var errBroken = errors.New("broken")

func (v *view) call(what string) error {
	v.calls = append(v.calls, what)
	if what == v.fail {
		return errBroken
	}
	return nil
}

func (v *view) Begin() error { return v.call("begin") }
func (v *view) Take(e *event.Event) error {
	return v.call(fmt.Sprintf("%v %d", e.Type, e.ID+e.RingFull))
}
func (v *view) Idle(mono int64) error      { return v.call(fmt.Sprint("idle ", mono)) }
func (v *view) End(end *event.Event) error { return v.call(fmt.Sprint("end ", end.Balance != nil)) }

func changes(ids ...uint64) (lines []event.Event) {
	for _, id := range ids {
		lines = append(lines, event.Event{Type: event.Change, ID: id, New: event.Established})
	}
	return lines
}

func lost(n uint64) event.Event { return event.Event{Type: event.Lost, RingFull: n} }

// output returns an Output that writes to a file.
func output(t *testing.T) *Output {
	t.Helper()
	out, err := OpenOutput(filepath.Join(t.TempDir(), "out"), "")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRun(t *testing.T) {
	older := event.Event{Type: event.Socket, ID: 9}
	failed := event.Event{Type: event.ConnectFailed, ID: 3}
	errSource := errors.New("source")
	for _, test := range []struct {
		name    string
		source  source
		options Options
		fail    string
		calls   string
		printed uint64 // in the balance; 0: no balance
		err     error
	}{
		{name: "every line, then the end", source: source{lines: changes(1, 2), balance: new(event.Balance)}, calls: "begin, change 1, change 2, end true", printed: 2},
		{name: "begins when idle", source: source{idle: true, balance: &event.Balance{}}, calls: "begin, idle 7, end true"},
		{name: "begins even without lines", source: source{balance: &event.Balance{}}, calls: "begin, end true"},
		{name: "lost changes are not filtered", source: source{lines: append(changes(1), lost(5)), balance: &event.Balance{RingFull: 5}}, calls: "begin, change 1, lost 5, end true", printed: 1},
		{name: "enough lines", source: source{lines: changes(1, 2, 3), balance: &event.Balance{RingFull: 4}}, options: Options{Count: 2}, calls: "begin, change 1, change 2, lost 4, end true", printed: 2},
		{name: "a recording, enough lines", source: source{lines: changes(1, 2, 3)}, options: Options{Count: 1}, calls: "begin, change 1, end true", printed: 1},
		{name: "older sockets are not wanted", source: source{lines: []event.Event{older}, balance: &event.Balance{}}, calls: "begin, end true"},
		{name: "older sockets are wanted", source: source{lines: []event.Event{older}, balance: &event.Balance{}}, options: Options{Older: true}, calls: "begin, socket 9, end true"},
		{name: "a listing", source: source{lines: []event.Event{older, failed}, balance: &event.Balance{}}, options: Options{Listing: true}, calls: "begin, socket 9, end true", printed: 1},
		{name: "the source fails", source: source{lines: changes(1), err: errSource, balance: &event.Balance{}}, calls: "begin, change 1, end false", err: errSource},
		{name: "a recording without end", source: source{lines: changes(1), endErr: errSource}, calls: "begin, change 1, end false", err: errSource},
		{name: "the view fails", source: source{lines: changes(1, 2), balance: &event.Balance{}}, fail: "change 1", calls: "begin, change 1", err: errBroken},
		{name: "the view fails when idle", source: source{idle: true, balance: &event.Balance{}}, fail: "idle 7", calls: "begin, idle 7", err: errBroken},
		{name: "the view fails when it begins", source: source{lines: changes(1), balance: &event.Balance{}}, fail: "begin", calls: "begin", err: errBroken},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := filter.New(new(filter.Options))
			if err != nil {
				t.Fatal(err)
			}
			v := view{fail: test.fail}
			test.options.Filter = f
			b, err := Run(&test.source, output(t), &v, test.options)
			if got := strings.Join(v.calls, ", "); got != test.calls {
				t.Errorf("calls: %s\nwant:  %s", got, test.calls)
			}
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if b != nil && b.Printed != test.printed || b == nil && test.printed != 0 {
				t.Errorf("got balance %+v, want %d printed", b, test.printed)
			}
			if !test.source.stopped {
				t.Error("the source was not stopped")
			}
		})
	}
}

// If a run cannot begin, its output file stays as it was. If it can, it replaces the file.
func TestOutputIsReplacedOnceLinesCome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	content := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	out, err := OpenOutput(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := content(); got != "before" {
		t.Errorf("opened, the file holds %q", got)
	}
	if err := out.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "after"); err != nil {
		t.Fatal(err)
	}
	if got := content(); got != "after" {
		t.Errorf("the file holds %q", got)
	}
	if _, err := OpenOutput(path, path); err == nil {
		t.Error("a recording may be overwritten while it is read")
	}
}

func TestRecording(t *testing.T) {
	line := func(seq uint64, kind event.Type) string {
		e := event.Event{
			Type:       kind,
			Seq:        seq,
			ID:         seq,
			Family:     event.IPv4,
			Proto:      event.TCP,
			Old:        event.Close,
			New:        event.SynSent,
			Dur:        event.Unknown,
			Origin:     event.Tracepoint,
			SynRetrans: event.Unknown,
		}
		switch kind {
		case event.End:
			e.Balance = &event.Balance{Seen: 1, Printed: 1}
		case event.Socket:
			e.Status = &event.Status{}
		}
		return string(e.AppendJSON(nil))
	}
	for _, test := range []struct {
		name  string
		lines string
		want  Want
		seqs  []uint64
		err   string // from Events or End
	}{
		{"whole", line(1, event.Change) + line(2, event.End), Want{}, []uint64{1}, ""},
		{"no end", line(1, event.Change), Want{}, []uint64{1}, "FILE has no end line"},
		{"a gap", line(1, event.Change) + line(4, event.End), Want{}, []uint64{1}, "line 1 is followed by line 4"},
		{"two recordings", line(1, event.Change) + line(2, event.End) + line(1, event.Change), Want{}, []uint64{1}, "line 3 comes after the end"},
		{"cut within a line", line(1, event.Change) + `{"v":1,`, Want{}, []uint64{1}, "what came before it was printed"},
		{"a listing", line(1, event.Socket) + line(2, event.End), Want{}, []uint64{1}, ErrSockets.Error()},
		{"a listing, which is wanted", line(1, event.Socket) + line(2, event.End), Want{Existing: true}, []uint64{1}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewRecording(strings.NewReader(test.lines), "FILE", test.want)
			var seqs []uint64
			var readErr error
			for e, err := range r.Events(nil) {
				if readErr = err; err != nil {
					break
				}
				seqs = append(seqs, e.Seq)
			}
			_, endErr := r.End()
			err := errors.Join(readErr, endErr)
			if !slices.Equal(seqs, test.seqs) {
				t.Errorf("lines %v, want %v", seqs, test.seqs)
			}
			if test.err == "" && err != nil ||
				test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
}
