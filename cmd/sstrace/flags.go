package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Helpers for flags. The flags themselves are in options.go and in each command's file.

// The groups of flags, in the order in which --help prints them. A command's own flags come first.
const (
	groupOwn         = "Flags"
	groupConnections = "Connections (selected in the kernel)"
	groupLines       = "Lines"
	groupSockets     = "Sockets"
	groupOutput      = "Output"
	groupSource      = "Source"
)

var groups = []string{groupOwn, groupConnections, groupLines, groupSockets, groupOutput, groupSource}

// groupAnnotation is the flag annotation that holds a flag's group.
const groupAnnotation = "sstrace-group"

// flags holds the flags of a command. They are added first, then tagged with their group.
type flags struct {
	*pflag.FlagSet
	command *cobra.Command
}

func newFlags(c *cobra.Command) *flags {
	f := c.Flags()
	f.SortFlags = false
	return &flags{f, c}
}

// tag puts the flags that were added since the last call into group.
func (f *flags) tag(group string) {
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Annotations[groupAnnotation] == nil {
			_ = f.SetAnnotation(flag.Name, groupAnnotation, []string{group}) // the flag exists
		}
	})
}

// complete sets the values that the shell offers for a flag. The flag must exist.
func (f *flags) complete(flag string, values []string) {
	_ = f.command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// choice adds a flag that takes one of several words.
func (f *flags) choice(value *string, name string, words []string, usage string) {
	f.Var(choice{value, words}, name, usage+": "+strings.Join(words, ", "))
	f.complete(name, words)
}

// choice is the value of a flag that takes one of several words.
type choice struct {
	value *string
	words []string
}

func (c choice) String() string { return "" } // there is no default
func (c choice) Type() string   { return "word" }

// Set implements pflag.Value.
func (c choice) Set(text string) error {
	if !slices.Contains(c.words, text) {
		return errors.New("expected " + strings.Join(c.words, ", "))
	}
	*c.value = text
	return nil
}

// groupedUsages returns the help for c's flags, group by group.
func groupedUsages(c *cobra.Command) string {
	sets := make(map[string]*pflag.FlagSet)
	c.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		group := groupOwn
		if g := flag.Annotations[groupAnnotation]; g != nil {
			group = g[0]
		}
		if sets[group] == nil {
			sets[group] = pflag.NewFlagSet(group, pflag.ContinueOnError)
			sets[group].SortFlags = false
		}
		sets[group].AddFlag(flag)
	})
	var b strings.Builder
	for _, group := range groups {
		if sets[group] != nil {
			fmt.Fprintf(&b, "%s:\n%s\n", group, sets[group].FlagUsages())
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
