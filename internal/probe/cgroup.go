//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// cgroupFS finds the paths of cgroups by their ids, through the file handle that a cgroup's id is (FILEID_KERNFS in
// include/linux/exportfs.h, kernfs_encode_fh in fs/kernfs/mount.c).
type cgroupFS struct {
	mount string // "" where no cgroup v2 tree is mounted
	dir   int
}

// ErrNoCgroup is the error of a filter by a cgroup that is not there.
var ErrNoCgroup = errors.New("no such cgroup")

var errNoCgroupFS = errors.New("no cgroup v2 tree is mounted")

func openCgroupFS() cgroupFS {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return cgroupFS{}
	}
	for _, m := range mounts {
		if m.FSType != "cgroup2" {
			continue
		}
		if dir, err := unix.Open(m.MountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			return cgroupFS{m.MountPoint, dir}
		}
	}
	return cgroupFS{}
}

func (c cgroupFS) close() {
	if c.mount != "" {
		_ = unix.Close(c.dir)
	}
}

// path gives "" when the cgroup is gone, or we are not allowed (CAP_DAC_READ_SEARCH).
func (c cgroupFS) path(id uint64) string {
	const fileIDKernfs = 0xfe
	if c.mount == "" {
		return ""
	}
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(c.dir, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	rest, ok := strings.CutPrefix(path, c.mount)
	switch {
	case !ok:
		return ""
	case rest == "":
		return "/"
	}
	return rest
}

// id gives the id of the cgroup at path, from the root of the tree or, as a shell completes it, from the root of the file system:
// a directory's inode.
func (c cgroupFS) id(path string) (uint64, error) {
	if c.mount == "" {
		return 0, fmt.Errorf("--cgroup: %w", errNoCgroupFS)
	}
	rest, _ := strings.CutPrefix(path, c.mount)
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(c.mount, rest), &stat); err != nil {
		return 0, fmt.Errorf("--cgroup %s: %w below %s: %w", path, ErrNoCgroup, c.mount, err)
	}
	return stat.Ino, nil
}
