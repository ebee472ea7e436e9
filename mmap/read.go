package mmap

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// begin is what every reading method does first.
func (b *Blob) begin(evict bool) (*layout, *window, error) {
	if err := b.load(); err != nil {
		return nil, nil, err
	}
	w := b.mapped(evict)
	return b.layout.Load(), w, nil
}

// frame fills dst with what frame i holds; dst is exactly as long.
func (b *Blob) frame(l *layout, i uint64, dst []byte) error {
	from, to := l.stored(i, b.ref.Size)
	at := b.at + blobHeaderLen + from
	stored := dst
	if b.ref.Codec.compressed() {
		buf := getBuffer(int(to - from))
		defer putBuffer(buf)
		stored = *buf
	}
	if err := b.fetchFrame(stored, l, i); err != nil {
		return err
	}
	// Checked on the copy, so that nothing can change in between.
	if checksum(stored) != l.sums[i] {
		return b.p.corrupt(at, fmt.Sprintf("frame %d: checksum", i), nil)
	}
	if b.ref.Codec.compressed() {
		if err := decodeFrame(dst, stored); err != nil {
			return b.p.corrupt(at, fmt.Sprintf("frame %d", i), err)
		}
	}
	return nil
}

// width is how many goroutines read the value.
func (b *Blob) width() int {
	if b.ref.Codec.compressed() && b.ref.Size > parallelBytes {
		return runtime.GOMAXPROCS(0)
	}
	return 1
}

// AppendTo appends the whole value to dst, verified. A compressed value above
// 512 KiB is decoded on all cores.
func (b *Blob) AppendTo(dst []byte) ([]byte, error) {
	if err := b.enter(); err != nil {
		return dst, err
	}
	defer b.leave()
	return b.appendTo(dst)
}

// appendTo allocates the whole at once where the bytes on disk make the size
// believable. Else the frames prove it: what is allocated for the next ones is
// one frame, or as much as those before have filled (M5).
func (b *Blob) appendTo(dst []byte) ([]byte, error) {
	l, _, err := b.begin(false)
	if err != nil {
		return dst, err
	}
	was, size := len(dst), b.ref.Size
	believable := size <= 16*b.ref.Stored
	if believable {
		dst = slices.Grow(dst, int(size))
	}
	width := b.width()
	count := uint64(len(l.sums))
	for first := uint64(0); first < count; {
		n := count - first
		if !believable {
			n = min(n, max(first, 1))
		}
		from, _ := l.span(first, size)
		_, to := l.span(first+n-1, size)
		dst = slices.Grow(dst, int(to-from))[:len(dst)+int(to-from)]
		part := dst[len(dst)-int(to-from):]
		var failed firstError
		fan(int(n), width, func(i int) bool {
			f, t := l.span(first+uint64(i), size)
			return failed.at(i, b.frame(l, first+uint64(i), part[f-from:t-from]))
		})
		if failed.err != nil {
			return dst[:was], b.s.seen(failed.err)
		}
		first += n
	}
	return dst, nil
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
	case b.ref.Codec == Raw && w != nil && w.isVerified(i) && !w.again(i):
		if err := b.fetch(p[:n], blobHeaderLen+at); err != nil {
			return 0, err
		}
	case b.ref.Codec == Raw && w != nil && b.s.windows.touch(w, i, int64(to-from)):
		if err := b.verifyMapped(l, w, i); err != nil {
			return 0, err
		}
		at += blobHeaderLen
		err := guard(w.region, func() error {
			copy(p[:n], w.blob[at:])
			return nil
		})
		if err != nil {
			return 0, b.faulted(w, at, err)
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
