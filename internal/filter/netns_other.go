//go:build !linux

package filter

import "errors"

// netNSInode returns an error, since network namespaces exist on Linux only.
func netNSInode(string) (uint32, error) {
	return 0, errors.New("give the inode, as in the recording: this system has no network namespaces")
}
