package event_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
)

// member is a key of a JSON object and its value.
type member struct {
	key   string
	value json.RawMessage
}

// object parses a JSON object and keeps its keys in order.
func object(t *testing.T, text []byte) (all []member) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		m := member{key: key.(string)}
		if err := d.Decode(&m.value); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, m)
	}
	return all
}

// inner returns the object of kind in from the line of e.
func inner(t *testing.T, e *event.Event, in event.Kinds) []member {
	t.Helper()
	all := object(t, e.AppendJSON(nil))
	name := map[event.Kinds]string{event.InTotals: "totals", event.InHolder: "holders"}[in]
	if name == "" {
		return all
	}
	i := slices.IndexFunc(all, func(m member) bool { return m.key == name })
	return object(t, bytes.Trim(all[i].value, "[]"))
}

// value returns the value of key, or "" if there is none.
func value(all []member, key string) string {
	for _, m := range all {
		if m.key == key {
			return string(m.value)
		}
	}
	return ""
}

// eachKey runs f for every key of every kind of object.
func eachKey(t *testing.T, f func(t *testing.T, kind event.Type, in event.Kinds, k *event.Key, n int)) {
	for _, kind := range eventtest.Kinds {
		for i, k := range kind.In.Keys() {
			t.Run(kind.Name+"/"+k.Name, func(t *testing.T) { f(t, kind.Type, kind.In, k, 100+i) })
		}
	}
}

func decodesToItself(t *testing.T, e *event.Event) {
	t.Helper()
	var got event.Event
	line := e.AppendJSON(nil)
	if err := got.DecodeJSON(line); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if !reflect.DeepEqual(&got, e) {
		t.Errorf("%s\ndecodes to  %+v\ninstead of  %+v", line, got, *e)
	}
}

// The encoder writes each key, known and unknown, and the decoder reads both.
func TestKeysRoundTrip(t *testing.T) {
	eachKey(t, func(t *testing.T, kind event.Type, in event.Kinds, k *event.Key, n int) {
		e := eventtest.New(kind)
		want := eventtest.Set(e, k, in, n)
		if k.Form != event.FormTotals && k.Form != event.FormHolders {
			if got := value(inner(t, e, in), k.Name); got != want {
				t.Errorf("the value is %s, want %s", got, want)
			}
		}
		decodesToItself(t, e)
		if !k.Form.Null() {
			return
		}
		eventtest.Clear(e, k, in)
		if got := value(inner(t, e, in), k.Name); got != "null" {
			t.Errorf("the unknown value is %s, want null", got)
		}
		decodesToItself(t, e)
	})
}

// The encoder writes exactly the keys of each kind of object, in the order of the table.
func TestKeysInOrder(t *testing.T) {
	for _, kind := range eventtest.Kinds {
		e := eventtest.New(kind.Type)
		var got, want []string
		for _, k := range kind.In.Keys() {
			want = append(want, k.Name)
		}
		eventtest.Set(e, kind.In.Keys()[0], kind.In, 1)
		for _, m := range inner(t, e, kind.In) {
			got = append(got, m.key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the keys\n%q, want\n%q", kind.Name, got, want)
		}
	}
}

// Each key has one row in the table for each kind of object. The key's name contains its unit, and
// the row has a sentence about it.
func TestKeysTable(t *testing.T) {
	for _, kind := range eventtest.Kinds {
		seen := make(map[string]bool)
		for _, k := range kind.In.Keys() {
			if seen[k.Name] {
				t.Errorf("%s: %s has two rows", kind.Name, k.Name)
			}
			seen[k.Name] = true
			for suffix, unit := range map[string]string{"_ns": "ns", "_us": "µs"} {
				if strings.HasSuffix(k.Name, suffix) != (k.Unit == unit) {
					t.Errorf("%s: the unit is %q", k.Name, k.Unit)
				}
			}
			if doc := k.DocIn(kind.In); !strings.HasSuffix(doc, ".") || strings.Contains(doc, "|") {
				t.Errorf("%s: %q is not a sentence for a table", k.Name, doc)
			}
		}
	}
	for i, k := range event.CSVKeys() {
		if k == nil || k.CSV != i+1 {
			t.Fatalf("column %d has no key", i+1)
		}
	}
}

// The schema requires each key, with the type and nullability from the table.
func TestKeysInSchema(t *testing.T) {
	schema := eventtest.Schema(t)
	eachKey(t, func(t *testing.T, kind event.Type, in event.Kinds, k *event.Key, n int) {
		valid := func(change func(object map[string]any)) bool {
			e := eventtest.New(kind)
			eventtest.Set(e, k, in, n)
			var line map[string]any
			d := json.NewDecoder(bytes.NewReader(e.AppendJSON(nil)))
			d.UseNumber()
			if err := d.Decode(&line); err != nil {
				t.Fatal(err)
			}
			switch in {
			case event.InTotals:
				change(line["totals"].(map[string]any))
			case event.InHolder:
				change(line["holders"].([]any)[0].(map[string]any))
			default:
				change(line)
			}
			return schema.Validate(line) == nil
		}
		values := k.ValuesIn(in)
		null := k.Form.Null() && (values == nil || slices.Contains(values, ""))
		for _, test := range []struct {
			name   string
			change func(object map[string]any)
			want   bool
		}{
			{"a known value", func(map[string]any) {}, values == nil || values[0] != ""},
			{"null", func(o map[string]any) { o[k.Name] = nil }, null},
			{"another type", func(o map[string]any) { o[k.Name] = map[string]any{"x": json.Number("1.5")} }, false},
			{"no such key", func(o map[string]any) { delete(o, k.Name) }, false},
		} {
			if got := valid(test.change); got != test.want {
				t.Errorf("%s: valid is %v, want %v", test.name, got, test.want)
			}
		}
	})
}

// docs/ndjson.md has a row for each key, in the table for its kind of object or in the table for
// changes.
func TestKeysInDocs(t *testing.T) {
	tables := make(map[string]string)
	marked := regexp.MustCompile(`(?s)<!-- keys: (\w+) -->\n(.*?)<!-- end -->\n`)
	for _, m := range marked.FindAllStringSubmatch(string(eventtest.Doc(t, "ndjson.md")), -1) {
		tables[m[1]] = m[2]
	}
	for _, kind := range eventtest.Kinds {
		for _, k := range kind.In.Keys() {
			null := map[bool]string{true: "yes"}[k.Form.Null()]
			row := fmt.Sprintf("| `%s` | %s | %s | ", k.Name, null, k.Unit)
			own, change := strings.Contains(tables[kind.Name], row), strings.Contains(tables["change"], row)
			if !own && (k.In&event.InChange == 0 || !change) {
				t.Errorf("%s: no row %s", kind.Name, row)
			}
		}
	}
}

// Every key in the schema is in docs/ndjson.md, including the keys of lines that are not Events.
func TestSchemaIsInDocs(t *testing.T) {
	text := eventtest.Doc(t, "ndjson.md")
	var schema any
	if err := json.Unmarshal(eventtest.Doc(t, "ndjson.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for key := range properties {
					if !bytes.Contains(text, []byte("`"+key+"`")) {
						t.Errorf("docs/ndjson.md has no `%s`", key)
					}
				}
			}
			for _, below := range v {
				walk(below)
			}
		case []any:
			for _, below := range v {
				walk(below)
			}
		}
	}
	walk(schema)
}
