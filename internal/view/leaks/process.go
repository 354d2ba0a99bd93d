package leaks

import (
	"os"
	"strconv"
	"strings"
)

// Process returns the executable and the cgroup of the process with this number in /proc. Both are
// empty if the process is gone.
func Process(pid uint32) (executable, cgroup string) {
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	executable, _ = os.Readlink(dir + "/exe")
	text, _ := os.ReadFile(dir + "/cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok { // cgroup v2, see cgroups(7)
			cgroup = path
		}
	}
	return executable, cgroup
}
