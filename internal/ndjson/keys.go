package ndjson

import (
	"net/netip"

	"sstrace/internal/event"
)

// Tuple holds the keys for a socket's addresses.
type Tuple struct {
	LocalAddr  *string `json:"laddr"`
	LocalPort  *uint16 `json:"lport"`
	RemoteAddr *string `json:"raddr"`
	RemotePort *uint16 `json:"rport"`
}

// NewTuple returns the Tuple of these addresses.
func NewTuple(local, remote netip.AddrPort) Tuple {
	return Tuple{addr(local.Addr()), Known(local.Port(), 0), addr(remote.Addr()), Known(remote.Port(), 0)}
}

func addr(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	s := a.String()
	return &s
}

// Device holds the keys for the network device that a socket is bound to.
type Device struct {
	IfIndex *uint32 `json:"ifindex"`
	IfName  *string `json:"ifname"`
}

// NewDevice returns the Device with this index and name.
func NewDevice(index uint32, name string) Device { return Device{Known(index, 0), Known(name, "")} }

// Owner holds the keys for the process that owns a socket.
type Owner struct {
	PID     *uint32 `json:"owner_pid"`
	HostPID *uint32 `json:"owner_host_pid"`
	Comm    *string `json:"owner_comm"`
	Via     *string `json:"owner_via"`
}

// NewOwner returns the Owner with this PID, or an unknown one if pid is 0.
func NewOwner(pid uint32, comm string, via event.Via) Owner {
	o := Owner{Via: Known(via.String(), "")}
	o.PID, o.HostPID = PIDs(pid)
	if pid != 0 {
		o.Comm = &comm
	}
	return o
}
