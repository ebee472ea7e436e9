package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/compaction"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
)

func collectOptions() *Options {
	return &Options{MemoryBudget: 32 << 20, LargeValue: 4 << 10, Compression: CompressNone, Sync: SyncNever, DiskReserve: -1}
}

// packDisk is what the packs take on disk.
func packDisk(t testing.TB, dir string) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, packsName, "*"))
	require.NoError(t, err)
	for _, name := range names {
		if fi, err := os.Stat(name); err == nil { // else collected since
			n += fi.Size()
		}
	}
	return n
}

// eventually is for the test's own goroutine, until for any.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	require.True(t, until(limit, ok), what)
}

func until(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func blobValue(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	rnd.Read(b)
	return b
}

// requireExact compares account and index with the cells.
func requireExact(t testing.TB, e *Engine) {
	t.Helper()
	require.NoError(t, e.Flush(context.Background()))
	cells := map[compaction.BlobAt]string{}
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err)
		if item.cell.Kind() == cow.Blob {
			r, err := mmap.DecodeRef(item.cell.Payload())
			require.NoError(t, err)
			cells[compaction.BlobAt{Pack: r.Pack, Offset: r.Offset}] = string(item.Key())
		}
	}
	index := map[compaction.BlobAt]string{}
	base := e.store.Current()
	defer base.Release()
	require.NoError(t, base.EachBlob(func(pack, off, _ uint64, key []byte) error {
		index[compaction.BlobAt{Pack: pack, Offset: off}] = string(key)
		return nil
	}))
	require.Equal(t, cells, index)
	require.Equal(t, len(cells), e.Metrics().Collect.Keys)
}

// Goal (B1): a batch that is committed again, after a range delete took its large value,
// keeps that value, whether the flush of the range delete has the second commit or not.
func TestCollect_namedAgain(t *testing.T) {
	for _, together := range []bool{true, false} {
		t.Run(fmt.Sprintf("in one flush %t", together), func(t *testing.T) {
			dir := t.TempDir()
			e, err := Open(dir, collectOptions())
			require.NoError(t, err)
			defer e.Close()
			want := blobValue(rand.New(rand.NewSource(1)), 256<<10)
			b := e.NewBatch()
			require.NoError(t, b.Put([]byte("k"), want))
			commit := func() {
				_, err := e.Apply(b)
				require.NoError(t, err)
			}
			commit()
			require.NoError(t, e.Flush(context.Background()))
			require.NoError(t, e.DeleteRange([]byte("a"), []byte("z")))
			if !together {
				require.NoError(t, e.Flush(context.Background()))
			}
			commit()
			b.Close()
			require.NoError(t, e.Flush(context.Background()))
			require.EqualValues(t, 1, e.Metrics().Collect.Keys)
			requireExact(t, e)
			// Garbage beside it, so that its pack is worth rewriting.
			for range 40 {
				require.NoError(t, e.Put([]byte("other"), blobValue(rand.New(rand.NewSource(2)), 256<<10)))
			}
			require.NoError(t, e.Delete([]byte("other")))
			live := e.Metrics().Collect.Live
			require.Greater(t, live, int64(256<<10))
			require.NoError(t, e.Flush(context.Background()))
			eventually(t, 10*time.Second, "collected", func() bool { return float64(packDisk(t, dir)) <= 1.5*float64(live)+1<<20 })
			got, err := e.Get([]byte("k"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		})
	}
}

// Goal: Compact gives back at once what the collector would in its own time: whole packs
// and the garbage in others; what a snapshot reads stays.
func TestCollect_compact(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, collectOptions())
	require.NoError(t, err)
	defer e.Close()
	ctx := context.Background()
	want := blobValue(rand.New(rand.NewSource(1)), 256<<10)
	require.NoError(t, e.Put([]byte("kept"), want))
	for range 40 {
		require.NoError(t, e.Put([]byte("gone"), blobValue(rand.New(rand.NewSource(2)), 256<<10)))
	}
	s, err := e.Snapshot()
	require.NoError(t, err)
	require.NoError(t, e.Delete([]byte("gone")))
	require.NoError(t, e.Compact(ctx))
	_, err = s.Get([]byte("gone"))
	require.NoError(t, err)
	require.Greater(t, packDisk(t, dir), int64(512<<10))
	require.NoError(t, s.Close())
	require.NoError(t, e.Compact(ctx))
	require.Less(t, packDisk(t, dir), int64(512<<10))
	got, err := e.Get([]byte("kept"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, e.collectAll(canceled), context.Canceled)
}

// Goal (I10): writers that make garbage faster than it is collected wait for the
// collector, so that the packs never take a multiple of what they may.
func TestCollect_holdsWriters(t *testing.T) {
	dir := t.TempDir()
	o := collectOptions()
	o.MemoryBudget = 16 << 20
	e, err := Open(dir, o)
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	const live = 8 << 20
	most := int64(0)
	puts := 1500
	if testing.Short() {
		puts = 300
	}
	for i := range puts {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%d", i%8), blobValue(rnd, live/8)))
		if i%20 == 0 {
			most = max(most, packDisk(t, dir))
		}
	}
	// What is live and garbage up to the bound; beyond it what died since the collector
	// looked, and the rewrite under way.
	const bound = int64(live + 2*13*live/10)
	t.Logf("%d MiB at most, the bound is %d", most>>20, bound>>20)
	require.Less(t, most, 10*bound) // on a busy machine; 393 MiB where nobody waited
	if most > 2*bound {             // else the collector kept up, or nearly
		require.Positive(t, e.Metrics().Stall.Count)
	}
}

// Goal: garbage that the collector finds and cannot clear holds large values up, whatever
// the machine's pace.
func TestCollect_holdsWriters_found(t *testing.T) {
	o := collectOptions()
	o.MemoryBudget, o.StallLimit = 16<<20, 50*time.Millisecond
	e, err := Open(t.TempDir(), o)
	require.NoError(t, err)
	defer e.Close()
	put := func() error { return e.Put([]byte("k"), make([]byte, 1<<20)) }
	e.collecting.Lock() // it is busy with something else
	goOn := sync.OnceFunc(e.collecting.Unlock)
	defer goOn()
	for range 40 {
		require.NoError(t, put())
	}
	flush(t, e) // what died is garbage now
	e.weigh()
	require.ErrorIs(t, put(), ErrBusy)
	goOn()
	e.collector.kick()
	eventually(t, 10*time.Second, "the collector does not let writers go on", func() bool { return put() == nil })
	require.Positive(t, e.Metrics().Stall.Count)
}

// Goal: a large value that waits for the collector goes on when there is room, and gets
// ErrBusy after StallLimit; small ones do not wait.
func TestCollect_stall(t *testing.T) {
	o := collectOptions()
	o.StallLimit = 50 * time.Millisecond
	e, err := Open(t.TempDir(), o)
	require.NoError(t, err)
	defer e.Close()
	value := make([]byte, 8<<10)
	e.noteGarbage(o.MemoryBudget+1, o.MemoryBudget) // many times less than what is live
	require.NoError(t, e.Put([]byte("k"), value))
	e.noteGarbage(o.MemoryBudget+1, 1)
	require.ErrorIs(t, e.Put([]byte("k"), value), ErrBusy)
	_, err = e.Create(context.Background(), []byte("k"))
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, e.Put([]byte("k"), value[:100]))
	e.noteGarbage(0, 0)
	require.NoError(t, e.Put([]byte("k"), value))
}

// Goal: values that are overwritten again and again leave their room by themselves,
// and every one that is still there reads right.
func TestCollect_overwrites(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, collectOptions())
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	const keys, size = 100, 256 << 10
	want := make([][]byte, keys)
	for range 20 * keys {
		k := rnd.Intn(keys)
		if want[k] == nil {
			want[k] = make([]byte, size)
		}
		rnd.Read(want[k])
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%03d", k), want[k]))
	}
	live := e.Metrics().Collect.Live
	eventually(t, 10*time.Second, fmt.Sprintf("%d bytes for %d", packDisk(t, dir), live), func() bool {
		return float64(packDisk(t, dir)) <= 1.5*float64(live)
	})
	for k, v := range want {
		got, err := e.Get(fmt.Appendf(nil, "k%03d", k))
		if v == nil {
			require.ErrorIs(t, err, ErrNotFound)
			continue
		}
		require.NoError(t, err)
		require.True(t, bytes.Equal(v, got))
	}
	requireExact(t, e)
	require.NoError(t, e.Check(context.Background()))
	m := e.Metrics().Collect
	require.Positive(t, m.Rewritten)
	require.Positive(t, m.Removed)
}

// Goal: a delete gives the disk back within seconds without a call; so does a range
// delete, of what is in L3 and of what never came down.
func TestCollect_deletes(t *testing.T) {
	for name, remove := range map[string]func(e *Engine) error{
		"point": func(e *Engine) error {
			return errJoin(e.Delete([]byte("a")), e.Delete([]byte("b")))
		},
		"range":        func(e *Engine) error { return e.DeleteRange([]byte("a"), []byte("c")) },
		"small values": func(e *Engine) error { return errJoin(e.Put([]byte("a"), nil), e.Put([]byte("b"), nil)) },
	} {
		for _, flushed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " flushed ", flushed), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				e, err := Open(dir, collectOptions())
				require.NoError(t, err)
				defer e.Close()
				rnd := rand.New(rand.NewSource(1))
				require.NoError(t, e.Put([]byte("a"), blobValue(rnd, 3<<20)))
				require.NoError(t, e.Put([]byte("b"), blobValue(rnd, 3<<20)))
				require.NoError(t, e.Put([]byte("c"), []byte("small")))
				if flushed {
					require.NoError(t, e.Flush(context.Background()))
				}
				require.NoError(t, remove(e))
				eventually(t, 10*time.Second, "disk is not given back", func() bool { return packDisk(t, dir) == 0 })
				requireExact(t, e)
			})
		}
	}
}

func errJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Goal (I7): what a snapshot can see stays, and goes when the snapshot does; who has a
// value open keeps it.
func TestCollect_snapshot(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, collectOptions())
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	old := blobValue(rnd, 6<<20)
	require.NoError(t, e.Put([]byte("k"), old))
	require.NoError(t, e.Flush(context.Background()))
	s, err := e.Snapshot()
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("new")))
	require.NoError(t, e.Flush(context.Background()))
	time.Sleep(3 * collectEvery)
	got, err := s.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(old, got))

	began, done := make(chan struct{}), make(chan error)
	go func() {
		done <- s.View([]byte("k"), func(v []byte) error {
			close(began)
			if !until(10*time.Second, func() bool { return packDisk(t, dir) == 0 }) {
				return errors.New("disk is not given back")
			}
			if !bytes.Equal(v, old) {
				return fmt.Errorf("the value changed under its reader")
			}
			return nil
		})
	}()
	<-began
	require.NoError(t, s.Close())
	require.NoError(t, <-done)
}

// Goal (G: exactness): after any history account and index say what the cells say, in
// this life and the next.
func TestCollect_exact(t *testing.T) {
	for seed := range int64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			rnd := rand.New(rand.NewSource(seed))
			for life := range 4 {
				e, err := Open(dir, collectOptions())
				require.NoError(t, err)
				if life > 0 && seed%2 == 0 {
					requireExact(t, e)
				}
				again := e.NewBatch()
				for range 150 {
					key := fmt.Appendf(nil, "k%02d", rnd.Intn(40))
					switch rnd.Intn(12) {
					case 0:
						require.NoError(t, e.Flush(context.Background()))
					case 1, 2:
						require.NoError(t, e.Delete(key))
					case 3:
						require.NoError(t, e.DeleteRange(key, append(bytes.Clone(key), 0xff)))
					case 4:
						require.NoError(t, again.Put(key, blobValue(rnd, 5<<10)))
						_, err := e.Apply(again)
						require.NoError(t, err)
					case 5:
						_, err := e.Apply(again)
						require.NoError(t, err)
					case 6:
						again.Reset()
					case 7:
						require.NoError(t, e.Put(key, []byte("small")))
					default:
						require.NoError(t, e.Put(key, blobValue(rnd, 4<<10+rnd.Intn(64<<10))))
					}
				}
				again.Close()
				if seed%2 == 1 {
					requireExact(t, e)
				}
				require.NoError(t, e.Check(context.Background()))
				require.NoError(t, e.Close())
			}
		})
	}
}

// Goal: a range delete that a flush has seen leaves the collector asleep.
func TestCollect_rangeIsSeen(t *testing.T) {
	e, err := Open(t.TempDir(), collectOptions())
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Put([]byte("a"), make([]byte, 1<<20)))
	require.NoError(t, e.DeleteRange([]byte("b"), []byte("c")))
	_, _, ranges := e.blobs.waiting()
	require.True(t, ranges)
	require.NoError(t, e.Flush(context.Background()))
	dead, unflushed, ranges := e.blobs.waiting()
	require.False(t, dead)
	require.Zero(t, unflushed)
	require.False(t, ranges)
}

// Goal (I9): a store that became read-only removes and rewrites nothing.
func TestCollect_readOnly(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, collectOptions())
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Put([]byte("a"), blobValue(rand.New(rand.NewSource(1)), 3<<20)))
	s, err := e.Snapshot() // holds it until the store is read-only
	require.NoError(t, err)
	require.NoError(t, e.Delete([]byte("a")))
	require.NoError(t, e.Flush(context.Background()))
	before := packDisk(t, dir)
	require.NotZero(t, before)
	e.fail(errors.New("as after a failed sync"))
	require.NoError(t, s.Close())
	e.collector.kick()
	time.Sleep(4 * collectEvery)
	require.Equal(t, before, packDisk(t, dir))
}

// Goal: a rewrite for which there is no room is not begun, and done once there is.
func TestCollect_noRoom(t *testing.T) {
	fs := simfs.New(nil)
	o := collectOptions()
	o.FS, o.LargeValue, o.Sync = fs, 64<<10, SyncAlways
	e, err := Open("/store", o)
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	s, err := e.Snapshot() // until all is set up, nothing is collected
	require.NoError(t, err)
	for i := range 20 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), blobValue(rnd, 256<<10)))
	}
	require.NoError(t, e.packs.Seal())
	for i := range 10 {
		require.NoError(t, e.Delete(fmt.Appendf(nil, "k%02d", 2*i)))
	}
	require.NoError(t, e.Flush(context.Background()))
	u, err := fs.GetDiskUsage("/store")
	require.NoError(t, err)
	used := int64(u.UsedBytes)
	fs.SetCapacity(used + 1<<20) // 2.5 MiB are kept
	require.NoError(t, s.Close())
	e.collector.kick()
	time.Sleep(4 * collectEvery)
	require.Zero(t, e.Metrics().Collect.Rewritten)
	require.NotContains(t, fs.Trace(), ".pack.tmp")
	require.NoError(t, e.Err())
	fs.SetCapacity(used + 64<<20)
	eventually(t, 20*time.Second, "no rewrite", func() bool { return e.Metrics().Collect.Rewritten > 0 })
	for i := range 10 {
		_, err := e.Get(fmt.Appendf(nil, "k%02d", 2*i+1))
		require.NoError(t, err)
	}
}

// Goal: a caller that stops waiting for its commit leaves no pack that is never collected.
func TestCollect_inDoubt(t *testing.T) {
	dir := t.TempDir()
	o := collectOptions()
	o.Sync = SyncAlways
	e, err := Open(dir, o)
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	doubts := 0
	for i := range 600 {
		b := e.NewBatch()
		require.NoError(t, b.Put([]byte("k"), blobValue(rnd, 64<<10)))
		// Most end while the group is written, some before.
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(100+i)*time.Microsecond)
		_, err := e.ApplyContext(ctx, b)
		if errors.Is(err, ErrInDoubt) {
			doubts++
		} else if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		cancel()
		b.Close()
	}
	require.Positive(t, doubts)
	require.NoError(t, e.Put([]byte("k"), blobValue(rnd, 64<<10)))
	eventually(t, 10*time.Second, "a pack that nobody gives up", func() bool {
		require.NoError(t, e.Compact(context.Background()))
		return packDisk(t, dir) < 1<<20
	})
	for _, i := range e.packs.PackInfos() {
		require.Zero(t, i.Pending, "%+v", i)
	}
}

// Goal: Close ends a Compact that collects, and so does its context while a checkpoint
// keeps the packs.
func TestCollect_compactEnds(t *testing.T) {
	o := collectOptions()
	o.SpaceAmp = 1.05
	e, err := Open(t.TempDir(), o)
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	e.collecting.Lock() // as a checkpoint does
	for i := range 400 {
		require.NoError(t, e.Put(fmt.Append(nil, i), blobValue(rnd, 64<<10)))
		if i%8 == 7 {
			require.NoError(t, e.packs.Seal())
		}
	}
	for i := 0; i < 400; i += 2 {
		require.NoError(t, e.Delete(fmt.Append(nil, i)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	require.ErrorIs(t, e.Compact(ctx), context.DeadlineExceeded)
	cancel()
	require.NoError(t, e.Flush(context.Background()))
	e.collecting.Unlock()
	done := make(chan error, 1)
	go func() { done <- e.Compact(context.Background()) }()
	eventually(t, 10*time.Second, "nothing collected", func() bool { return e.Metrics().Collect.Rewritten > 0 })
	require.NoError(t, e.Close())
	if err := <-done; err != nil { // it may have been through
		require.ErrorIs(t, err, ErrClosed)
	}
	require.Less(t, e.collectMetrics().Rewritten, uint64(50))
}

type cutter struct {
	*os.File
	path string
	n    int
}

func (c *cutter) Unwrap() io.Writer { return c.File }
func (c *cutter) Write(p []byte) (int, error) {
	if c.n++; c.n == 2 {
		if err := os.Truncate(c.path, 4096); err != nil {
			return 0, err
		}
	}
	return c.File.Write(p)
}

// Goal: when the kernel meets the end of a pack that was cut, the caller hears of the pack
// and not of a bad address.
func TestValue_WriteTo_cut(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, collectOptions())
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Put([]byte("k"), blobValue(rand.New(rand.NewSource(1)), 1<<20)))
	require.NoError(t, e.Sync(context.Background()))
	v, err := e.OpenValue([]byte("k"))
	require.NoError(t, err)
	defer v.Close()
	names, err := filepath.Glob(filepath.Join(dir, packsName, "*.pack"))
	require.NoError(t, err)
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer f.Close()
	_, err = v.WriteTo(&cutter{File: f, path: names[0]})
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: a stream may be as long as Create says, whichever way its bytes come.
func TestWriter_ReadFrom_nearMax(t *testing.T) {
	e := open(t, t.TempDir(), *collectOptions())
	w, err := e.Create(context.Background(), []byte("k"))
	require.NoError(t, err)
	defer w.Abort()
	_, err = w.Write(make([]byte, 8<<10))
	require.NoError(t, err)
	w.n = MaxStreamed - 1<<20 // as if so much had come
	_, err = w.ReadFrom(bytes.NewReader(make([]byte, 1<<20)))
	require.NoError(t, err)
	_, err = w.Write([]byte{1})
	require.ErrorIs(t, err, ErrTooLarge)
}
