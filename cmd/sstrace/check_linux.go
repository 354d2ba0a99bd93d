package main

import (
	"fmt"
	"io"

	"sstrace/internal/probe"
)

// check prints what tracing needs, and whether this machine has it.
func check(w io.Writer) error {
	var unmet unmetError
	for _, n := range probe.Check() {
		verdict := "yes"
		switch {
		case n.Unknown:
			verdict = "?"
		case !n.OK && n.Soft:
			verdict = "less"
		case !n.OK:
			verdict = "NO"
			unmet++
		}
		fmt.Fprintf(w, "%-4s  %-24s  %s\n", verdict, n.Name, n.Found)
		if !n.OK {
			fmt.Fprintf(w, "      %-24s  → %s\n", "", n.Hint)
		}
	}
	if unmet > 0 {
		return unmet
	}
	fmt.Fprintln(w, "sstrace can trace on this machine.")
	return nil
}
