package engine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

const lockName = "LOCK"

// dirLock keeps every other opener out, in this process or another. Only its
// holder changes the directory.
type dirLock struct {
	file *os.File
	seam io.Closer // the lock of a file system that is not the operating system's
}

// lockDir takes the lock: shared for readers, so that several may read what nobody
// writes. The lock belongs to the open file, so a second open of this process
// meets it, too, by whatever path it comes.
func lockDir(fs vfs.FS, dir string, readOnly bool) (*dirLock, error) {
	path := fs.PathJoin(dir, lockName)
	// A file system that wraps the operating system's locks as it does, or the two
	// would not see each other.
	if vfs.Root(fs) != vfs.Default {
		c, err := fs.Lock(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrLocked, path, err)
		}
		return &dirLock{seam: c}, nil
	}
	flags, how := os.O_RDWR|os.O_CREATE, unix.LOCK_EX
	if readOnly {
		flags, how = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(path, flags, 0o644) // never truncated: it may be another's
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by another opener", ErrLocked, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// Somebody may have removed the file between open and lock: then we hold the
	// lock of a name that nobody else will meet.
	ours, err := f.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = os.Stat(path); err == nil && os.SameFile(ours, named) {
			return &dirLock{file: f}, nil
		}
	}
	_ = f.Close()
	return nil, fmt.Errorf("%w: %s was replaced while we locked it", ErrLocked, path)
}

func (l *dirLock) release() error {
	if l.seam != nil {
		return l.seam.Close()
	}
	return l.file.Close()
}
