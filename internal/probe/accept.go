//go:build linux

package probe

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const tracefs = "/sys/kernel/tracing"

// ioUringArgs tells how many arguments io_uring:io_uring_complete has, if it is one of the two ways that the kernel side knows: (ring, request,
// completion) from 6.15 on, and (ring, request, user_data, result, flags, extra1, extra2) from 5.19 on; else 0.
func ioUringArgs() (uint8, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, err
	}
	var hook *btf.Typedef
	if err := spec.TypeByName("btf_trace_io_uring_complete", &hook); err != nil {
		return 0, nil // no io_uring
	}
	if pointer, ok := hook.Type.(*btf.Pointer); ok {
		if function, ok := pointer.Target.(*btf.FuncProto); ok {
			if args := len(function.Params) - 1; args == 3 || args == 7 { // the first is the tracepoint's own
				return uint8(args), nil
			}
		}
	}
	return 0, nil
}

// attachCalls attaches the programs to the system calls accept(), accept4() and connect(). These tracepoints are known by numbers in
// tracefs, which is not mounted everywhere; then a thread mounts it for itself and ends.
func (p *Probe) attachCalls() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, and its mount with it
		result <- func() (err error) {
			var links []link.Link
			defer func() {
				if err == nil {
					p.links = append(p.links, links...)
					return
				}
				for _, l := range links { // a part of them would be worse than none
					_ = l.Close()
				}
			}()
			var stat unix.Statfs_t
			if err := unix.Statfs(tracefs, &stat); err != nil || stat.Type != unix.TRACEFS_MAGIC {
				if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
					return fmt.Errorf("tracefs is not mounted, and a mount namespace of our own is refused: %w", err)
				}
				if err := unix.Mount("", "/sys", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
					return fmt.Errorf("make our /sys private: %w", err)
				}
				if err := unix.Mount("tracefs", tracefs, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
					return fmt.Errorf("mount tracefs for us: %w", err)
				}
			}
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
		}()
	}()
	return <-result
}
