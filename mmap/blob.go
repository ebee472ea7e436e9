package mmap

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Blob is a pin on one value: while it is open its pack is not closed and its
// mapping is not unmapped, whatever happens to the store. Its methods may be
// called by several goroutines.
type Blob struct {
	s   *Store
	ref Ref
	p   *pack
	at  uint64 // where the blob lies in the file

	state  atomic.Int64 // calls under way, and blobClosed
	layout atomic.Pointer[layout]
	win    atomic.Pointer[window] // nil: read through the file

	mu sync.Mutex // held while win is made

	bytesMu sync.Mutex // guards what Bytes gave out
	bytes   []byte
	inside  bool // bytes are the mapping
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

// Frames is how many parts the value is cut into, from its header.
func (b *Blob) Frames() (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	if err := b.load(); err != nil {
		return 0, err
	}
	return len(b.layout.Load().sums), nil
}

// Codec says how the value is stored.
func (b *Blob) Codec() Codec { return b.ref.Codec }

// Mapped says whether the value is read through a mapping now.
func (b *Blob) Mapped() bool { return b.win.Load() != nil }

// blobClosed is the bit of Blob.state that says that Close was called; below it
// the calls under way are counted.
const blobClosed = 1 << 62

func (b *Blob) enter() error {
	for {
		was := b.state.Load()
		if was&blobClosed != 0 {
			return ErrClosed
		}
		if b.state.CompareAndSwap(was, was+1) {
			return nil
		}
	}
}

func (b *Blob) leave() {
	if b.state.Add(-1) == blobClosed {
		b.free()
	}
}

// Close gives the pin back, after the last call that is under way. It is
// idempotent.
func (b *Blob) Close() error {
	if b.state.Or(blobClosed) == 0 {
		b.free()
	}
	return nil
}

// free is called once: no call is under way, and none begins.
func (b *Blob) free() {
	if b.inside {
		b.s.windows.exit(b.win.Load())
	}
	b.bytes = nil
	if w := b.win.Swap(nil); w != nil {
		b.s.windows.put(w)
	}
	b.s.release(b.p)
}

// fetch copies bytes of the blob, counted from its header, into dst. It reads
// the file: what is read once needs no mapping.
func (b *Blob) fetch(dst []byte, at uint64) error { return b.p.read(dst, b.at+at) }

// fetchFrame copies frame i as it is stored into dst.
func (b *Blob) fetchFrame(dst []byte, l *layout, i uint64) error {
	from, to := l.stored(i, b.ref.Size)
	at := blobHeaderLen + from
	if w := b.win.Load(); w != nil && b.s.windows.touch(w, i, int64(to-from)) {
		return b.faulted(w, at, guard(w.region, func() error {
			copy(dst, w.blob[at:])
			return nil
		}))
	}
	return b.fetch(dst, at)
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
	l, _, err := b.readLayout()
	if err != nil {
		return b.s.seen(err)
	}
	b.layout.CompareAndSwap(nil, l)
	return nil
}

// readLayout reads what load keeps, and the bytes that it was made of.
func (b *Blob) readLayout() (*layout, []byte, error) {
	r := b.ref
	head := make([]byte, blobHeaderLen)
	if err := b.fetch(head, 0); err != nil {
		return nil, nil, err
	}
	frameBytes, footerSum, err := decodeBlobHeader(head, b.s.o.UUID, r)
	if err != nil {
		return nil, nil, err
	}
	// Allocated only now: the header vouches for the number of frames, and the
	// pack is at least as long.
	tail := make([]byte, tailLen(r.Codec, frames(r.Size, frameBytes)))
	if err := b.fetch(tail, r.Stored-uint64(len(tail))); err != nil {
		return nil, nil, err
	}
	l, err := decodeTail(tail, r, frameBytes, footerSum)
	return l, tail, err
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
	if ws.maxBytes == 0 || fd == vfs.InvalidFd {
		return nil
	}
	start := b.at &^ uint64(pageSize-1)
	n := b.at + r.Stored - start
	if !ws.reserve(pages(int(n)), evict) {
		return nil
	}
	region, err := mapFile(fd, int64(start), int(n))
	if err != nil {
		ws.unreserve(pages(int(n)))
		b.s.log.Debug("mmap: no mapping, reading instead", "pack", packName(r.Pack), "err", err)
		return nil
	}
	l := b.layout.Load()
	return ws.add(newWindow(r, region, region[b.at-start:], l))
}
