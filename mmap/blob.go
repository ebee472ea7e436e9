package mmap

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// Blob is a pin on one value: while it is open its pack is not closed and its
// mapping is not unmapped, whatever happens to the store. Its methods may be
// called by several goroutines.
type Blob struct {
	s   *Store
	ref Ref
	p   *pack
	at  uint64 // where the blob lies in the file

	mu     sync.Mutex // guards users, closed and the making of layout and win
	users  int
	closed bool

	layout atomic.Pointer[layout]
	win    atomic.Pointer[window] // nil: read through the file
}

// Open pins the value of a reference. It reads none of it.
func (s *Store) Open(ref []byte) (*Blob, error) {
	r, err := DecodeRef(ref)
	if err != nil {
		return nil, err
	}
	if s.closed.Load() {
		return nil, ErrClosed
	}
	p, err := s.acquire(r.Pack)
	if err != nil {
		return nil, s.seen(err)
	}
	at, ok := p.place(r.Offset)
	if !ok {
		s.release(p)
		return nil, fmt.Errorf("%w: blob at %d of %s was collected", ErrMissing, r.Offset, packName(r.Pack))
	}
	if end := at + r.Stored; end > p.published.Load() {
		s.release(p)
		return nil, s.seen(p.corrupt(at, fmt.Sprintf("blob ends at %d, pack at %d", end, p.published.Load()), nil))
	}
	b := &Blob{s: s, ref: r, p: p, at: at}
	if w := s.windows.get(windowKey{r.Pack, r.Offset}); w != nil {
		if w.ref == r {
			b.win.Store(w)
			b.layout.Store(w.layout)
		} else {
			s.windows.put(w) // another reference to the same place; one of them lies
		}
	}
	return b, nil
}

// Size is the length of the value.
func (b *Blob) Size() int64 { return int64(b.ref.Size) }

// Codec says how the value is stored.
func (b *Blob) Codec() Codec { return b.ref.Codec }

// Mapped says whether the value is read through a mapping now.
func (b *Blob) Mapped() bool { return b.win.Load() != nil }

func (b *Blob) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.users++
	return nil
}

func (b *Blob) leave() {
	b.mu.Lock()
	b.users--
	last := b.closed && b.users == 0
	b.mu.Unlock()
	if last {
		b.free()
	}
}

// Close gives the pin back, after the last call that is under way. It is
// idempotent.
func (b *Blob) Close() error {
	b.mu.Lock()
	last := !b.closed && b.users == 0
	b.closed = true
	b.mu.Unlock()
	if last {
		b.free()
	}
	return nil
}

func (b *Blob) free() {
	if w := b.win.Swap(nil); w != nil {
		b.s.windows.put(w)
	}
	b.s.release(b.p)
}

// fetch copies bytes of the blob, counted from its header, into dst.
func (b *Blob) fetch(dst []byte, at uint64) error {
	if w := b.win.Load(); w != nil {
		return b.faulted(w, at, guard(w.region, func() error {
			copy(dst, w.blob[at:])
			return nil
		}))
	}
	return b.p.read(dst, b.at+at)
}

// faulted turns a fault into ErrCorrupt and takes the mapping out of use.
func (b *Blob) faulted(w *window, at uint64, err error) error {
	var f *fault
	if err == nil || !errors.As(err, &f) {
		return err
	}
	b.s.stats.faults.Add(1)
	b.s.windows.forget(w)
	return b.p.corrupt(b.at+at, "mapped page is gone", f)
}

// load reads and verifies header and footer, once.
func (b *Blob) load() error {
	if b.layout.Load() != nil {
		return nil
	}
	r := b.ref
	head := make([]byte, blobHeaderLen)
	if err := b.fetch(head, 0); err != nil {
		return b.s.seen(err)
	}
	frameBytes, footerSum, err := decodeBlobHeader(head, b.s.o.UUID, r)
	if err != nil {
		return b.s.seen(err)
	}
	// Allocated only now: the header vouches for the number of frames, and the
	// pack is at least as long.
	tail := make([]byte, tailLen(r.Codec, frames(r.Size, frameBytes)))
	if err := b.fetch(tail, r.Stored-uint64(len(tail))); err != nil {
		return b.s.seen(err)
	}
	l, err := decodeTail(tail, r, frameBytes, footerSum)
	if err != nil {
		return b.s.seen(err)
	}
	b.layout.CompareAndSwap(nil, l)
	return nil
}

// mapped tries to have a mapping. A failure is not one: pread does the same.
func (b *Blob) mapped(evict bool) *window {
	if w := b.win.Load(); w != nil {
		return w
	}
	r := b.ref
	if b.p.synced.Load() < b.at+r.Stored {
		return nil // M6
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.win.Load(); w != nil {
		return w
	}
	ws := &b.s.windows
	w := ws.get(windowKey{r.Pack, r.Offset})
	if w == nil {
		if w = b.mapNew(evict); w == nil {
			return nil
		}
	}
	if w.ref != r {
		ws.put(w)
		return nil
	}
	b.win.Store(w)
	return w
}

func (b *Blob) mapNew(evict bool) *window {
	r, ws := b.ref, &b.s.windows
	fd := b.p.file.Fd()
	if ws.maxBytes == 0 || fd == ^uintptr(0) {
		return nil
	}
	start := b.at &^ uint64(pageSize-1)
	n := b.at + r.Stored - start
	if n > uint64(ws.maxBytes) || !ws.reserve(pages(int(n)), evict) {
		return nil
	}
	region, err := mapFile(fd, int64(start), int(n))
	if err != nil {
		ws.unreserve(pages(int(n)))
		b.s.log.Debug("mmap: no mapping, reading instead", "pack", packName(r.Pack), "err", err)
		return nil
	}
	l := b.layout.Load()
	return ws.add(&window{
		key: windowKey{r.Pack, r.Offset}, ref: r, region: region, blob: region[b.at-start:],
		layout: l, verified: make([]atomic.Uint32, (len(l.sums)+31)/32),
	})
}

// frame fills dst with what frame i holds; dst is exactly as long.
func (b *Blob) frame(l *layout, i uint64, dst []byte) error {
	from, to := l.stored(i, b.ref.Size)
	at := blobHeaderLen + from
	stored := dst
	if b.ref.Codec == Zstd {
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		stored = *buf
	}
	if err := b.fetch(stored, at); err != nil {
		return err
	}
	// Checked on the copy, so that nothing can change in between.
	if checksum(stored) != l.sums[i] {
		return b.p.corrupt(b.at+at, fmt.Sprintf("frame %d: checksum", i), nil)
	}
	if b.ref.Codec == Zstd {
		if err := decodeFrame(dst, stored); err != nil {
			return b.p.corrupt(b.at+at, fmt.Sprintf("frame %d", i), err)
		}
	}
	return nil
}

// begin is what every reading method does first.
func (b *Blob) begin(evict bool) (*layout, *window, error) {
	if err := b.load(); err != nil {
		return nil, nil, err
	}
	w := b.mapped(evict)
	return b.layout.Load(), w, nil
}

// AppendTo appends the whole value to dst, verified.
func (b *Blob) AppendTo(dst []byte) ([]byte, error) {
	if err := b.enter(); err != nil {
		return dst, err
	}
	defer b.leave()
	return b.appendTo(dst)
}

func (b *Blob) appendTo(dst []byte) ([]byte, error) {
	l, _, err := b.begin(false)
	if err != nil {
		return dst, err
	}
	was := len(dst)
	if b.ref.Size <= 16*b.ref.Stored { // else let the frames prove it
		dst = slices.Grow(dst, int(b.ref.Size))
	}
	for i := range uint64(len(l.sums)) {
		from, to := l.span(i, b.ref.Size)
		n := len(dst)
		dst = slices.Grow(dst, int(to-from))[:n+int(to-from)]
		if err := b.frame(l, i, dst[n:]); err != nil {
			return dst[:was], b.s.seen(err)
		}
	}
	return dst, nil
}

// View calls fn with the value; the slice is valid inside fn only and must not
// be modified. A raw value is not copied: it is the mapping itself, verified
// and made resident first. If its file is cut while fn reads, View returns
// ErrCorrupt. What fn returns or panics with comes through unchanged.
func (b *Blob) View(fn func(value []byte) error) error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	l, w, err := b.begin(b.ref.Codec == Raw)
	if err != nil {
		return err
	}
	if b.ref.Codec == Raw && w != nil {
		if err := b.verifyWindow(l, w); err != nil {
			return b.s.seen(err)
		}
		value := w.blob[blobHeaderLen:][:b.ref.Size:b.ref.Size]
		return b.faulted(w, blobHeaderLen, guard(w.region, func() error { return fn(value) }))
	}
	buf := getBuffer(0)
	defer putBuffer(buf)
	if *buf, err = b.appendTo((*buf)[:0]); err != nil {
		return err
	}
	return fn(*buf)
}

// verifyWindow makes a raw blob's mapping resident and verifies what was not
// verified in this mapping yet.
func (b *Blob) verifyWindow(l *layout, w *window) error {
	if err := populate(w.region); err != nil {
		return b.faulted(w, 0, &fault{err})
	}
	if w.all.Load() {
		return nil
	}
	for i := range uint64(len(l.sums)) {
		if err := b.verifyMapped(l, w, i); err != nil {
			return err
		}
	}
	w.all.Store(true)
	return nil
}

func (b *Blob) verifyMapped(l *layout, w *window, i uint64) error {
	if w.isVerified(i) {
		return nil
	}
	from, to := l.stored(i, b.ref.Size)
	var sum uint32
	err := guard(w.region, func() error {
		sum = checksum(w.blob[blobHeaderLen+from : blobHeaderLen+to])
		return nil
	})
	if err != nil {
		return b.faulted(w, blobHeaderLen+from, err)
	}
	if sum != l.sums[i] {
		b.s.windows.forget(w)
		return b.p.corrupt(b.at+blobHeaderLen+from, fmt.Sprintf("frame %d: checksum", i), nil)
	}
	w.setVerified(i)
	return nil
}

// ReadAt reads a part of the value, decoding only the frames it lies in.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	if off < 0 {
		return 0, fmt.Errorf("mmap: ReadAt: negative offset %d", off)
	}
	size := b.ref.Size
	if uint64(off) >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	l, w, err := b.begin(false)
	if err != nil {
		return 0, err
	}
	var n int
	for n < len(p) && uint64(off)+uint64(n) < size {
		at := uint64(off) + uint64(n)
		m, err := b.readPart(l, w, p[n:], at)
		n += m
		if err != nil {
			return n, b.s.seen(err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readPart reads from one frame.
func (b *Blob) readPart(l *layout, w *window, p []byte, at uint64) (int, error) {
	i := at / l.frameBytes
	from, to := l.span(i, b.ref.Size)
	n := min(uint64(len(p)), to-at)
	switch {
	case at == from && n == to-from:
		if err := b.frame(l, i, p[:n]); err != nil {
			return 0, err
		}
	case b.ref.Codec == Raw && w != nil:
		if err := b.verifyMapped(l, w, i); err != nil {
			return 0, err
		}
		if err := b.fetch(p[:n], blobHeaderLen+at); err != nil {
			return 0, err
		}
	default:
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		if err := b.frame(l, i, *buf); err != nil {
			return 0, err
		}
		copy(p[:n], (*buf)[at-from:])
	}
	return int(n), nil
}
