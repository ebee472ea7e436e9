package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
)

// Value is one value, open for reading. It stays what it was when it was opened,
// whatever is overwritten, deleted, flushed, collected or checkpointed meanwhile, and
// after the store was closed. While it is open its bytes stay on the disk. Close it.
//
// ReadAt, Size, Revision, Bytes and Close may be called by several goroutines; Read,
// Seek and WriteTo share a position and are for one.
type Value struct {
	small    []byte // a value that is in its cell
	blob     *mmap.Blob
	size     int64
	revision uint64
	at       int64
	ahead    []byte // what Read decoded last, and where it begins
	aheadAt  int64

	mu     sync.Mutex
	closed bool
}

var (
	_ io.ReadSeekCloser = (*Value)(nil)
	_ io.ReaderAt       = (*Value)(nil)
	_ io.WriterTo       = (*Value)(nil)
)

// OpenValue opens the value of key, or returns ErrNotFound. It reads none of a large
// value.
func (e *Engine) OpenValue(key []byte) (*Value, error) {
	for last := cow.Cell(nil); ; {
		cell, _, err := e.find(key)
		if err != nil {
			return nil, err
		}
		v, err := e.openValue(cell)
		if !collected(err, cell, last) {
			return v, err
		}
		last = cell
	}
}

// OpenValue opens the value that key had; see [Engine.OpenValue]. It outlives the
// snapshot.
func (s *Snapshot) OpenValue(key []byte) (*Value, error) {
	cell, _, err := s.find(key)
	if err != nil {
		return nil, err
	}
	v, err := s.e.openValue(cell)
	return v, s.because(err)
}

func (e *Engine) openValue(cell cow.Cell) (*Value, error) {
	v := &Value{revision: cell.Revision()}
	if cell.Kind() == cow.Value {
		// A copy: what is kept for long must not keep a whole generation.
		v.small = bytes.Clone(cell.Payload())
		v.size = int64(len(v.small))
		return v, nil
	}
	b, err := e.openBlob(cell)
	if err != nil {
		return nil, err
	}
	v.blob, v.size = b, b.Size()
	return v, nil
}

// Size is the length of the value in bytes.
func (v *Value) Size() int64 { return v.size }

// Revision is the commit number of the write that made the value.
func (v *Value) Revision() uint64 { return v.revision }

func (v *Value) isClosed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closed
}

// ReadAt implements io.ReaderAt. Of a compressed value it decodes only the frames, of
// 128 KiB, that it reads from.
func (v *Value) ReadAt(p []byte, off int64) (int, error) {
	if v.blob != nil {
		n, err := v.blob.ReadAt(p, off)
		return n, ended(err)
	}
	switch {
	case v.isClosed():
		return 0, ErrClosed
	case off < 0:
		return 0, fmt.Errorf("%w: ReadAt: offset %d", ErrArgument, off)
	}
	return bytes.NewReader(v.small).ReadAt(p, off)
}

// ended is door, except that the end of a value is no error of ours.
func ended(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, mmap.ErrCorrupt) {
		return io.EOF
	}
	return door(err)
}

// readAhead is how much Read takes at a time: a frame, which would be decoded for each
// of its parts anew.
const readAhead = 128 << 10

// Read implements io.Reader.
func (v *Value) Read(p []byte) (n int, err error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case v.blob == nil || len(p) >= readAhead || v.at >= v.size:
		n, err = v.ReadAt(p, v.at)
	case v.isClosed():
		return 0, ErrClosed
	default:
		if from := v.at - v.at%readAhead; len(v.ahead) == 0 || from != v.aheadAt {
			b := append(v.ahead[:0], make([]byte, min(readAhead, v.size-from))...)
			v.ahead, v.aheadAt = b[:0], from
			if _, err := v.ReadAt(b, from); err != nil && err != io.EOF {
				return 0, err
			}
			v.ahead = b
		}
		n = copy(p, v.ahead[v.at-v.aheadAt:])
	}
	if v.at += int64(n); n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Seek implements io.Seeker.
func (v *Value) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += v.at
	case io.SeekEnd:
		offset += v.size
	default:
		return 0, fmt.Errorf("%w: Seek: whence %d", ErrArgument, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("%w: Seek: to %d", ErrArgument, offset)
	}
	v.at = offset
	return offset, nil
}

// WriteTo writes what is left of the value to w; a whole one is decoded on all cores.
func (v *Value) WriteTo(w io.Writer) (n int64, err error) {
	to := &theirs{w: w}
	if v.blob != nil && v.at == 0 {
		n, err = v.blob.WriteTo(to)
	} else if v.at < v.size {
		n, err = io.CopyBuffer(struct{ io.Writer }{to}, io.NewSectionReader(v, v.at, v.size-v.at), make([]byte, 256<<10))
	}
	v.at += n
	if to.err != nil && !errors.Is(err, mmap.ErrCorrupt) { // a cut file may be EFAULT to them
		return n, to.err
	}
	return n, door(err)
}

// Bytes returns the whole value, which must not be changed and is valid until Close.
// Nothing is copied where the value is stored raw: then the slice is the file itself,
// mapped, and if the file is cut under it, reading it ends the process with SIGBUS,
// because your code is not ours to guard. [Options.NoMap] makes it a copy; so does a
// compressed value.
func (v *Value) Bytes() ([]byte, error) {
	if v.blob == nil {
		if v.isClosed() {
			return nil, ErrClosed
		}
		return v.small, nil
	}
	b, err := v.blob.Bytes()
	return b, door(err)
}

// Close gives the value up. It is idempotent.
func (v *Value) Close() error {
	v.mu.Lock()
	was := v.closed
	v.closed = true
	v.mu.Unlock()
	if was || v.blob == nil {
		return nil
	}
	return door(v.blob.Close())
}
