//go:build !unix

package filter

import (
	"errors"
	"os"
)

func inode(os.FileInfo) (uint32, error) {
	return 0, errors.New("this system has no network namespaces: give the inode that the recording has")
}
