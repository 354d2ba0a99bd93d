//go:build linux

package probe

import "testing"

// A /proc of an outer PID namespace has other numbers than ours.
func TestOneNumber(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tsstrace\nPid:\t7\nNSpid:\t7\n":          true,
		"Name:\tsstrace\nPid:\t4711\nNSpid:\t4711\t7\n": false,
		"Name:\tsstrace\nPid:\t7\n":                     true,
	} {
		if got := oneNumber([]byte(status)); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestPIDNamespace(t *testing.T) {
	inode, own := pidNamespace()
	if inode == 0 || own != (inode != initialPIDNamespace) {
		t.Errorf("inode %d, own %v", inode, own)
	}
}
