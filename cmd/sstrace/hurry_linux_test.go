package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// Who hurries collects no garbage at first, and then as usual.
func TestHurry(t *testing.T) {
	percent := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMAXPROCS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	usual := percent()
	defer debug.SetGCPercent(int(usual))
	runtime.GC()
	hurry()
	if n := runtime.GOMAXPROCS(0); n < 4 {
		t.Errorf("%d threads may run", n)
	}
	if p := percent(); p != 1600 {
		t.Errorf("garbage is collected at %d %%", p)
	}
	await(t, "garbage to be collected as usual", func() bool {
		runtime.GC()
		return percent() == usual
	})
}
