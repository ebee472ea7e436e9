package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// desert is zeros with an oasis of so many bytes at some offsets, which ascend.
type desert struct {
	size   int64
	oases  []int64
	at     int64
	before int // oases that end at or below at
}

const oasisBytes = 4 << 10

// newDesert has an oasis in each of n equal parts, and one at either end.
func newDesert(size int64, n int) *desert {
	d := &desert{size: size, oases: []int64{0}}
	r := rand.New(rand.NewPCG(6, 4))
	for i, part := int64(0), size/int64(n); i < int64(n); i++ {
		d.oases = append(d.oases, i*part+oasisBytes+r.Int64N(part-3*oasisBytes))
	}
	d.oases = append(d.oases, size-oasisBytes)
	return d
}

// fill makes p what lies at off; no oasis before the first is looked at.
func (d *desert) fill(p []byte, off int64, first int) {
	clear(p)
	for _, o := range d.oases[first:] {
		if o >= off+int64(len(p)) {
			return
		}
		if o+oasisBytes <= off {
			continue
		}
		var oasis [oasisBytes]byte
		for i := 0; i < len(oasis); i += 8 {
			binary.LittleEndian.PutUint64(oasis[i:], uint64(o+int64(i)+1)*0x9e3779b97f4a7c15)
		}
		if o < off {
			copy(p, oasis[off-o:])
		} else {
			copy(p[o-off:], oasis[:])
		}
	}
}

func (d *desert) Read(p []byte) (int, error) {
	if d.at == d.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), d.size-d.at)]
	for d.before < len(d.oases) && d.oases[d.before]+oasisBytes <= d.at {
		d.before++
	}
	d.fill(p, d.at, d.before)
	d.at += int64(len(p))
	return len(p), nil
}

// sparseFS leaves holes where packs are written zeros: 64 GiB stored raw take what is not
// zero in them.
type sparseFS struct{ vfs.FS }

type sparseFile struct {
	vfs.File
	at int64
}

var zeros [1 << 20]byte

func (fs sparseFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, o...)
	if err != nil || !strings.HasSuffix(name, ".pack") {
		return f, err
	}
	return &sparseFile{File: f}, nil
}

// Write never ends a pack: a footer with checksums comes behind the zeros.
func (f *sparseFile) Write(p []byte) (n int, err error) {
	if len(p) > len(zeros) || !bytes.Equal(p, zeros[:len(p)]) {
		_, err = f.WriteAt(p, f.at)
	}
	f.at += int64(len(p))
	return len(p), err
}

// Goal (M9): the largest value that Create takes, compressed and raw, goes in and is read
// at any place, its last bytes too, in this life and the next, while the process grows by
// no more than 72 MiB above the share of mappings, 64 as for any value and 8 for what a
// Writer keeps of each frame; a byte more is too large.
func TestCreate_huge(t *testing.T) {
	if os.Getenv("HOLDFAST_HUGE") != "1" {
		t.Skip("HOLDFAST_HUGE=1 streams twice 64 GiB, nearly all of it zeros")
	}
	const size = MaxStreamed
	for name, c := range map[string]Compression{"compressed": CompressAuto, "raw": CompressNone} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := small(Options{Compression: c, FS: sparseFS{vfs.Default}})
			e, err := Open(dir, o)
			require.NoError(t, err)
			grown := growth(t)
			d := newDesert(size, 1000)
			began := time.Now()
			w, err := e.Create(context.Background(), []byte("huge"))
			require.NoError(t, err)
			n, err := w.ReadFrom(d)
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			require.NoError(t, w.Close())
			in := time.Since(began)
			i, err := e.Stat([]byte("huge"))
			require.NoError(t, err)
			require.EqualValues(t, size, i.Size)
			require.Equal(t, map[string]string{"compressed": "zstd", "raw": "raw"}[name], i.Codec)
			require.Equal(t, size/(128<<10), i.Frames)

			for life := range 2 {
				if life == 1 {
					require.NoError(t, e.Close())
					e, err = Open(dir, o)
					require.NoError(t, err)
				}
				readDesert(t, e, d)
			}
			limit := o.shares().mapped + 72<<20
			most := grown()
			t.Logf("%s: in after %v, %d MiB stored, %d MiB on disk, %d MiB resident above the start, limit %d",
				name, in.Round(time.Second), i.Stored>>20, allocatedBytes(t, dir)>>20, most>>20, limit>>20)
			require.LessOrEqual(t, most, limit)

			w, err = e.Create(context.Background(), []byte("more"))
			require.NoError(t, err)
			w.n = size // as if so much had come
			_, err = w.Write([]byte{0})
			require.ErrorIs(t, err, ErrTooLarge)
			require.NoError(t, e.Delete([]byte("huge")))
			require.NoError(t, e.Flush(context.Background()))
			eventually(t, 10*time.Second, "64 GiB are not given back", func() bool { return packDisk(t, dir) == 0 })
			require.NoError(t, e.Close())
		})
	}
}

// readDesert reads at oases, at their borders and in between, and at the very end.
func readDesert(t *testing.T, e *Engine, d *desert) {
	t.Helper()
	v, err := e.OpenValue([]byte("huge"))
	require.NoError(t, err)
	defer v.Close()
	require.Equal(t, d.size, v.Size())
	r := rand.New(rand.NewPCG(8, 8))
	p, want := make([]byte, 10_000), make([]byte, 10_000)
	for i := range 3000 {
		off := r.Int64N(d.size - int64(len(p)))
		if i%2 == 0 {
			off = max(0, min(d.oases[r.IntN(len(d.oases))]-r.Int64N(int64(len(p))), d.size-int64(len(p))))
		}
		_, err := v.ReadAt(p, off)
		require.NoError(t, err)
		d.fill(want, off, 0)
		require.True(t, bytes.Equal(want, p), "at %d", off)
	}
	n, err := v.ReadAt(p, d.size-100)
	require.ErrorIs(t, err, io.EOF)
	d.fill(want[:100], d.size-100, 0)
	require.Equal(t, want[:100], p[:n])
	_, err = v.ReadAt(p[:1], d.size)
	require.ErrorIs(t, err, io.EOF)
}

// growth says in the end by how much the process grew at most.
func growth(t *testing.T) (most func() int64) {
	t.Helper()
	debug.FreeOSMemory() // of what came before
	base := resident(os.Getpid())
	require.Positive(t, base)
	var high atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				high.Store(max(high.Load(), resident(os.Getpid())-base))
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return high.Load()
	}
}

// allocatedBytes is what the packs take on the disk, holes not counted.
func allocatedBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	names, err := os.ReadDir(dir + "/" + packsName)
	require.NoError(t, err)
	for _, name := range names {
		var st syscall.Stat_t
		require.NoError(t, syscall.Stat(dir+"/"+packsName+"/"+name.Name(), &st))
		n += st.Blocks * 512
	}
	return n
}
