package main

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// value is how Go code appends a value to b as JSON: text before it, an expression, and text after
// it. The expression is empty if there is only text.
type value struct{ before, code, after string }

// encode returns how the key k of o is encoded.
func encode(o *object, k *event.Key) value {
	x := o.goVar + "." + k.Get
	switch k.Form {
	case event.FormVersion:
		return value{before: strconv.Itoa(event.Version)}
	case event.FormType:
		return value{before: strconv.Quote(o.line.String())}
	case event.FormInt, event.FormPositive:
		if o.memberType(k).Kind() == reflect.Int64 {
			return value{code: "strconv.AppendInt(b, " + x + ", 10)"}
		}
		return value{code: "strconv.AppendUint(b, uint64(" + x + "), 10)"}
	case event.FormZeroNull:
		return value{code: "appendUint(b, uint64(" + x + "))"}
	case event.FormMinusNull:
		return value{code: "appendInt(b, int64(" + x + "))"}
	case event.FormWall:
		return value{`"`, "AppendTime(b, " + x + ")", `"`}
	case event.FormHex:
		return value{`"0x`, "strconv.AppendUint(b, " + x + ", 16)", `"`}
	case event.FormName, event.FormNameNull:
		return value{code: "appendName(b, " + x + ".String())"}
	case event.FormAddr:
		return value{code: "appendAddr(b, " + x + ".Addr())"}
	case event.FormPort:
		return value{code: "appendUint(b, uint64(" + x + ".Port()))"}
	case event.FormText:
		return value{code: "appendString(b, " + x + ")"}
	case event.FormTextNull:
		return value{code: "appendText(b, " + x + ")"}
	case event.FormOwnerComm:
		return value{code: "e.appendOwnerComm(b)"}
	case event.FormBool:
		return value{code: "strconv.AppendBool(b, " + x + ")"}
	case event.FormAnswer:
		return value{code: "append(b, " + x + ".JSON()...)"}
	case event.FormPID:
		return value{code: "appendPID(b, " + x + ", 0)"}
	case event.FormTaskPID:
		return value{code: "appendTaskPID(b, " + x + ")"}
	case event.FormHostPID:
		return value{code: "appendPID(b, " + x + ", HostPID)"}
	case event.FormUID:
		return value{code: "appendUID(b, " + x + ")"}
	case event.FormSlot:
		return value{code: "appendInt(b, h.RingSlot())"}
	case event.FormTotals:
		return value{code: x + ".appendJSON(b)"}
	case event.FormHolders:
		return value{code: "appendHolders(b, " + x + ")"}
	}
	panic(fmt.Sprintf("%s: no such form", k.Name))
}

// writeEncoder writes a function for each kind of object. The text between two values is one
// append.
func writeEncoder(w *bytes.Buffer) {
	w.WriteString("import (\n\"fmt\"\n\"strconv\"\n)\n")
	for _, o := range objects {
		end := "}"
		if o.isLine() {
			end = "}\n"
			fmt.Fprintf(w, "\nfunc (e *Event) append%s(b []byte) []byte {\n", goName(o.line))
		} else {
			fmt.Fprintf(w, "\nfunc (%s *%s) append(b []byte) []byte {\n", o.goVar, o.goType.Name())
		}
		text := "{"
		for i, k := range o.in.Keys() {
			if i > 0 {
				text += ","
			}
			v := encode(o, k)
			if text += strconv.Quote(k.Name) + ":" + v.before; v.code != "" {
				fmt.Fprintf(w, "b = append(b, %s...)\nb = %s\n", literal(text), v.code)
				text = v.after
			}
		}
		fmt.Fprintf(w, "return append(b, %s...)\n}\n", literal(text+end))
	}
}

// literal returns a Go string literal, if possible a raw one.
func literal(text string) string {
	if strings.ContainsAny(text, "\n`") {
		return strconv.Quote(text)
	}
	return "`" + text + "`"
}

// target returns the variable that the key k of o is decoded into, or "" if it is derived from
// others. What belongs to Status or Balance is decoded into a line, since the type may not be
// known yet.
func target(o *object, k *event.Key) string {
	switch k.Form {
	case event.FormAddr, event.FormPort:
		return "l." + k.Name
	case event.FormVersion:
		return "l.version"
	}
	path := k.Set
	if path == "" {
		path = k.Get
	}
	if strings.HasSuffix(path, "()") {
		return ""
	}
	for _, part := range []string{"Status", "Balance"} {
		if member, ok := strings.CutPrefix(path, part+"."); ok {
			return "l." + strings.ToLower(part) + "." + member
		}
	}
	return o.goVar + "." + path
}

// decode returns the statement that decodes the key k of o.
func decode(o *object, k *event.Key) string {
	x := "&" + target(o, k)
	switch k.Form {
	case event.FormType:
		return "err = d.lineType(e, l)"
	case event.FormWall:
		return "err = d.wall(" + x + ", l)"
	case event.FormHex:
		return "err = d.pointer(" + x + ")"
	case event.FormName, event.FormNameNull:
		return "err = enum(d, " + strings.ToLower(o.memberType(k).Name()) + "Names, " + x + ")"
	case event.FormAddr:
		return "err = d.addr(" + x + ")"
	case event.FormText, event.FormTextNull, event.FormOwnerComm:
		return "err = d.string(" + x + ")"
	case event.FormBool:
		return "err = d.bool(" + x + ")"
	case event.FormAnswer:
		return "err = answer(d, " + x + ")"
	case event.FormHostPID:
		return "err = d.hostPID(" + x + ")"
	case event.FormSlot:
		return "err = d.slot(h)"
	case event.FormTotals:
		return "err = d.totals(" + x + ")"
	case event.FormHolders:
		return "err = d.holders(" + x + ")"
	}
	return "err = number(d, " + x + ")"
}

// writeDecoder writes a loop over the keys of a line, and of each object inside.
func writeDecoder(w *bytes.Buffer) {
	w.WriteString("\n// line decodes the keys of a line of any type.\n" +
		"func (d *decoder) line(e *Event, l *line) error {\n")
	var lines []*object
	for _, o := range objects {
		if o.isLine() {
			lines = append(lines, o)
		}
	}
	writeSwitch(w, lines)
	for _, o := range objects {
		if !o.isLine() {
			name := o.goType.Name()
			fmt.Fprintf(w, "\nfunc (d *decoder) %sKeys(%s *%s) error {\n", strings.ToLower(name), o.goVar, name)
			writeSwitch(w, []*object{o})
		}
	}
}

// writeSwitch writes a loop over the keys of these kinds of object, each key and each statement
// once.
func writeSwitch(w *bytes.Buffer, objects []*object) {
	var statements []string
	keys := make(map[string][]string) // by statement
	done := make(map[string]*event.Key)
	targets := make(map[string]string)
	for _, o := range objects {
		for _, k := range o.in.Keys() {
			x := target(o, k)
			if done[k.Name] == k || x == "" || targets[k.Name] == x {
				continue
			}
			statement := decode(o, k)
			if first := targets[k.Name]; first != "" { // the name means something else in another kind of line
				statements = slices.DeleteFunc(statements, func(s string) bool {
					return slices.Equal(keys[s], []string{k.Name})
				})
				statement = decode(o, done[k.Name]) + "\n" + x + " = " + first
			}
			done[k.Name], targets[k.Name] = k, x
			if keys[statement] == nil {
				statements = append(statements, statement)
			}
			keys[statement] = append(keys[statement], k.Name)
		}
	}
	w.WriteString("if err := d.open(); err != nil {\nreturn err\n}\nfor first := true; ; first = false {\n" +
		"key, ok, err := d.next(first)\nif err != nil || !ok {\nreturn err\n}\nswitch string(key) {\n")
	for _, s := range statements {
		fmt.Fprintf(w, "case \"%s\":\n%s\n", strings.Join(keys[s], `", "`), s)
	}
	w.WriteString("default:\nerr = d.skip(0)\n}\n" +
		"if err != nil {\nreturn fmt.Errorf(\"key %q: %w\", key, err)\n}\n}\n}\n")
}

// writeColumns writes how CSV gets each cell from an Event.
func writeColumns(w *bytes.Buffer) {
	w.WriteString("\nvar columns = []Column{\n")
	for _, k := range event.CSVKeys() {
		in, known := k.In, ""
		i := slices.IndexFunc(objects, func(o *object) bool { return o.in&k.In != 0 })
		o := *objects[i]
		if o.in == event.InTotals {
			in, known, o.goVar = event.InChange, "if !e.Totals.Known {\nreturn b\n}\n", "e.Totals"
		}
		fmt.Fprintf(w, "{Name: %q, In: %s, ", k.Name, constants(in))
		x := o.goVar + "." + k.Get
		v := encode(&o, k)
		switch k.Form {
		case event.FormText, event.FormTextNull:
			fmt.Fprintf(w, "Text: func(e *Event) string { return %s }},\n", x)
			continue
		case event.FormOwnerComm:
			w.WriteString("Text: (*Event).ownerComm},\n")
			continue
		case event.FormVersion:
			v.code = `append(b, "` + v.before + `"...)`
		case event.FormType:
			v.code = "appendName(b, e.Type.String())"
		case event.FormHex:
			v.code = `strconv.AppendUint(append(b, "0x"...), ` + x + ", 16)"
		}
		fmt.Fprintf(w, "append: func(b []byte, e *Event) []byte {\n%sreturn %s\n}},\n", known, v.code)
	}
	w.WriteString("}\n")
}

// constants returns the Go expression for a set of kinds of line.
func constants(in event.Kinds) string {
	switch in {
	case event.InLines:
		return "InLines"
	case event.InSockets:
		return "InSockets"
	case event.InTrace:
		return "InTrace"
	}
	var all []string
	for _, o := range objects {
		if o.in&in != 0 {
			all = append(all, "In"+goName(o.line))
		}
	}
	return strings.Join(all, " | ")
}
