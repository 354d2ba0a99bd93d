package filter_test

import (
	"fmt"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
	"sstrace/internal/filter"
)

// Select lines with an expression that uses the NDJSON keys. A comparison with an unknown value is
// false.
func ExampleFilter_Pass() {
	f, err := filter.New(&filter.Options{Where: `dur_ns > 1e6 && new == "ESTABLISHED"`})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, dur := range []int64{57254, 2e6, event.Unknown} {
		e := eventtest.Change("127.0.0.1:40602", "127.0.0.1:7781", event.SynSent, event.Established)
		e.Dur = dur
		err := f.Pass(e, func(e *event.Event) error {
			fmt.Println(e.New, e.Dur)
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("filtered:", f.Filtered())
	// Output:
	// ESTABLISHED 2000000
	// filtered: 2
}

// An error marks the place in the expression.
func ExampleNew() {
	_, err := filter.New(&filter.Options{Where: "latency > 1e6"})
	fmt.Println(err)
	// Output:
	// --where: unknown name latency (1:1)
	//  | latency > 1e6
	//  | ^
	// use the keys of -o ndjson, and nil for an unknown value: dur_ns > 1e6 && err != nil
}
