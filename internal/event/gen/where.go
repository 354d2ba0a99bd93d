package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sstrace/internal/event"
)

// environment is what an expression can use from some kinds of object.
type environment struct {
	name, param string // of the Go type, and of the parameter that its constructor takes
	in          event.Kinds
	objects     []*object
}

// writeWhere writes the types on which --where evaluates expressions, and their constructors.
func writeWhere(w *bytes.Buffer) {
	w.WriteString("import (\n\"strconv\"\n\"time\"\n\n\"sstrace/internal/event\"\n)\n")
	for _, env := range []environment{
		{"traceEnv", "e *event.Event", event.InTrace, objects[:3]},
		{"socketEnv", "e *event.Event", event.InSocket, objects[3:4]},
		{"totalsEnv", "t *event.Totals", event.InTotals, objects[6:7]},
		{"holderEnv", "h *event.Holder", event.InHolder, objects[7:8]},
	} {
		writeEnvironment(w, &env)
	}
}

func writeEnvironment(w *bytes.Buffer, env *environment) {
	var keys []*event.Key
	for _, k := range env.in.Keys() {
		if !k.NoWhere {
			keys = append(keys, k)
		}
	}
	fmt.Fprintf(w, "\ntype %s struct {\n", env.name)
	for _, k := range keys {
		goType, _ := env.member(k)
		fmt.Fprintf(w, "%s %s `expr:%q`\n", camel(k.Name), goType, k.Name)
	}
	constructor := "new" + strings.ToUpper(env.name[:1]) + env.name[1:]
	fmt.Fprintf(w, "}\n\nfunc %s(%s) %s {\nv := %s{\n", constructor, env.param, env.name, env.name)
	var some []event.Kinds // that some keys are limited to
	for _, k := range keys {
		in := k.In & env.in
		if in != env.in {
			if !slices.Contains(some, in) {
				some = append(some, in)
			}
			continue
		}
		_, code := env.member(k)
		fmt.Fprintf(w, "%s: %s,\n", camel(k.Name), code)
	}
	w.WriteString("}\n")
	for _, in := range some {
		var types []string
		for _, o := range env.objects {
			if o.in&in != 0 {
				types = append(types, "e.Type == event."+goName(o.line))
			}
		}
		fmt.Fprintf(w, "if %s {\n", strings.Join(types, " || "))
		for _, k := range keys {
			if k.In&env.in == in {
				_, code := env.member(k)
				fmt.Fprintf(w, "v.%s = %s\n", camel(k.Name), code)
			}
		}
		w.WriteString("}\n")
	}
	w.WriteString("return v\n}\n")
}

// member returns the Go type of a key in env and the expression for its value. The type is a
// pointer if the key may be null or if other lines in env do not have it.
func (env *environment) member(k *event.Key) (goType, code string) {
	i := slices.IndexFunc(env.objects, func(o *object) bool { return o.in&k.In != 0 })
	x := env.objects[i].goVar + "." + k.Get
	switch k.Form {
	case event.FormInt, event.FormPositive:
		goType, code = "int", "int("+x+")"
	case event.FormZeroNull:
		goType, code = "*int", "orNil(int("+x+"))"
	case event.FormMinusNull:
		goType, code = "*int", "orUnknown(int64("+x+"))"
	case event.FormWall:
		goType, code = "time.Time", "time.Unix(0, "+x+")"
	case event.FormHex:
		goType, code = "string", `"0x" + strconv.FormatUint(`+x+", 16)"
	case event.FormName:
		goType, code = "string", x+".String()"
	case event.FormNameNull:
		goType, code = "*string", "orNil("+x+".String())"
	case event.FormAddr:
		goType, code = "*string", "addrOrNil("+x+".Addr())"
	case event.FormPort:
		goType, code = "*int", "orNil(int("+x+".Port()))"
	case event.FormText:
		goType, code = "string", x
	case event.FormTextNull:
		goType, code = "*string", "orNil("+x+")"
	case event.FormOwnerComm:
		goType, code = "*string", "ownerComm(e)"
	case event.FormAnswer:
		goType, code = "*bool", "answer("+x+".JSON())"
	case event.FormPID:
		goType, code = "*int", "ownPID("+x+")"
	case event.FormTaskPID:
		goType, code = "*int", "taskPID("+x+")"
	case event.FormHostPID:
		goType, code = "*int", "hostPID("+x+")"
	case event.FormUID:
		goType, code = "*int", "uid("+x+")"
	case event.FormSlot:
		goType, code = "*int", "orUnknown(h.RingSlot())"
	case event.FormTotals:
		goType, code = "*totalsEnv", "totals(&"+x+")"
	case event.FormHolders:
		goType, code = "[]holderEnv", "holders("+x+")"
	default:
		panic(k.Name + ": --where has no such form")
	}
	if k.In&env.in != env.in && !strings.HasPrefix(goType, "*") {
		goType, code = "*"+goType, "ref("+code+")"
	}
	return goType, code
}
