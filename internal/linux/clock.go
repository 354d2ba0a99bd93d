//go:build linux

// Package linux translates values from the running kernel into values in events: monotonic time
// into wall time, and numbers into names and addresses.
package linux

import "golang.org/x/sys/unix"

// Clock converts times of CLOCK_MONOTONIC to wall time.
//
// Both clocks are slewed in the same way, so the offset between them jumps only when the clock is
// set or the machine wakes up. Clock therefore measures the offset once per second of the times
// that it converts. It keeps the old value if that is right within the precision of the
// measurement, so that wall times differ by exactly as much as monotonic ones.
type Clock struct {
	offset   int64
	measured int64 // when
}

// Wall returns a time of CLOCK_MONOTONIC, in ns, as a time in ns since 1970 UTC.
func (c *Clock) Wall(mono int64) int64 {
	if mono-c.measured > 1e9 || c.measured == 0 {
		c.measure()
	}
	return mono + c.offset
}

// Monotonic returns the time of CLOCK_MONOTONIC in ns.
func Monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}

func (c *Clock) measure() {
	best, offset := int64(1<<62), int64(0)
	for range 3 {
		var real unix.Timespec
		before := Monotonic()
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &real)
		after := Monotonic()
		if after-before < best {
			best, offset = after-before, real.Nano()-(before+after)/2
		}
	}
	if off := offset - c.offset; off > best || off < -best {
		c.offset = offset
	}
	c.measured = Monotonic()
}
