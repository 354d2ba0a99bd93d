package eventtest

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// container is an ID as a container runtime generates it.
const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Kinds lists each kind of object with its name. A line has the name of its type.
var Kinds = []struct {
	Name string
	In   event.Kinds
	Type event.Type // of the line, or of the line around the object
}{
	{"change", event.InChange, event.Change},
	{"accept", event.InAccept, event.Accept},
	{"connect_failed", event.InConnectFailed, event.ConnectFailed},
	{"socket", event.InSocket, event.Socket},
	{"lost", event.InLost, event.Lost},
	{"end", event.InEnd, event.End},
	{"totals", event.InTotals, event.Change},
	{"holders", event.InHolder, event.Socket},
}

// Set makes the key k known in e, a line made by New, and returns its value as JSON. Different n
// give different values. in is the kind of object that has the key.
func Set(e *event.Event, k *event.Key, in event.Kinds, n int) string {
	prepare(e, k, in)
	switch k.Form {
	case event.FormVersion:
		return strconv.Itoa(event.Version)
	case event.FormType:
		return strconv.Quote(e.Type.String())
	case event.FormWall:
		e.Wall = Wall + int64(n)
		return strconv.Quote(string(event.AppendTime(nil, e.Wall)))
	case event.FormTotals:
		e.Totals = event.Totals{Known: true}
		return "{…}"
	case event.FormHolders:
		return "[…]"
	}
	text := fmt.Sprintf("a\x1b%d", n)
	switch k.Name {
	case "container":
		e.Cgroup = "/docker/" + container
		return strconv.Quote(container)
	case "unit":
		e.Cgroup = fmt.Sprintf(`/a\x2d%d.service`, n) // systemd escapes a hyphen like this
		return fmt.Sprintf(`"a\\x2d%d.service"`, n)
	}
	m := member(e, k, in)
	switch k.Form {
	case event.FormHostPID:
		m.SetUint(uint64(n) | event.HostPID)
		return strconv.Itoa(n)
	case event.FormAddr:
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		m.Set(reflect.ValueOf(netip.AddrPortFrom(a, m.Interface().(netip.AddrPort).Port())))
		return strconv.Quote(a.String())
	case event.FormPort:
		m.Set(reflect.ValueOf(netip.AddrPortFrom(m.Interface().(netip.AddrPort).Addr(), uint16(n))))
		return strconv.Itoa(n)
	case event.FormHex:
		m.SetUint(uint64(n))
		return fmt.Sprintf(`"0x%x"`, n)
	case event.FormAnswer:
		m.SetUint(1)
		return "true"
	}
	switch m.Kind() {
	case reflect.Bool:
		m.SetBool(true)
		return "true"
	case reflect.String:
		m.SetString(text)
		return fmt.Sprintf(`"a\u001b%d"`, n)
	case reflect.Uint8:
		return setName(m, k.ValuesIn(in))
	case reflect.Int32, reflect.Int64:
		m.SetInt(int64(n))
	default:
		m.SetUint(uint64(n))
	}
	return strconv.Itoa(n)
}

// setName sets an enumeration to its first value, or to the first of want if that is not empty.
func setName(m reflect.Value, want []string) string {
	for v := uint64(1); ; v++ {
		m.SetUint(v)
		name := m.Interface().(fmt.Stringer).String()
		if len(want) == 0 || name == want[0] {
			return strconv.Quote(name)
		}
	}
}

// Clear makes the key k in e unknown again after Set has made it known. The key must be one that
// may be null.
func Clear(e *event.Event, k *event.Key, in event.Kinds) {
	switch k.Form {
	case event.FormTotals:
		e.Totals = event.Totals{}
		return
	case event.FormHolders:
		e.Status.Holders = nil
		return
	case event.FormOwnerComm:
		e.OwnerPID, e.OwnerComm, e.OwnerVia = 0, "", 0
		return
	}
	if strings.HasSuffix(k.Get, "()") && k.Set == "" {
		e.Cgroup = ""
		return
	}
	if in == event.InHolder {
		h := &e.Status.Holders[0]
		if h.How = event.ByDescriptor; k.Name == "fd" {
			h.How = event.BySlot
		}
		h.Slot = 0
		return
	}
	m := member(e, k, in)
	switch k.Form {
	case event.FormMinusNull:
		m.SetInt(event.Unknown)
	case event.FormUID:
		m.SetUint(event.NoUID)
	case event.FormPID:
		if m.SetUint(0); hasHost(k, in) {
			m.SetUint(5 | event.HostPID)
		}
	case event.FormTaskPID:
		m.SetUint(5 | event.HostPID)
	case event.FormHostPID:
		m.SetUint(5)
	case event.FormAddr:
		m.Set(reflect.ValueOf(netip.AddrPortFrom(netip.Addr{}, m.Interface().(netip.AddrPort).Port())))
	case event.FormPort:
		m.Set(reflect.ValueOf(netip.AddrPortFrom(m.Interface().(netip.AddrPort).Addr(), 0)))
	default:
		m.SetZero()
	}
}

// hasHost reports whether a process ID has a separate key for IDs of the host.
func hasHost(k *event.Key, in event.Kinds) bool {
	return slices.ContainsFunc(in.Keys(), func(other *event.Key) bool {
		return other.Form == event.FormHostPID && other.Get == k.Get
	})
}

// prepare sets the other keys to the values that they need for k to be known.
func prepare(e *event.Event, k *event.Key, in event.Kinds) {
	switch k.Name {
	case "accept_q", "accept_max":
		e.New = event.Listen
	case "owner_comm", "owner_via":
		e.OwnerPID = 30
	}
	switch {
	case in == event.InTotals:
		e.Totals.Known = true
	case in == event.InHolder || k.Form == event.FormHolders:
		h := event.Holder{PID: 1}
		if k.Name == "slot" || k.Name == "ring_fd" {
			h.How = event.BySlot
		}
		e.Status.Holders = []event.Holder{h}
	}
}

// member returns the member of e into which k is decoded.
func member(e *event.Event, k *event.Key, in event.Kinds) reflect.Value {
	m := reflect.ValueOf(e).Elem()
	switch in {
	case event.InTotals:
		m = reflect.ValueOf(&e.Totals).Elem()
	case event.InHolder:
		m = reflect.ValueOf(&e.Status.Holders[0]).Elem()
	}
	path := k.Set
	if path == "" {
		path = k.Get
	}
	for name := range strings.SplitSeq(path, ".") {
		if m = m.FieldByName(name); m.Kind() == reflect.Pointer {
			m = m.Elem()
		}
	}
	return m
}
