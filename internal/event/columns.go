package event

// Column is a key as a column of CSV.
type Column struct {
	Name string
	In   Kinds                 // the kinds of line that have it
	Text func(e *Event) string // for text that may hold any bytes, "" if it is unknown; nil otherwise

	append func(b []byte, e *Event) []byte // as JSON
}

// Columns returns the columns in order. The caller must not modify them.
func Columns() []Column { return columns }

// Append appends the value, which needs no quotes, or nothing if it is unknown. Text must be nil.
func (c *Column) Append(b []byte, e *Event) []byte {
	n := len(b)
	b = c.append(b, e)
	switch value := b[n:]; {
	case string(value) == "null":
		return b[:n]
	case len(value) > 1 && value[0] == '"':
		copy(value, value[1:])
		return b[:len(b)-2]
	}
	return b
}

// ownerComm returns the owner's name, or "" if there is no owner.
func (e *Event) ownerComm() string {
	if e.OwnerPID == 0 {
		return ""
	}
	return e.OwnerComm
}
