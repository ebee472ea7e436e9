package simfs

import (
	"io"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is a handle.
type file struct {
	fs       *FS
	n        *inode
	name     string
	pos      int64
	writable bool
	closed   bool
}

var _ vfs.File = (*file)(nil)

func (fs *FS) mayOpen() error {
	if fs.opt.MaxOpen > 0 && fs.open >= fs.opt.MaxOpen {
		return syscall.EMFILE
	}
	return nil
}

func (fs *FS) handle(n *inode, name string, writable bool) (*file, error) {
	if err := fs.mayOpen(); err != nil {
		return nil, err
	}
	n.open++
	fs.open++
	return &file{fs: fs, n: n, name: name, writable: writable}, nil
}

func (f *file) release() {
	if !f.closed {
		f.closed = true
		f.fs.open--
		f.n.open--
		f.fs.release(f.n)
	}
}

// do is one call on an open handle.
func (f *file) do(op Op, off, n int64, fn func(*call) error) error {
	return f.fs.doAt(op, f.name, "", off, n, func(c *call) error {
		if f.closed {
			return os.ErrClosed
		}
		return fn(c)
	})
}

// Close implements io.Closer. A second Close fails with os.ErrClosed. When a fault
// makes it fail the handle is closed all the same, as on Linux.
func (f *file) Close() error {
	err := f.do(OpClose, 0, 0, func(*call) error {
		f.release()
		return nil
	})
	if err != nil {
		f.fs.mu.Lock()
		defer f.fs.mu.Unlock()
		f.release()
	}
	return err
}

// Read implements io.Reader.
func (f *file) Read(p []byte) (n int, err error) {
	err = f.do(OpRead, -1, int64(len(p)), func(c *call) error {
		if f.n.dir {
			return syscall.EISDIR
		}
		want := c.keep(len(p))
		n = f.n.data.readAt(p[:want], f.pos)
		f.pos += int64(n)
		if n == 0 && len(p) > 0 && want > 0 {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(OpReadAt, off, int64(len(p)), func(c *call) error {
		if f.n.dir {
			return syscall.EISDIR
		}
		if off < 0 {
			return syscall.EINVAL
		}
		want := c.keep(len(p))
		n = f.n.data.readAt(p[:want], off)
		if n < want {
			return io.EOF
		}
		if n < len(p) {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	return n, err
}

// Write implements io.Writer, at the handle's position.
func (f *file) Write(p []byte) (n int, err error) {
	err = f.do(OpWrite, -1, int64(len(p)), func(c *call) (err error) {
		n, err = f.write(c, p, f.pos)
		f.pos += int64(n)
		return err
	})
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(OpWriteAt, off, int64(len(p)), func(c *call) (err error) {
		n, err = f.write(c, p, off)
		return err
	})
	return n, err
}

func (f *file) mayWrite() error {
	if f.n.dir || !f.writable {
		return syscall.EBADF
	}
	return nil
}

func (f *file) write(c *call, p []byte, off int64) (int, error) {
	if err := f.mayWrite(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, syscall.EINVAL
	}
	want := c.keep(len(p))
	end := f.fs.reach(f.n, off+int64(want))
	n := int(max(0, min(int64(want), end-off)))
	if n > 0 {
		c.data, c.off = p[:n], off
		w := write{off: off, n: int64(n)}
		if !isZeros(p[:n]) {
			w.data = slices.Clone(p[:n])
		}
		f.fs.charged(f.n, func() { f.n.data.size = max(f.n.data.size, off+w.n) })
		w.size = f.n.data.size
		w.apply(&f.n.data, w.extent())
		f.n.record(f.fs.nextSeq(), w)
		f.n.mod = f.fs.now()
	}
	switch {
	case n < want:
		return n, syscall.ENOSPC
	case n < len(p):
		return n, io.ErrShortWrite
	}
	return n, nil
}

// Truncate sets the length of the file, like os.File's.
func (f *file) Truncate(size int64) error {
	return f.do(OpTruncate, size, 0, func(*call) error {
		if err := f.mayWrite(); err != nil {
			return err
		}
		if size < 0 {
			return syscall.EINVAL
		}
		if f.fs.reach(f.n, size) < size {
			return syscall.ENOSPC
		}
		f.fs.truncate(f.n, size)
		return nil
	})
}

func (fs *FS) truncate(n *inode, size int64) {
	old := n.data.size
	if size == old {
		return
	}
	fs.charged(n, func() { n.data.resize(size) })
	w := write{off: size, n: max(0, old-size), size: size}
	n.record(fs.nextSeq(), w)
	n.mod = fs.now()
}

// Preallocate implements vfs.File: space for a range. The length stays, and what is
// in the range and was never written reads as zeros, after a crash too.
func (f *file) Preallocate(off, length int64) error {
	return f.do(OpPreallocate, off, length, func(*call) error {
		if err := f.mayWrite(); err != nil {
			return err
		}
		if off < 0 || length <= 0 {
			return syscall.EINVAL
		}
		if f.fs.reach(f.n, off+length) < off+length {
			return syscall.ENOSPC
		}
		if start := max(off, f.n.data.size); start < off+length {
			f.n.unwritten = append(without(f.n.unwritten, extent{start, off + length}), extent{start, off + length})
		}
		f.fs.charged(f.n, func() { f.n.alloc = max(f.n.alloc, off+length) })
		return nil
	})
}

// Sync implements vfs.File: the bytes and the length of a file, the names in a
// directory. What Ext4Like adds is said there.
func (f *file) Sync() error {
	if f.n.dir {
		return f.sync(OpSyncDir)
	}
	return f.sync(OpSync)
}

// SyncData implements vfs.File: bytes and length.
func (f *file) SyncData() error {
	if f.n.dir {
		return f.sync(OpSyncDir)
	}
	return f.sync(OpSyncData)
}

func (f *file) sync(op Op) error {
	return f.do(op, 0, 0, func(c *call) error {
		switch c.effect() {
		case EffectKept:
		case EffectLost:
			f.n.loseData(c.upto)
			f.fs.loseNames(f.n, c.upto, op != OpSyncData)
		default:
			f.n.syncData(c.upto)
			f.fs.syncNames(f.n, c.upto, op != OpSyncData)
		}
		return nil
	})
}

// SyncTo implements vfs.File. It keeps nothing, and says so.
func (f *file) SyncTo(length int64) (bool, error) {
	return false, f.do(OpSyncTo, 0, length, func(*call) error { return nil })
}

// Prefetch implements vfs.File.
func (f *file) Prefetch(off, length int64) error {
	return f.do(OpPrefetch, off, length, func(*call) error { return nil })
}

// Stat implements vfs.File.
func (f *file) Stat() (vfs.FileInfo, error) {
	var info vfs.FileInfo
	err := f.do(OpFileStat, 0, 0, func(*call) error {
		info = f.n.info(path.Base(clean(f.name)))
		return nil
	})
	return info, err
}

// Fd implements vfs.File: there is none.
func (f *file) Fd() uintptr { return vfs.InvalidFd }

// info answers Stat.
type info struct {
	name string
	size int64
	mod  time.Time
	dir  bool
}

func (n *inode) info(name string) *info { return &info{name, n.data.size, n.mod, n.dir} }

func (i *info) Name() string           { return i.name }
func (i *info) Size() int64            { return i.size }
func (i *info) ModTime() time.Time     { return i.mod }
func (i *info) IsDir() bool            { return i.dir }
func (i *info) Sys() any               { return nil }
func (i *info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i *info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
