package simfs

import (
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// create makes a file under a name that is free or a file's.
func (fs *FS) create(name string) (*inode, error) {
	dir, base, err := fs.split(name)
	if err != nil {
		return nil, err
	}
	if old := dir.entries[base]; old != nil && old.dir {
		return nil, syscall.EISDIR
	}
	n, err := fs.makeInode(false)
	if err != nil {
		return nil, err
	}
	// In place of an old file of that name, this is an unlink and a create.
	if dir.entries[base] != nil {
		fs.bind(dir, base, nil)
	}
	fs.bind(dir, base, n).fresh = true
	return n, nil
}

// opened runs fn as one call and makes sure that a failed one leaves no handle.
func (fs *FS) opened(op Op, name, name2 string, fn func() (*file, error)) (vfs.File, error) {
	var f *file
	if err := fs.do(op, name, name2, func(*call) (err error) {
		f, err = fn()
		return err
	}); err != nil {
		if f != nil {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			f.release()
		}
		return nil, err
	}
	return f, nil
}

// Create implements vfs.FS: always a new file, for reading and writing.
func (fs *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.opened(OpCreate, name, "", func() (*file, error) {
		if err := fs.mayOpen(); err != nil {
			return nil, err
		}
		n, err := fs.create(name)
		if err != nil {
			return nil, err
		}
		return fs.handle(n, name, true)
	})
}

func (fs *FS) openRead(op Op, name string, opts []vfs.OpenOption) (vfs.File, error) {
	f, err := fs.opened(op, name, "", func() (*file, error) {
		n, err := fs.lookup(name)
		if err != nil {
			return nil, err
		}
		if op == OpOpenDir && !n.dir {
			return nil, syscall.ENOTDIR
		}
		return fs.handle(n, name, false)
	})
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// Open implements vfs.FS: for reading.
func (fs *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return fs.openRead(OpOpen, name, opts)
}

// OpenDir implements vfs.FS: for syncing.
func (fs *FS) OpenDir(name string) (vfs.File, error) { return fs.openRead(OpOpenDir, name, nil) }

// OpenReadWrite implements vfs.FS: the file is created if it is missing.
func (fs *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.opened(OpOpenReadWrite, name, "", func() (*file, error) {
		if err := fs.mayOpen(); err != nil {
			return nil, err
		}
		n, err := fs.lookup(name)
		if err == syscall.ENOENT {
			n, err = fs.create(name)
		}
		if err != nil {
			return nil, err
		}
		if n.dir {
			return nil, syscall.EISDIR
		}
		return fs.handle(n, name, true)
	})
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// ReuseForWrite implements vfs.FS: a rename, then the file as it is, for writing.
func (fs *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.opened(OpReuse, oldname, newname, func() (*file, error) {
		if err := fs.mayOpen(); err != nil {
			return nil, err
		}
		if err := fs.rename(oldname, newname); err != nil {
			return nil, err
		}
		n, err := fs.lookup(newname)
		if err != nil {
			return nil, err
		}
		if n.dir {
			return nil, syscall.EISDIR
		}
		return fs.handle(n, newname, true)
	})
}

// Link implements vfs.FS: a second name for a file.
func (fs *FS) Link(oldname, newname string) error {
	return fs.do(OpLink, oldname, newname, func(*call) error {
		n, err := fs.lookup(oldname)
		if err != nil {
			return err
		}
		dir, base, err := fs.split(newname)
		if err == syscall.EBUSY {
			err = syscall.EEXIST
		}
		if err != nil {
			return err
		}
		if dir.entries[base] != nil {
			return syscall.EEXIST
		}
		if n.dir {
			return syscall.EPERM
		}
		fs.bind(dir, base, n)
		return nil
	})
}

// Rename implements vfs.FS: a file may take the place of a file, and as with
// os.Rename nothing that of a directory.
func (fs *FS) Rename(oldname, newname string) error {
	return fs.do(OpRename, oldname, newname, func(*call) error { return fs.rename(oldname, newname) })
}

func (fs *FS) rename(oldname, newname string) error {
	from, old, err := fs.split(oldname)
	if err != nil {
		return err
	}
	to, name, err := fs.split(newname)
	if err != nil {
		return err
	}
	n := from.entries[old]
	if n == nil {
		return syscall.ENOENT
	}
	if there := to.entries[name]; there != nil {
		switch {
		case there.dir: // package os refuses before the kernel is asked
			return syscall.EEXIST
		case there == n:
			return nil // two names of one file: POSIX leaves both
		case n.dir:
			return syscall.ENOTDIR
		}
	}
	if n.dir && strings.HasPrefix(clean(newname), clean(oldname)+"/") {
		return syscall.EINVAL // into itself
	}
	fs.move(from, old, to, name)
	return nil
}

// Remove implements vfs.FS: a file or an empty directory.
func (fs *FS) Remove(name string) error {
	return fs.do(OpRemove, name, "", func(*call) error {
		dir, base, err := fs.split(name)
		if err != nil {
			return err
		}
		n := dir.entries[base]
		if n == nil {
			return syscall.ENOENT
		}
		if n.dir && len(n.entries) > 0 {
			return syscall.ENOTEMPTY
		}
		fs.bind(dir, base, nil)
		return nil
	})
}

// RemoveAll implements vfs.FS. Every name below is an unlink of its own, and a crash
// may come between them.
func (fs *FS) RemoveAll(name string) error {
	return fs.do(OpRemoveAll, name, "", func(*call) error {
		dir, base, err := fs.split(name)
		if err == syscall.ENOENT {
			return nil
		}
		if err != nil {
			return err
		}
		if dir.entries[base] != nil {
			fs.removeTree(dir, base)
		}
		return nil
	})
}

func (fs *FS) removeTree(dir *inode, name string) {
	n := dir.entries[name]
	for _, sub := range sortedNames(n.entries) {
		fs.removeTree(n, sub)
	}
	fs.bind(dir, name, nil)
}

// MkdirAll implements vfs.FS. Each directory on the way is a name of its own.
func (fs *FS) MkdirAll(name string, _ os.FileMode) error {
	return fs.do(OpMkdir, name, "", func(*call) error {
		d := fs.root
		for _, part := range strings.Split(clean(name)[1:], "/") {
			if part == "" {
				continue // the root
			}
			if !d.dir {
				return syscall.ENOTDIR
			}
			next := d.entries[part]
			if next == nil {
				n, err := fs.makeInode(true)
				if err != nil {
					return err
				}
				fs.bind(d, part, n).fresh = true
				next = n
			}
			d = next
		}
		if !d.dir {
			return syscall.ENOTDIR
		}
		return nil
	})
}

// List implements vfs.FS, in order of the names.
func (fs *FS) List(name string) ([]string, error) {
	var names []string
	err := fs.do(OpList, name, "", func(*call) error {
		n, err := fs.lookup(name)
		if err != nil {
			return err
		}
		if !n.dir {
			return syscall.ENOTDIR
		}
		names = sortedNames(n.entries)
		return nil
	})
	return names, err
}

// Stat implements vfs.FS.
func (fs *FS) Stat(name string) (vfs.FileInfo, error) {
	var info vfs.FileInfo
	err := fs.do(OpStat, name, "", func(*call) error {
		n, err := fs.lookup(name)
		if err == nil {
			info = n.info(path.Base(clean(name)))
		}
		return err
	})
	return info, err
}
