package text

import (
	"fmt"
	"strings"
	"time"
)

// ContainerID returns the first 12 digits of a container's ID, as docker ps prints it.
func ContainerID(id string) string { return id[:12] }

// Group returns the name of a group for a person: "-" if it is unknown, a container's ID as
// ContainerID returns it, and anything else as Visible does.
func Group(name string) string {
	if len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
		return ContainerID(name)
	}
	return OrDash(Visible(name))
}

// TimeOfDay returns the wall time in ns for the title of a table that appears every interval: with
// milliseconds if the interval is not in whole seconds.
func TimeOfDay(wall int64, interval time.Duration) string {
	layout := "15:04:05"
	if interval%time.Second != 0 {
		layout = "15:04:05.000"
	}
	return time.Unix(0, wall).Format(layout)
}

// LostInPeriod returns the line that reports the changes lost in the period of a table, with its
// newline.
func LostInPeriod(changes uint64) string {
	const format = "--- %d changes lost in this period, " +
		"the ring buffer was full: a filter or a larger --buffer helps ---\n"
	return fmt.Sprintf(format, changes)
}
