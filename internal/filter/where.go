package filter

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"sstrace/internal/event"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"
)

// An expression is evaluated on a traceEnv or a socketEnv, whose members keys_gen.go derives from
// the table of keys. A pointer is nil if NDJSON has null.

// orNil returns nil for the zero value, which is never a known value of a nullable key.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// orUnknown returns nil for event.Unknown.
func orUnknown(v int64) *int {
	if v == event.Unknown {
		return nil
	}
	return ref(int(v))
}

func ref[T any](v T) *T { return &v }

func addrOrNil(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	return ref(a.String())
}

// answer returns the value that text stands for: true, false or null.
func answer(text string) *bool {
	if text == "null" {
		return nil
	}
	return ref(text == "true")
}

// ownPID returns a process ID in sstrace's PID namespace, or nil for any other.
func ownPID(pid uint32) *int {
	if pid&event.HostPID != 0 {
		return nil
	}
	return orNil(int(pid))
}

// taskPID is ownPID for a current task, where 0 is the idle task.
func taskPID(pid uint32) *int {
	if pid == 0 {
		return new(int)
	}
	return ownPID(pid)
}

// hostPID returns a process ID that exists only in the initial PID namespace, or nil for any other.
func hostPID(pid uint32) *int {
	if pid&event.HostPID == 0 {
		return nil
	}
	return orNil(int(pid &^ event.HostPID))
}

func uid(uid uint32) *int {
	if uid == event.NoUID {
		return nil
	}
	return ref(int(uid))
}

func ownerComm(e *event.Event) *string {
	if e.OwnerPID == 0 {
		return nil
	}
	return &e.OwnerComm
}

func totals(t *event.Totals) *totalsEnv {
	if !t.Known {
		return nil
	}
	return ref(newTotalsEnv(t))
}

func holders(all []event.Holder) []holderEnv {
	var env []holderEnv
	for i := range all {
		env = append(env, newHolderEnv(&all[i]))
	}
	return env
}

// compile checks source against the keys that env has. Its errors mark the place in source.
func compile(source string, env any) (*vm.Program, error) {
	p, err := expr.Compile(source, expr.Env(env), expr.AsBool(), expr.Patch(guard{nullableKeys(reflect.TypeOf(env))}))
	if err != nil {
		example := "dur_ns > 1e6 && err != nil"
		if _, ok := env.(socketEnv); ok {
			example = "recv_q > 0 && cookie != nil"
		}
		return nil, fmt.Errorf("%w\nuse the keys of -o ndjson, and nil for an unknown value: %s", err, example)
	}
	return p, nil
}

// matches reports whether the expression is true for e. It is not if it fails, as a division by 0
// does.
func (f *Filter) matches(e *event.Event) bool {
	var env any
	if e.Type == event.Socket {
		env = newSocketEnv(e)
	} else {
		env = newTraceEnv(e)
	}
	match, err := expr.Run(f.where, env)
	if err != nil {
		if f.failed++; f.failure == nil {
			f.failure = err
		}
		return false
	}
	return match.(bool)
}

// Trouble returns an error if lines were dropped because the expression failed on them.
func (f *Filter) Trouble() error {
	if f.failure == nil {
		return nil
	}
	return fmt.Errorf("--where failed on %d lines, which were dropped: %w", f.failed, f.failure)
}

// guard makes a comparison with null false, as in SQL, instead of an error: a > b becomes a != nil
// && a > b for every nullable key in it, including the keys of holders. A comparison with nil is
// left alone, so `err != nil` is true if err is known.
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
		guardMember(node, b)
		return
	}
	keys := keysIn{nullable: g.nullable}
	ast.Walk(&b.Left, &keys)
	ast.Walk(&b.Right, &keys)
	if keys.predicate { // its members exist only inside the predicate, where they have been guarded
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

// guardMember makes totals.srtt_us == nil true, instead of an error, if totals is nil.
func guardMember(node *ast.Node, b *ast.BinaryNode) {
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

// nullableKeys returns the keys of env that may be null, including those of its objects, such as
// totals.srtt_us.
func nullableKeys(env reflect.Type) (keys []string) {
	for _, f := range reflect.VisibleFields(env) {
		if f.Type == reflect.TypeFor[[]holderEnv]() {
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

// keyOf returns the key that a node names, or "" if it names none.
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

// nodeOf returns a node that names key.
func nodeOf(key string) ast.Node {
	if object, member, ok := strings.Cut(key, "."); ok {
		return &ast.MemberNode{Node: nodeOf(object), Property: &ast.StringNode{Value: member}}
	}
	return &ast.IdentifierNode{Value: key}
}

// keysIn collects the nullable keys below a node.
type keysIn struct {
	nullable  []string
	names     []string // of the nodes in found
	found     []ast.Node
	predicate bool // there is a predicate below, as in any() and all()
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
