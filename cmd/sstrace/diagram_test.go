package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"sstrace/internal/view/diagram"
)

// Every format draws a recording, once and at the end; of one that was cut off what there is.
func TestDiagramOfARecording(t *testing.T) {
	lines := strings.SplitAfter(recorded, "\n")
	for _, format := range diagram.Formats {
		whole := sstrace(t, recorded, "diagram", "-r", "-", "-o", format)
		if whole.code != 0 || !strings.Contains(whole.stdout, "SYN_SENT") {
			t.Errorf("%s: exit code %d, stderr %q, stdout %q", format, whole.code, whole.stderr, whole.stdout)
		}
		if got := strings.Count(whole.stdout, "12 changes lost"); (got > 0) != (format != "ndjson") {
			t.Errorf("%s: it says %d times that changes were lost", format, got)
		}
		cut := sstrace(t, strings.Join(lines[:4], ""), "diagram", "-r", "-", "-o", format)
		if cut.code != exitFailure || !strings.Contains(cut.stderr, "has no end line") || !strings.Contains(cut.stdout, "SYN_SENT") {
			t.Errorf("%s: exit code %d, stderr %q, stdout %q", format, cut.code, cut.stderr, cut.stdout)
		}
	}
	if got, want := sstrace(t, recorded, "diagram", "-r", "-"), sstrace(t, recorded, "diagram", "-r", "-", "-o", "svg"); got != want {
		t.Errorf("SVG is not what it draws by itself: %q", got.stdout)
	}
	if r := sstrace(t, recorded, "diagram", "-r", "-", "-o", "text", "--state", "syn-recv"); !strings.Contains(r.stdout, "\n1 change; connections: 0 begun as client, 1 as server") {
		t.Errorf("with a filter: %q", r.stdout)
	}
}

// The picture in the documentation is one of ours, and not large.
func TestDiagramInTheDocumentation(t *testing.T) {
	text := read(t, "../../docs/diagram.svg")
	if len(text) > 60<<10 || !strings.Contains(text, "<title>ESTABLISHED → FIN_WAIT1") || !strings.Contains(read(t, "../../README.md"), "(docs/diagram.svg)") {
		t.Errorf("%d bytes: %.100q", len(text), text)
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
