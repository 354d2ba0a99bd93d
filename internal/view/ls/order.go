package ls

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"sstrace/internal/event"
)

// Compare orders sockets as in a listing: first by state, then by tuple.
func Compare(a, b *event.Event) int {
	if c := compareStates(a.New, b.New); c != 0 {
		return c
	}
	x, y := a.Tuple(), b.Tuple()
	return x.Compare(&y)
}

// compareStates orders states along a connection's life, but puts CLOSE at the end: a socket listed
// in CLOSE is bound, and is not a connection.
func compareStates(a, b event.State) int {
	last := func(s event.State) int {
		if s == event.Close {
			return 1
		}
		return 0
	}
	return cmp.Or(last(a)-last(b), a.Position()-b.Position())
}

// Sums holds the number of sockets in each state.
type Sums [256]int

// states returns, in order, the states that have at least one socket.
func (s *Sums) states() (all []event.State) {
	for state, n := range s {
		if n > 0 {
			all = append(all, event.State(state))
		}
	}
	slices.SortFunc(all, compareStates)
	return all
}

// String returns the total number of sockets, and the number in each state.
func (s *Sums) String() string {
	all := 0
	var parts []string
	for _, state := range s.states() {
		all += s[state]
		parts = append(parts, state.String()+" "+strconv.Itoa(s[state]))
	}
	text := "1 socket"
	if all != 1 {
		text = strconv.Itoa(all) + " sockets"
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}
