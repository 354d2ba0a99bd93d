package event

import "strings"

// Container returns the ID of the container to which Cgroup belongs, or "" if there is none. It
// recognizes docker, containerd, cri-o and podman. All of these put 64 hexadecimal digits into the
// path, either alone (docker with cgroupfs, containerd in Kubernetes) or as RUNTIME-ID.scope
// (systemd).
func (e *Event) Container() string {
	for path := e.Cgroup; path != ""; {
		var part string
		path, part = cutLast(path)
		part = strings.TrimSuffix(part, ".scope")
		if _, id, ok := strings.Cut(part, "-"); ok {
			part = id
			if _, id, ok := strings.Cut(part, "-"); ok { // libpod-conmon-ID is podman's own process
				part = id
			}
		}
		if len(part) == 64 && strings.Trim(part, "0123456789abcdef") == "" {
			return part
		}
	}
	return ""
}

// Unit returns the innermost systemd service or scope that contains Cgroup, or "" if there is none.
func (e *Event) Unit() string {
	for path := e.Cgroup; path != ""; {
		var part string
		path, part = cutLast(path)
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			return part
		}
	}
	return ""
}

// cutLast splits path at its last slash.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
