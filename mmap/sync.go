package mmap

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Sync makes every blob written so far durable (M2). Callers that come
// together share one sync.
func (s *Store) Sync() error {
	s.writeMu.Lock()
	target := s.writes
	err := s.writableLocked()
	s.writeMu.Unlock()
	if err != nil {
		return err
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced >= target {
		return nil // whoever held the lock before synced ours too
	}
	return s.syncLocked()
}

// syncLocked holds syncMu: one sync at a time.
func (s *Store) syncLocked() error {
	s.writeMu.Lock()
	if err := s.writableLocked(); err != nil {
		s.writeMu.Unlock()
		return err
	}
	reached := s.writes
	todo := append([]*writing(nil), s.unsynced...)
	old := len(todo)
	if s.active != nil {
		todo = append(todo, s.active)
	}
	sizes := make([]uint64, len(todo))
	for i, w := range todo {
		sizes[i] = w.size
	}
	s.writeMu.Unlock()

	// Writers go on meanwhile: SyncData covers at least what was written.
	named := true
	for _, w := range todo {
		if err := w.file.SyncData(); err != nil {
			return s.syncFailed(fmt.Errorf("mmap: %s: sync: %w", packName(w.pack.num), err))
		}
		named = named && w.named
	}
	if !named {
		// Order: data, then name. A pack that has a name and no header would
		// be refused at its first use.
		if err := s.syncOwnDir(); err != nil {
			return s.syncFailed(err)
		}
	}
	s.stats.syncs.Add(1)
	for i, w := range todo {
		w.named = true // only the holder of syncMu looks at it
		w.pack.synced.Store(sizes[i])
	}
	s.synced = reached

	s.writeMu.Lock()
	s.unsynced = append([]*writing(nil), s.unsynced[old:]...)
	s.writeMu.Unlock()
	for _, w := range todo[:old] {
		if err := w.file.Close(); err != nil {
			s.log.Warn("mmap: closing a synced pack", "pack", packName(w.pack.num), "err", err)
		}
	}
	return nil
}

// syncFailed poisons the store (M3): after a failed sync the kernel may have
// dropped the pages and called them clean, so a second one proves nothing.
func (s *Store) syncFailed(err error) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.poison == nil {
		s.poison = err
	}
	err = fmt.Errorf("%w: %w", ErrPoisoned, err)
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// syncOwnDir makes the names in the folder durable. The folder stays open for it: want of
// a descriptor in the middle of a sync would cost what the sync was for.
func (s *Store) syncOwnDir() error {
	if err := s.dir.Sync(); err != nil {
		return fmt.Errorf("mmap: sync folder: %w", err)
	}
	return nil
}

func (s *Store) syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("mmap: open folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("mmap: sync folder: %w", err)
	}
	return nil
}

// Seal ends the active pack and makes it durable, so that it can be linked.
// The next Write begins a new one.
func (s *Store) Seal() error {
	if s.o.ReadOnly {
		return nil
	}
	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.writeMu.Lock()
	if err := s.writableLocked(); err != nil {
		s.writeMu.Unlock()
		return err
	}
	if s.active != nil {
		s.retireLocked()
	}
	none := len(s.unsynced) == 0
	s.writeMu.Unlock()
	if none {
		return nil
	}
	return s.syncLocked()
}
