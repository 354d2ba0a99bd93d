package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// line is a line of NDJSON.
type line = map[string]any

// attempt is one connection of a socket, or one try to connect it, as the lines of a recording
// report it. A socket may connect again.
type attempt struct {
	lines    []line // changes of state, or a single connect_failed line
	accepted bool
	owner    line // the last line about its full socket, including accept
}

// attempts returns all attempts in a recording, in the order in which they began, and the number of
// accept lines.
func attempts(recording []line) (all []*attempt) {
	latest := make(map[any]*attempt) // by id
	for _, l := range recording {
		a := latest[l["id"]]
		switch {
		case l["type"] == "accept":
			if a != nil && a.open() {
				a.accepted, a.owner = true, l
			}
			continue
		case l["type"] != "change" && l["type"] != "connect_failed", l["new"] == "LISTEN", l["old"] == "LISTEN" && l["new"] == "CLOSE":
			continue
		case a == nil && l["old"] == "TIME_WAIT": // its full socket ended before the trace
			continue
		case a == nil || l["type"] == "connect_failed" || l["new"] == "SYN_SENT":
			a = new(attempt)
			latest[l["id"]] = a
			all = append(all, a)
		}
		if len(a.lines) == 0 || a.open() {
			a.owner = l
		}
		a.lines = append(a.lines, l)
	}
	return all
}

func (a *attempt) first() line { return a.lines[0] }

func (a *attempt) last() line { return a.lines[len(a.lines)-1] }

// end returns the line on which the full socket ends, or the last line if the socket is still open.
func (a *attempt) end() line {
	for _, l := range a.lines {
		if l["new"] == "CLOSE" || l["new"] == "TIME_WAIT" {
			return l
		}
	}
	return a.last()
}

func (a *attempt) noSyn() bool { return a.first()["type"] == "connect_failed" }

func (a *attempt) open() bool {
	return !a.noSyn() && a.end()["new"] != "CLOSE" && a.end()["new"] != "TIME_WAIT"
}

// handshake returns the state of the handshake as far as this end knows it.
func (a *attempt) handshake() string {
	switch {
	case a.noSyn():
		return "failed"
	case a.accepted:
		return "accepted"
	}
	for _, l := range a.lines {
		if !slices.Contains([]any{"SYN_SENT", "SYN_RECV", "CLOSE"}, l["new"]) {
			return "established"
		}
	}
	if a.open() {
		return "open"
	}
	return "failed"
}

// deferred returns how long the attempt waited for data.
func (a *attempt) deferred() any {
	for _, l := range a.lines {
		if l["defer_ns"] != nil {
			return l["defer_ns"]
		}
	}
	return nil
}

// identity lists the keys that identify the socket of a line.
var identity = []string{"id", "cookie", "netns", "family", "proto", "laddr", "lport", "raddr", "rport", "ifindex", "ifname"}

// same reports whether two lines have the same values for these keys.
func same(a, b line, keys ...string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool { return a[k] != b[k] })
}

// take removes and returns the first line for which is returns true.
func take(lines *[]line, is func(line) bool) line {
	i := slices.IndexFunc(*lines, is)
	if i < 0 {
		return nil
	}
	l := (*lines)[i]
	*lines = slices.Delete(*lines, i, i+1)
	return l
}

// replay is a recording and the output of the views for it.
type replay struct {
	t        *testing.T
	file     string
	lines    []line
	attempts []*attempt
}

// checkViews checks that every view of a recording in the RFC vocabulary shows what the lines
// report, in the order of the file. conns shows each end of each connection, handshakes each
// handshake, and stats each change and reason. ls shows what exists at the end, and leaks what is
// stuck. So if a test has checked a value in the lines, the value is also correct in the views.
func checkViews(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &replay{t: t, file: file}
	for _, kind := range []string{"change", "accept", "connect_failed"} {
		r.lines = append(r.lines, linesOf[line](t, kind, string(text))...)
	}
	slices.SortStableFunc(r.lines, func(a, b line) int { return int(a["seq"].(float64) - b["seq"].(float64)) })
	if r.attempts = attempts(r.lines); len(r.attempts) == 0 {
		t.Fatal("the recording has no connection, so this checks nothing")
	}
	r.conns()
	r.handshakes()
	r.stats()
	r.ls()
	r.leaks()
}

// view runs a command on the recording and returns its lines of this kind.
func (r *replay) view(kind, command string, args ...string) []line {
	r.t.Helper()
	return answers[line](r.t, kind, append([]string{command, "-r", r.file}, args...)...)
}

// rows checks that a command prints one row of text for each of its NDJSON lines, including the
// reason if the line has one.
func (r *replay) rows(command string, lines []line) {
	r.t.Helper()
	run := sstrace(r.t, "", command, "-r", r.file)
	table, _, _ := strings.Cut(run.stdout, "\n\n") // percentiles follow it
	rows := strings.Split(strings.TrimSpace(table), "\n")[1:]
	if run.code != 0 || len(rows) != len(lines) {
		r.t.Errorf("%s: exit code %d, %d rows for %d lines:\n%s%s", command, run.code, len(rows), len(lines), run.stdout, run.stderr)
		return
	}
	for i, l := range lines {
		if why, ok := l["reason"].(string); ok && !strings.Contains(rows[i], " "+why) {
			r.t.Errorf("%s: no %s in %s", command, why, rows[i])
		}
	}
}

// conns checks that each end has one line, with the values of the line on which the end closed.
func (r *replay) conns() {
	rest := r.view("conn", "conns")
	r.rows("conns", rest)
	timeline := sstrace(r.t, "", "conns", "--timeline", "-r", r.file).stdout
	keys := slices.Concat(identity, []string{"role", "reason", "active_close", "err", "container", "unit"})
	for _, a := range r.attempts {
		end := a.end()
		l := take(&rest, func(l line) bool { return l["id"] == end["id"] })
		switch {
		case !same(l, end, keys...), !same(l, a.owner, "owner_pid", "owner_comm", "owner_via"), l["open"] != a.open(), l["lost"] != false, l["defer_ns"] != a.deferred():
			r.t.Errorf("conns: %v\nof %v", l, end)
		case !a.noSyn() && l["state"] != end["new"]:
			r.t.Errorf("conns: in %v, but it came to %v: %v", l["state"], end["new"], l)
		case l["no_syn"] != (a.noSyn() || end["reason"] == "no_port"):
			r.t.Errorf("conns: no_syn is %v of %v", l["no_syn"], end)
		}
		if why, ok := end["reason"].(string); ok && !strings.Contains(timeline, why) {
			r.t.Errorf("conns --timeline: no %s of %v", why, end)
		}
	}
	if len(rest) > 0 {
		r.t.Errorf("conns: ends that are in no line: %v", rest)
	}
}

// worst orders the states of handshakes. If the two ends differ, the handshake has the state that
// comes first here.
var worst = []string{"failed", "open", "accepted", "established"}

// handshakes checks that each end whose handshake was seen is part of a handshake.
func (r *replay) handshakes() {
	reported := r.view("handshake", "handshakes")
	r.rows("handshakes", reported)
	rest := make(map[any][]*attempt) // by id
	for _, a := range r.attempts {
		if first := a.first(); a.noSyn() || slices.Contains([]any{"CLOSE", "LISTEN", "SYN_SENT", "SYN_RECV"}, first["old"]) {
			rest[first["id"]] = append(rest[first["id"]], a)
		}
	}
	for _, l := range reported {
		ends := make(map[string]*attempt)
		for _, side := range []string{"client", "server"} {
			end, _ := l[side].(line)
			if end == nil {
				continue
			}
			id := end["id"]
			if len(rest[id]) == 0 {
				r.t.Errorf("handshakes: an end that is in no line: %v", l)
				return
			}
			a := rest[id][0]
			if rest[id] = rest[id][1:]; len(rest[id]) == 0 {
				delete(rest, id)
			}
			if !same(end, a.end(), identity...) || a.end()["role"] != side {
				r.t.Errorf("handshakes: the %s is %v\nof %v", side, end, a.end())
			}
			ends[side] = a
		}
		r.handshake(l, ends["client"], ends["server"])
	}
	if len(rest) > 0 {
		r.t.Errorf("handshakes: none of %v", rest)
	}
}

// handshake checks that the state of a handshake is the worse one of its two ends, and that its
// reason is that of the end that failed.
func (r *replay) handshake(l line, client, server *attempt) {
	state, reason, err := len(worst), any(nil), any(nil)
	for _, a := range []*attempt{server, client} {
		if a == nil {
			continue
		}
		state = min(state, slices.Index(worst, a.handshake()))
		if a.handshake() == "failed" {
			reason, err = a.end()["reason"], a.end()["err"]
		}
	}
	switch {
	case l["state"] != worst[state] || l["reason"] != reason || l["err"] != err:
		r.t.Errorf("handshakes: %v\nwant %s, %v, %v", l, worst[state], reason, err)
	case client != nil && l["no_syn"] != (client.noSyn() || client.end()["reason"] == "no_port"):
		r.t.Errorf("handshakes: no_syn is %v of %v", l["no_syn"], client.end())
	case server != nil && l["defer_ns"] != server.deferred():
		r.t.Errorf("handshakes: it waited %v ns for data: %v", server.deferred(), l)
	}
}

// stats checks the counts of changes and of reasons.
func (r *replay) stats() {
	want, got := make(map[string]float64), make(map[string]float64)
	for _, l := range r.lines {
		switch l["type"] {
		case "accept":
			want["(queue) (accepted)"]++
		case "connect_failed":
			want["(connect) (failed)"]++
		default:
			want[fmt.Sprint(l["old"], " ", l["new"])]++
		}
		if why, ok := l["reason"].(string); ok {
			want[why]++
		}
	}
	for _, l := range r.view("stats", "stats") {
		got[fmt.Sprint(l["old"], " ", l["new"])] += l["count"].(float64)
	}
	for _, l := range r.view("reasons", "stats") {
		got[l["reason"].(string)] += l["count"].(float64)
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("stats: got %v, want %v", got, want)
	}
}

// ls checks that ls lists every socket that no line has closed.
func (r *replay) ls() {
	latest := make(map[any]line)
	for _, l := range r.lines {
		if l["type"] == "change" {
			latest[l["id"]] = l
		}
	}
	rest := r.view("socket", "ls")
	keys := append([]string{"role"}, identity[1:]...) // a line of ls has no id
	for _, want := range latest {
		if want["new"] == "CLOSE" {
			continue
		}
		if take(&rest, func(l line) bool { return l["state"] == want["new"] && same(l, want, keys...) }) == nil {
			r.t.Errorf("ls: no %v", want)
		}
	}
	if len(rest) > 0 {
		r.t.Errorf("ls: sockets that are in no line: %v", rest)
	}
}

// leaks checks that leaks reports what is stuck at the end, and nothing that was never in that
// state. Before the end, the age at which a socket is reported depends on when the next line
// arrived.
func (r *replay) leaks() {
	var limits []string
	for _, state := range []string{"SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "CLOSING", "CLOSE_WAIT", "LAST_ACK"} {
		limits = append(limits, state+"=1ns")
	}
	rest := r.view("leak", "leaks", "--older", strings.Join(limits, ","))
	for i, l := range r.lines {
		if !slices.ContainsFunc(limits, func(limit string) bool { return limit == fmt.Sprint(l["new"], "=1ns") }) {
			continue
		}
		next := slices.IndexFunc(r.lines[i+1:], func(n line) bool { return n["type"] == "change" && n["id"] == l["id"] })
		found := func(over bool) bool {
			return take(&rest, func(leak line) bool {
				return leak["over"] == over && leak["state"] == l["new"] && same(leak, l, "id", "netns", "family", "raddr", "rport", "ifindex", "ifname")
			}) != nil
		}
		if stuck := found(false); next < 0 && !stuck {
			r.t.Errorf("leaks: %v is stuck", l)
		}
		if over := found(true); next < 0 && over {
			r.t.Errorf("leaks: %v is over", l)
		}
	}
	if len(rest) > 0 {
		r.t.Errorf("leaks: what is in no line: %v", rest)
	}
}
