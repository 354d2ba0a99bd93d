//go:build linux

package linux

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

var (
	// ErrNoCgroup is returned for a path that is not a cgroup.
	ErrNoCgroup = errors.New("no such cgroup")
	// ErrNoCgroupTree is returned if the cgroups of this host cannot be seen.
	ErrNoCgroupTree = errors.New("no cgroup v2 tree is mounted")
)

// CgroupTree is the mounted tree of cgroup v2. A nil tree is valid: it contains no cgroups.
type CgroupTree struct {
	mount string
	dir   int
}

// OpenCgroupTree opens the tree at its mount point.
func OpenCgroupTree() (*CgroupTree, error) {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroupTree, err)
	}
	for _, m := range mounts {
		if m.FSType != "cgroup2" {
			continue
		}
		if dir, err := unix.Open(m.MountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			return &CgroupTree{m.MountPoint, dir}, nil
		}
	}
	return nil, ErrNoCgroupTree
}

// Close closes the tree.
func (t *CgroupTree) Close() {
	if t != nil {
		_ = unix.Close(t.dir)
	}
}

// Mount returns the mount point of the tree.
func (t *CgroupTree) Mount() string { return t.mount }

// rootCgroup is both the inode and the id of the root of the whole tree, the first number that
// kernfs_create_root in fs/kernfs/dir.c assigns.
const rootCgroup = 1

// Whole reports whether the tree is the host's whole tree. A container may see only part of it.
func (t *CgroupTree) Whole() bool {
	var root unix.Stat_t
	return unix.Fstat(t.dir, &root) == nil && root.Ino == rootCgroup
}

// Path returns the path of a cgroup below the mount. It is "" if the cgroup is gone, or if this
// process lacks CAP_DAC_READ_SEARCH. A cgroup's id is a file handle (FILEID_KERNFS in
// include/linux/exportfs.h, kernfs_encode_fh in fs/kernfs/mount.c).
func (t *CgroupTree) Path(id uint64) string {
	const fileIDKernfs = 0xfe
	if t == nil {
		return ""
	}
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(t.dir, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return ""
	}
	rest, ok := strings.CutPrefix(path, t.mount)
	switch {
	case !ok:
		return ""
	case rest == "":
		return "/"
	}
	return rest
}

// ID returns the id of the cgroup at path, which is the inode of its directory. The path may start
// at the root of the tree or, as it does when a shell completes it, at the root of the file
// system.
func (t *CgroupTree) ID(path string) (uint64, error) {
	if t == nil {
		return 0, fmt.Errorf("--cgroup: %w", ErrNoCgroupTree)
	}
	rest, _ := strings.CutPrefix(path, t.mount)
	inode, err := Inode(filepath.Join(t.mount, rest))
	if err != nil {
		return 0, fmt.Errorf("--cgroup %s: %w below %s: %w", path, ErrNoCgroup, t.mount, err)
	}
	return inode, nil
}
