package mmap

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Has says whether the pack of the blob is there. It reads nothing.
func (s *Store) Has(ref []byte) error {
	r, err := DecodeRef(ref)
	if err != nil {
		return err
	}
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	switch {
	case s.packs.closed:
		return ErrClosed
	case s.packs.m[r.Pack] == nil:
		return fmt.Errorf("%w: %s", ErrMissing, packName(r.Pack))
	}
	return nil
}

// Renew makes the packs of these blobs durable where a process before this one may
// have left them in the page cache alone, as a kill does. A sync of its own would
// not do: after one that failed, the kernel calls pages clean that the disk does
// not have. Writing in place would not do either: a power cut in the middle could
// tear sectors that older blobs share (M1). So each pack is copied, synced and
// renamed over itself, before anybody reads it.
func (s *Store) Renew(refs [][]byte) error {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	for _, name := range s.leftovers { // of copies that a crash broke off
		if err := removeIfThere(s.o.FS, name); err != nil {
			s.log.Warn("mmap: a leftover stays", "file", name, "err", err)
		}
	}
	s.leftovers = nil
	var nums []uint64
	for _, ref := range refs {
		r, err := DecodeRef(ref)
		if err != nil {
			return err
		}
		nums = append(nums, r.Pack)
	}
	// In order: the same refs make the same calls.
	slices.Sort(nums)
	nums = slices.Compact(nums)
	for _, num := range nums {
		if err := s.renewPack(num); err != nil {
			return fmt.Errorf("mmap: renew %s: %w", packName(num), err)
		}
	}
	if len(nums) == 0 {
		return nil
	}
	return s.syncOwnDir()
}

func (s *Store) renewPack(num uint64) error {
	f, err := s.o.FS.Open(s.path(num))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = copyPack(s.o.FS, f, info.Size(), s.path(num))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.forget(num)
	return nil
}

// forget closes what is open of a pack whose file was replaced.
func (s *Store) forget(num uint64) {
	s.windows.dropPack(num)
	s.packs.mu.Lock()
	p := s.packs.m[num]
	fresh := &pack{num: num, name: s.path(num)}
	if p != nil {
		fresh.pending = p.pending
	}
	s.packs.m[num] = fresh
	var f vfs.File
	if p != nil {
		p.removed = true // so that its last reader closes it
	}
	if p != nil && p.refs == 0 {
		if f, p.file = p.file, nil; f != nil {
			s.packs.open--
		}
	}
	s.packs.mu.Unlock()
	if f != nil {
		if err := f.Close(); err != nil {
			s.log.Warn("mmap: closing a replaced pack", "pack", packName(num), "err", err)
		}
	}
}

// Exists says whether the blob is there as it was written: header, footer and
// the checksum of each frame. It decodes nothing, and reads through the file,
// so that it sees the disk and not a mapping that was verified before.
func (s *Store) Exists(ref []byte) error {
	return s.walk(ref, func(b *Blob, l *layout, i uint64) error {
		from, to := l.stored(i, b.ref.Size)
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		if err := b.fetchFrame(*buf, l, i); err != nil {
			return err
		}
		if checksum(*buf) != l.sums[i] {
			return b.p.corrupt(b.at+blobHeaderLen+from, fmt.Sprintf("frame %d: checksum", i), nil)
		}
		return nil
	})
}

// Verify does what Exists does, decodes every frame and compares the hash of
// the whole value.
func (s *Store) Verify(ref []byte) error {
	h := xxhash.New()
	var r Ref
	err := s.walk(ref, func(b *Blob, l *layout, i uint64) error {
		r = b.ref
		from, to := l.span(i, b.ref.Size)
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		if err := b.frame(l, i, *buf); err != nil {
			return err
		}
		_, _ = h.Write(*buf) // never fails
		return nil
	})
	if err != nil {
		return err
	}
	if r.Size != 0 && h.Sum64() != r.Hash {
		return s.seen(&CorruptError{File: packName(r.Pack), Offset: int64(r.Offset), What: "hash of the value"})
	}
	return nil
}

func (s *Store) walk(ref []byte, each func(b *Blob, l *layout, i uint64) error) error {
	b, err := s.Open(ref)
	if err != nil {
		return err
	}
	defer b.Close()
	if w := b.win.Swap(nil); w != nil { // read through the file, whatever is mapped
		s.windows.put(w)
	}
	l, _, err := b.readLayout()
	if err != nil {
		return s.seen(err)
	}
	b.layout.Store(l)
	for i := range uint64(len(l.sums)) {
		if err := each(b, l, i); err != nil {
			return s.seen(err)
		}
	}
	return nil
}
