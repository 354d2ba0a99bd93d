package stats

import (
	"cmp"
	"net/netip"
	"strconv"

	"sstrace/internal/event"
	"sstrace/internal/ndjson"
	"sstrace/internal/text"
)

// Groupings are the ways to group sockets: by the server's port, by the remote address, by the name
// of the owner's process, or by container. For a socket outside any container, its systemd unit
// takes the place of the container.
var Groupings = []string{"port", "remote", "process", "container"}

// name is the name of a group. Exactly one field is set, or none if the name is unknown.
type name struct {
	port uint16
	addr netip.Addr
	text string
}

// nameOf returns the name of the group that e belongs to.
func nameOf(by string, e *event.Event) (n name) {
	switch by {
	case "port":
		switch e.Role {
		case event.Client:
			n.port = e.Remote.Port()
		case event.Server, event.Listener:
			n.port = e.Local.Port()
		}
	case "remote":
		n.addr = event.Scoped(e.Remote.Addr(), e.Zone())
	case "process":
		if e.OwnerPID != 0 {
			n.text = e.OwnerComm
		}
	case "container":
		if n.text = e.Container(); n.text == "" {
			n.text = e.Unit()
		}
	}
	return n
}

func (n name) compare(o name) int {
	return cmp.Or(cmp.Compare(n.port, o.port), n.addr.Compare(o.addr), cmp.Compare(n.text, o.text))
}

// value returns the value of the NDJSON key group. The result is nil if the name is unknown.
func (n name) value() *string {
	text := n.text
	switch {
	case n.port != 0:
		text = strconv.Itoa(int(n.port))
	case n.addr.IsValid():
		text = n.addr.String()
	}
	return ndjson.Known(text, "")
}

// String returns the name for a person.
func (n name) String() string {
	if v := n.value(); v != nil {
		return text.Group(*v)
	}
	return "-"
}
