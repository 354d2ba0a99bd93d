package lines

import (
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// appendCSVHeader appends the names of the columns, which are NDJSON keys. Each new key was added
// at the end.
func appendCSVHeader(b []byte) []byte {
	for i, c := range event.Columns() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.Name...)
	}
	return append(b, '\n')
}

// appendCSV appends e as a record. A cell is empty if its value is unknown, or if the key does not
// exist in lines of this type.
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

// appendCSVText appends s with its control characters escaped, so that each record stays on one
// line. It puts s in quotes if necessary (RFC 4180).
func appendCSVText(b []byte, s string) []byte {
	if !strings.ContainsAny(s, `",`) {
		return text.AppendVisible(b, s)
	}
	b = append(b, '"')
	b = text.AppendVisible(b, strings.ReplaceAll(s, `"`, `""`))
	return append(b, '"')
}
