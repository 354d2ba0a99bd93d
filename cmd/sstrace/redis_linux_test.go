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

// redisServer finds redis-server. Debian's package redis-tools has the program, too, by another
// name, and installing it starts no service.
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

// The story that sstrace is for: a Redis master and its replica on one host, started and stopped.
// All four views of it are there, with their owners.
func TestRedis(t *testing.T) {
	needRoot(t)
	server := redisServer(t)
	h := newHost(t)
	run := func(args ...string) (*exec.Cmd, func(string)) {
		cmd := exec.Command(server, append(args, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())...)
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
	r := trace(t, []string{"--netns", h.netns(), "--states", "rfc", "-p", "6379,6389", "--comm", "redis-server"}, func() {
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
	type view struct {
		pid  int
		path string
	}
	var got []view
	for i, e := range firstChanges(r.changes) {
		got = append(got, view{int(e.OwnerPID), fmt.Sprint(e.Local.Port(), " ", e.Remote.Port(), " ", r.paths()[i])})
	}
	for what, want := range map[string]view{
		"the master listens":  {master.Process.Pid, "6379 0 listener CLOSE LISTEN CLOSE (normal)"},
		"the replica listens": {replica.Process.Pid, "6389 0 listener CLOSE LISTEN CLOSE (normal)"},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s: no %+v in %d views", what, want, len(got))
		}
	}
	for what, want := range map[string]view{
		"the replica's end of the link": {replica.Process.Pid, " 6379 client CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT"},
		"the master's end of the link":  {master.Process.Pid, " server LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE (normal)"},
	} {
		if !slices.ContainsFunc(got, func(v view) bool { return v.pid == want.pid && strings.HasSuffix(v.path, want.path) }) {
			t.Errorf("%s: no %+v in %d views", what, want, len(got))
		}
	}
}
