package mmap

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal (M7): readers of ten times the bound never have more resident by our count than
// the bound, read what is right, and are given pages back and not mappings.
func TestWindows_pastTheBound(t *testing.T) {
	const bound = 1 << 20
	reads := 1500
	if raceEnabled {
		reads = 500
	}
	for _, c := range []Compression{None, Fast} {
		s, _ := disk(t, func(o *Options) { o.Compression, o.MaxMappedBytes, o.FrameBytes = c, bound, 32<<10 })
		kind := "random"
		n := 1 << 20
		if c == Fast {
			kind, n = "text", 6<<20
		}
		var all []blobEntry
		var blobs []*Blob
		for i := range 10 {
			v := value(kind, n+i)
			all = append(all, blobEntry{v, put(t, s, v)})
		}
		require.NoError(t, s.Sync())
		for _, e := range all {
			b, err := s.Open(e.ref)
			require.NoError(t, err)
			blobs = append(blobs, b)
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 9))
				p := make([]byte, 1000)
				for range reads {
					i := r.IntN(len(all))
					off := r.IntN(len(all[i].v) - len(p))
					_, err := blobs[i].ReadAt(p, int64(off))
					if err != nil || !bytes.Equal(all[i].v[off:off+len(p)], p) {
						t.Errorf("value %d at %d: %v", i, off, err)
						return
					}
					if m := s.Metrics(); m.ResidentBytes > bound || m.ResidentBytes < 0 {
						t.Errorf("%d resident", m.ResidentBytes)
						return
					}
				}
			})
		}
		wg.Wait()
		for i, b := range blobs {
			var out bytes.Buffer
			_, err := b.WriteTo(&out)
			require.NoError(t, err)
			same(t, all[i].v, out.Bytes())
			require.LessOrEqual(t, s.Metrics().ResidentBytes, int64(bound))
		}
		m := s.Metrics()
		require.NotZero(t, m.GivenBack)
		require.Equal(t, 10, m.Mappings, "none was unmapped")
		require.Zero(t, m.MapRefused)
		for _, b := range blobs {
			require.NoError(t, b.Close())
		}
		s.DropMappings()
		require.Zero(t, s.Metrics().ResidentBytes)
		require.Zero(t, s.Metrics().MappedBytes)
		require.Zero(t, s.windows.idle.Len()+s.windows.busy.Len())
	}
}

// Goal (M7): a raw value larger than the bound is mapped for a View and for Bytes, and
// given back when they end; what was verified need not be verified again.
func TestBlob_Bytes_largerThanBound(t *testing.T) {
	const bound = 300_000
	s, _ := disk(t, func(o *Options) { o.Compression, o.MaxMappedBytes = None, bound })
	v, small := value("random", 2<<20), value("random", 100_000)
	ref, other := put(t, s, v), put(t, s, small)
	require.NoError(t, s.Sync())
	_, err := view(s, other)
	require.NoError(t, err)
	require.EqualValues(t, 100_000, s.Metrics().ResidentBytes)
	b, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, b.View(func(got []byte) error {
		same(t, v, got)
		require.EqualValues(t, 2<<20, s.Metrics().ResidentBytes, "the other was given back")
		return nil
	}))
	require.True(t, b.Mapped())
	require.Zero(t, s.Metrics().ResidentBytes)
	w := b.win.Load()
	require.True(t, w.all.Load())

	p := make([]byte, 100)
	for range 2 {
		_, err = b.ReadAt(p, 1<<20)
		require.NoError(t, err)
	}
	require.EqualValues(t, defaultFrameBytes, s.Metrics().ResidentBytes)
	first, err := b.Bytes()
	require.NoError(t, err)
	again, err := b.Bytes()
	require.NoError(t, err)
	require.Same(t, &first[0], &again[0])
	require.Same(t, &w.blob[blobHeaderLen], &first[0], "the mapping itself")
	_, err = view(s, other)
	require.NoError(t, err)
	require.EqualValues(t, 2<<20, s.Metrics().ResidentBytes, "Bytes are not given back for another")
	same(t, v, first)
	require.NoError(t, b.Close())
	require.Zero(t, s.Metrics().ResidentBytes)
	require.Zero(t, s.Metrics().Pins)
	_, err = b.Bytes()
	require.ErrorIs(t, err, ErrClosed)
}

// Goal: what is not raw, not mapped or not to be mapped is a copy, one for each Blob.
func TestBlob_Bytes_copy(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		s, _ := disk(t, func(o *Options) { o.NoMap = noMap })
		for _, kind := range []string{"text", "random", "zeros"} {
			for _, n := range []int{0, 1000, 600_000} {
				v := value(kind, n)
				b, err := s.Open(put(t, s, v))
				require.NoError(t, err)
				if noMap {
					require.NoError(t, s.Sync())
				}
				got, err := b.Bytes()
				require.NoError(t, err)
				require.NotNil(t, got)
				require.False(t, b.inside)
				again, err := b.Bytes()
				require.NoError(t, err)
				same(t, v, again)
				if n > 0 {
					require.Same(t, &got[0], &again[0])
				}
				require.NoError(t, b.Close())
				same(t, v, got)
			}
		}
		require.Zero(t, s.Metrics().MappingsMade)
	}
}

// cutWriter lets a test cut the file in the middle of a WriteTo.
type cutWriter struct {
	after int
	cut   func()
	out   io.Writer
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.after--; w.after == 0 {
		w.cut()
	}
	return w.out.Write(p)
}

// Goal (M6): a mapped file that is cut under a WriteTo, a Bytes or a parallel decode is
// ErrCorrupt, whether the bytes are read here or by the kernel, and the process lives.
func TestBlob_cutWhileMapped(t *testing.T) {
	for _, c := range []Compression{None, Fast} {
		for name, touch := range map[string]func(t *testing.T, b *Blob, cut func()) error{
			"WriteTo, in the middle": func(t *testing.T, b *Blob, cut func()) error {
				_, err := b.WriteTo(&cutWriter{3, cut, new(bytes.Buffer)})
				return err
			},
			"WriteTo, to a file": func(t *testing.T, b *Blob, cut func()) error {
				f, err := os.Create(filepath.Join(t.TempDir(), "out"))
				require.NoError(t, err)
				defer f.Close()
				_, err = b.WriteTo(&cutWriter{3, cut, f})
				return err
			},
			"WriteTo, before": func(t *testing.T, b *Blob, cut func()) error {
				cut()
				_, err := b.WriteTo(io.Discard)
				return err
			},
			"Bytes, before": func(t *testing.T, b *Blob, cut func()) error {
				cut()
				_, err := b.Bytes()
				return err
			},
			"AppendTo, before": func(t *testing.T, b *Blob, cut func()) error {
				cut()
				_, err := b.AppendTo(nil)
				return err
			},
		} {
			t.Run(c.String()+"/"+name, func(t *testing.T) {
				s, _ := disk(t, func(o *Options) { o.Compression = c })
				kind := "random"
				if c == Fast {
					kind = "text"
				}
				ref := put(t, s, value(kind, 8<<20))
				require.NoError(t, s.Sync())
				b, err := s.Open(ref)
				require.NoError(t, err)
				defer b.Close()
				require.NoError(t, b.View(func([]byte) error { return nil }))
				require.True(t, b.Mapped())
				was := debug.SetPanicOnFault(false)
				err = touch(t, b, func() { require.NoError(t, os.Truncate(b.p.name, 8192)) })
				require.False(t, debug.SetPanicOnFault(was))
				require.ErrorIs(t, err, ErrCorrupt)
				require.NotZero(t, s.Metrics().Faults)
			})
		}
	}
}

// Goal: WriteTo says what its writer does wrong, and leaves no goroutine and no pin when
// that panics.
func TestBlob_WriteTo_errors(t *testing.T) {
	s, _ := disk(t)
	mine := errors.New("mine")
	for _, kind := range []string{"text", "random"} {
		b, err := s.Open(put(t, s, value(kind, 3<<20)))
		require.NoError(t, err)
		n, err := b.WriteTo(writerFunc(func(p []byte) (int, error) { return 7, mine }))
		require.Equal(t, mine, err)
		require.EqualValues(t, 7, n)
		_, err = b.WriteTo(writerFunc(func(p []byte) (int, error) { return len(p) - 1, nil }))
		require.ErrorIs(t, err, io.ErrShortWrite)
		require.PanicsWithValue(t, "mine", func() {
			_, _ = b.WriteTo(writerFunc(func(p []byte) (int, error) { panic("mine") }))
		})
		require.NoError(t, b.Close())
		_, err = b.WriteTo(io.Discard)
		require.ErrorIs(t, err, ErrClosed)
	}
	require.Zero(t, s.Metrics().Pins)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Goal (I12): a value that lies in a mapping of ours may be written, and if its file is
// cut meanwhile the fault reaches the guard of its View, from whatever goroutine.
func TestStore_Write_fromCutMapping(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.Compression = None })
	ref := put(t, s, value("random", 8<<20))
	require.NoError(t, s.Sync())
	other, _ := disk(t, func(o *Options) { o.Compression = Fast })
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	err = b.View(func(v []byte) error {
		require.NoError(t, os.Truncate(b.p.name, 8192))
		_, err := other.Write(v)
		return err
	})
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: a small read of a frame that was verified and given back goes through the file;
// a second one makes the frame resident.
func TestBlob_ReadAt_again(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.Compression, o.FrameBytes = None, 32<<10 })
	v := value("random", 1<<20)
	ref := put(t, s, v)
	require.NoError(t, s.Sync())
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	p := make([]byte, 1000)
	read := func(off int) int64 {
		t.Helper()
		n, err := b.ReadAt(p, int64(off))
		require.NoError(t, err)
		require.Equal(t, v[off:off+n], p)
		return s.Metrics().ResidentBytes
	}
	require.EqualValues(t, 32<<10, read(5), "not verified before: the whole frame is looked at")
	ws := &s.windows
	ws.mu.Lock()
	ws.coolLocked(b.win.Load())
	ws.mu.Unlock()
	require.Zero(t, read(7))
	require.EqualValues(t, 32<<10, read(9))
	require.EqualValues(t, 32<<10, read(5))
	require.EqualValues(t, 64<<10, read(40<<10))
}
