package mmap

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const diskCategory = vfs.DiskWriteCategory("holdfast-pack")

// writeBytes is how much goes to a file in one call.
const writeBytes = 256 << 10

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
// readable at once; it is durable after Sync. Its pack is pending until Settle.
// The value is not kept. Above 512 KiB it is compressed on all cores.
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
	return s.appendBlob(e)
}

// appendBlob writes a blob to the active pack and leaves that pending (M8).
func (s *Store) appendBlob(e *encoded) (ref []byte, err error) {
	s.appendMu.Lock()
	defer s.appendMu.Unlock()
	if err := s.boundUnsynced(); err != nil {
		return nil, err
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writableLocked(); err != nil {
		return nil, err
	}
	stored := e.blobLen()
	w, err := s.activeLocked(stored)
	if err != nil {
		return nil, err
	}
	r := Ref{Pack: w.pack.num, Offset: w.size, Stored: stored, Size: e.size, Hash: e.hash, Codec: e.codec}
	pad := -stored % blobAlign
	parts := make([][]byte, 0, len(e.parts)+4)
	parts = append(parts, encodeBlobHeader(s.o.UUID, r, e.frameBytes, e.footer))
	for i := range e.parts {
		parts = append(parts, e.parts[i].stored)
	}
	parts = append(parts, e.table, e.footer, make([]byte, pad))
	// The bytes go out without writeMu. Until size and writes say so, no sync
	// counts them, and only who holds appendMu may end the pack.
	s.writeMu.Unlock()
	err = w.append(parts...)
	s.writeMu.Lock()
	if err != nil {
		w.failed = true
		w.pack.torn.Store(true)
		err = s.writeFailedLocked(w.pack.num, err)
		// A pack without a blob: nothing can refer to it, and its rest would
		// keep the disk full. A sync under way may hold its file; then it stays.
		if w.size == packHeaderLen && s.syncMu.TryLock() {
			err = errors.Join(err, s.discardLocked())
			s.syncMu.Unlock()
		}
		return nil, err
	}
	w.size += stored + pad
	w.pack.published.Store(w.size)
	s.writtenLocked(w.pack, r)
	return r.append(make([]byte, 0, RefLen)), nil
}

// maxUnsynced bounds the packs that wait for a sync, each with its file open (I10).
const maxUnsynced = 64

// boundUnsynced syncs where nobody else asks for it.
func (s *Store) boundUnsynced() error {
	s.writeMu.Lock()
	n := len(s.unsynced)
	s.writeMu.Unlock()
	if n < maxUnsynced {
		return nil
	}
	return s.Sync()
}

// writtenLocked counts a blob that is whole. Order: it is called before its
// pack can be sealed, so that Remove never sees one sealed and not pending.
func (s *Store) writtenLocked(p *pack, r Ref) {
	s.packs.mu.Lock()
	p.pending++
	s.packs.mu.Unlock()
	s.writes++
	if r.Codec.compressed() {
		s.stats.compressed.Add(1)
	} else {
		s.stats.raw.Add(1)
	}
	s.stats.rawBytes.Add(r.Size)
	s.stats.storedBytes.Add(r.Stored)
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

// writeFailedLocked judges a failed write. Want of space or of descriptors is not a
// broken disk: what was written before is whole, and another pack may find room.
func (s *Store) writeFailedLocked(num uint64, err error) error {
	err = fmt.Errorf("mmap: %s: write: %w", packName(num), err)
	if noSpace(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	if noDescriptor(err) {
		return err
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
	buf := getBuffer(writeBytes)
	defer putBuffer(buf)
	b := (*buf)[:0:writeBytes] // a pooled one may be larger, and must not make the pieces so
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), cap(b)-len(b))
			b = append(b, p[:n]...)
			p = p[n:]
			if len(b) == cap(b) {
				if err := writeAll(w.file, b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
	}
	return writeAll(w.file, b)
}

func writeAll(f vfs.File, b []byte) error {
	for len(b) > 0 {
		n, err := f.Write(b)
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
