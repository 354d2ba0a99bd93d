package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// redisServer returns the path of redis-server. Debian's redis-tools package contains the same
// program under another name, and installing that package starts no service.
func redisServer(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("redis-server"); err == nil {
		return path
	}
	path, err := exec.LookPath("redis-check-rdb")
	if err != nil {
		t.Fatal("install redis-tools: `make test` does")
	}
	link := filepath.Join(t.TempDir(), "redis-server")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// sstrace was made for this situation: a Redis master and its replica on one host are started and
// stopped. All four sockets are traced, with their owners.
func TestRedis(t *testing.T) {
	needRoot(t)
	server := redisServer(t)
	h := newHost(t)
	run := func(args ...string) (*exec.Cmd, func(string)) {
		args = append(args, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
		cmd := exec.Command(server, args...)
		h.do(func() { h.must("start redis", cmd.Start()) })
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd, func(state string) {
			await(t, "redis "+state, func() bool {
				var out []byte
				h.do(func() { out, _ = exec.Command("redis-cli", "-p", args[1], "info", "replication").Output() })
				return strings.Contains(string(out), state)
			})
		}
	}
	var master, replica *exec.Cmd
	args := []string{"--netns", h.netns(), "--states", "rfc", "-p", "6379,6389", "--comm", "redis-server"}
	r := trace(t, args, func() {
		var is func(string)
		master, is = run("--port", "6379")
		is("role:master")
		replica, is = run("--port", "6389", "--replicaof", "127.0.0.1", "6379")
		is("master_link_status:up")
		h.must("stop the replica", replica.Process.Signal(unix.SIGTERM))
		h.must("wait", replica.Wait())
		h.must("stop the master", master.Process.Signal(unix.SIGTERM))
		h.must("wait", master.Wait())
		h.quiet()
	})
	type socket struct {
		pid  int
		path string
	}
	var got []socket
	for i, e := range firstChanges(r.changes) {
		path := fmt.Sprint(e.Local.Port(), " ", e.Remote.Port(), " ", r.paths()[i])
		got = append(got, socket{int(e.OwnerPID), path})
	}
	for what, want := range map[string]socket{
		"the master listens":  {master.Process.Pid, "6379 0 " + rfcListener},
		"the replica listens": {replica.Process.Pid, "6389 0 " + rfcListener},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s: got %+v, want one with %+v", what, got, want)
		}
	}
	for what, want := range map[string]socket{
		"the replica's end of the link": {replica.Process.Pid, " 6379 " + rfcActiveClient},
		"the master's end of the link":  {master.Process.Pid, " " + rfcPassiveServer},
	} {
		is := func(s socket) bool { return s.pid == want.pid && strings.HasSuffix(s.path, want.path) }
		if !slices.ContainsFunc(got, is) {
			t.Errorf("%s: got %+v, want one with %+v", what, got, want)
		}
	}
}
