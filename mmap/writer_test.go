package mmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// streamed writes a value in pieces of the given size; zero is through ReadFrom.
func streamed(s *Store, v []byte, piece int) ([]byte, error) {
	w, err := s.NewWriter(context.Background())
	if err != nil {
		return nil, err
	}
	if piece == 0 {
		n, err := w.ReadFrom(bytes.NewReader(v))
		if err == nil && n != int64(len(v)) {
			err = fmt.Errorf("ReadFrom took %d of %d bytes", n, len(v))
		}
		if err != nil {
			return nil, errors.Join(err, w.Abort())
		}
		return w.Finish()
	}
	for rest := v; len(rest) > 0; {
		n, err := w.Write(rest[:min(piece, len(rest))])
		if err != nil {
			return nil, errors.Join(err, w.Abort())
		}
		rest = rest[n:]
	}
	return w.Finish()
}

// everyWay reads a blob in each way there is; all must give the same.
func everyWay(t testing.TB, s *Store, ref, want []byte) {
	t.Helper()
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	require.EqualValues(t, len(want), b.Size())
	got, err := b.AppendTo(nil)
	require.NoError(t, err)
	same(t, want, got)
	require.NoError(t, b.View(func(v []byte) error { same(t, want, v); return nil }))
	out := bytes.NewBuffer(got[:0]) // fresh memory is slow under the race detector
	n, err := b.WriteTo(out)
	require.NoError(t, err)
	require.EqualValues(t, len(want), n)
	same(t, want, out.Bytes())
	for range 2 {
		got, err = b.Bytes()
		require.NoError(t, err)
		same(t, want, got)
	}
	r := rand.New(rand.NewPCG(uint64(len(want)), 3))
	for range 20 {
		off := r.IntN(len(want) + 1)
		p := make([]byte, min(r.IntN(300_000), len(want)-off))
		_, err := b.ReadAt(p, int64(off))
		if len(p) > 0 {
			require.NoError(t, err)
		}
		same(t, want[off:off+len(p)], p)
	}
	require.NoError(t, s.Verify(ref))
	require.NoError(t, s.Exists(ref))
}

// pending is how many blobs of all packs are not settled.
func pending(t testing.TB, s *Store) (n int) {
	t.Helper()
	infos := s.PackInfos()
	for _, i := range infos {
		n += i.Pending
	}
	return n
}

// Goal: a streamed value of every size around every border reads back as the same bytes
// given to Write do, before the sync, after it, and after reopening; and what is smaller
// than 8 MiB shares a pack.
func TestWriter_sizes(t *testing.T) {
	const frame = defaultFrameBytes
	sizes := []int{0, 1, frame - 1, frame, frame + 1, sampleAfter - 1, sampleAfter, sampleAfter + 1,
		soloBytes - frame, soloBytes - 1, soloBytes, soloBytes + 1, 20 << 20}
	pieces := []int{0, 1 << 20, 100_001}
	for ci, c := range []Compression{Auto, None, Fast, Best} {
		for ki, kind := range []string{"text", "random"} {
			t.Run(fmt.Sprintf("compression=%v/kind=%s", c, kind), func(t *testing.T) {
				s, dir := disk(t, func(o *Options) { o.Compression = c })
				type entry struct{ v, ref []byte }
				var all []entry
				for i, n := range sizes {
					if n > 2<<20 && (raceEnabled || testing.Short()) && (n != soloBytes+ci-1 || ki == ci%2) {
						continue // seconds, and nothing new
					}
					v := value(kind, n)
					ref, err := streamed(s, v, pieces[(i+ki)%3])
					require.NoError(t, err)
					plain := put(t, s, v)
					a, err := DecodeRef(ref)
					require.NoError(t, err)
					b, err := DecodeRef(plain)
					require.NoError(t, err)
					require.Equal(t, b.Hash, a.Hash)
					require.Equal(t, b.Size, a.Size)
					require.Equal(t, b.Codec, a.Codec)
					require.Equal(t, b.Stored, a.Stored)
					require.Equal(t, n >= soloBytes, a.Pack != b.Pack, "size %d", n)
					infos := s.PackInfos()
					for _, info := range infos {
						if info.Num == a.Pack && n >= soloBytes {
							require.Equal(t, PackInfo{Num: a.Pack, Bytes: int64(packHeaderLen + a.Stored), Pending: 1}, info)
						}
					}
					everyWay(t, s, ref, v)
					everyWay(t, s, plain, v)
					all = append(all, entry{v, ref})
				}
				require.Equal(t, 2*len(all), pending(t, s))
				require.NoError(t, s.Sync())
				for _, e := range all {
					everyWay(t, s, e.ref, e.v)
					s.Settle(e.ref)
				}
				require.Equal(t, len(all), pending(t, s))
				require.NoError(t, s.Close())
				s, err := Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID})
				require.NoError(t, err)
				for _, e := range all {
					everyWay(t, s, e.ref, e.v)
				}
				require.Zero(t, pending(t, s))
				require.NoError(t, s.Close())
			})
		}
	}
}

// Goal: a codec that was chosen by a beginning that compresses holds for a rest that does
// not, and the other way round.
func TestWriter_changingValue(t *testing.T) {
	s, _ := disk(t)
	text, random := value("text", 3<<20), value("random", 3<<20)
	for i, v := range [][]byte{append(bytes.Clone(text), random...), append(bytes.Clone(random), text...)} {
		ref, err := streamed(s, v, 0)
		require.NoError(t, err)
		everyWay(t, s, ref, v)
		r, err := DecodeRef(ref)
		require.NoError(t, err)
		require.Equal(t, i == 0, r.Codec.compressed())
		require.Less(t, r.Stored, uint64(len(v)+len(v)/1000+1000))
	}
}

// files are the names in the folder of the packs.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := s.o.FS.List(s.o.Dir)
	require.NoError(t, err)
	return names
}

// Goal: a value that is given up, at any stage and in any way, leaves no file, no pin and
// no goroutine, and the store writes on.
func TestWriter_Abort(t *testing.T) {
	mine := errors.New("mine")
	for name, end := range map[string]func(t *testing.T, s *Store, w *Writer, cancel context.CancelCauseFunc){
		"abort": func(t *testing.T, s *Store, w *Writer, _ context.CancelCauseFunc) {
			for range 3 {
				require.NoError(t, w.Abort())
			}
			_, err := w.Write([]byte("more"))
			require.ErrorIs(t, err, ErrClosed)
			_, err = w.Finish()
			require.ErrorIs(t, err, ErrClosed)
		},
		"cancel": func(t *testing.T, s *Store, w *Writer, cancel context.CancelCauseFunc) {
			cancel(mine)
			_, err := w.Write([]byte("more"))
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, mine)
			_, err = w.ReadFrom(bytes.NewReader([]byte("more")))
			require.ErrorIs(t, err, context.Canceled)
			_, err = w.Finish()
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, w.Abort())
		},
		"cancel, then finish": func(t *testing.T, s *Store, w *Writer, cancel context.CancelCauseFunc) {
			cancel(nil)
			_, err := w.Finish()
			require.ErrorIs(t, err, context.Canceled)
			require.NoError(t, w.Abort())
		},
		"too large": func(t *testing.T, s *Store, w *Writer, _ context.CancelCauseFunc) {
			w.plan.maxValue = w.size + 5
			_, err := w.Write([]byte("12345"))
			require.NoError(t, err)
			_, err = w.Write([]byte("6"))
			require.ErrorIs(t, err, ErrTooLarge)
			_, err = w.Finish()
			require.ErrorIs(t, err, ErrTooLarge)
			require.NoError(t, w.Abort())
		},
		"close": func(t *testing.T, s *Store, w *Writer, _ context.CancelCauseFunc) {
			require.NoError(t, s.Close())
			require.Empty(t, files(t, s), "before anybody calls the Writer again")
			_, err := w.Write([]byte("more"))
			require.ErrorIs(t, err, ErrClosed)
			_, err = w.Finish()
			require.ErrorIs(t, err, ErrClosed)
			require.NoError(t, w.Abort())
		},
	} {
		for _, n := range []int{0, 1, 1 << 20, soloBytes - 1, soloBytes, soloBytes + 3<<20} {
			for _, kind := range []string{"zeros", "random"} {
				if raceEnabled && n >= soloBytes-1 && (n == soloBytes) != (kind == "zeros") {
					continue // one kind for each size: seconds, and nothing new
				}
				t.Run(fmt.Sprintf("%s/size=%d/%s", name, n, kind), func(t *testing.T) {
					before := goleak.IgnoreCurrent()
					s, err := Open(Options{FS: vfs.NewMem(), Dir: "packs", UUID: testUUID})
					require.NoError(t, err)
					ctx, cancel := context.WithCancelCause(context.Background())
					defer cancel(nil)
					w, err := s.NewWriter(ctx)
					require.NoError(t, err)
					_, err = w.Write(value(kind, n))
					require.NoError(t, err)
					end(t, s, w, cancel)
					require.Empty(t, files(t, s))
					require.Zero(t, pending(t, s))
					if !s.closed.Load() {
						require.NoError(t, s.Verify(put(t, s, []byte("after"))))
					}
					require.NoError(t, s.Close())
					goleak.VerifyNone(t, before)
				})
			}
		}
	}
}

// Goal: what was finished stays, whatever is called after.
func TestWriter_Abort_afterFinish(t *testing.T) {
	s, _ := disk(t)
	for _, n := range []int{10, 2 << 20, soloBytes} {
		w, err := s.NewWriter(context.Background())
		require.NoError(t, err)
		v := value("random", n)
		_, err = w.Write(v)
		require.NoError(t, err)
		ref, err := w.Finish()
		require.NoError(t, err)
		require.NoError(t, w.Abort())
		_, err = w.Finish()
		require.ErrorIs(t, err, ErrClosed)
		everyWay(t, s, ref, v)
	}
	require.Equal(t, 3, pending(t, s))
}

// Goal: ReadFrom tells what its reader does wrong, keeps what came before, and ends with
// a reader that gives nothing.
func TestWriter_ReadFrom(t *testing.T) {
	s, _ := disk(t)
	w, err := s.NewWriter(context.Background())
	require.NoError(t, err)
	mine := errors.New("mine")
	n, err := w.ReadFrom(io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(mine)))
	require.ErrorIs(t, err, mine)
	require.EqualValues(t, 3, n)
	_, err = w.ReadFrom(readerFunc(func(p []byte) (int, error) { return 0, nil }))
	require.ErrorIs(t, err, io.ErrNoProgress)
	_, err = w.ReadFrom(readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil }))
	require.ErrorContains(t, err, "returned")
	n, err = w.ReadFrom(iotest.OneByteReader(bytes.NewReader([]byte("def"))))
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	n, err = w.ReadFrom(iotest.DataErrReader(bytes.NewReader([]byte("ghi"))))
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	ref, err := w.Finish()
	require.NoError(t, err)
	everyWay(t, s, ref, []byte("abcdefghi"))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Goal: a store that takes no writes takes no Writer.
func TestStore_NewWriter_refused(t *testing.T) {
	s, dir := disk(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.NewWriter(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, s.Close())
	_, err = s.NewWriter(context.Background())
	require.ErrorIs(t, err, ErrClosed)
	ro, err := Open(Options{FS: vfs.Default, Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	_, err = ro.NewWriter(context.Background())
	require.ErrorIs(t, err, ErrReadOnly)
	require.NoError(t, ro.Close())
	_, err = os.Stat(dir)
	require.NoError(t, err)
}

// Goal: I10. However many values of unknown size are under way, what they hold together is
// bounded: beyond it each goes to a pack of its own before it is large. All can be read, and
// nothing is held when they ended.
func TestWriter_held(t *testing.T) {
	const many, size, bound = 24, 600_000, 2 << 20
	s, _ := disk(t, func(o *Options) { o.HeldBytes = bound })
	writers, values := make([]*Writer, many), make([][]byte, many)
	for i := range writers {
		w, err := s.NewWriter(context.Background())
		require.NoError(t, err)
		writers[i], values[i] = w, value("random", size+i)
	}
	most := int64(0)
	for from := 0; from < size; from += size / 10 {
		for i, w := range writers {
			_, err := w.Write(values[i][from:min(from+size/10, size)])
			require.NoError(t, err)
			most = max(most, s.Held())
		}
	}
	t.Logf("%d of %d bytes were held at most", most, many*size)
	require.Greater(t, most, int64(bound/2))
	require.LessOrEqual(t, most, int64(bound+many*defaultFrameBytes), "each may be one frame above it")
	for i, w := range writers {
		if i%8 == 7 {
			require.NoError(t, w.Abort())
			continue
		}
		_, err := w.Write(values[i][size:])
		require.NoError(t, err)
		ref, err := w.Finish()
		require.NoError(t, err)
		everyWay(t, s, ref, values[i])
	}
	require.Eventually(t, func() bool { return s.Held() == 0 }, 5*time.Second, time.Millisecond)
}
