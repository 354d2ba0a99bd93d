//go:build linux

package probe

import (
	"net"
	"os"
	"testing"
	"time"

	"sstrace/internal/event"
	"sstrace/internal/filter"
)

// The next change wakes a sleeping reader. Otherwise the reader would sleep for an hour.
func TestWakeUp(t *testing.T) {
	needsRoot(t)
	defer func(before time.Duration) { doze = before }(doze)
	doze = time.Hour
	p, err := Open(new(filter.Filter), 1<<20, false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ports := make(chan uint16)
	go func() {
		defer close(ports)
		for e, err := range p.Records(func(int64) (bool, error) { return false, nil }) {
			if err != nil {
				t.Errorf("read records: %v", err)
				return
			}
			if e.New == event.Listen && e.TaskPID == uint32(os.Getpid()) && e.Type == event.Change {
				ports <- e.Local.Port()
			}
		}
	}()
	for range 10 {
		for asleep := uint32(0); asleep == 0; time.Sleep(time.Millisecond) {
			if err := p.vars.ReaderWaiting.Get(&asleep); err != nil {
				t.Fatal(err)
			}
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-ports:
			if want := l.Addr().(*net.TCPAddr).Port; int(got) != want {
				t.Errorf("got a listener on port %d, want %d", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("the reader was not woken")
		}
		l.Close()
	}
	p.Stop()
	for range ports { // until Records has ended
	}
}
