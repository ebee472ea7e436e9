package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/sstable"
)

// Check reads every block of every table against its checksum, the size of
// every table against the manifest, and the watermark against the one in
// memory. It goes by the files, not through the cache, so damage that a cached
// block would hide is found. The error, or each of several joined, is a
// *CorruptError.
func (s *Store) Check(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()

	var found []error
	seen := make(map[string]bool)
	// A compaction may replace tables while we read; then the list is taken
	// again, and only what it still names and we have not read is read.
	for range 100 {
		tables, err := s.tables()
		if err != nil {
			return err
		}
		again := false
		for _, t := range tables {
			if seen[t.path] {
				continue
			}
			if err := s.ended(ctx); err != nil {
				return err
			}
			err := s.checkTable(t)
			if errors.Is(err, os.ErrNotExist) && !s.names(t.path) {
				again = true
				continue
			}
			seen[t.path] = true
			if err != nil {
				found = append(found, err)
			}
		}
		if !again {
			break
		}
	}
	if err := s.checkWatermark(); err != nil {
		found = append(found, err)
	}
	return errors.Join(found...)
}

// ended tells why to stop: the store's end, or ctx. A closed write gate is no
// reason; reads go on.
func (s *Store) ended(ctx context.Context) error {
	if s.isClosed() {
		return ErrClosed
	}
	return ctx.Err()
}

type tableFile struct {
	path string
	size uint64
}

// tables lists the files of the newest version. Tables of one backing file are
// one entry.
func (s *Store) tables() (out []tableFile, err error) {
	defer caught(&err)
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, mapped(err)
	}
	for _, level := range levels {
		for _, t := range level {
			f := tableFile{path: s.fs.PathJoin(s.dir, fmt.Sprintf("%06d.sst", uint64(t.BackingSSTNum)))}
			if !t.Virtual {
				f.size = t.Size
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *Store) names(path string) bool {
	tables, err := s.tables()
	if err != nil {
		return true
	}
	for _, t := range tables {
		if t.path == path {
			return true
		}
	}
	return false
}

// checkTable reads one file. A missing file is corruption and keeps os.ErrNotExist
// inside; one that the system will not let us read is an error and no verdict.
func (s *Store) checkTable(t tableFile) (err error) {
	defer func() {
		var ce *CorruptError
		var errno syscall.Errno
		switch {
		case err == nil:
		case errors.As(err, &ce):
			if ce.File == "" {
				ce.File = t.path
			}
		case errors.As(err, &errno):
			err = fmt.Errorf("storage: check %s: %w", t.path, err)
		default:
			err = &CorruptError{File: t.path, What: "check", Err: err}
		}
	}()
	defer caught(&err)
	f, err := s.fs.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return &CorruptError{File: t.path, What: "missing file", Err: err}
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if t.size != 0 && uint64(info.Size()) != t.size {
		what := fmt.Sprintf("%d bytes, the manifest says %d", info.Size(), t.size)
		return errors.Join(&CorruptError{File: t.path, What: what}, f.Close())
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), readable, s.po.MakeReaderOptions())
	if err != nil {
		return errors.Join(mapped(err), readable.Close())
	}
	return errors.Join(mapped(r.ValidateBlockChecksums()), r.Close())
}

// checkWatermark compares the stored watermark with the one in memory.
func (s *Store) checkWatermark() error {
	s.ingesting.Lock() // the two change together, under this lock
	defer s.ingesting.Unlock()
	got, ok, err := s.current.Load().watermark()
	if err != nil {
		return err
	}
	if want := s.mark.Load(); ok != want.ok || got != want.w {
		return &CorruptError{What: fmt.Sprintf("watermark: stored %+v, %t; want %+v, %t", got, ok, want.w, want.ok)}
	}
	return nil
}

// Checkpoint makes dst, which must not exist, a complete copy that opens as an
// L3 of its own, with hard links where the file system allows. It returns the
// watermark read from the copy. dst is removed again on error where possible.
func (s *Store) Checkpoint(dst string) (w Watermark, err error) {
	if err := s.enter(); err != nil {
		return w, err
	}
	defer s.leave()
	// Not beside an ingest: what the copy holds would depend on the moment.
	s.ingesting.Lock()
	defer s.ingesting.Unlock()
	if err := s.fs.fault(); err != nil {
		return w, err
	}
	if s.fs.readOnly {
		return w, ErrReadOnly
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("storage: checkpoint %s: %w", dst, mapped(err))
		}
	}()
	if _, err := s.fs.Stat(dst); err == nil {
		return w, os.ErrExist
	}
	_ = s.fs.takeStray()
	err = func() (err error) {
		defer caught(&err)
		return s.db.Checkpoint(dst)
	}()
	// A failed directory sync was answered with nil, and so was each that came after
	// the gate closed (see gateDir).
	if unsynced := errors.Join(s.fs.takeStray(), s.fs.fault()); err == nil {
		err = unsynced
	}
	if err == nil {
		w, err = s.markOf(dst)
	}
	if err != nil {
		_ = s.fs.RemoveAll(dst)
	}
	return w, err
}

// markOf reads the watermark of a copy by opening it, without writing.
func (s *Store) markOf(dir string) (w Watermark, err error) {
	c, err := Open(Options{FS: s.fs.inner, Dir: dir, ReadOnly: true, CacheBytes: 1 << 20, Logger: s.log})
	if err != nil {
		return w, err
	}
	w, _, err = c.Watermark()
	return w, errors.Join(err, c.Close())
}
