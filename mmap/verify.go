package mmap

import (
	"errors"
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

// Renew makes blobs of older packs durable that a process before this one may
// have left in the page cache alone, as a kill does. A sync of its own would not
// do: after one that failed, the kernel calls pages clean that the disk does not
// have. So the same bytes are written once more, over themselves, and synced; a
// crash in between changes nothing.
func (s *Store) Renew(refs [][]byte) error {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	byPack := make(map[uint64][]Ref)
	for _, ref := range refs {
		r, err := DecodeRef(ref)
		if err != nil {
			return err
		}
		byPack[r.Pack] = append(byPack[r.Pack], r)
	}
	for num, rs := range byPack {
		if err := s.renewPack(num, rs); err != nil {
			return fmt.Errorf("mmap: renew %s: %w", packName(num), err)
		}
	}
	if len(byPack) == 0 {
		return nil
	}
	return s.syncDir(s.o.FS, s.o.Dir)
}

func (s *Store) renewPack(num uint64, rs []Ref) (err error) {
	f, err := s.o.FS.OpenReadWrite(s.path(num), diskCategory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rewrite := func(off, n uint64) error {
		buf := getBuffer(256 << 10)
		defer putBuffer(buf)
		for n > 0 {
			b := (*buf)[:min(n, uint64(cap(*buf)))]
			if _, err := readFull(f, b, int64(off)); err != nil {
				return err
			}
			if _, err := f.WriteAt(b, int64(off)); err != nil {
				return err
			}
			off, n = off+uint64(len(b)), n-uint64(len(b))
		}
		return nil
	}
	if err := rewrite(0, packHeaderLen); err != nil {
		return err
	}
	for _, r := range rs {
		if err := rewrite(r.Offset, r.Stored); err != nil {
			return err
		}
	}
	return f.Sync() // with the size, which the process before may not have synced
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
