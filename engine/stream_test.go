package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func streamOptions() Options {
	return Options{MemoryBudget: 32 << 20, LargeValue: 64 << 10, DiskReserve: -1}
}

// sequential shows Read and Seek alone, so that they are what is tested.
type sequential struct{ io.ReadSeeker }

// Goal: what was streamed in is read back in every way there is, at every border of
// size, compressed or not, in this life and the next.
func TestCreate_everySize(t *testing.T) {
	sizes := []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 1 << 20, 8<<20 - 1, 8 << 20, 8<<20 + 1, 11_000_000}
	if testing.Short() {
		sizes = []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 1 << 20, 8<<20 + 1}
	}
	for _, c := range []Compression{CompressAuto, CompressNone} {
		dir := t.TempDir()
		o := streamOptions()
		o.Compression = c
		e, err := Open(dir, &o)
		require.NoError(t, err)
		rnd := rand.New(rand.NewSource(1))
		values := map[string][]byte{}
		for _, n := range sizes {
			for how := range 4 {
				v := blobValue(rnd, n)
				if how%2 == 1 {
					v = bytes.Repeat([]byte("a state of some kind. "), n/22+1)[:n]
				}
				key := fmt.Sprintf("%d/%d", n, how)
				values[key] = v
				w, err := e.Create(context.Background(), []byte(key))
				require.NoError(t, err)
				switch how {
				case 2:
					_, err = w.ReadFrom(iotest.HalfReader(bytes.NewReader(v)))
				case 3: // in parts that fit nothing, from small to large
					_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(v)}, make([]byte, 10_007))
				default:
					_, err = w.Write(v)
				}
				require.NoError(t, err)
				_, err = e.Get([]byte(key))
				require.ErrorIs(t, err, ErrNotFound, "before Close")
				require.NoError(t, w.Close())
				require.NoError(t, w.Close())
				_, err = w.Write([]byte("more"))
				require.ErrorIs(t, err, ErrClosed)
				require.NoError(t, w.Abort())
			}
		}
		var out bytes.Buffer
		for life := range 2 {
			for key, want := range values {
				got, err := e.Get([]byte(key))
				require.NoError(t, err, key)
				require.True(t, bytes.Equal(want, got), "%s in life %d", key, life)
				v, err := e.OpenValue([]byte(key))
				require.NoError(t, err)
				require.Equal(t, int64(len(want)), v.Size())
				require.NotZero(t, v.Revision())
				if len(want) <= 1<<20 {
					require.NoError(t, iotest.TestReader(sequential{v}, want))
				}
				out.Reset()
				_, err = v.Seek(0, io.SeekStart)
				require.NoError(t, err)
				_, err = v.WriteTo(&out)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, out.Bytes()), key)
				at, err := v.Seek(-int64(len(want)/2), io.SeekEnd)
				require.NoError(t, err)
				out.Reset()
				_, err = v.WriteTo(&out)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want[at:], out.Bytes()), key)
				b, err := v.Bytes()
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, b), key)
				require.NoError(t, v.Close())
				_, err = v.ReadAt(make([]byte, 1), 0)
				require.ErrorIs(t, err, ErrClosed)
			}
			require.NoError(t, e.Close())
			e, err = Open(dir, &o)
			require.NoError(t, err)
		}
		require.NoError(t, e.Check(context.Background()))
		require.NoError(t, e.Close())
	}
}

// Goal: a writer that is dropped, for whatever reason, leaves nothing: no value, no
// file, and the key as it was.
func TestCreate_dropped(t *testing.T) {
	dir := t.TempDir()
	o := streamOptions()
	e, err := Open(dir, &o)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("old")))
	boom := errors.New("boom")
	rnd := rand.New(rand.NewSource(1))
	for _, n := range []int{0, 1000, 100_000, 9 << 20, 20 << 20} {
		for name, end := range map[string]func(w *Writer, cancel func()) error{
			"abort": func(w *Writer, _ func()) error { require.NoError(t, w.Abort()); return nil },
			"cancel": func(w *Writer, cancel func()) error {
				cancel()
				require.ErrorIs(t, w.Close(), context.Canceled)
				return nil
			},
			"reader": func(w *Writer, _ func()) error {
				_, err := w.ReadFrom(iotest.ErrReader(boom))
				require.ErrorIs(t, err, boom)
				return nil
			},
		} {
			ctx, cancel := context.WithCancel(context.Background())
			w, err := e.Create(ctx, []byte("k"))
			require.NoError(t, err)
			_, err = w.Write(blobValue(rnd, n))
			require.NoError(t, err)
			require.NoError(t, end(w, cancel))
			require.Error(t, w.Close(), name)
			_, err = w.Write([]byte("more"))
			require.Error(t, err, name)
			got, err := e.Get([]byte("k"))
			require.NoError(t, err)
			require.Equal(t, "old", string(got))
			cancel()
		}
	}
	require.Zero(t, packDisk(t, dir))
	w, err := e.Create(context.Background(), []byte("k"))
	require.NoError(t, err)
	_, err = w.Write(blobValue(rnd, 20<<20))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.Zero(t, packDisk(t, dir), "an open writer goes with the store")
	require.ErrorIs(t, w.Close(), ErrClosed)
}

// Goal: an open value keeps its bytes over overwrite, checkpoint, delete, flush, collection
// and close of the store, and its room comes back when nobody has it. A checkpoint takes
// no notice of a value that is on its way in.
func TestOpenValue_keeps(t *testing.T) {
	for _, c := range []Compression{CompressAuto, CompressNone} {
		dir := t.TempDir()
		o := streamOptions()
		o.Compression = c
		e, err := Open(dir, &o)
		require.NoError(t, err)
		want := blobValue(rand.New(rand.NewSource(1)), 10<<20)
		if c == CompressAuto {
			want = bytes.Repeat([]byte("a state of some kind. "), 1<<19)
		}
		require.NoError(t, e.Put([]byte("k"), want))
		v, err := e.OpenValue([]byte("k"))
		require.NoError(t, err)
		w, err := e.Create(context.Background(), []byte("k"))
		require.NoError(t, err)
		_, err = w.Write(want)
		require.NoError(t, err)
		require.NoError(t, e.Put([]byte("k"), want[1:]))
		copied := t.TempDir() + "/copy"
		require.NoError(t, e.Checkpoint(context.Background(), copied))
		require.NoError(t, w.Abort())
		other, err := Open(copied, &o)
		require.NoError(t, err)
		got, err := other.Get([]byte("k"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[1:], got))
		require.NoError(t, other.Close())
		require.NoError(t, e.Delete([]byte("k")))
		require.NoError(t, e.Flush(context.Background()))
		eventually(t, 10e9, "disk is not given back", func() bool { return packDisk(t, dir) < slackValues*int64(o.LargeValue) })
		part := make([]byte, 5000)
		_, err = v.ReadAt(part, 3<<20)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[3<<20:][:5000], part))
		require.NoError(t, e.Close())
		b, err := v.Bytes()
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, b))
		require.NoError(t, v.Close())
	}
}

// Goal: an open value keeps its bytes while the pack it shares is rewritten without what
// died around it.
func TestOpenValue_keepsOverRewrite(t *testing.T) {
	e, err := Open(t.TempDir(), collectOptions())
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	want := blobValue(rnd, 1<<20)
	require.NoError(t, e.Put([]byte("kept"), want))
	for i := range 20 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "dies %d", i), blobValue(rnd, 1<<20)))
	}
	v, err := e.OpenValue([]byte("kept"))
	require.NoError(t, err)
	require.NoError(t, e.DeleteRange([]byte("dies"), []byte("diet")))
	require.NoError(t, e.Compact(context.Background()))
	require.Positive(t, e.Metrics().Collect.Rewritten)
	part := make([]byte, 5000)
	_, err = v.ReadAt(part, 500_000)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want[500_000:][:5000], part))
	b, err := v.Bytes()
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, b))
	require.NoError(t, v.Close())
	got, err := e.Get([]byte("kept"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// Goal: bad arguments have an error of their own.
func TestCreate_arguments(t *testing.T) {
	o := streamOptions()
	e, err := Open(t.TempDir(), &o)
	require.NoError(t, err)
	_, err = e.Create(nil, []byte("k")) //nolint:staticcheck
	require.ErrorIs(t, err, ErrArgument)
	_, err = e.Create(context.Background(), nil)
	require.ErrorIs(t, err, ErrEmptyKey)
	_, err = e.Create(context.Background(), make([]byte, MaxKey+1))
	require.ErrorIs(t, err, ErrTooLarge)
	w, err := e.Create(context.Background(), []byte("k"))
	require.NoError(t, err)
	w.n = MaxStreamed - 1
	_, err = w.Write([]byte("ab"))
	require.ErrorIs(t, err, ErrTooLarge)
	require.ErrorIs(t, w.Close(), ErrClosed)
	_, err = e.OpenValue([]byte("no"))
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	v, err := e.OpenValue([]byte("k"))
	require.NoError(t, err)
	_, err = v.Seek(-1, io.SeekStart)
	require.ErrorIs(t, err, ErrArgument)
	_, err = v.Seek(0, 9)
	require.ErrorIs(t, err, ErrArgument)
	_, err = v.ReadAt(nil, -1)
	require.ErrorIs(t, err, ErrArgument)
	require.NoError(t, v.Close())
	require.NoError(t, v.Close())
	_, err = v.Bytes()
	require.ErrorIs(t, err, ErrClosed)
	s, err := e.Snapshot()
	require.NoError(t, err)
	v, err = s.OpenValue([]byte("k"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	got, err := io.ReadAll(v)
	require.NoError(t, err)
	require.Equal(t, "v", string(got))
	require.NoError(t, e.Close())
	_, err = e.Create(context.Background(), []byte("k"))
	require.ErrorIs(t, err, ErrClosed)
}

// Goal: so is the cause of the caller's own context.
func TestCreate_foreignCause(t *testing.T) {
	o := streamOptions()
	e, err := Open(t.TempDir(), &o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	w, err := e.Create(ctx, []byte("k"))
	require.NoError(t, err)
	_, err = w.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	cancel(fmt.Errorf("another store: %w", ErrReadOnly))
	_, err = w.large.Write(nil) // the race that Write's own look at the context loses
	require.ErrorIs(t, w.drop(err), context.Canceled)
	require.NoError(t, e.Err())
	require.NoError(t, e.Close())
}

// Goal: an error of the caller's own reader or writer is the caller's: it comes back as
// it is, and this store is well.
func TestCreate_foreignErrors(t *testing.T) {
	o := streamOptions()
	e, err := Open(t.TempDir(), &o)
	require.NoError(t, err)
	for _, n := range []int64{0, 100, 1 << 20, 20 << 20} {
		for _, theirs := range []error{fmt.Errorf("pipe: %w", ErrReadOnly), syscall.ENOSPC, ErrCorrupt, io.ErrUnexpectedEOF} {
			w, err := e.Create(context.Background(), []byte("k"))
			require.NoError(t, err)
			_, err = w.ReadFrom(io.MultiReader(newNoise(n), iotest.ErrReader(theirs)))
			require.Equal(t, theirs, err)
			require.Error(t, w.Close())
			require.NoError(t, e.Err())
			require.NoError(t, e.Put([]byte("other"), make([]byte, n)))
			v, err := e.OpenValue([]byte("other"))
			require.NoError(t, err)
			if n > 0 {
				_, err = v.WriteTo(brokenWriter{theirs})
				require.Equal(t, theirs, err)
			}
			require.NoError(t, v.Close())
		}
	}
	require.NoError(t, e.Close())
}

type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }
