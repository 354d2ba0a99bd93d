//go:build unix

package filter

import (
	"errors"
	"os"
	"syscall"
)

func inode(info os.FileInfo) (uint32, error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("this system tells no inode")
	}
	return uint32(stat.Ino), nil
}
