package mmap

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// LinkTo puts the packs that are true in the table, or all for a nil table, into
// another folder: by hard link, which costs nothing and is safe because a sealed pack never
// changes, or by copy where links do not reach. When it returns, files and
// names are durable. The active pack is refused: what is linked must not grow.
func (s *Store) LinkTo(fs vfs.FS, dir string, want map[uint64]bool) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mmap: make folder: %w", err)
	}
	if want == nil {
		want = s.all()
	}
	for num, ok := range want {
		if !ok {
			continue
		}
		if s.writesTo(num) {
			return fmt.Errorf("%w: %s", ErrNotSealed, packName(num))
		}
		p, err := s.acquire(num)
		if err != nil {
			return err
		}
		err = linkOrCopy(fs, p, fs.PathJoin(dir, packName(num)))
		s.release(p)
		if err != nil {
			return fmt.Errorf("mmap: link %s: %w", packName(num), err)
		}
	}
	return s.syncDir(fs, dir)
}

// all names every pack there is.
func (s *Store) all() map[uint64]bool {
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	nums := make(map[uint64]bool, len(s.packs.m))
	for num := range s.packs.m {
		nums[num] = true
	}
	return nums
}

// writesTo says whether the pack may still get a blob or is not durable yet.
func (s *Store) writesTo(num uint64) bool {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.active != nil && s.active.pack.num == num {
		return true
	}
	for _, w := range s.unsynced {
		if w.pack.num == num {
			return true
		}
	}
	return false
}

func linkOrCopy(fs vfs.FS, p *pack, dst string) error {
	if fs.Link(p.name, dst) == nil {
		return nil
	}
	// Copied under another name: a copy that broke off must not look like a pack.
	tmp := dst + ".tmp"
	if err := copyPack(fs, p, tmp); err != nil {
		return errors.Join(err, removeIfThere(fs, tmp))
	}
	return fs.Rename(tmp, dst)
}

func removeIfThere(fs vfs.FS, name string) error {
	if _, err := fs.Stat(name); err != nil {
		return nil
	}
	return fs.Remove(name)
}

func copyPack(fs vfs.FS, p *pack, dst string) (err error) {
	f, err := fs.Create(dst, diskCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := int64(p.published.Load())
	n, err := io.Copy(onlyWriter{f}, io.NewSectionReader(p.file, 0, size))
	if err != nil {
		return err
	}
	if n != size {
		return p.corrupt(uint64(n), "pack is cut short", nil)
	}
	return f.Sync()
}

// onlyWriter hides all but Write, so that io.Copy uses a buffer of its own:
// File.Write may change what it is given.
type onlyWriter struct{ io.Writer }
