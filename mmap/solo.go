package mmap

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// soloBytes is the size from which a value whose end is not known gets a pack of its
// own: up to here it waits in memory. As much of that pack may lie in the page cache
// before the kernel is asked to write it out.
const soloBytes = 8 << 20

// solo is a pack for one blob whose length is not known at first. The place of
// the blob's header is zero until all else is written, and nobody hears of the
// pack before that: it is in no table, and no reference names it (M4).
type solo struct {
	s      *Store
	pack   *pack
	file   vfs.File
	buf    *[]byte
	size   uint64 // in the file, or in buf
	hinted uint64
}

func (s *Store) newSolo() (*solo, error) {
	if err := s.boundUnsynced(); err != nil {
		return nil, err
	}
	s.writeMu.Lock()
	if err := s.writableLocked(); err != nil {
		s.writeMu.Unlock()
		return nil, err
	}
	num := s.next
	s.next++       // also when it fails: a number is never used twice
	s.solos.Add(1) // under the lock: Close waits for it, or it is refused
	s.writeMu.Unlock()
	p := &pack{num: num, name: s.path(num), known: true}
	// Not Create: only this way may every file system be written to at a place.
	f, err := s.o.FS.OpenReadWrite(p.name, diskCategory)
	if err != nil {
		defer s.solos.Done()
		return nil, errors.Join(s.writeFailed(num, err), s.removeName(p.name))
	}
	o := &solo{s: s, pack: p, file: f, buf: getBuffer(writeBytes)}
	*o.buf = (*o.buf)[:0:writeBytes]
	for _, b := range [][]byte{encodePackHeader(s.o.UUID, num, s.o.OwnerEpoch), make([]byte, blobHeaderLen)} {
		if err := o.append(b); err != nil {
			return nil, errors.Join(err, o.drop())
		}
	}
	return o, nil
}

// append adds bytes at the end. They are ours: File.Write may change them.
func (o *solo) append(b []byte) error {
	direct := len(b) >= cap(*o.buf)/4
	if direct || len(*o.buf)+len(b) > cap(*o.buf) {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.size += uint64(len(b))
	if !direct {
		*o.buf = append(*o.buf, b...)
		return nil
	}
	if err := writeAll(o.file, b); err != nil {
		return o.s.writeFailed(o.pack.num, err)
	}
	return o.hint()
}

func (o *solo) flush() error {
	if err := writeAll(o.file, *o.buf); err != nil {
		return o.s.writeFailed(o.pack.num, err)
	}
	*o.buf = (*o.buf)[:0]
	return o.hint()
}

// hint lets the kernel write out what has come, so that the last sync is short.
// It promises nothing; but where it fails, pages were lost, and the kernel has
// said so for the last time (M3).
func (o *solo) hint() error {
	written := o.size - uint64(len(*o.buf))
	if written < o.hinted+o.s.hint {
		return nil
	}
	if err := o.s.writable(); err != nil {
		return err
	}
	o.hinted = written
	if _, err := o.file.SyncTo(int64(written)); err != nil {
		return o.s.syncFailed(fmt.Errorf("mmap: %s: sync to %d: %w", packName(o.pack.num), written, err))
	}
	return nil
}

// finish ends the blob: tail, and last of all the header, whose place is known
// since the beginning. What r says of the value is the caller's.
func (o *solo) finish(t *tail, r Ref, frameBytes uint64) (Ref, error) {
	t.finish()
	r.Pack, r.Offset, r.Stored = o.pack.num, packHeaderLen, t.blobLen()
	head := encodeBlobHeader(o.s.o.UUID, r, frameBytes, t.footer) // before Write has the footer
	for _, b := range [][]byte{t.table, t.footer} {
		if err := o.append(b); err != nil {
			return r, err
		}
	}
	if err := o.flush(); err != nil {
		return r, err
	}
	n, err := o.file.WriteAt(head, packHeaderLen)
	if err == nil && n != len(head) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return r, o.s.writeFailed(o.pack.num, err)
	}
	return r, nil
}

// publish enters the pack into the table, pending once, and into what Sync has
// to see. It gets no more blobs. Order: nothing may fail after it.
func (o *solo) publish(r Ref) error {
	s := o.s
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writableLocked(); err != nil {
		return err
	}
	o.pack.published.Store(o.size)
	s.packs.mu.Lock()
	s.packs.m[o.pack.num] = o.pack
	s.packs.mu.Unlock()
	s.unsynced = append(s.unsynced, &writing{pack: o.pack, file: o.file, size: o.size})
	s.writtenLocked(o.pack, r)
	putBuffer(o.buf)
	s.solos.Done()
	return nil
}

// drop removes the pack, which nobody has heard of.
func (o *solo) drop() error {
	defer o.s.solos.Done()
	putBuffer(o.buf)
	return errors.Join(o.file.Close(), o.s.removeName(o.pack.name))
}

// removeName removes what is left of a pack that did not come to be.
func (s *Store) removeName(name string) error {
	err := s.o.FS.Remove(name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	s.log.Warn("mmap: what is left of a value stays", "file", name, "err", err)
	return fmt.Errorf("mmap: remove: %w", err)
}

func (s *Store) writable() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.writableLocked()
}

func (s *Store) writeFailed(num uint64, err error) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.writeFailedLocked(num, err)
}
