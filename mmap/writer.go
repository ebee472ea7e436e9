package mmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// sampleAfter is how much of a value of unknown size is looked at before its
// codec is chosen.
const sampleAfter = 1 << 20

// Writer takes a value whose size is not known. Its frames are encoded on all
// cores and written in order; Write waits where the disk is slower. A value of
// less than 8 MiB waits in memory for Finish, a larger one goes to a pack of
// its own as it comes.
//
// A Writer holds up to 8 MiB of encoded frames and twice GOMAXPROCS frames
// under way, each twice, as it came and as it goes; for a large value 16 bytes
// for each frame besides, 8 MiB for the largest.
//
// Write, ReadFrom and Finish are for one goroutine at a time; Abort may be
// called beside them. One of Finish and Abort must be called, or else the end
// of the context or Store.Close ends the Writer.
type Writer struct {
	s    *Store
	plan plan
	ctx  context.Context // ends with the caller's, Abort, Store.Close or the first failure
	stop context.CancelCauseFunc
	out  atomic.Pointer[stream] // nil until the codec is chosen
	held atomic.Int64           // bytes in early; in Store.held, too, until the context ends

	mu       sync.Mutex // held by Write, ReadFrom and Finish; guards all below
	buf      *[]byte    // the frame that is filled; nil before its first byte
	size     uint64
	hash     *xxhash.Digest
	early    []*[]byte // whole frames that wait for the choice
	finished bool
}

// plan is what the options say of a value; tests make its borders smaller.
type plan struct {
	compression Compression
	frameBytes  int
	maxValue    uint64
	// sample is how much of the value is looked at before its codec is chosen.
	sample uint64
	// soloValue is the size from which a value gets a pack of its own.
	soloValue uint64
}

// stopped is why a Writer ended, if it was not the caller's context.
type stopped struct{ err error }

func (e *stopped) Error() string { return e.err.Error() }

// NewWriter begins a value of unknown size. When ctx ends, Write and Finish
// return its error and the value is dropped.
func (s *Store) NewWriter(ctx context.Context) (*Writer, error) {
	return s.newWriter(ctx, plan{
		compression: s.o.Compression, frameBytes: s.o.FrameBytes, maxValue: MaxValue,
		sample: min(sampleAfter, uint64(s.o.SoloBytes)), soloValue: uint64(s.o.SoloBytes),
	})
}

func (s *Store) newWriter(ctx context.Context, p plan) (*Writer, error) {
	if s.o.ReadOnly {
		return nil, ErrReadOnly
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	w := &Writer{s: s, plan: p, hash: xxhash.New()}
	w.ctx, w.stop = context.WithCancelCause(ctx)
	context.AfterFunc(w.ctx, w.letGo)
	return w, w.failure()
}

// letGo takes what waits for the choice of a codec off the store's account.
func (w *Writer) letGo() { w.s.held.Add(-w.held.Swap(0)) }

// failure is why the Writer takes no more, nil while it does.
func (w *Writer) failure() error { return ended(w.ctx) }

func ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if s, ok := cause.(*stopped); ok {
		return s.err
	}
	if errors.Is(cause, err) {
		return fmt.Errorf("mmap: writer: %w", cause)
	}
	return fmt.Errorf("mmap: writer: %w: %w", err, cause)
}

// fail drops the value for a reason of ours, unless there is one already.
func (w *Writer) fail(err error) error {
	w.stop(&stopped{err})
	return w.failure()
}

// Write takes the next bytes of the value. It does not keep p.
func (w *Writer) Write(p []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(); err != nil {
		return 0, err
	}
	for len(p) > 0 {
		m := copy(w.room(), p)
		if err := w.advance(m); err != nil {
			return n, err
		}
		n, p = n+m, p[m:]
	}
	return n, nil
}

// ReadFrom takes the next bytes of the value from r until it ends, straight
// into the frames. After an error of r, what came before it is still part of
// the value. It cannot end an r.Read that waits.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for idle := 0; ; {
		if err := w.ready(); err != nil {
			return n, err
		}
		room := w.room()
		m, err := r.Read(room)
		if m < 0 || m > len(room) {
			return n, fmt.Errorf("mmap: writer: a Read of %d bytes returned %d", len(room), m)
		}
		if err2 := w.advance(m); err2 != nil {
			return n, err2
		}
		n += int64(m)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case m > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return n, io.ErrNoProgress
			}
		}
	}
}

// ready says whether the Writer takes more.
func (w *Writer) ready() error {
	if w.s.closed.Load() {
		return w.fail(ErrClosed)
	}
	return w.failure()
}

// room is the rest of the frame that is filled.
func (w *Writer) room() []byte {
	if w.buf == nil {
		w.buf = getFrame(w.plan.frameBytes)
		*w.buf = (*w.buf)[:0]
	}
	return (*w.buf)[len(*w.buf):w.plan.frameBytes]
}

// advance counts n bytes that came into room, and sends the frame on its way
// if it is whole.
func (w *Writer) advance(n int) error {
	*w.buf = (*w.buf)[:len(*w.buf)+n]
	w.size += uint64(n)
	if w.size > w.plan.maxValue {
		return w.fail(fmt.Errorf("%w: more than %d bytes", ErrTooLarge, w.plan.maxValue))
	}
	if len(*w.buf) < w.plan.frameBytes {
		return nil
	}
	return w.send()
}

// send ends the frame that is filled.
func (w *Writer) send() error {
	buf := w.buf
	w.buf = nil
	_, _ = w.hash.Write(*buf) // never fails
	if out := w.out.Load(); out != nil {
		return out.send(buf)
	}
	n := int64(len(*buf))
	w.early = append(w.early, buf)
	w.s.held.Add(n)
	if early := w.held.Add(n); w.ctx.Err() != nil {
		w.letGo() // its turn may have come before
	} else if early >= int64(w.plan.sample) || w.s.held.Load() > w.s.o.HeldBytes {
		return w.begin()
	}
	return nil
}

// begin chooses the codec by what came so far, and starts the stream.
func (w *Writer) begin() error {
	codec, enc := w.choose()
	out, err := w.s.newStream(w.ctx, w.stop, w.plan, codec, enc)
	if err != nil {
		return w.fail(err)
	}
	w.out.Store(out)
	early := w.early
	w.early = nil
	w.letGo() // from here on they are the stream's
	for _, buf := range early {
		if err := out.send(buf); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) choose() (Codec, *zstd.Encoder) {
	parts := make([][]byte, len(w.early))
	for i, b := range w.early {
		parts[i] = *b
	}
	codec, enc, gain := Raw, (*zstd.Encoder)(nil), 0
	switch w.plan.compression {
	case Auto:
		codec, enc, gain = Zstd, fastEncoder(), worthwhile
	case Fast:
		codec, enc = Zstd, fastEncoder()
	case Best:
		codec, enc = ZstdBest, bestEncoder()
	}
	if enc != nil && promising(parts, enc, gain) {
		return codec, enc
	}
	return Raw, nil
}

// Finish ends the value and returns its reference. The blob is readable at
// once; it is durable after Store.Sync. Its pack is pending until Settle.
func (w *Writer) Finish() (ref []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(); err != nil {
		return nil, err
	}
	if w.out.Load() == nil && w.size < w.plan.soloValue {
		ref, err = w.small()
	} else {
		ref, err = w.large()
	}
	if err != nil {
		return nil, w.fail(err)
	}
	w.finished = true
	w.stop(&stopped{ErrClosed})
	return ref, nil
}

// small ends a value that came to its end before a codec was chosen: all of it
// is known, as in Store.Write.
func (w *Writer) small() ([]byte, error) {
	if w.buf != nil {
		w.early = append(w.early, w.buf)
		w.buf = nil
	}
	var value []byte
	if len(w.early) == 1 {
		value = *w.early[0]
	} else {
		value = make([]byte, 0, w.size)
		for _, b := range w.early {
			value = append(value, *b...)
		}
	}
	e := encode(value, w.plan.compression, w.plan.frameBytes)
	ref, err := w.s.appendBlob(e)
	e.free()
	for _, b := range w.early {
		putFrame(b)
	}
	w.early = nil
	return ref, err
}

func (w *Writer) large() ([]byte, error) {
	if w.buf != nil && len(*w.buf) > 0 {
		if err := w.send(); err != nil {
			return nil, err
		}
	}
	if w.out.Load() == nil {
		if err := w.begin(); err != nil {
			return nil, err
		}
	}
	return w.out.Load().finish(w.size, w.hash.Sum64())
}

// Abort gives the value up and removes what was written of it. It waits for
// the call to the file system that is under way. It is idempotent, and after
// Finish it does nothing.
func (w *Writer) Abort() error {
	w.stop(&stopped{ErrClosed})
	out := w.out.Load()
	if out == nil {
		return nil
	}
	<-out.ended
	return out.dropErr
}
