package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"sstrace/internal/event"
)

// The keys that every line has are listed once, at the top of the schema.
const inEveryLine = event.InLines

// makeSchema fills in the schema's template. The template contains the lines that are not Events,
// which the table of keys does not describe.
func makeSchema(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := template.New("schema").Funcs(template.FuncMap{
		"object":   objectSchema,
		"required": required,
		"key":      keySchema,
		"keys":     keysSchema,
		"doc":      keyDoc,
		"states":   func() string { return names(reflect.TypeFor[event.State]()) },
		"reasons":  func() string { return names(reflect.TypeFor[event.Reason]()) },
	}).Parse(string(text))
	if err != nil {
		return nil, err
	}
	var w bytes.Buffer
	if err := t.Execute(&w, nil); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(w.Bytes(), new(any)); err != nil {
		return nil, fmt.Errorf("%s does not produce valid JSON: %w", path, err)
	}
	return w.Bytes(), nil
}

// names returns the names of an enumeration's values, as JSON strings.
func names(enum reflect.Type) string {
	var all []string
	for i := uint64(1); ; i++ {
		v := reflect.New(enum).Elem()
		v.SetUint(i)
		name := v.Interface().(fmt.Stringer).String()
		if name == strconv.FormatUint(i, 10) { // not a value
			return strings.Join(all, ", ")
		}
		all = append(all, strconv.Quote(name))
	}
}

// ownKeys returns the keys of o that are not in every line.
func ownKeys(o *object) []*event.Key {
	var all []*event.Key
	for _, k := range o.in.Keys() {
		if k.In&inEveryLine != inEveryLine {
			all = append(all, k)
		}
	}
	return all
}

// objectSchema returns the properties of a kind of object, one per line.
func objectSchema(name string, indent int) (string, error) {
	o, err := find(name)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, k := range ownKeys(o) {
		doc, _, _ := strings.Cut(k.DocIn(o.in), ". ")
		doc = strings.NewReplacer("`", "", `"`, `\"`).Replace(strings.TrimSuffix(doc, "."))
		if k.Unit != "" && k.Unit != "bytes" { // those are in the sentence
			doc += ", " + k.Unit
		}
		lines = append(lines, fmt.Sprintf(`%q: { %s, "description": "%s" }`, k.Name, schema(o, k), doc))
	}
	return strings.Join(lines, ",\n"+strings.Repeat(" ", indent)), nil
}

// required returns the keys of a kind of object, as JSON strings. A line has all of them.
func required(name string) (string, error) {
	o, err := find(name)
	if err != nil {
		return "", err
	}
	var all []string
	for _, k := range ownKeys(o) {
		all = append(all, strconv.Quote(k.Name))
	}
	return strings.Join(all, ", "), nil
}

// keySchema returns the schema of a key of a change, for a line that is not an Event.
func keySchema(name string) (string, error) {
	o := objects[0]
	for _, k := range o.in.Keys() {
		if k.Name == name {
			return "{ " + schema(o, k) + " }", nil
		}
	}
	return "", fmt.Errorf("a change has no key %q", name)
}

// keysSchema returns the properties of several keys of a change.
func keysSchema(names string, indent int) (string, error) {
	var lines []string
	for name := range strings.FieldsSeq(names) {
		s, err := keySchema(name)
		if err != nil {
			return "", err
		}
		lines = append(lines, strconv.Quote(name)+": "+s)
	}
	return strings.Join(lines, ",\n"+strings.Repeat(" ", indent)), nil
}

// keyDoc returns the first sentence about a key of a change.
func keyDoc(name string) (string, error) {
	for _, k := range event.InChange.Keys() {
		if k.Name == name {
			doc, _, _ := strings.Cut(k.Doc, ". ")
			return strconv.Quote(strings.TrimSuffix(doc, ".")), nil
		}
	}
	return "", fmt.Errorf("a change has no key %q", name)
}

// schema returns the inside of the schema of a key in o.
func schema(o *object, k *event.Key) string {
	if values := k.ValuesIn(o.in); values != nil {
		return restricted(values)
	}
	const anyInteger, orNull = `"type": "integer"`, `"type": ["integer", "null"], "minimum": 0`
	switch k.Form {
	case event.FormInt:
		return `"$ref": "#/$defs/count"`
	case event.FormPositive:
		return anyInteger + `, "minimum": 1`
	case event.FormZeroNull, event.FormPID, event.FormHostPID:
		return `"$ref": "#/$defs/known"`
	case event.FormMinusNull, event.FormUID, event.FormSlot:
		return orNull
	case event.FormHex:
		return `"type": "string", "pattern": "^0x[0-9a-f]+$"`
	case event.FormName, event.FormNameNull:
		return enumSchema(o.memberType(k), k.Form)
	case event.FormAddr:
		return `"$ref": "#/$defs/address"`
	case event.FormPort:
		return `"$ref": "#/$defs/port"`
	case event.FormText:
		return `"type": "string"`
	case event.FormTextNull, event.FormOwnerComm:
		if k.Pattern != "" {
			return `"type": ["string", "null"], "pattern": ` + strconv.Quote(k.Pattern)
		}
		return `"type": ["string", "null"]`
	case event.FormBool:
		return `"type": "boolean"`
	case event.FormAnswer:
		return `"type": ["boolean", "null"]`
	case event.FormTaskPID:
		return `"$ref": "#/$defs/process"`
	case event.FormTotals:
		return `"$ref": "#/$defs/totals"`
	case event.FormHolders:
		return `"type": ["array", "null"], "items": { "$ref": "#/$defs/holder" }`
	}
	panic(k.Name + ": the schema has no such form")
}

func enumSchema(enum reflect.Type, form event.Form) string {
	switch {
	case enum == reflect.TypeFor[event.State]():
		return `"$ref": "#/$defs/state"`
	case enum == reflect.TypeFor[event.Reason]():
		return `"$ref": "#/$defs/reason"`
	case form == event.FormNameNull:
		return `"enum": [` + names(enum) + `, null]`
	}
	return `"enum": [` + names(enum) + `]`
}

// restricted returns the schema of a key that has one of these values alone; "" is null.
func restricted(values []string) string {
	var all []string
	for _, v := range values {
		if v == "" {
			all = append(all, "null")
		} else {
			all = append(all, strconv.Quote(v))
		}
	}
	if len(all) == 1 {
		return `"const": ` + all[0]
	}
	return `"enum": [` + strings.Join(all, ", ") + "]"
}

// tables matches a table of keys in docs/ndjson.md, between its markers.
var tables = regexp.MustCompile(`(?s)(<!-- keys: (\w+) -->\n).*?(<!-- end -->\n)`)

// replaceTables returns text with each table between markers made anew. Each kind of object must
// have one.
func replaceTables(text string) (string, error) {
	for _, o := range objects {
		if n := strings.Count(text, "<!-- keys: "+o.name+" -->\n"); n != 1 {
			return "", fmt.Errorf("%d tables are marked as %s", n, o.name)
		}
	}
	var err error
	text = tables.ReplaceAllStringFunc(text, func(table string) string {
		m := tables.FindStringSubmatch(table)
		o, unknown := find(m[2])
		if unknown != nil {
			err = unknown
			return table
		}
		return m[1] + "\n" + markdown(o) + "\n" + m[3]
	})
	return text, err
}

// markdown returns the table of the keys of o. A line that is not a change has those that a change
// lacks, or that mean something else there.
func markdown(o *object) string {
	var w strings.Builder
	w.WriteString("| key | null? | unit | |\n|---|---|---|---|\n")
	for _, k := range o.in.Keys() {
		if o.in != event.InChange && k.In&event.InChange != 0 && k.DocIn(o.in) == k.Doc {
			continue
		}
		null := ""
		if k.Form.Null() {
			null = "yes"
		}
		fmt.Fprintf(&w, "| `%s` | %s | %s | %s |\n", k.Name, null, k.Unit, k.DocIn(o.in))
	}
	if o.in&event.InSockets != 0 && o.in != event.InChange {
		fmt.Fprintf(&w, "\nThe other keys are those of a change, without %s.\n", missing(o))
	}
	return w.String()
}

// missing returns the keys of a change that o lacks.
func missing(o *object) string {
	has := make(map[string]bool)
	for _, k := range o.in.Keys() {
		has[k.Name] = true
	}
	var all []string
	for _, k := range event.InChange.Keys() {
		if !has[k.Name] {
			all = append(all, "`"+k.Name+"`")
		}
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}
