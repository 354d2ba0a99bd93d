package quantile

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// fractions lists arguments for Quantile.
var fractions = []float64{0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1}

// distributions returns n times from each of several distributions. Some are typical of sockets,
// others are not.
func distributions(n int) map[string][]int64 {
	r := rand.New(rand.NewPCG(1, 2))
	of := func(next func(i int) int64) (times []int64) {
		for i := range n {
			times = append(times, next(i))
		}
		return times
	}
	return map[string][]int64{
		"uniform":       of(func(int) int64 { return r.Int64N(1e9) }),
		"exponential":   of(func(int) int64 { return int64(r.ExpFloat64() * 1e6) }),
		"constant":      of(func(int) int64 { return 57254 }),
		"zero":          of(func(int) int64 { return 0 }),
		"two values":    of(func(i int) int64 { return []int64{57254, 60 * 1e9}[i%2] }),
		"one and zero":  of(func(i int) int64 { return int64(i % 2) }),
		"12 decades":    of(func(int) int64 { return int64(math.Pow(10, 12*r.Float64())) }),
		"heavy tail":    of(func(int) int64 { return int64(min(math.Pow(r.Float64(), -2), 1e12)) }),
		"bits":          of(func(int) int64 { return r.Int64() >> r.IntN(63) }),
		"small":         of(func(int) int64 { return r.Int64N(300) }),
		"the very ends": of(func(i int) int64 { return []int64{0, 1, math.MaxInt64 - 1, math.MaxInt64}[i%4] }),
	}
}

func sketch(times []int64) *Sketch {
	s := New()
	for _, ns := range times {
		s.Add(ns)
	}
	return s
}

func TestAccuracy(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 1000, 100000} {
		for name, times := range distributions(n) {
			t.Run(fmt.Sprint(n, " ", name), func(t *testing.T) {
				s := sketch(times)
				slices.Sort(times)
				if s.Count() != uint64(n) || s.Min() != times[0] || s.Max() != times[n-1] {
					t.Errorf("%d times from %d to %d, want %d from %d to %d", s.Count(), s.Min(), s.Max(), n,
						times[0], times[n-1])
				}
				for _, q := range fractions {
					place := min(max(int(q*float64(n)+0.5), 1), n)
					got, want := float64(s.Quantile(q)), float64(times[place-1])
					if math.Abs(got-want) > Accuracy*want {
						t.Errorf("quantile %g: got %.0f, want %.0f", q, got, want)
					}
				}
			})
		}
	}
}

func TestEmpty(t *testing.T) {
	s := New()
	if s.Count() != 0 || s.Min() != 0 || s.Max() != 0 || s.Quantile(0.5) != 0 {
		t.Errorf("%d times from %d to %d, median %d", s.Count(), s.Min(), s.Max(), s.Quantile(0.5))
	}
	s.Add(5)
	if err := s.Merge(New()); err != nil || s.Count() != 1 || s.Min() != 5 || s.Max() != 5 {
		t.Errorf("after merging an empty sketch: %d times from %d to %d, %v", s.Count(), s.Min(), s.Max(), err)
	}
	other := New()
	if err := other.Merge(s); err != nil || other.Count() != 1 || other.Min() != 5 || other.Max() != 5 {
		t.Errorf("merged into an empty sketch: %d times from %d to %d, %v", other.Count(), other.Min(), other.Max(),
			err)
	}
}

func TestMergeEqualsOneSketch(t *testing.T) {
	for name, times := range distributions(10000) {
		t.Run(name, func(t *testing.T) {
			one, merged := sketch(times), New()
			for i, size := 0, 0; i < len(times); i += size { // small batches and large ones
				size = min([]int{1, 777, 3, 100}[i%4], len(times)-i)
				if err := merged.Merge(sketch(times[i : i+size])); err != nil {
					t.Fatal(err)
				}
			}
			if one.Count() != merged.Count() || one.Min() != merged.Min() || one.Max() != merged.Max() ||
				!slices.Equal(one.Octaves(), merged.Octaves()) {
				t.Errorf("%d times from %d to %d, want %d from %d to %d", merged.Count(), merged.Min(),
					merged.Max(), one.Count(), one.Min(), one.Max())
			}
			for q := 0.0; q <= 1; q += 1.0 / 1024 {
				if one.Quantile(q) != merged.Quantile(q) {
					t.Errorf("the quantile %g is %d, want %d", q, merged.Quantile(q), one.Quantile(q))
				}
			}
		})
	}
}

func TestOctavesAreExact(t *testing.T) {
	for name, times := range distributions(10000) {
		t.Run(name, func(t *testing.T) {
			want := make([]uint64, bits.Len64(uint64(slices.Max(times)))+1)
			for _, ns := range times {
				want[bits.Len64(uint64(ns))]++
			}
			if got := sketch(times).Octaves(); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Memory depends only on the number of buckets. After ten million times over the whole range, more
// times need no more memory.
func TestMemoryIsBounded(t *testing.T) {
	s := New()
	r := rand.New(rand.NewPCG(1, 2))
	fill := func(times int) int {
		for range times {
			s.Add(r.Int64() >> r.IntN(63))
		}
		return s.buckets.GetMemorySize()
	}
	const most = 200 << 10
	before := fill(10_000_000)
	if after := fill(1_000_000); before > most || after != before {
		t.Errorf("%d bytes after ten million times, %d after a million more; want the same and at most %d", before,
			after, most)
	}
	r = rand.New(rand.NewPCG(3, 4)) // similar times need very little
	s = New()
	for range 1_000_000 {
		s.Add(50_000 + r.Int64N(10_000))
	}
	if got := s.buckets.GetMemorySize(); got > 2<<10 {
		t.Errorf("%d bytes for times from 50 to 60 µs", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	times := make([]int64, 1<<16)
	for i := range times {
		times[i] = int64(r.ExpFloat64() * 1e6)
	}
	s := New()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Add(times[i&(len(times)-1)])
	}
	b.ReportMetric(float64(s.buckets.GetMemorySize()), "bytes")
}
