package main

import (
	"bytes"
	"os"
	"testing"
)

// The committed files are what the table of keys implies. The paths stay relative, since whoever
// runs the tests may not be allowed to look into the directories above the repository.
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
			t.Errorf("no error though tables are missing in %q", text)
		}
	}
}
