package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["load"] = load }

// load is a process with two threads. Each thread repeatedly connects to itself, accepts, resets
// and closes. The argument is the number of repetitions. load prints how many nanoseconds they
// took.
func load() {
	n, err := strconv.Atoi(os.Args[1])
	exitOn(err)
	var threads sync.WaitGroup
	begin := time.Now()
	for port := range uint16(2) {
		threads.Go(func() {
			addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 17010+port)
			at := sockaddr(addr, unix.AF_INET)
			l := tcpSocket(addr)
			exitOn(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			exitOn(unix.Bind(l, at))
			exitOn(unix.Listen(l, 8))
			for range n / 2 {
				c := tcpSocket(addr)
				exitOn(unix.Connect(c, at))
				s, _, err := unix.Accept(l)
				exitOn(err)
				exitOn(unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
				exitOn(unix.Close(c))
				exitOn(unix.Close(s))
			}
		})
	}
	threads.Wait()
	fmt.Println(time.Since(begin).Nanoseconds())
}

// runs returns how often the BPF programs with these names ran, and for how long, from bpf_stats.
func runs(b *testing.B, names []string) (count, ns uint64) {
	b.Helper()
	out, err := exec.Command("bpftool", "-j", "prog", "show").Output()
	if err != nil {
		b.Fatalf("bpftool: %v; `make bench` installs it", err)
	}
	var all []struct {
		Name  string `json:"name"`
		Count uint64 `json:"run_cnt"`
		NS    uint64 `json:"run_time_ns"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		b.Fatal(err)
	}
	for _, p := range all {
		if at := slices.Index(names, p.Name); at >= 0 {
			ns += p.NS
			if at == 0 { // the second program sees the same changes
				count += p.Count
			}
		}
	}
	return count, ns
}

// BenchmarkBeside runs the same load without a tracer, with sstrace, and with tcpstates from
// libbpf-tools. Only ratios within one run are meaningful. Run it as root: go test -bench Beside
// -benchtime 200000x ./cmd/sstrace.
func BenchmarkBeside(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	const stats = "/proc/sys/kernel/bpf_stats_enabled"
	if err := os.WriteFile(stats, []byte("1"), 0); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.WriteFile(stats, []byte("0"), 0) })
	sstrace := []string{"change", "change_missed"}
	rfc := slices.Concat(sstrace, []string{
		"timer_started", "timer_cancelled", "timer_expired", "skb_dropped", "accepted", "accepted4",
	})
	// tcpstates needs tracefs at its usual place. Not every machine mounts it there.
	const mounted = "mount -t tracefs tracefs /sys/kernel/tracing; exec tcpstates"
	tcpstates := exec.Command("unshare", "-m", "sh", "-c", mounted)
	for _, tracer := range []struct {
		name     string
		command  *exec.Cmd
		programs []string
	}{
		{"none", nil, nil},
		{"kernel-text", self("sstrace", "--states", "kernel"), sstrace},
		{"kernel-ndjson", self("sstrace", "--states", "kernel", "-o", "ndjson"), sstrace},
		{"kernel-filtered", self("sstrace", "--states", "kernel", "--uid", "12345"), sstrace},
		{"rfc-text", self("sstrace"), rfc},
		{"rfc-filtered", self("sstrace", "--uid", "12345"), rfc},
		{"tcpstates", tcpstates, []string{"handle_set_state"}},
	} {
		b.Run(tracer.name, func(b *testing.B) { beside(b, tracer.command, tracer.programs) })
	}
}

func beside(b *testing.B, template *exec.Cmd, programs []string) {
	h := newHost(b)
	run := func(n int) float64 {
		var out bytes.Buffer
		cmd := self("load", strconv.Itoa(n))
		cmd.Stdout = &out
		if err := h.wait(cmd); err != nil {
			b.Fatalf("load: %v", err)
		}
		ns, err := strconv.ParseFloat(string(bytes.TrimSpace(out.Bytes())), 64)
		if err != nil {
			b.Fatal(err)
		}
		return ns
	}
	if template == nil {
		b.ReportMetric(float64(b.N)/run(b.N)*1e9, "conns/s")
		return
	}
	// Lines go to memory, so that the disk is not measured.
	fd, err := unix.MemfdCreate("lines", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	out := os.NewFile(uintptr(fd), "/proc/self/fd/"+strconv.Itoa(fd))
	defer out.Close()
	tracer := exec.Command(template.Path, template.Args[1:]...)
	tracer.Env, tracer.Stdout = template.Env, out
	if err := tracer.Start(); err != nil {
		b.Fatalf("%v; `make bench` installs libbpf-tools", err)
	}
	await(b, "the tracer attaches", func() bool {
		run(2)
		count, _ := runs(b, programs)
		return count > 0
	})
	beforeCount, beforeNS := runs(b, programs)
	ns := run(b.N)
	count, runtime := runs(b, programs)
	time.Sleep(time.Second) // tcpstates cannot report that it has read everything
	if err := tracer.Process.Signal(unix.SIGINT); err != nil {
		b.Fatal(err)
	}
	_ = tracer.Wait() // tcpstates exits with 1 on a signal
	text, err := os.ReadFile(out.Name())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/ns*1e9, "conns/s")
	b.ReportMetric(float64(runtime-beforeNS)/float64(count-beforeCount), "kernel-ns/change")
	if lines := bytes.Count(text, []byte("\n")) - 2; lines > 10 {
		if len(programs) <= 2 { // otherwise some lines are not changes from the tracepoint
			b.ReportMetric(100-100*float64(lines)/float64(count), "lost-%")
		}
		cpu := tracer.ProcessState.UserTime() + tracer.ProcessState.SystemTime()
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(lines), "reader-ns/line")
	}
}
