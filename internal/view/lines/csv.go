package lines

import (
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// appendCSVHeader appends the names of the columns: keys of NDJSON, each of them at the end when it
// was added.
func appendCSVHeader(b []byte) []byte {
	for i, c := range event.Columns() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.Name...)
	}
	return append(b, '\n')
}

// appendCSV appends e as a record. A cell is empty if its value is unknown, or if lines of this
// type do not have the key.
func appendCSV(b []byte, e *event.Event) []byte {
	in, columns := e.Type.In(), event.Columns()
	for i := range columns {
		if i > 0 {
			b = append(b, ',')
		}
		switch c := &columns[i]; {
		case c.In&in == 0:
		case c.Text != nil:
			b = appendCSVText(b, c.Text(e))
		default:
			b = c.Append(b, e)
		}
	}
	return append(b, '\n')
}

// appendCSVText appends s with control characters escaped, so that a record is one line. It is in
// quotes if it needs them (RFC 4180).
func appendCSVText(b []byte, s string) []byte {
	if !strings.ContainsAny(s, `",`) {
		return text.AppendVisible(b, s)
	}
	b = append(b, '"')
	b = text.AppendVisible(b, strings.ReplaceAll(s, `"`, `""`))
	return append(b, '"')
}
