package text

import "sstrace/internal/event"

// Clock is the time.Format layout of a wall time in a column.
const Clock = "15:04:05.000000000"

// The widths of columns.
const (
	IPv4Width     = len("255.255.255.255:65535")
	IPv6Width     = len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
	DurationWidth = len("1m0.000123456s") // of a Duration
)

// Widths are the widths of the columns of addresses and of processes. They only grow, so that the
// lines below a wide one stay aligned with each other.
type Widths struct{ Address, Process int }

// FitAddress makes room for an address of n characters.
func (w *Widths) FitAddress(n int) {
	if n > w.Address {
		w.Address = max(IPv6Width, n)
	}
}

// FitProcess makes room for a process with this PID, which takes n characters. A name with escaped
// bytes may be wider than the column.
func (w *Widths) FitProcess(n int, pid uint32) {
	if n > w.Process {
		w.Process = max(w.Process, ProcessWidth(pid))
	}
}

// FitHostProcess makes room for any process, if pid belongs to the initial PID namespace.
func (w *Widths) FitHostProcess(pid uint32) {
	if pid&event.HostPID != 0 {
		w.Process = ProcessWidth(pid)
	}
}
