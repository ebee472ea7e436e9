package simfs

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrKilled is the answer to every call on a file system that was killed.
var ErrKilled = errors.New("simfs: power is off")

// FS is a simulated disk with one file system on it. It satisfies vfs.FS, may be
// used by many goroutines, and starts none.
type FS struct {
	opt Options

	mu        sync.Mutex // guards all below, and every inode and handle
	root      *inode
	ops       []*nameOp // pending, in order
	stuck     bool      // some nameOp was, ever
	locks     map[string]bool
	seq       uint64
	lastInode uint64
	used      int64
	inodes    int
	open      int
	mutations int
	hooks     map[int][]func()
	faults    []*Fault
	made      int // faults, ever
	cover     map[coverKey]*Coverage
	trace     ring
	watch     *Watcher // nil: nobody
	dead      bool
	killed    chan struct{}
}

var _ vfs.FS = (*FS)(nil)

// New returns an empty disk: a root directory. A nil o is fine.
func New(o *Options) *FS {
	fs := &FS{
		opt:    o.withDefaults(),
		locks:  map[string]bool{},
		hooks:  map[int][]func(){},
		cover:  map[coverKey]*Coverage{},
		killed: make(chan struct{}),
		watch:  watcher.Load(),
	}
	fs.trace.max = fs.opt.TraceLen
	fs.root = fs.newInode(true)
	fs.inodes, fs.root.links = 0, 1
	fs.watch.made(fs)
	return fs
}

func (fs *FS) nextSeq() uint64 {
	fs.seq++
	return fs.seq
}

func (fs *FS) now() time.Time {
	if fs.opt.Now != nil {
		return fs.opt.Now()
	}
	return time.Unix(946684800, 0).UTC().Add(time.Duration(fs.seq) * time.Millisecond)
}

func (fs *FS) newInode(dir bool) *inode {
	fs.lastInode++
	fs.inodes++
	n := &inode{id: fs.lastInode, dir: dir, mod: fs.now()}
	if dir {
		n.entries, n.kept, n.last = map[string]*inode{}, map[string]*inode{}, map[string]*nameOp{}
	}
	return n
}

// makeInode is newInode within the limit.
func (fs *FS) makeInode(dir bool) (*inode, error) {
	if fs.opt.Inodes > 0 && fs.inodes >= fs.opt.Inodes {
		return nil, syscall.ENOSPC
	}
	return fs.newInode(dir), nil
}

// release gives back the space of a file that has neither name nor handle.
func (fs *FS) release(n *inode) {
	if n.links == 0 && n.open == 0 {
		fs.used -= n.charge()
		fs.inodes--
	}
}

// reach returns how far n may grow towards end on what is left of the disk.
func (fs *FS) reach(n *inode, end int64) int64 {
	more := end - n.charge()
	if more <= 0 || fs.opt.Capacity <= 0 {
		return end
	}
	return n.charge() + min(more, max(0, fs.opt.Capacity-fs.used))
}

// charged runs change, which may alter how much space n takes.
func (fs *FS) charged(n *inode, change func()) {
	before := n.charge()
	change()
	fs.used += n.charge() - before
}

// clean makes one name of many: absolute, slashes only.
func clean(name string) string { return path.Clean("/" + name) }

func (fs *FS) lookup(name string) (*inode, error) {
	n := fs.root
	for rest := clean(name)[1:]; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[part]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// split finds the directory of name and its last part; the root has none.
func (fs *FS) split(name string) (*inode, string, error) {
	dir, base := path.Split(clean(name))
	if base == "" {
		return nil, "", syscall.EBUSY
	}
	d, err := fs.lookup(dir)
	if err != nil {
		return nil, "", err
	}
	if !d.dir {
		return nil, "", syscall.ENOTDIR
	}
	return d, base, nil
}

// PathBase implements vfs.FS.
func (fs *FS) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (fs *FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (fs *FS) PathDir(p string) string { return path.Dir(p) }

// Unwrap implements vfs.FS: nothing is below.
func (fs *FS) Unwrap() vfs.FS { return nil }

// GetDiskUsage implements vfs.FS from Options.Capacity.
func (fs *FS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	var u vfs.DiskUsage
	err := fs.do(OpDiskUsage, name, "", func(*call) error {
		if _, err := fs.lookup(name); err != nil {
			return err
		}
		total := fs.opt.Capacity
		if total == 0 {
			total = unlimitedBytes
		}
		u = vfs.DiskUsage{TotalBytes: uint64(total), UsedBytes: uint64(fs.used), AvailBytes: uint64(max(0, total-fs.used))}
		return nil
	})
	return u, err
}

// SetCapacity changes Options.Capacity while the file system is in use: a disk
// fills up by others' files, or is cleaned.
func (fs *FS) SetCapacity(bytes int64) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.opt.Capacity = bytes
}

// Evict drops the clean pages of a file, as memory pressure does. After a sync that
// failed this is when readers learn what was lost.
func (fs *FS) Evict(name string) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.lookup(name)
	if err != nil {
		return &os.PathError{Op: "evict", Path: name, Err: err}
	}
	if !n.dir {
		n.evict()
	}
	return nil
}

// Kill refuses every call from now on with ErrKilled, those included that wait in a
// stall: the process is dead and can do no more harm.
func (fs *FS) Kill() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.killLocked()
}

func (fs *FS) killLocked() {
	if !fs.dead {
		fs.dead = true
		close(fs.killed)
		clear(fs.locks)
	}
}

// lock is a held Lock.
type lock struct {
	fs   *FS
	name string
	file io.Closer
}

// Lock implements vfs.FS. It conflicts with another Lock of the same name on this FS
// with EAGAIN; a crash releases it.
func (fs *FS) Lock(name string) (io.Closer, error) {
	l := &lock{fs: fs, name: clean(name)}
	err := fs.do(OpLock, name, "", func(*call) error {
		if fs.locks[l.name] {
			return syscall.EAGAIN
		}
		n, err := fs.lookup(name)
		if err == syscall.ENOENT {
			n, err = fs.create(name)
		}
		if err != nil {
			return err
		}
		if n.dir {
			return syscall.EISDIR
		}
		fs.truncate(n, 0)
		f, err := fs.handle(n, name, true)
		if err != nil {
			return err
		}
		l.file, fs.locks[l.name] = f, true
		return nil
	})
	if err != nil {
		if l.file != nil {
			l.Close()
		}
		return nil, err
	}
	return l, nil
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	if l.file == nil {
		l.fs.mu.Unlock()
		return nil
	}
	f := l.file
	l.file = nil
	delete(l.fs.locks, l.name)
	l.fs.mu.Unlock()
	return f.Close()
}
