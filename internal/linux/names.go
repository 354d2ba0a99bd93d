//go:build linux

package linux

import "bytes"

// Names resolves the names that the kernel reports as bytes or numbers, and allocates each name
// once. String and Cgroup may run concurrently with each other, but neither with itself.
type Names struct {
	strings map[[16]byte]string
	lastKey [16]byte
	last    string
	cgroups map[uint64]string
	tree    *CgroupTree // nil if no tree is mounted
}

// maxNames bounds each cache. A full cache is emptied.
const maxNames = 1 << 14

// NewNames returns an empty cache of names, and opens the cgroup tree for it. Close closes the
// tree.
func NewNames() *Names {
	tree, _ := OpenCgroupTree() // without one, cgroups have no names
	return &Names{strings: make(map[[16]byte]string), cgroups: make(map[uint64]string), tree: tree}
}

// Close closes the cgroup tree.
func (n *Names) Close() { n.tree.Close() }

// String returns the string that the kernel keeps in an array of 16 bytes: the name of a task, a
// device or a congestion control algorithm.
func (n *Names) String(b *[16]byte) string {
	if *b == n.lastKey {
		return n.last
	}
	s, ok := n.strings[*b]
	if !ok {
		if len(n.strings) >= maxNames {
			clear(n.strings)
		}
		text, _, _ := bytes.Cut(b[:], []byte{0})
		s = string(text)
		n.strings[*b] = s
	}
	n.lastKey, n.last = *b, s
	return s
}

// Cgroup returns the path of a cgroup, or "" if the cgroup is gone or cannot be looked up.
func (n *Names) Cgroup(id uint64) string {
	if id == 0 {
		return ""
	}
	path, ok := n.cgroups[id]
	if !ok {
		if len(n.cgroups) >= maxNames {
			clear(n.cgroups)
		}
		path = n.tree.Path(id)
		n.cgroups[id] = path
	}
	return path
}

// CgroupID returns the id of the cgroup at path: see CgroupTree.ID.
func (n *Names) CgroupID(path string) (uint64, error) { return n.tree.ID(path) }
