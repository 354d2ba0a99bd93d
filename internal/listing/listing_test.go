//go:build linux

package listing

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"sstrace/internal/event"

	"github.com/cilium/ebpf/btf"
)

func objectTypes(t *testing.T) *btf.Spec {
	t.Helper()
	spec, err := loadList()
	if err != nil {
		t.Fatal(err)
	}
	return spec.Types
}

// The Go structs have the same layout as those in the object, member by member.
func TestStructLayouts(t *testing.T) {
	types := objectTypes(t)
	for name, goType := range map[string]reflect.Type{
		"sock_found": reflect.TypeFor[listSockFound](), "holder_found": reflect.TypeFor[listHolderFound](),
	} {
		t.Run(name, func(t *testing.T) {
			var c *btf.Struct
			if err := types.TypeByName(name, &c); err != nil {
				t.Fatal(err)
			}
			if uintptr(c.Size) != goType.Size() {
				t.Errorf("the struct has %d bytes in C and %d in Go", c.Size, goType.Size())
			}
			for _, m := range c.Members {
				want := strings.ReplaceAll(m.Name, "_", "")
				field, ok := goType.FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, want) })
				if !ok || uint32(field.Offset) != m.Offset.Bytes() {
					t.Errorf("member %s is at %d in C; in Go: %v, at %d", m.Name, m.Offset.Bytes(), ok, field.Offset)
				}
			}
		})
	}
}

// event.Attached has the same numbers as the enumeration in the object.
func TestAttachedValues(t *testing.T) {
	var attached *btf.Enum
	if err := objectTypes(t).TypeByName("attached", &attached); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]event.Attached)
	for _, v := range attached.Values {
		got[v.Name] = event.Attached(v.Value)
	}
	want := map[string]event.Attached{
		"ATTACHED_UNKNOWN": 0, "ATTACHED_NOTHING": event.AttachedNothing, "ATTACHED_QUEUE": event.AttachedQueue,
		"ATTACHED_KERNEL": event.AttachedKernel, "ATTACHED_DESCRIPTOR": event.AttachedDescriptor,
	}
	if !maps.Equal(got, want) {
		t.Errorf("enum attached is %v, want %v", got, want)
	}
}

// A namespace is entered once. It counts as closed only if every way into it is refused.
func TestVisits(t *testing.T) {
	v := visits{results: make(map[uint64]result)}
	v.refuse(1)
	v.refuse(1)
	v.refuse(2)
	if !v.enter(2) {
		t.Error("2 cannot be entered after one way was refused")
	}
	if v.enter(2) || v.open(2) {
		t.Error("2 can be entered twice")
	}
	v.refuse(2) // by a slower thread
	if v.closed() != 1 || !v.open(1) {
		t.Errorf("got %d closed namespaces and open %v for namespace 1, want 1 and true", v.closed(), v.open(1))
	}
	if !v.enter(3) {
		t.Error("3 cannot be entered")
	}
	v.leave(3)
	v.refuse(3)
	if v.closed() != 2 {
		t.Errorf("got %d closed namespaces, want 2", v.closed())
	}
	v.wanted = []uint32{5}
	if v.enter(4) || !v.enter(5) {
		t.Error("a namespace other than 5 can be entered, or 5 cannot")
	}
}

// The time left of an orphan in FIN_WAIT2 is the time left on its timer. If the orphan waits for
// more than a minute, the time of the timewait sock that follows is added.
func TestFinWait2Left(t *testing.T) {
	const jiffy = 4e6
	const s = 250 // jiffies in a second
	for _, test := range []struct {
		name  string
		f     listSockFound
		jiffy int64
		want  int64
	}{
		{"sysctl, a minute", listSockFound{Left: 10 * s, FinTimeout: 60 * s, Rto: 50}, jiffy, 10e9},
		{"sysctl, more", listSockFound{Left: s, FinTimeout: 62 * s, Rto: 50}, jiffy, 3e9},
		{"TCP_LINGER2, more", listSockFound{Left: s, FinTimeout: 60 * s, FinLinger: 90 * s, Rto: 50}, jiffy, 31e9},
		{"TCP_LINGER2, less", listSockFound{Left: s, FinTimeout: 90 * s, FinLinger: 30 * s, Rto: 50}, jiffy, 1e9},
		{"TCP_LINGER2 is negative", listSockFound{Left: s, FinTimeout: 90 * s, FinLinger: -1, Rto: 50}, jiffy, 1e9},
		{"slow path", listSockFound{Left: s, FinTimeout: 61 * s, Rto: s}, jiffy, 1e9 + 3.5e9},
		{"very slow path", listSockFound{Left: s, FinTimeout: 60 * s, Rto: 20 * s}, jiffy, 1e9 + 70e9},
		{"timer about to run", listSockFound{Left: 1<<32 - 2, FinTimeout: 60 * s, Rto: 50}, jiffy, 0},
		{"unknown jiffy", listSockFound{Left: s, FinTimeout: 60 * s}, 0, event.Unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := finWait2Left(&test.f, test.jiffy); got != test.want {
				t.Errorf("got %d ns, want %d", got, test.want)
			}
		})
	}
}

func TestJiffy(t *testing.T) {
	const minute = 60e9
	for _, test := range []struct {
		name  string
		count uint64
		mono  int64
		want  int64
	}{
		{"250 Hz, an hour after boot", 1<<32 + 55*60*250, 60 * minute, 4e6},
		{"1000 Hz, a minute after boot", 1<<32 - 4*60*1000, 1 * minute, 1e6},
		{"near 2^32", 1 << 32, 5 * minute, 0},
		{"no whole frequency", 1<<32 + 55*60*3/2, 60 * minute, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := jiffy(test.count, test.mono); got != test.want {
				t.Errorf("got %d ns, want %d", got, test.want)
			}
		})
	}
}
