package mmap

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const diskCategory = vfs.DiskWriteCategory("holdfast-pack")

// writing is a pack that this store made and writes to.
type writing struct {
	pack *pack
	file vfs.File
	size uint64 // where the next blob begins
	// failed: a write broke off; the pack gets no more (M4).
	failed bool
	named  bool // the folder was synced since it was made
}

// Write appends the value as one blob and returns its reference. The blob is
// readable at once; it is durable after Sync. The value is not kept.
func (s *Store) Write(value []byte) (ref []byte, err error) {
	if s.o.ReadOnly {
		return nil, ErrReadOnly
	}
	if uint64(len(value)) > MaxValue {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(value))
	}
	// Compression and checksums are the long part, outside the lock.
	e := encode(value, s.o.Compression, s.o.FrameBytes)
	defer e.free()

	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writableLocked(); err != nil {
		return nil, err
	}
	stored := blobHeaderLen + uint64(len(e.data)+len(e.tail))
	w, err := s.activeLocked(stored)
	if err != nil {
		return nil, err
	}
	r := Ref{Pack: w.pack.num, Offset: w.size, Stored: stored, Size: uint64(len(value)), Hash: e.hash, Codec: e.codec}
	head := encodeBlobHeader(s.o.UUID, r, uint64(s.o.FrameBytes), e.footer)
	pad := -stored % blobAlign
	// The bytes go out without writeMu. Until size and writes say so, no sync
	// counts them, and only who holds appendMu may end the pack.
	s.writeMu.Unlock()
	err = w.append(head, e.data, e.tail, make([]byte, pad))
	s.writeMu.Lock()
	if err != nil {
		w.failed = true
		err = s.writeFailedLocked(w.pack.num, err)
		// A pack without a blob: nothing can refer to it, and its rest would
		// keep the disk full. A sync under way may hold its file; then it stays.
		if w.size == packHeaderLen && s.syncMu.TryLock() {
			err = errors.Join(err, s.discardLocked())
			s.syncMu.Unlock()
		}
		return nil, err
	}
	s.packs.mu.Lock()
	w.pack.pending++
	s.packs.mu.Unlock()
	w.size += stored + pad
	w.pack.published.Store(w.size)
	s.writes++
	if e.codec == Raw {
		s.stats.raw.Add(1)
	} else {
		s.stats.compressed.Add(1)
	}
	s.stats.rawBytes.Add(r.Size)
	s.stats.storedBytes.Add(stored)
	return r.append(make([]byte, 0, RefLen)), nil
}

func (s *Store) writableLocked() error {
	if s.closed.Load() {
		return ErrClosed
	}
	if s.poison != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, s.poison)
	}
	return nil
}

// writeFailedLocked judges a failed write. Want of space is not a broken disk:
// what was written before is whole, and another pack may find room.
func (s *Store) writeFailedLocked(num uint64, err error) error {
	err = fmt.Errorf("mmap: %s: write: %w", packName(num), err)
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	s.poison = err
	return fmt.Errorf("%w: %w", ErrPoisoned, err)
}

// activeLocked returns the pack for a blob of n bytes, a new one where the
// active one is full, failed or absent. A large blob gets one of its own.
func (s *Store) activeLocked(n uint64) (*writing, error) {
	if w := s.active; w != nil {
		if !w.failed && (w.size == packHeaderLen || w.size+n <= uint64(s.o.PackBytes)) {
			return w, nil
		}
		s.retireLocked()
	}
	num := s.next
	s.next++ // also when it fails: a number is never used twice
	p := &pack{num: num, name: s.path(num)}
	f, err := s.o.FS.Create(p.name, diskCategory)
	if err != nil {
		return nil, s.writeFailedLocked(num, err)
	}
	w := &writing{pack: p, file: f}
	if err := w.append(encodePackHeader(s.o.UUID, num, s.o.OwnerEpoch)); err != nil {
		// Nothing can refer to it, so its rest may go at once.
		return nil, errors.Join(s.writeFailedLocked(num, err), f.Close(), s.o.FS.Remove(p.name))
	}
	w.size = packHeaderLen
	p.published.Store(w.size)
	p.known = true
	s.packs.mu.Lock()
	s.packs.m[num] = p
	s.packs.mu.Unlock()
	s.active = w
	return w, nil
}

// discardLocked, which needs syncMu too, removes the active pack, which holds no blob.
func (s *Store) discardLocked() error {
	w := s.active
	s.active = nil
	s.packs.mu.Lock()
	delete(s.packs.m, w.pack.num)
	s.packs.mu.Unlock()
	return errors.Join(w.file.Close(), s.o.FS.Remove(w.pack.name))
}

// retireLocked ends writing to the active pack; Sync will see it once more.
func (s *Store) retireLocked() {
	s.unsynced = append(s.unsynced, s.active)
	s.active = nil
}

// append writes all parts. File.Write may change what it is given, and values
// belong to callers, so they go through a buffer of ours.
func (w *writing) append(parts ...[]byte) error {
	buf := getBuffer(256 << 10)
	defer putBuffer(buf)
	b := (*buf)[:0]
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), cap(b)-len(b))
			b = append(b, p[:n]...)
			p = p[n:]
			if len(b) == cap(b) {
				if err := w.write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
	}
	return w.write(b)
}

func (w *writing) write(b []byte) error {
	for len(b) > 0 {
		n, err := w.file.Write(b)
		if err != nil {
			return err
		}
		if n <= 0 || n > len(b) {
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

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
		if err := s.syncDir(s.o.FS, s.o.Dir); err != nil {
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
