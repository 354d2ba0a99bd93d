package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sstrace/internal/event"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// env is a change as an expression sees it, by the keys of NDJSON; a pointer is nil where NDJSON has null.
type env struct {
	Time      time.Time `expr:"ts"`
	Mono      int       `expr:"mono_ns"`
	CPU       int       `expr:"cpu"`
	ID        int       `expr:"id"`
	Cookie    *int      `expr:"cookie"`
	Sk        string    `expr:"sk"`
	NetNS     *int      `expr:"netns"`
	Family    string    `expr:"family"`
	Proto     string    `expr:"proto"`
	LAddr     *string   `expr:"laddr"`
	LPort     *int      `expr:"lport"`
	RAddr     *string   `expr:"raddr"`
	RPort     *int      `expr:"rport"`
	Old       *string   `expr:"old"`
	New       *string   `expr:"new"`
	Dur       *int      `expr:"dur_ns"`
	Queue     *int      `expr:"queue_ns"`
	Origin    *string   `expr:"origin"`
	Role      *string   `expr:"role"`
	Reason    *string   `expr:"reason"`
	Active    *bool     `expr:"active_close"`
	Err       *int      `expr:"err"`
	Totals    *totals   `expr:"totals"`
	OwnerPID  *int      `expr:"owner_pid"`
	OwnerComm *string   `expr:"owner_comm"`
	OwnerVia  *string   `expr:"owner_via"`
	TaskPID   int       `expr:"task_pid"`
	TaskComm  string    `expr:"task_comm"`
	UID       *int      `expr:"uid"`
	Cgroup    *string   `expr:"cgroup"`
	Container *string   `expr:"container"`
	Unit      *string   `expr:"unit"`
	CgroupID  *int      `expr:"cgroup_id"`
	SynAgain  *int      `expr:"syn_retrans"`
	TaskTID   *int      `expr:"task_tid"`
}

type totals struct {
	BytesAcked    int    `expr:"bytes_acked"`
	BytesReceived int    `expr:"bytes_received"`
	SegsOut       int    `expr:"segs_out"`
	SegsIn        int    `expr:"segs_in"`
	Retrans       int    `expr:"retrans"`
	SRTT          int    `expr:"srtt_us"`
	MinRTT        int    `expr:"min_rtt_us"`
	Cong          string `expr:"cong"`
}

// orNil gives nil for the zero value, which no known value of a nullable key is.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func addrOrNil(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	s := a.String()
	return &s
}

func newEnv(e *event.Event) env {
	v := env{
		Time: time.Unix(0, e.Wall), Mono: int(e.Mono), CPU: int(e.CPU), ID: int(e.ID), Cookie: orNil(int(e.Cookie)),
		Sk: "0x" + strconv.FormatUint(e.Sk, 16), NetNS: orNil(int(e.NetNS)), Family: e.Family.String(), Proto: e.Proto.String(),
		LAddr: addrOrNil(e.Local.Addr()), LPort: orNil(int(e.Local.Port())),
		RAddr: addrOrNil(e.Remote.Addr()), RPort: orNil(int(e.Remote.Port())),
		Role: orNil(e.Role.String()), Reason: orNil(e.Reason.String()), Err: orNil(int(e.Err)),
		OwnerPID: orNil(int(e.OwnerPID)), OwnerVia: orNil(e.OwnerVia.String()),
		TaskPID: int(e.TaskPID), TaskComm: e.TaskComm, Cgroup: orNil(e.Cgroup), Container: orNil(e.Container()), Unit: orNil(e.Unit()), CgroupID: orNil(int(e.CgroupID)),
		TaskTID: orNil(int(e.TaskTID)),
	}
	dur := &v.Dur
	if e.Type == event.Accept {
		dur = &v.Queue
	} else {
		v.Old, v.New, v.Origin = orNil(e.Old.String()), orNil(e.New.String()), orNil(e.Origin.String())
	}
	if ns := int(e.Dur); e.Dur != event.Unknown {
		*dur = &ns
	}
	if n := int(e.SynRetrans); e.SynRetrans != event.Unknown && e.Type == event.Change {
		v.SynAgain = &n
	}
	if e.Closer != 0 {
		active := e.Closer == event.WeClosed
		v.Active = &active
	}
	if t := &e.Totals; t.Known {
		v.Totals = &totals{
			int(t.BytesAcked), int(t.BytesReceived), int(t.SegsOut), int(t.SegsIn), int(t.Retrans), int(t.SRTT), int(t.MinRTT), t.Cong,
		}
	}
	if e.UID != event.NoUID {
		uid := int(e.UID)
		v.UID = &uid
	}
	if e.OwnerPID != 0 {
		v.OwnerComm = &e.OwnerComm
	}
	return v
}

// compile checks source against env. Its errors mark the place.
func compile(source string) (*vm.Program, error) {
	p, err := expr.Compile(source, expr.Env(env{}), expr.AsBool(), expr.Patch(guard{}))
	if err != nil {
		return nil, fmt.Errorf("%w\nExpected a comparison of the keys of -o ndjson, with nil for what is not known: dur_ns > 1e6 && err != nil", err)
	}
	return p, nil
}

// matches reports whether the expression is true; one that fails, as in a division by 0, is not.
func (f *Filter) matches(e *event.Event) bool {
	wanted, err := expr.Run(f.where, newEnv(e))
	if err != nil {
		if f.failed++; f.failure == nil {
			f.failure = err
		}
		return false
	}
	return wanted.(bool)
}

// Trouble tells of lines that were dropped because the expression failed on them.
func (f *Filter) Trouble() error {
	if f.failure == nil {
		return nil
	}
	return fmt.Errorf("--where failed on %d lines, which were dropped: %w", f.failed, f.failure)
}

// guard makes a comparison with null false, as in SQL, instead of an error: a > b becomes a != nil && a > b for every nullable
// key below it. Comparing with nil itself stays, so that `err != nil` asks whether it is known.
type guard struct{}

var comparisons = []string{"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches"}

// Visit implements ast.Visitor.
func (guard) Visit(node *ast.Node) {
	b, ok := (*node).(*ast.BinaryNode)
	if !ok || !slices.Contains(comparisons, b.Operator) || isNil(b.Left) || isNil(b.Right) {
		return
	}
	var keys nullable
	ast.Walk(&b.Left, &keys)
	ast.Walk(&b.Right, &keys)
	guarded := ast.Node(b)
	for _, key := range keys {
		known := &ast.BinaryNode{Operator: "!=", Left: &ast.IdentifierNode{Value: key}, Right: &ast.NilNode{}}
		guarded = &ast.BinaryNode{Operator: "&&", Left: known, Right: guarded}
	}
	if len(keys) > 0 {
		ast.Patch(node, guarded)
	}
}

func isNil(n ast.Node) bool {
	_, ok := n.(*ast.NilNode)
	return ok
}

// nullable collects the keys that may be null.
type nullable []string

var nullableKeys = []string{
	"cookie", "netns", "laddr", "lport", "raddr", "rport", "old", "new", "dur_ns", "queue_ns", "origin", "role", "reason", "active_close", "err", "owner_pid", "owner_comm", "owner_via", "uid", "totals", "cgroup", "cgroup_id", "container", "unit", "syn_retrans", "task_tid",
}

// Visit implements ast.Visitor.
func (n *nullable) Visit(node *ast.Node) {
	if id, ok := (*node).(*ast.IdentifierNode); ok && slices.Contains(nullableKeys, id.Value) && !slices.Contains(*n, id.Value) {
		*n = append(*n, id.Value)
	}
}
