package event

import "strings"

// Container gives the id of the container whose cgroup Cgroup is or is below, as docker, containerd, cri-o and podman name them; "" for none.
// They all put 64 hexadecimal digits into the path: bare (docker with cgroupfs, containerd in Kubernetes), or as RUNTIME-ID.scope (systemd).
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

// Unit gives the systemd unit whose cgroup Cgroup is or is below: the innermost service, or scope; "" for none.
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

// cutLast gives the path before its last part, and that part.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
