//go:build linux

package probe

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const tracefs = "/sys/kernel/tracing"

// attachCalls attaches the programs for the system calls accept(), accept4() and connect(): either
// all of them or none. Their tracepoints are identified by numbers in tracefs. If tracefs is not
// mounted, a thread mounts it for itself, and then ends.
func (p *Probe) attachCalls() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, and its mount with it
		err := mountTracefs()
		if err == nil {
			err = p.attachTracepoints()
		}
		result <- err
	}()
	return <-result
}

// mountTracefs mounts tracefs for the calling thread, unless it is already mounted.
func mountTracefs() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(tracefs, &stat); err == nil && stat.Type == unix.TRACEFS_MAGIC {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("tracefs is not mounted, and creating a mount namespace failed: %w", err)
	}
	if err := unix.Mount("", "/sys", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make /sys private: %w", err)
	}
	if err := unix.Mount("tracefs", tracefs, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w", err)
	}
	return nil
}

func (p *Probe) attachTracepoints() (err error) {
	var links []link.Link
	defer func() {
		if err == nil {
			p.links = append(p.links, links...)
			return
		}
		for _, l := range links {
			_ = l.Close()
		}
	}()
	for _, call := range []struct{ tracepoint, program string }{
		{"sys_exit_accept4", bpfProgAccepted4}, {"sys_exit_accept", bpfProgAccepted},
		{"sys_exit_connect", bpfProgConnectReturns}, {"sys_enter_connect", bpfProgConnectBegins},
	} {
		l, err := link.Tracepoint("syscalls", call.tracepoint, p.objs.Programs[call.program], nil)
		if err != nil {
			return fmt.Errorf("attach to syscalls:%s: %w", call.tracepoint, err)
		}
		links = append(links, l)
	}
	return nil
}
