//go:build !linux

package filter

import "errors"

func netNSInode(string) (uint32, error) {
	return 0, errors.New("this system has no network namespaces: give the inode that the recording has")
}
