package eventtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Golden compares got with testdata/name. With SSTRACE_GOLDEN=write it writes the file first;
// review the diff before you commit it.
func Golden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("SSTRACE_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

// Doc returns the content of a file in docs/. The path stays relative, because the user who runs
// the tests may not be allowed to read the directories above the repository.
func Doc(t testing.TB, name string) []byte {
	t.Helper()
	for up := "."; len(up) < 32; up += "/.." {
		if _, err := os.Stat(up + "/go.mod"); err != nil {
			continue
		}
		text, err := os.ReadFile(up + "/docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	t.Fatalf("docs/%s: no go.mod above this directory", name)
	return nil
}

// Schema returns docs/ndjson.schema.json. It is stricter than the file, which must allow the keys
// that a later version adds. Here, a key that is not in the schema is an error.
func Schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Doc(t, "ndjson.schema.json")))
	if err != nil {
		t.Fatal(err)
	}
	root := doc.(map[string]any)
	for _, line := range root["oneOf"].([]any) {
		closeObjects(line.(map[string]any)["properties"])
	}
	closeObjects(root["$defs"])
	root["unevaluatedProperties"] = false
	const url = "ndjson.schema.json"
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(url, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(url)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// closeObjects forbids unknown keys in every object schema below v.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, below := range v {
			closeObjects(below)
		}
		_, object := v["required"]
		if _, open := v["additionalProperties"]; object && !open {
			v["additionalProperties"] = false
		}
	case []any:
		for _, below := range v {
			closeObjects(below)
		}
	}
}

// KeepsSchema checks every line of NDJSON.
func KeepsSchema(t testing.TB, lines string) {
	t.Helper()
	schema := Schema(t)
	for line := range strings.Lines(lines) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}
