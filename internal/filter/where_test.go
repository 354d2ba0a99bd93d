package filter

import (
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
)

// name returns the name that --where uses for a key of a kind of object.
func name(k *event.Key, in event.Kinds) string {
	switch in {
	case event.InTotals:
		return "totals." + k.Name
	case event.InHolder:
		return "." + k.Name
	}
	return k.Name
}

// holds reports whether the expression is true for e.
func holds(t *testing.T, where string, e *event.Event, in event.Kinds) bool {
	t.Helper()
	if in == event.InHolder {
		where = "any(holders, " + where + ")"
	}
	f, err := New(&Options{Where: where, Listing: e.Type == event.Socket})
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return false
	}
	got := f.matches(e)
	if err := f.Trouble(); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	return got
}

// --where knows the keys of each kind of object that is about a socket, with their values. A key
// that may be null is nil in an expression, and comparing it returns false.
func TestWhereKnowsEveryKey(t *testing.T) {
	const filtered = event.InSockets | event.InTotals | event.InHolder
	for _, kind := range eventtest.Kinds {
		if kind.In&filtered == 0 {
			continue
		}
		for i, k := range kind.In.Keys() {
			key := name(k, kind.In)
			e := eventtest.New(kind.Type)
			want := eventtest.Set(e, k, kind.In, 100+i)
			if k.NoWhere {
				if _, err := New(&Options{Where: key + " == 1", Listing: e.Type == event.Socket}); err == nil {
					t.Errorf("%s: --where accepts %s", kind.Name, key)
				}
				continue
			}
			switch k.Form {
			case event.FormWall:
				want = "date(" + want + ")"
			case event.FormTotals, event.FormHolders:
				want = key
			}
			if !holds(t, key+" == "+want, e, kind.In) {
				t.Errorf("%s: %s is not %s", kind.Name, key, want)
			}
			if k.Form == event.FormHolders {
				continue // a list may be empty, but not null
			}
			if holds(t, key+" == nil", e, kind.In) {
				t.Errorf("%s: %s is nil", kind.Name, key)
			}
			if !k.Form.Null() {
				continue
			}
			eventtest.Clear(e, k, kind.In)
			if !holds(t, key+" == nil", e, kind.In) || holds(t, key+" == "+key, e, kind.In) {
				t.Errorf("%s: the unknown %s is not null", kind.Name, key)
			}
		}
	}
}

// If only some kinds of lines have a key, it is null in the other kinds.
func TestWhereOfOtherKinds(t *testing.T) {
	for _, kind := range eventtest.Kinds {
		if kind.In&event.InTrace == 0 {
			continue
		}
		for i, k := range event.InTrace.Keys() {
			if k.In&kind.In != 0 || k.NoWhere {
				continue
			}
			e := eventtest.New(kind.Type)
			e.Dur, e.SynRetrans = int64(i), int32(i) // their keys depend on the kind of line
			if !holds(t, k.Name+" == nil", e, kind.In) {
				t.Errorf("%s: %s is not null", kind.Name, k.Name)
			}
		}
	}
}

func TestWhereErrors(t *testing.T) {
	for where, want := range map[string]string{"nonsense > 1": "unknown name nonsense", "rport": "expected bool"} {
		if _, err := New(&Options{Where: where}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", where, err, want)
		}
	}
}
