package filter

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sstrace/internal/event"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// socketKeys is what an expression sees of every line that is about one, by the keys of NDJSON; a pointer is nil where NDJSON has null.
type socketKeys struct {
	Time      time.Time `expr:"ts"`
	Mono      int       `expr:"mono_ns"`
	Cookie    *int      `expr:"cookie"`
	Sk        string    `expr:"sk"`
	NetNS     *int      `expr:"netns"`
	Family    string    `expr:"family"`
	Proto     string    `expr:"proto"`
	LAddr     *string   `expr:"laddr"`
	LPort     *int      `expr:"lport"`
	RAddr     *string   `expr:"raddr"`
	RPort     *int      `expr:"rport"`
	Role      *string   `expr:"role"`
	UID       *int      `expr:"uid"`
	Cgroup    *string   `expr:"cgroup"`
	Container *string   `expr:"container"`
	Unit      *string   `expr:"unit"`
	CgroupID  *int      `expr:"cgroup_id"`
	SynAgain  *int      `expr:"syn_retrans"`
}

// changeKeys are those of a change or an accept.
type changeKeys struct {
	socketKeys
	CPU       int     `expr:"cpu"`
	ID        int     `expr:"id"`
	Old       *string `expr:"old"`
	New       *string `expr:"new"`
	Dur       *int    `expr:"dur_ns"`
	Queue     *int    `expr:"queue_ns"`
	Origin    *string `expr:"origin"`
	Reason    *string `expr:"reason"`
	Active    *bool   `expr:"active_close"`
	Err       *int    `expr:"err"`
	Totals    *totals `expr:"totals"`
	OwnerPID  *int    `expr:"owner_pid"`
	OwnerComm *string `expr:"owner_comm"`
	OwnerVia  *string `expr:"owner_via"`
	TaskPID   *int    `expr:"task_pid"`
	TaskComm  string  `expr:"task_comm"`
	TaskTID   *int    `expr:"task_tid"`
	IfIndex   *int    `expr:"ifindex"`
	IfName    *string `expr:"ifname"`
	ISN       *int    `expr:"isn"`
	Deferred  *int    `expr:"defer_ns"`
	OwnerHost *int    `expr:"owner_host_pid"`
	TaskHost  *int    `expr:"task_host_pid"`
}

// listedKeys are those of a socket that exists.
type listedKeys struct {
	socketKeys
	OwnerPID  *int     `expr:"owner_pid"`
	OwnerComm *string  `expr:"owner_comm"`
	OwnerVia  *string  `expr:"owner_via"`
	State     string   `expr:"state"`
	Age       *int     `expr:"age_ns"`
	AtLeast   *int     `expr:"age_min_ns"`
	Left      *int     `expr:"left_ns"`
	RecvQueue *int     `expr:"recv_q"`
	SendQueue *int     `expr:"send_q"`
	Waiting   *int     `expr:"accept_q"`
	MayWait   *int     `expr:"accept_max"`
	Holders   []holder `expr:"holders"`
	IfIndex   *int     `expr:"ifindex"`
	IfName    *string  `expr:"ifname"`
	V6Only    *bool    `expr:"v6only"`
	Attached  *string  `expr:"attached"`
}

type holder struct {
	PID    int    `expr:"pid"`
	Comm   string `expr:"comm"`
	FD     *int   `expr:"fd"`
	Slot   *int   `expr:"slot"`
	RingFD *int   `expr:"ring_fd"`
}

type totals struct {
	BytesAcked    int    `expr:"bytes_acked"`
	BytesReceived int    `expr:"bytes_received"`
	SegsOut       int    `expr:"segs_out"`
	SegsIn        int    `expr:"segs_in"`
	Retrans       int    `expr:"retrans"`
	SRTT          *int   `expr:"srtt_us"`
	SRTTOpen      *int   `expr:"srtt_open_us"`
	MinRTT        *int   `expr:"min_rtt_us"`
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

// orUnknown gives nil for a number that is not known.
func orUnknown(v int64) *int {
	if v == event.Unknown {
		return nil
	}
	n := int(v)
	return &n
}

func newSocketKeys(e *event.Event) socketKeys {
	v := socketKeys{
		Time: time.Unix(0, e.Wall), Mono: int(e.Mono), Cookie: orNil(int(e.Cookie)), Sk: "0x" + strconv.FormatUint(e.Sk, 16),
		NetNS: orNil(int(e.NetNS)), Family: e.Family.String(), Proto: e.Proto.String(),
		LAddr: addrOrNil(e.Local.Addr()), LPort: orNil(int(e.Local.Port())), RAddr: addrOrNil(e.Remote.Addr()), RPort: orNil(int(e.Remote.Port())),
		Role: orNil(e.Role.String()), Cgroup: orNil(e.Cgroup), Container: orNil(e.Container()), Unit: orNil(e.Unit()), CgroupID: orNil(int(e.CgroupID)),
	}
	if e.Type == event.Change || e.Type == event.Socket {
		v.SynAgain = orUnknown(int64(e.SynRetrans))
	}
	if e.UID != event.NoUID {
		uid := int(e.UID)
		v.UID = &uid
	}
	return v
}

func newChangeKeys(e *event.Event) changeKeys {
	v := changeKeys{
		socketKeys: newSocketKeys(e), CPU: int(e.CPU), ID: int(e.ID), Reason: orNil(e.Reason.String()), Err: orNil(int(e.Err)),
		OwnerVia: orNil(e.OwnerVia.String()), TaskComm: e.TaskComm, IfIndex: orNil(int(e.IfIndex)), IfName: orNil(e.IfName), ISN: orNil(int(e.ISN)),
		Deferred: orNil(int(e.Deferred)),
	}
	v.OwnerPID, v.OwnerHost = pids(e.OwnerPID)
	v.TaskTID, _ = pids(e.TaskTID)
	if v.TaskPID, v.TaskHost = pids(e.TaskPID); e.TaskPID == 0 {
		v.TaskPID = new(int) // the idle task
	}
	switch e.Type {
	case event.Accept:
		v.Queue = orUnknown(e.Dur)
	case event.Change:
		v.Dur = orUnknown(e.Dur)
		v.Old, v.New, v.Origin = orNil(e.Old.String()), orNil(e.New.String()), orNil(e.Origin.String())
	}
	if e.Closer != 0 {
		active := e.Closer == event.WeClosed
		v.Active = &active
	}
	if t := &e.Totals; t.Known {
		v.Totals = &totals{
			int(t.BytesAcked), int(t.BytesReceived), int(t.SegsOut), int(t.SegsIn), int(t.Retrans), orNil(int(t.SRTT)), orNil(int(t.SRTTOpen)),
			orNil(int(t.MinRTT)), t.Cong,
		}
	}
	if e.OwnerPID != 0 {
		v.OwnerComm = &e.OwnerComm
	}
	return v
}

// pids returns a process ID as one of our namespace, or as one of the host's alone; nil where it is not that.
func pids(pid uint32) (own, host *int) {
	if pid&event.HostPID != 0 {
		return nil, orNil(int(pid &^ event.HostPID))
	}
	return orNil(int(pid)), nil
}

func newListedKeys(e *event.Event) listedKeys {
	s := e.Status
	v := listedKeys{socketKeys: newSocketKeys(e), State: e.New.String(), Age: orUnknown(e.Dur), AtLeast: orUnknown(s.AtLeast), Left: orUnknown(s.Left)}
	if v.OwnerPID, _ = pids(e.OwnerPID); e.OwnerPID != 0 {
		v.OwnerComm, v.OwnerVia = &e.OwnerComm, orNil(e.OwnerVia.String())
	}
	if e.New == event.Listen {
		v.Waiting, v.MayWait = orUnknown(s.RecvQueue), orUnknown(s.SendQueue)
	} else {
		v.RecvQueue, v.SendQueue = orUnknown(s.RecvQueue), orUnknown(s.SendQueue)
	}
	for _, h := range s.Holders {
		fd, slot := int(h.FD), int(h.Slot)
		of := holder{PID: int(h.PID), Comm: h.Comm, FD: &fd}
		if h.How == event.BySlot {
			of.FD, of.Slot, of.RingFD = nil, &slot, &fd
		}
		v.Holders = append(v.Holders, of)
	}
	v.IfIndex, v.IfName, v.Attached = orNil(int(e.IfIndex)), orNil(e.IfName), orNil(s.Attached.String())
	if s.V6Only != 0 {
		only := s.V6Only == event.Yes
		v.V6Only = &only
	}
	return v
}

// compile checks source against env, the keys of a kind of line. Its errors mark the place.
func compile(source string, env any) (*vm.Program, error) {
	p, err := expr.Compile(source, expr.Env(env), expr.AsBool(), expr.Patch(guard{nullableKeys(reflect.TypeOf(env))}))
	if err != nil {
		example := "dur_ns > 1e6 && err != nil"
		if _, ok := env.(listedKeys); ok {
			example = "recv_q > 0 && cookie != nil"
		}
		return nil, fmt.Errorf("%w\nExpected a comparison of the keys of -o ndjson, with nil for what is not known: %s", err, example)
	}
	return p, nil
}

// matches reports whether the expression is true; one that fails, as in a division by 0, is not.
func (f *Filter) matches(e *event.Event) bool {
	var env any
	if e.Type == event.Socket {
		env = newListedKeys(e)
	} else {
		env = newChangeKeys(e)
	}
	wanted, err := expr.Run(f.where, env)
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
// key below it, those of holders included. Comparing with nil itself stays, so that `err != nil` asks whether it is known.
type guard struct {
	nullable []string
}

var comparisons = []string{"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches"}

// Visit implements ast.Visitor.
func (g guard) Visit(node *ast.Node) {
	b, ok := (*node).(*ast.BinaryNode)
	if !ok || !slices.Contains(comparisons, b.Operator) {
		return
	}
	if isNil(b.Left) || isNil(b.Right) {
		askMember(node, b)
		return
	}
	keys := keysIn{nullable: g.nullable}
	ast.Walk(&b.Left, &keys)
	ast.Walk(&b.Right, &keys)
	if keys.predicate { // the members below it are known inside it only, where they have been guarded
		keys.found = slices.DeleteFunc(keys.found, func(n ast.Node) bool {
			_, ok := n.(*ast.MemberNode)
			return ok
		})
	}
	guarded := ast.Node(b)
	for _, key := range slices.Backward(keys.found) { // an object before its members
		known := &ast.BinaryNode{Operator: "!=", Left: key, Right: &ast.NilNode{}}
		guarded = &ast.BinaryNode{Operator: "&&", Left: known, Right: guarded}
	}
	if len(keys.found) > 0 {
		ast.Patch(node, guarded)
	}
}

// askMember lets totals.srtt_us == nil be true, and not an error, where totals is nil.
func askMember(node *ast.Node, b *ast.BinaryNode) {
	object, _, ok := strings.Cut(cmp.Or(keyOf(b.Left), keyOf(b.Right)), ".")
	join := map[string]string{"==": "||", "!=": "&&"}[b.Operator]
	if ok && join != "" {
		first := &ast.BinaryNode{Operator: b.Operator, Left: nodeOf(object), Right: &ast.NilNode{}}
		ast.Patch(node, &ast.BinaryNode{Operator: join, Left: first, Right: b})
	}
}

func isNil(n ast.Node) bool {
	_, ok := n.(*ast.NilNode)
	return ok
}

// nullableKeys returns the keys of env that may be null, also those of its objects: totals.srtt_us.
func nullableKeys(env reflect.Type) (keys []string) {
	for _, f := range reflect.VisibleFields(env) {
		if f.Type == reflect.TypeFor[[]holder]() {
			keys = append(keys, nullableKeys(f.Type.Elem())...)
		}
		if f.Type.Kind() != reflect.Pointer {
			continue
		}
		key := f.Tag.Get("expr")
		keys = append(keys, key)
		if f.Type.Elem().Kind() == reflect.Struct {
			for _, member := range nullableKeys(f.Type.Elem()) {
				keys = append(keys, key+"."+member)
			}
		}
	}
	return keys
}

// keyOf returns the key that a node stands for, or "".
func keyOf(node ast.Node) string {
	switch n := node.(type) {
	case *ast.IdentifierNode:
		return n.Value
	case *ast.MemberNode:
		if member, ok := n.Property.(*ast.StringNode); ok && keyOf(n.Node) != "" {
			return keyOf(n.Node) + "." + member.Value
		}
	}
	return ""
}

// nodeOf returns a node that stands for key.
func nodeOf(key string) ast.Node {
	if object, member, ok := strings.Cut(key, "."); ok {
		return &ast.MemberNode{Node: nodeOf(object), Property: &ast.StringNode{Value: member}}
	}
	return &ast.IdentifierNode{Value: key}
}

// keysIn collects the nullable keys below a node.
type keysIn struct {
	nullable  []string
	names     []string // of found
	found     []ast.Node
	predicate bool // one of any(), all() and their like is below
}

// Visit implements ast.Visitor.
func (k *keysIn) Visit(node *ast.Node) {
	name := keyOf(*node)
	switch n := (*node).(type) {
	case *ast.PredicateNode:
		k.predicate = true
	case *ast.MemberNode: // .fd of a holder
		if key, ok := n.Property.(*ast.StringNode); ok && name == "" {
			name = key.Value
		}
	}
	if text := (*node).String(); slices.Contains(k.nullable, name) && !slices.Contains(k.names, text) {
		k.names, k.found = append(k.names, text), append(k.found, *node)
	}
}
