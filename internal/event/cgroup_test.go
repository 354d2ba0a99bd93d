package event

import (
	"strings"
	"testing"
)

func TestContainerAndUnit(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for path, want := range map[string][2]string{
		"":                            {"", ""},
		"/":                           {"", ""},
		"/system.slice/redis.service": {"", "redis.service"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app.scope": {"", "app.scope"},
		"/docker/" + id:                                                       {id, ""},
		"/system.slice/docker-" + id + ".scope":                               {id, "docker-" + id + ".scope"},
		"/system.slice/docker-" + id + ".scope/init":                          {id, "docker-" + id + ".scope"},
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": {id, "cri-containerd-" + id + ".scope"},
		"/kubepods/burstable/pod1/" + id:                                      {id, ""},
		"/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope":           {id, "crio-" + id + ".scope"},
		"/machine.slice/libpod-" + id + ".scope/container":                    {id, "libpod-" + id + ".scope"},
		"/machine.slice/libpod-conmon-" + id + ".scope":                       {id, "libpod-conmon-" + id + ".scope"},
		"/system.slice/" + id[:63]:                                            {"", ""},
	} {
		e := Event{Cgroup: path}
		if got := [2]string{e.Container(), e.Unit()}; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
