// Package quantile tells the percentiles of very many times without keeping them: a DDSketch, with the exact extremes beside it.
package quantile

import (
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
)

// Accuracy is how far a Quantile may be from the value that it stands for, relative to that value.
const Accuracy = 0.01

// bins bounds the memory. At this accuracy they span 17 decades, 1 ns to 3 years; what is more than that below the greatest is told as longer than it was.
const bins = 2048

// Sketch is the distribution of times that were added, in ns. It is not safe for concurrent use.
type Sketch struct {
	sketch   *ddsketch.DDSketch
	count    uint64
	min, max int64
}

// New makes an empty Sketch.
func New() *Sketch {
	sketch, err := ddsketch.LogCollapsingLowestDenseDDSketch(Accuracy, bins)
	if err != nil {
		panic(err) // only for an accuracy that is none
	}
	return &Sketch{sketch: sketch, min: math.MaxInt64}
}

// Add adds a time. No time is negative; if one is all the same, it is taken for 0.
func (s *Sketch) Add(ns int64) {
	ns = max(ns, 0)
	s.count++
	s.min, s.max = min(s.min, ns), max(s.max, ns)
	_ = s.sketch.Add(float64(ns)) // refuses only what no int64 is
}

// Count is the number of times that were added.
func (s *Sketch) Count() uint64 { return s.count }

// Min is the least of the times, exactly; 0 if there is none.
func (s *Sketch) Min() int64 {
	if s.count == 0 {
		return 0
	}
	return s.min
}

// Max is the greatest of the times, exactly; 0 if there is none.
func (s *Sketch) Max() int64 { return s.max }

// Quantile gives the time that a fraction q of all times, 0 to 1, does not exceed, with a relative error of up to Accuracy, and never outside Min and
// Max. It is 0 if there is none.
func (s *Sketch) Quantile(q float64) int64 {
	v, err := s.sketch.GetValueAtQuantile(min(max(q, 0), 1))
	if err != nil { // it is empty
		return 0
	}
	return min(max(int64(math.Round(v)), s.Min()), s.Max())
}

// Merge adds all times of other, which stays as it is.
func (s *Sketch) Merge(other *Sketch) error {
	if err := s.sketch.MergeWith(other.sketch); err != nil {
		return fmt.Errorf("merge times: %w", err)
	}
	s.count += other.count
	s.min, s.max = min(s.min, other.min), max(s.max, other.max)
	return nil
}
