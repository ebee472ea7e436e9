package mmap

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// LinkTo puts the packs that are true in the table, or every pack that is sealed
// for a nil table, into another folder: by hard link, which costs nothing and is
// safe because a sealed pack never changes, or by copy where links do not reach.
// When it returns, files and names are durable. A pack that is written to is
// refused if it is asked for by number, for what is linked must not grow; a nil
// table is asked for after Seal, and passes over what began since.
func (s *Store) LinkTo(fs vfs.FS, dir string, want map[uint64]bool) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mmap: make folder: %w", err)
	}
	all := want == nil
	if all {
		want = make(map[uint64]bool)
		for _, num := range s.Packs() {
			want[num] = !s.writesTo(num)
		}
	}
	for num, ok := range want {
		if !ok {
			continue
		}
		if s.writesTo(num) {
			return fmt.Errorf("%w: %s", ErrNotSealed, packName(num))
		}
		if err := s.linkPack(fs, num, fs.PathJoin(dir, packName(num))); err != nil {
			return fmt.Errorf("mmap: link %s: %w", packName(num), err)
		}
	}
	return s.syncDir(fs, dir)
}

// linkPack takes a pack as it is: what is damaged stays so, and is found where it
// is read. One that is too short for its header was cut off by a crash before it
// held a blob.
func (s *Store) linkPack(fs vfs.FS, num uint64, dst string) error {
	info, err := s.o.FS.Stat(s.path(num))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if err != nil {
		return err
	}
	if info.Size() <= packHeaderLen || fs.Link(s.path(num), dst) == nil {
		return nil
	}
	f, err := s.o.FS.Open(s.path(num))
	if err != nil {
		return err
	}
	err = copyPack(fs, f, info.Size(), dst)
	return errors.Join(err, f.Close())
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

func removeIfThere(fs vfs.FS, name string) error {
	if _, err := fs.Stat(name); err != nil {
		return nil
	}
	return fs.Remove(name)
}

// copyPack copies size bytes of a pack to dst, synced, under another name until it
// is whole: a copy that broke off must not look like a pack.
func copyPack(fs vfs.FS, from io.ReaderAt, size int64, dst string) error {
	tmp := dst + ".tmp"
	if err := copyFile(fs, from, size, tmp); err != nil {
		return errors.Join(err, removeIfThere(fs, tmp))
	}
	return fs.Rename(tmp, dst)
}

func copyFile(fs vfs.FS, from io.ReaderAt, size int64, name string) (err error) {
	f, err := fs.Create(name, diskCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(onlyWriter{f}, io.NewSectionReader(from, 0, size))
	if err != nil {
		return err
	}
	if n != size {
		return io.ErrUnexpectedEOF
	}
	return f.Sync()
}

// onlyWriter hides all but Write, so that io.Copy uses a buffer of its own:
// File.Write may change what it is given.
type onlyWriter struct{ io.Writer }
