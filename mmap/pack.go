package mmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pack is one file, open for reading while somebody needs it.
type pack struct {
	num  uint64
	name string // with its folder

	// Guarded by packs.mu.
	refs    int
	removed bool // not in the table any more; its file goes with the last pin
	// pending counts the blobs in it whose references are neither committed nor
	// given up (M8).
	pending int

	// published is how many bytes readers may touch: all of an older pack,
	// what was written of one of ours.
	published atomic.Uint64
	// synced is how many of them may be mapped (M6).
	synced atomic.Uint64
	// statted is the length of a pack of an earlier open, or of a torn one, once PackInfos
	// asked. A torn one is longer than what was published: a write broke off.
	statted atomic.Int64
	torn    atomic.Bool

	mu    sync.Mutex // guards file and known; see release
	file  vfs.File
	known bool // header was verified in this open

	// Of a rewritten pack; set with known.
	rewritten bool
	moved     []moved // ascending
}

// maxOpenPacks bounds idle open files.
const maxOpenPacks = 128

// packs is the table of the packs there are.
type packs struct {
	mu     sync.Mutex
	m      map[uint64]*pack
	open   int
	closed bool
}

// acquire pins a pack and opens it if needed. A pinned pack stays open past
// Close of the store.
func (s *Store) acquire(num uint64) (*pack, error) {
	s.packs.mu.Lock()
	if s.packs.closed {
		s.packs.mu.Unlock()
		return nil, ErrClosed
	}
	p := s.packs.m[num]
	if p == nil {
		s.packs.mu.Unlock()
		return nil, fmt.Errorf("%w: %s", ErrMissing, packName(num))
	}
	p.refs++
	s.packs.mu.Unlock()

	if err := s.openPack(p); err != nil {
		s.release(p)
		return nil, err
	}
	return p, nil
}

func (s *Store) openPack(p *pack) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil {
		return nil
	}
	f, err := s.o.FS.Open(p.name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrMissing, err)
		}
		return fmt.Errorf("mmap: open pack: %w", err)
	}
	if !p.known {
		if err := s.checkPack(f, p); err != nil {
			return errors.Join(err, f.Close())
		}
		p.known = true
	}
	p.file = f
	s.packs.mu.Lock()
	s.packs.open++
	s.packs.mu.Unlock()
	return nil
}

// checkPack verifies the header of a pack and learns how long it is.
func (s *Store) checkPack(f vfs.File, p *pack) error {
	head := make([]byte, packHeaderLen)
	n, err := readFull(f, head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("mmap: %s: pack header: %w", packName(p.num), err)
	}
	rewritten, err := checkPackHeader(head[:n], s.o.UUID, p.num)
	if err != nil {
		return err
	}
	if p.published.Load() == 0 { // not one of ours
		fi, err := f.Stat()
		if err != nil {
			return fmt.Errorf("mmap: %s: stat: %w", packName(p.num), err)
		}
		if rewritten {
			if err := p.loadMoved(f, head, uint64(fi.Size())); err != nil {
				return err
			}
		}
		p.published.Store(uint64(fi.Size()))
		p.synced.Store(uint64(fi.Size()))
	}
	return nil
}

// release gives a pin back. Idle files are closed beyond a bound.
func (s *Store) release(p *pack) {
	s.packs.mu.Lock()
	p.refs--
	var f vfs.File
	if p.refs == 0 && (p.removed || s.packs.closed || s.packs.open > maxOpenPacks) {
		f, p.file = p.file, nil // nobody else holds p, and acquire waits for packs.mu
		if f != nil {
			s.packs.open--
		}
	}
	gone := p.refs == 0 && p.removed
	s.packs.mu.Unlock()
	if gone { // a reader may have mapped it since it was removed or replaced
		s.windows.dropPack(p.num)
	}
	if f != nil {
		if err := f.Close(); err != nil {
			s.log.Warn("mmap: closing a pack after reading", "pack", packName(p.num), "err", err)
		}
	}
}

// Remove unlinks a sealed pack: new readers get ErrMissing, those who have it
// pinned keep it, mapped or open, until they are done. That nothing live,
// no snapshot and no unflushed delete can still reach it is the caller's to
// know (I7), and so is the sync of the folder. A pack that is not sealed is
// refused with ErrNotSealed, one with blobs that no commit names yet with
// ErrPending (M8).
func (s *Store) Remove(num uint64) error {
	if s.o.ReadOnly {
		return ErrReadOnly
	}
	if s.closed.Load() {
		return ErrClosed
	}
	if s.writesTo(num) {
		return fmt.Errorf("%w: %s", ErrNotSealed, packName(num))
	}
	s.packs.mu.Lock()
	p := s.packs.m[num]
	if p == nil {
		s.packs.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrMissing, packName(num))
	}
	if p.pending > 0 {
		s.packs.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrPending, packName(num))
	}
	delete(s.packs.m, num)
	p.removed = true
	p.refs++ // so that release below closes it, if nobody else will
	s.packs.mu.Unlock()
	s.windows.dropPack(num)
	s.release(p)
	if err := s.o.FS.Remove(p.name); err != nil {
		return fmt.Errorf("mmap: remove pack: %w", err)
	}
	return nil
}

// read fills b from the pack. A pack that ends before is corrupt: whoever
// reads has a reference to bytes that were there.
func (p *pack) read(b []byte, off uint64) error {
	n, err := readFull(p.file, b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return p.corrupt(off+uint64(n), "pack is cut short", nil)
	}
	return fmt.Errorf("mmap: %s: read at %d: %w", packName(p.num), off, err)
}

func (p *pack) corrupt(off uint64, what string, err error) error {
	return &CorruptError{File: packName(p.num), Offset: int64(off), What: what, Err: err}
}

// readFull reads until b is full, the file ends or an error comes. A short
// read is not the end.
func readFull(r io.ReaderAt, b []byte, off int64) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.ReadAt(b[n:], off+int64(n))
		n += m
		if m == 0 && err == nil {
			err = io.ErrNoProgress
		}
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}
