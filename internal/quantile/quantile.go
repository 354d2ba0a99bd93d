// Package quantile estimates percentiles of a large number of times without storing them. It wraps
// HdrHistogram's packed histogram and fixes its range and precision, so that any two sketches can
// be merged, and adds the exact extremes.
package quantile

import (
	"errors"
	"math"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Accuracy is the largest relative error of Sketch.Quantile. With two significant digits
// HdrHistogram's buckets are at most 1/128 of their lower bound wide (0.8 %), and one nanosecond
// below 256 ns.
const Accuracy = 0.01

const significantDigits = 2

// Sketch is the distribution of the times that were added to it, in ns. Its range is fixed, 0 to
// 2^63-1, so nothing is ever collapsed or left out. Its memory grows with the number of buckets in
// use, not with the number of times: at most 12 bytes per bucket, and twice that while it grows.
// There are 128 buckets for each power of two, 7424 in all; times from 1 µs to an hour fill 4096.
//
// It is not safe for concurrent use.
type Sketch struct {
	buckets  *hdrhistogram.PackedHistogram
	min, max int64
}

// New returns an empty Sketch.
func New() *Sketch {
	return &Sketch{buckets: hdrhistogram.NewPacked(1, math.MaxInt64, significantDigits), min: math.MaxInt64}
}

// Add adds a time. A negative time counts as 0.
func (s *Sketch) Add(ns int64) {
	ns = max(ns, 0)
	s.min, s.max = min(s.min, ns), max(s.max, ns)
	_ = s.buckets.RecordValue(ns) // fails outside the range, and when there are 2^63 values
}

// Count returns the number of times that were added.
func (s *Sketch) Count() uint64 { return uint64(s.buckets.TotalCount()) }

// Min returns the exact minimum of the times, or 0 if there are none.
func (s *Sketch) Min() int64 {
	if s.Count() == 0 {
		return 0
	}
	return s.min
}

// Max returns the exact maximum of the times, or 0 if there are none.
func (s *Sketch) Max() int64 { return s.max }

// Quantile returns the time that a fraction q of all times, from 0 to 1, does not exceed: among n
// sorted times, the one nearest to position q*n, with a relative error of at most Accuracy. The
// result is never outside Min and Max, which Quantile(0) and Quantile(1) return exactly. It is 0 if
// there are no times.
func (s *Sketch) Quantile(q float64) int64 {
	switch {
	case q <= 0:
		return s.Min()
	case q >= 1:
		return s.Max()
	}
	return min(max(s.buckets.ValueAtPercentile(100*q), s.Min()), s.Max())
}

// Merge adds all times of other, which it leaves unchanged. The result is the same, bucket for
// bucket, as if all times had been added to one Sketch.
func (s *Sketch) Merge(other *Sketch) error {
	var dropped int64
	// Histogram.Merge visits all buckets of both.
	if few := s.buckets.Populated() / 16; other.buckets.Populated() < few {
		other.buckets.ForEachBucket(func(ns, count int64) bool {
			if s.buckets.RecordValues(ns, count) != nil {
				dropped += count
			}
			return true
		})
	} else {
		dropped = s.buckets.Merge(other.buckets)
	}
	if dropped > 0 {
		return errors.New("merge times: more than can be counted")
	}
	s.min, s.max = min(s.min, other.min), max(s.max, other.max)
	return nil
}

// Octaves returns exact counts of the times by powers of two: the first counts times of 0 ns, and
// the one at index i counts times from 2^(i-1) ns to less than 2^i. There are as many as the
// greatest time needs. (No bucket spans a power of two.)
func (s *Sketch) Octaves() []uint64 {
	counts := make([]uint64, bits.Len64(uint64(s.max))+1)
	s.buckets.ForEachBucket(func(ns, count int64) bool {
		counts[bits.Len64(uint64(ns))] += uint64(count)
		return true
	})
	return counts
}
