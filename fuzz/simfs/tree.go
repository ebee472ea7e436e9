package simfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Tree is what a file system holds, by paths from its root: "/a/b". The root itself
// is not in it.
type Tree map[string]Entry

// Entry is a file or a directory of a Tree.
type Entry struct {
	Dir  bool
	Data []byte
}

// ReadTree reads all there is below dir of any file system, a real one included.
// Names for which skip answers true are left out; a nil skip skips none.
func ReadTree(fs vfs.FS, dir string, skip func(path string) bool) (Tree, error) {
	t := Tree{}
	var walk func(real, seen string) error
	walk = func(real, seen string) error {
		names, err := fs.List(real)
		if err != nil {
			return err
		}
		for _, name := range names {
			from, to := fs.PathJoin(real, name), seen+"/"+name
			if skip != nil && skip(to) {
				continue
			}
			info, err := fs.Stat(from)
			if err != nil {
				return err
			}
			if info.IsDir() {
				t[to] = Entry{Dir: true}
				if err := walk(from, to); err != nil {
					return err
				}
				continue
			}
			f, err := fs.Open(from)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(f)
			f.Close()
			if err != nil {
				return err
			}
			t[to] = Entry{Data: data}
		}
		return nil
	}
	if err := walk(dir, ""); err != nil {
		return nil, fmt.Errorf("simfs: read tree: %w", err)
	}
	return t, nil
}

// Paths of the tree in order.
func (t Tree) Paths() []string {
	paths := make([]string, 0, len(t))
	for p := range t {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Equal reports that both hold the same.
func (t Tree) Equal(o Tree) bool {
	if len(t) != len(o) {
		return false
	}
	for p, e := range t {
		f, ok := o[p]
		if !ok || e.Dir != f.Dir || !bytes.Equal(e.Data, f.Data) {
			return false
		}
	}
	return true
}

// String lists paths with lengths and the first bytes of a hash.
func (t Tree) String() string {
	var b bytes.Buffer
	for _, p := range t.Paths() {
		if t[p].Dir {
			fmt.Fprintf(&b, "%s/\n", p)
			continue
		}
		sum := sha256.Sum256(t[p].Data)
		fmt.Fprintf(&b, "%s %d %x\n", p, len(t[p].Data), sum[:4])
	}
	return b.String()
}

// Tree is what readers see now. It is no call: it is neither counted nor refused.
func (fs *FS) Tree() Tree {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	t := Tree{}
	var walk func(n *inode, at string)
	walk = func(n *inode, at string) {
		for name, child := range n.entries {
			if child.dir {
				t[at+"/"+name] = Entry{Dir: true}
				walk(child, at+"/"+name)
			} else {
				t[at+"/"+name] = Entry{Data: child.data.bytes()}
			}
		}
	}
	walk(fs.root, "")
	return t
}

// Digest is a hash of the tree: equal digests, equal disks.
func (t Tree) Digest() [32]byte {
	h := sha256.New()
	for _, p := range t.Paths() {
		e := t[p]
		var head [17]byte
		binary.LittleEndian.PutUint64(head[:], uint64(len(p)))
		binary.LittleEndian.PutUint64(head[8:], uint64(len(e.Data)))
		if e.Dir {
			head[16] = 1
		}
		h.Write(head[:])
		h.Write([]byte(p))
		h.Write(e.Data)
	}
	return [32]byte(h.Sum(nil))
}

// Put stores bytes under a path at once and for good, behind the back of calls,
// faults and limits: for damage at rest, and for restoring what was read before. The
// directory must be there; every name of an existing file sees the change.
func (fs *FS) Put(name string, data []byte) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	dir, base, err := fs.split(name)
	if err != nil {
		return fmt.Errorf("simfs: put %s: %w", name, err)
	}
	n := dir.entries[base]
	if n != nil && n.dir {
		return fmt.Errorf("simfs: put %s: is a directory", name)
	}
	if n == nil {
		n = fs.newInode(false)
		fs.bind(dir, base, n).fresh = true
		fs.keepNames([]*nameOp{dir.last[base]})
	}
	fs.charged(n, func() {
		n.disk = content{}
		n.disk.writeAt(data, 0)
		n.data, n.writes, n.lost = n.disk.clone(), nil, nil
	})
	return nil
}
