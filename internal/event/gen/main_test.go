package main

import (
	"bytes"
	"os"
	"testing"
)

// The generated files in the repository match the table of keys. Paths stay relative, because the
// user who runs the tests may not be allowed to read the directories above the repository.
func TestUpToDate(t *testing.T) {
	const root = "../../.."
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(root + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./internal/event", name)
		}
	}
}

func TestMarkers(t *testing.T) {
	for _, text := range []string{"", "<!-- keys: change -->\n<!-- end -->\n"} {
		if _, err := replaceTables(text); err == nil {
			t.Errorf("got no error although tables are missing in %q", text)
		}
	}
}
