package mmap

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
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

// Exists says whether the blob is there as it was written: header, footer and
// the checksum of each frame. It decodes nothing, and reads through the file,
// so that it sees the disk and not a mapping that was verified before.
func (s *Store) Exists(ref []byte) error {
	return s.walk(ref, func(b *Blob, l *layout, i uint64) error {
		from, to := l.stored(i, b.ref.Size)
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		if err := b.fetch(*buf, blobHeaderLen+from); err != nil {
			return err
		}
		if checksum(*buf) != l.sums[i] {
			return b.p.corrupt(b.ref.Offset+blobHeaderLen+from, fmt.Sprintf("frame %d: checksum", i), nil)
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
	if w := b.win.Swap(nil); w != nil {
		s.windows.put(w)
		b.layout.Store(nil) // read again, from the file
	}
	if err := b.load(); err != nil {
		return err
	}
	l := b.layout.Load()
	for i := range uint64(len(l.sums)) {
		if err := each(b, l, i); err != nil {
			return s.seen(err)
		}
	}
	return nil
}
