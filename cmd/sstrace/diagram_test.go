package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"sstrace/internal/view/diagram"
)

// Every format draws a recording once, at its end. If the recording was cut off, the diagram shows
// what there is.
func TestDiagramOfARecording(t *testing.T) {
	lines := strings.SplitAfter(recorded, "\n")
	for _, format := range diagram.Formats {
		t.Run(format, func(t *testing.T) {
			whole := sstrace(t, recorded, "diagram", "-r", "-", "-o", format)
			if whole.code != 0 || !strings.Contains(whole.stdout, "SYN_SENT") {
				t.Errorf("got %+v, want exit code 0 and SYN_SENT", whole)
			}
			losses := strings.Count(whole.stdout, "12 changes lost")
			if (losses > 0) != (format != "ndjson") {
				t.Errorf("got %d times that changes were lost", losses)
			}
			cut := sstrace(t, strings.Join(lines[:4], ""), "diagram", "-r", "-", "-o", format)
			if cut.code != exitFailure || !strings.Contains(cut.stderr, "has no end line") {
				t.Errorf("cut off: got exit code %d, stderr %q", cut.code, cut.stderr)
			}
			if !strings.Contains(cut.stdout, "SYN_SENT") {
				t.Errorf("cut off: no SYN_SENT in %q", cut.stdout)
			}
		})
	}
	got, want := sstrace(t, recorded, "diagram", "-r", "-"), sstrace(t, recorded, "diagram", "-r", "-", "-o", "svg")
	if got != want {
		t.Errorf("without -o: got %q, want SVG", got.stdout)
	}
	r := sstrace(t, recorded, "diagram", "-r", "-", "-o", "text", "--state", "syn-recv")
	if !strings.Contains(r.stdout, "\n1 change; connections: 0 begun as client, 1 as server") {
		t.Errorf("with a filter: got %q", r.stdout)
	}
}

// The picture in the documentation is a diagram made by sstrace, and it is small.
func TestDiagramInTheDocumentation(t *testing.T) {
	text := read(t, "../../docs/diagram.svg")
	if len(text) > 60<<10 || !strings.Contains(text, "<title>ESTABLISHED → FIN_WAIT1") {
		t.Errorf("got %d bytes: %.100q", len(text), text)
	}
	if !strings.Contains(read(t, "../../README.md"), "(docs/diagram.svg)") {
		t.Error("README.md does not show docs/diagram.svg")
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
