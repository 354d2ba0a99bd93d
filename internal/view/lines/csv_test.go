package lines

import (
	"encoding/csv"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sstrace/internal/event"
	"sstrace/internal/event/eventtest"
	"sstrace/internal/text"
)

// cells returns the CSV header and the single record for e.
func cells(t *testing.T, e *event.Event) (header, record []string) {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(strings.Join(lines(t, "csv", "wall", false, *e), "\n"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[0], rows[1]
}

// CSV has the columns in the table of keys, whether their values are known or unknown.
func TestCSVHasEveryKey(t *testing.T) {
	for _, kind := range eventtest.Kinds {
		if kind.In&(event.InTrace|event.InLost|event.InTotals) == 0 {
			continue
		}
		for i, k := range event.CSVKeys() {
			e, want := eventtest.New(kind.Type), ""
			if k.In&kind.In != 0 {
				want = eventtest.Set(e, k, kind.In, 100+i)
			} else if k.In&kind.Type.In() != 0 { // a key of the line that contains the totals
				continue
			}
			if k.Name == "seq" { // the printer numbers its lines
				want = "1"
			}
			if s := ""; json.Unmarshal([]byte(want), &s) == nil {
				want = text.Visible(s)
			}
			header, record := cells(t, e)
			if j := slices.Index(header, k.Name); j != i || record[j] != want {
				t.Errorf("%s: %s is column %d, %q; want column %d, %q", kind.Name, k.Name, j, record[j], i, want)
			}
			if k.In&kind.In != 0 && k.Form.Null() {
				eventtest.Clear(e, k, kind.In)
				if _, record := cells(t, e); record[i] != "" {
					t.Errorf("%s: the unknown %s is %q, want nothing", kind.Name, k.Name, record[i])
				}
			}
		}
	}
}
