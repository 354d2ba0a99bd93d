// Package quantile tells the percentiles of very many times without keeping them. It wraps HdrHistogram's packed histogram and fixes its range
// and precision, so that any two sketches can be merged, and adds the exact extremes.
package quantile

import (
	"errors"
	"math"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Accuracy is how far a Quantile may be from the value that it stands for, relative to that value. HdrHistogram's two significant digits
// are buckets of 1/128 of their lower end at most (0.8 %), and below 256 ns of one nanosecond.
const Accuracy = 0.01

const significantDigits = 2

// Sketch is the distribution of times that were added, in ns. Its range is fixed, 0 to 2^63-1, so nothing is ever collapsed or left out; its
// memory grows with the number of buckets that have values, not with that of values: 12 bytes for a bucket at most (while it grows, twice
// that), of which there are 128 for each power of two and 7424 in all. Times from 1 µs to an hour fill 4096.
//
// It is not safe for concurrent use.
type Sketch struct {
	buckets  *hdrhistogram.PackedHistogram
	min, max int64
}

// New makes an empty Sketch.
func New() *Sketch {
	return &Sketch{buckets: hdrhistogram.NewPacked(1, math.MaxInt64, significantDigits), min: math.MaxInt64}
}

// Add adds a time. No time is negative; if one is all the same, it is taken for 0.
func (s *Sketch) Add(ns int64) {
	ns = max(ns, 0)
	s.min, s.max = min(s.min, ns), max(s.max, ns)
	_ = s.buckets.RecordValue(ns) // fails outside the range, and when there are 2^63 values
}

// Count is the number of times that were added.
func (s *Sketch) Count() uint64 { return uint64(s.buckets.TotalCount()) }

// Min is the least of the times, exactly; 0 if there is none.
func (s *Sketch) Min() int64 {
	if s.Count() == 0 {
		return 0
	}
	return s.min
}

// Max is the greatest of the times, exactly; 0 if there is none.
func (s *Sketch) Max() int64 { return s.max }

// Quantile gives the time that a fraction q of all times, 0 to 1, does not exceed: of n times in order the one that is nearest to place q*n, with
// a relative error of up to Accuracy. It is never outside Min and Max, and these are exact: Quantile(0), Quantile(1). It is 0 if there is none.
func (s *Sketch) Quantile(q float64) int64 {
	switch {
	case q <= 0:
		return s.Min()
	case q >= 1:
		return s.Max()
	}
	return min(max(s.buckets.ValueAtPercentile(100*q), s.Min()), s.Max())
}

// Merge adds all times of other, which stays as it is. The result is the same, bucket for bucket, as if all had been added to one Sketch.
func (s *Sketch) Merge(other *Sketch) error {
	if s.buckets.Merge(other.buckets) > 0 {
		return errors.New("merge times: there are more than can be counted")
	}
	s.min, s.max = min(s.min, other.min), max(s.max, other.max)
	return nil
}

// Octaves counts the times by powers of two, exactly: the first of the counts is that of 0 ns, and the one at i of 2^(i-1) ns to less than 2^i. There are as
// many as the greatest time needs. (A bucket never spans a power of two.)
func (s *Sketch) Octaves() []uint64 {
	counts := make([]uint64, bits.Len64(uint64(s.max))+1)
	s.buckets.ForEachBucket(func(ns, count int64) bool {
		counts[bits.Len64(uint64(ns))] += uint64(count)
		return true
	})
	return counts
}
