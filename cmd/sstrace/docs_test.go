package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sstrace/internal/event"
	"sstrace/internal/explain"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command and every flag is in the man page, and every long flag in the man page exists.
func TestFlagsAreDocumented(t *testing.T) {
	const page = "../../docs/sstrace.8"
	man := read(t, page)
	root := newCommand()
	root.InitDefaultVersionFlag()
	known := make(map[string]bool)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c != root && !strings.Contains(man, "\n.Cm "+c.Name()+"\n") {
			t.Errorf("%s is not in %s", c.CommandPath(), page)
		}
		c.InitDefaultHelpFlag()
		c.Flags().VisitAll(func(f *pflag.Flag) {
			known[f.Name] = true
			names := []string{"-" + f.Name}
			if f.Shorthand != "" {
				names = append(names, f.Shorthand)
			}
			for _, name := range names {
				if !regexp.MustCompile(`\bFl ` + name + `(\s|$)`).MatchString(man) {
					t.Errorf("-%s of %s is not in %s", name, c.CommandPath(), page)
				}
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for _, match := range regexp.MustCompile(`\bFl -(\w[\w-]*)`).FindAllStringSubmatch(man, -1) {
		if !known[match[1]] {
			t.Errorf("%s has --%s, which does not exist", page, match[1])
		}
	}
}

// Every reason is in the documentation and in the schema, and explain knows it.
func TestReasonsAreDocumented(t *testing.T) {
	for path, format := range map[string]string{
		"docs/states.md":          "\n| `%s` | ",
		"docs/ndjson.schema.json": `"%s"`,
		"docs/sstrace.8":          "\n.Cm %s ",
	} {
		text := read(t, "../../"+path)
		for _, r := range event.Reasons() {
			if !strings.Contains(text, strings.Replace(format, "%s", r.String(), 1)) {
				t.Errorf("%s is not in %s", r, path)
			}
		}
	}
	for _, r := range event.Reasons() {
		if _, err := explain.Explain(r.String()); err != nil {
			t.Error(err)
		}
	}
}

// The README is short: it is for somebody new who has five minutes.
func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(read(t, "../../README.md"), "\n"); n > 150 {
		t.Errorf("README.md has %d lines, want at most 150: move details to a page in docs/", n)
	}
}

// Every relative link points to a file that exists. If the link has a fragment, the file has that
// heading.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	pages = append(pages, "../../README.md", "../../CONTRIBUTING.md", "../../CHANGELOG.md")
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	for _, page := range pages {
		found := 0
		for _, match := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			found++
			path, fragment, _ := strings.Cut(match[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s: %v", page, match[1], err)
			} else if fragment != "" && !anchors(read(t, target))[fragment] {
				t.Errorf("%s: %s: no such heading in %s", page, match[1], target)
			}
		}
		if filepath.Base(page) == "README.md" && found == 0 {
			t.Errorf("%s: no links found", page)
		}
	}
}

// anchors returns the fragments that GitHub generates for the headings in a Markdown text.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		level, title, ok := strings.Cut(lines.Text(), " ")
		if !ok || level == "" || strings.Trim(level, "#") != "" {
			continue
		}
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, title)] = true
	}
	return all
}

// Go comments wrap at 100 columns, with tabs of 4. golangci-lint checks the length of whole lines
// only, and clang-format takes care of C.
func TestCommentsWrap(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != "..":
			return filepath.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		text := read(t, path)
		if strings.HasPrefix(text, "// Code generated") {
			return nil
		}
		number := 0
		for line := range strings.Lines(text) {
			number++
			line = strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    ")
			if strings.HasPrefix(strings.TrimSpace(line), "// ") && utf8.RuneCountInString(line) > 100 {
				t.Errorf("%s:%d: this comment is longer than 100 columns", path, number)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
