package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
)

// MaxStreamed is the largest value, in bytes, that Create takes.
const MaxStreamed = mmap.MaxValue

// Writer streams one value into the store. Nothing is visible before Close, which
// commits the value like a Put; Abort drops it, and so does the store's Close, the end
// of the context, an error, and a crash. It holds at most some ten MiB of memory, or
// Options.LargeValue if that is more, whatever the size of the value; all of them together
// a sixteenth of the budget, or 8 MiB, and a MiB or two each. It is for one goroutine.
type Writer struct {
	e     *Engine
	ctx   context.Context
	key   []byte
	small []byte       // what was written, until it is large
	large *mmap.Writer // then this
	n     int64
	asked int64 // of n, for which there was room on the disk
	err   error // why it ended; errCommitted after a Close that went well
}

var (
	_ io.WriteCloser = (*Writer)(nil)
	_ io.ReaderFrom  = (*Writer)(nil)
)

// Create begins to stream a value for key. A Writer must end with Close or Abort.
func (e *Engine) Create(ctx context.Context, key []byte) (*Writer, error) {
	if err := hasContext("Create", ctx); err != nil {
		return nil, err
	}
	b := e.NewBatch()
	defer b.Close()
	if err := b.check(key); err != nil {
		return nil, err
	}
	w := &Writer{e: e, ctx: ctx, key: append([]byte(nil), key...)}
	if err := w.ready(0); err != nil {
		return nil, err
	}
	if err := e.awaitRoom(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// askEvery is how many bytes go by between two looks at the free space of the disk.
const askEvery = 8 << 20

// ready says whether n more bytes may be written.
func (w *Writer) ready(n int) error {
	e := w.e
	switch {
	case w.err != nil:
		return fmt.Errorf("%w: the writer of %.40q: %w", ErrClosed, w.key, w.err)
	case e.gate.closed.Load():
		return ErrClosed
	case e.log == nil:
		return ErrReadOnly
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case w.n+int64(n) > MaxStreamed:
		return fmt.Errorf("%w: value of more than %d bytes", ErrTooLarge, int64(MaxStreamed))
	}
	if err := e.writable(); err != nil {
		return err
	}
	if w.n+int64(n) < w.asked {
		return nil
	}
	w.asked = w.n + int64(n) + askEvery
	return e.checkDisk(int64(n) + askEvery)
}

// Write appends p to the value. After an error the value is dropped.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ready(len(p)); err != nil {
		return 0, w.drop(err)
	}
	if w.large == nil && len(w.small)+len(p) < w.e.opts.LargeValue {
		w.small = append(w.small, p...)
		w.n += int64(len(p))
		return len(p), nil
	}
	if err := w.grow(); err != nil {
		return 0, w.drop(err)
	}
	n, err := w.large.Write(p)
	w.n += int64(n)
	return n, w.drop(err)
}

// theirs keeps an error of the caller's reader or writer apart from the store's own:
// whatever it says, of another store or another disk, this one is well.
type theirs struct {
	r   io.Reader
	w   io.Writer
	err error
}

func (t *theirs) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// Unwrap tells mmap whom the bytes are for.
func (t *theirs) Unwrap() io.Writer { return t.w }

func (t *theirs) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	if err != nil {
		t.err = err
	}
	return n, err
}

// ReadFrom appends what r gives until its end. An error of r drops the value and is
// returned as it is.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	if err := w.ready(0); err != nil {
		return 0, w.drop(err)
	}
	from := &theirs{r: r}
	n, err = w.readFrom(from)
	if from.err != nil { // also one that looks like an end, of a body cut short
		w.end(errTheirs)
		return n, from.err
	}
	return n, w.drop(err)
}

func (w *Writer) readFrom(r io.Reader) (n int64, err error) {
	// What is not large is for Write, so that it becomes a value like any other.
	buf := make([]byte, min(w.e.opts.LargeValue, 64<<10))
	for w.large == nil {
		m, err := io.ReadFull(r, buf[:min(len(buf), w.e.opts.LargeValue-len(w.small))])
		if err == io.EOF {
			return n, nil
		}
		if _, err := w.Write(buf[:m]); err != nil {
			return n, err
		}
		if n += int64(m); err != nil {
			return n, nil // its end, or r's error, which the caller of this has
		}
	}
	// The room on the disk is asked for between the parts.
	for {
		if err := w.ready(0); err != nil {
			return n, err
		}
		m, err := w.large.ReadFrom(io.LimitReader(r, askEvery))
		w.n, n = w.n+m, n+m
		if err != nil || m < askEvery {
			return n, err
		}
	}
}

// grow moves what was written so far to a pack.
func (w *Writer) grow() (err error) {
	if w.large != nil {
		return nil
	}
	if w.large, err = w.e.packs.NewWriter(w.ctx); err != nil {
		return err
	}
	_, err = w.large.Write(w.small)
	w.small = nil
	return err
}

// drop ends the writer for a reason, if there is one, and says it as the door does.
func (w *Writer) drop(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(w.ctx); cause == nil || !errors.Is(err, cause) {
		err = w.e.packFailed(err) // a cause is the caller's, whatever it says
	}
	if w.err == nil {
		w.end(err)
	}
	return err
}

func (w *Writer) end(why error) {
	w.err, w.small = why, nil
	if w.large != nil {
		_ = w.large.Abort() // leftovers go at the next open
	}
}

// errWriter says how a writer ended.
type errWriter string

func (e errWriter) Error() string { return string(e) }

const (
	errCommitted = errWriter("it was committed")
	errAborted   = errWriter("it was aborted")
	errTheirs    = errWriter("its reader failed")
)

// Close commits the value: when it returns nil the value is visible and survives what
// Options.Sync says. After an error, other than ErrInDoubt, the key is as it was. A
// second Close returns nil after a first that did.
func (w *Writer) Close() error {
	if w.err == errCommitted {
		return nil
	}
	if err := w.ready(0); err != nil {
		return w.drop(err)
	}
	b := w.e.NewBatch()
	defer b.Close()
	if err := w.fill(b); err != nil {
		return w.drop(err)
	}
	if _, err := w.e.ApplyContext(w.ctx, b); err != nil {
		return w.drop(err)
	}
	w.err = errCommitted
	return nil
}

func (w *Writer) fill(b *Batch) error {
	if w.large == nil {
		return b.Put(w.key, w.small)
	}
	ref, err := w.large.Finish()
	if err != nil {
		return err
	}
	b.puts = true
	b.blobs = append(b.blobs, ref)
	return b.point(cow.Blob, w.key, ref)
}

// Abort drops the value. After Close it does nothing.
func (w *Writer) Abort() error {
	if w.err == nil {
		w.end(errAborted)
	}
	return nil
}
