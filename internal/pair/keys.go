package pair

import "sstrace/internal/ndjson"

// Keys are the NDJSON keys that describe the socket of an End.
type Keys struct {
	Cookie *uint64 `json:"cookie"`
	NetNS  *uint32 `json:"netns"`
	Family string  `json:"family"`
	Proto  string  `json:"proto"`
	ndjson.Tuple
	ndjson.Device
}

// Keys returns the Keys of e.
func (e *End) Keys() Keys {
	return Keys{
		Cookie: ndjson.Known(e.Cookie, 0), NetNS: ndjson.Known(e.NetNS, 0),
		Family: e.Family.String(), Proto: e.Proto.String(),
		Tuple: ndjson.NewTuple(e.Local, e.Remote), Device: ndjson.NewDevice(e.IfIndex, e.IfName),
	}
}

// OwnerKeys are the NDJSON keys that describe who owns an End.
type OwnerKeys struct {
	ndjson.Owner
	Container *string `json:"container"`
	Unit      *string `json:"unit"`
}

// OwnerKeys returns the OwnerKeys of e, with owner as the owner.
func (e *End) OwnerKeys(owner Process) OwnerKeys {
	return OwnerKeys{
		Owner:     ndjson.NewOwner(owner.PID, owner.Comm, owner.Via),
		Container: ndjson.Known(e.Container(), ""), Unit: ndjson.Known(e.Unit(), ""),
	}
}
