package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// wantFilter makes the next few reads that find nothing begin a filter.
func wantFilter(e *Engine) { e.known.after.Store(2) }

func awaitFilter(t *testing.T, e *Engine) {
	t.Helper()
	n := 0
	eventually(t, 10*time.Second, "no filter", func() bool {
		n++ // that one is absent is cached
		_, _ = e.Get(fmt.Appendf(nil, "nobody has this %d", n))
		wantFilter(e)
		return e.view.Load().known != nil
	})
}

// Goal: reads of keys that are nowhere make a filter and end at it from then on; with
// it, through flushes, deletes, range deletes, compactions and reopens, each read gives
// what a model says, and a snapshot what it saw.
func TestKnown_model(t *testing.T) {
	dir := t.TempDir()
	o := small(Options{Sync: SyncNever})
	rnd := rand.New(rand.NewPCG(1, 2))
	model := map[string]string{}
	key := func() string { return fmt.Sprintf("k%04d", rnd.IntN(3000)) }
	for life := range 4 {
		e, err := Open(dir, o)
		require.NoError(t, err)
		wantFilter(e)
		check := func(k string) {
			t.Helper()
			want, ok := model[k]
			v, err := e.Get([]byte(k))
			if !ok {
				require.ErrorIs(t, err, ErrNotFound, "%s in life %d", k, life)
				return
			}
			require.NoError(t, err, "%s in life %d", k, life)
			require.Equal(t, want, string(v))
		}
		for k := range model {
			check(k)
		}
		for round := range 6 {
			seen, snap := map[string]string{}, (*Snapshot)(nil)
			for n := range 400 {
				switch k := key(); rnd.IntN(20) {
				case 0:
					require.NoError(t, e.DeleteRange([]byte(k), []byte(k+"~")))
					delete(model, k)
				case 1, 2, 3, 4:
					require.NoError(t, e.Delete([]byte(k)))
					delete(model, k)
				default:
					v := fmt.Sprint(life, round, n)
					require.NoError(t, e.Put([]byte(k), []byte(v)))
					model[k] = v
				}
				check(key())
				if n == 200 {
					for k, v := range model {
						seen[k] = v
					}
					snap, err = e.Snapshot()
					require.NoError(t, err)
				}
				if n == 100 || n == 300 {
					flush(t, e)
				}
			}
			if round == 2 {
				awaitFilter(t, e)
			}
			if round == 3 {
				e.setKnown(nil) // the next reads that find nothing make another
				wantFilter(e)
			}
			if round == 4 {
				require.NoError(t, e.Compact(context.Background()))
			}
			for i := range 3000 {
				k := fmt.Sprintf("k%04d", i)
				check(k)
				v, err := snap.Get([]byte(k))
				if want, ok := seen[k]; ok {
					require.NoError(t, err)
					require.Equal(t, want, string(v))
				} else {
					require.ErrorIs(t, err, ErrNotFound)
				}
			}
			require.NoError(t, snap.Close())
		}
		awaitFilter(t, e)
		before := e.Metrics()
		require.Equal(t, e.shares().known, before.Memory.Filter)
		for i := range 20_000 {
			_, err := e.Get(fmt.Appendf(nil, "nowhere %d", i))
			require.ErrorIs(t, err, ErrNotFound)
		}
		after := e.Metrics()
		require.Less(t, after.Cache.Misses-before.Cache.Misses, uint64(500))
		require.InDelta(t, 20_000, after.FilterAbsent-before.FilterAbsent, 5000)
		require.NoError(t, e.Check(context.Background()))
		require.NoError(t, e.Close())
	}
}

// Goal: a key that was acknowledged is found at once and always, while generations go
// down and filters are begun, finished and dropped as fast as they can be.
func TestKnown_sideBySide(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	puts, filters := 2000, int32(20)
	if testing.Short() {
		puts, filters = 500, 5
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var begun, flushes atomic.Int32
	wg.Go(func() { // generations go down
		for !stop.Load() {
			if err := e.Flush(context.Background()); err != nil {
				t.Error(err)
			}
			flushes.Add(1)
		}
	})
	wg.Go(func() { // filters come, and go after some flushes
		for i, last := 0, int32(0); !stop.Load(); i++ {
			wantFilter(e)
			_, _ = e.Get(fmt.Appendf(nil, "nowhere %d", i))
			switch n := flushes.Load(); {
			case e.view.Load().known == nil:
				last = n
			case n >= last+4:
				begun.Add(1)
				e.setKnown(nil)
			}
		}
	})
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for n := 0; n < puts || begun.Load() < filters; n++ {
				if n >= puts { // with more keys than a filter has room for none would come
					time.Sleep(time.Millisecond)
				}
				k := fmt.Appendf(nil, "w%d %06d", w, n)
				if err := e.Put(k, k); err != nil {
					t.Error(err)
					return
				}
				for _, old := range []int{n, rnd.IntN(n + 1), max(0, n-rnd.IntN(64))} { // the last are just going down
					k := fmt.Appendf(nil, "w%d %06d", w, old)
					if v, err := e.Get(k); err != nil || string(v) != string(k) {
						t.Errorf("%s: %q, %v", k, v, err)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	wg.Wait()
}

// Goal: a key that goes down is in the filter before any reader depends on it: between the
// swap of the view and the end of the flush, when STATE is written, all of them are found.
func TestKnown_beforeTheSwap(t *testing.T) {
	var e *Engine
	var armed atomic.Bool
	var looked atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind == errorfs.OpFileWriteAt && strings.HasSuffix(op.Path, stateName) && e.view.Load().active.Empty() {
			armed.Store(false)
			for i := range 500 {
				if _, err := e.Get(fmt.Appendf(nil, "k%04d", i)); err != nil {
					t.Errorf("k%04d: %v", i, err)
				}
				looked.Add(1)
			}
		}
		return nil
	}))
	e, err := Open("/store", small(Options{Sync: SyncNever, FS: fs}))
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Put([]byte("first"), nil))
	flush(t, e)
	awaitFilter(t, e)
	for i := range 500 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%04d", i), nil))
	}
	armed.Store(true)
	flush(t, e)
	require.EqualValues(t, 500, looked.Load())
}

// Goal: a filter that holds more keys than it has room for is dropped, and L3 that is
// more than it has room for gets none; reads are right before and after.
func TestKnown_full(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	e.governor.still.Store(true)
	s := *e.shares()
	s.known = 16 << 10
	e.limits.Store(&s)
	require.NoError(t, e.Put([]byte("first"), []byte("v")))
	flush(t, e)
	awaitFilter(t, e)
	limit := e.view.Load().known.Capacity() * 2
	for n := int64(0); n <= limit; {
		b := e.NewBatch()
		for range 1000 {
			require.NoError(t, b.Put(fmt.Appendf(nil, "%x", n), nil))
			n++
		}
		_, err := e.Apply(b)
		require.NoError(t, err)
		b.Close()
	}
	flush(t, e)
	eventually(t, 10*time.Second, "a full filter stays", func() bool { e.flusher.kick(); return e.view.Load().known == nil })
	require.Equal(t, "v", get(t, e, "first"))
	e.known.after.Store(2)
	for i := range 100 {
		_, err := e.Get(fmt.Appendf(nil, "nowhere %d", i))
		require.ErrorIs(t, err, ErrNotFound)
	}
	eventually(t, 10*time.Second, "the walk does not end", func() bool {
		e.flusher.kick()
		return e.known.absent.Load() < 100 && e.view.Load().known == nil
	})
	require.Equal(t, "v", get(t, e, "first"))
}

// Goal: a walk over L3 that fails makes no filter, and costs no read.
func TestKnown_walkFails(t *testing.T) {
	disk := simfs.New(nil)
	e, err := Open("/store", simOptions(disk))
	require.NoError(t, err)
	key := func(i int) []byte { return fmt.Appendf(nil, "k%04d", i) }
	value := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint(i, " "), 100)) }
	const keys = 400
	for i := range keys {
		require.NoError(t, e.Put(key(i), value(i)))
		if i%100 == 99 {
			flush(t, e)
		}
	}
	image := disk.Cut()
	require.NoError(t, e.Close())
	calls := 0
	for nth, fired := 1, true; fired; nth++ {
		fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
		e, err := Open("/store", simOptions(fs))
		require.NoError(t, err)
		fault := fs.Inject(simfs.FailOnce(simfs.OpReadAt|simfs.OpOpen, "*.sst", nth, syscall.EIO))
		wantFilter(e)
		for i := range 40 {
			_, err := e.Get(fmt.Appendf(nil, "nowhere %d", i))
			require.True(t, errors.Is(err, ErrNotFound) || errors.Is(err, syscall.EIO), "%v", err)
		}
		n := 0
		eventually(t, 20*time.Second, "no walk ends", func() bool {
			n++ // that one is absent is cached
			wantFilter(e)
			_, _ = e.Get(fmt.Appendf(nil, "nowhere else %d", n))
			return fault.Fired() > 0 || e.view.Load().known != nil
		})
		fired = fault.Fired() > 0
		fault.Remove()
		for i := range keys {
			v, err := e.Get(key(i))
			require.NoError(t, err, "call %d, key %d", nth, i)
			require.Equal(t, value(i), v)
		}
		require.NoError(t, e.Close())
		calls = nth
	}
	require.Greater(t, calls, 1)

	fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
	e, err = Open("/store", simOptions(fs))
	require.NoError(t, err)
	base := e.view.Load().base
	require.True(t, base.Acquire())
	fs.Inject(simfs.FailFrom(simfs.OpReadAt|simfs.OpOpen, "*.sst", 1, syscall.EIO))
	require.False(t, e.fill(cache.NewFilter(1<<20), base), "a filter of half of the keys")
	base.Release()
	require.NoError(t, e.Close())
}

// Goal (I10): a filter that is too large for a budget that shrank goes, a snapshot keeps
// none, and one that is being filled is in the account.
func TestKnown_bounds(t *testing.T) {
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 256 << 20, Sync: SyncNever})
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	flush(t, e)
	awaitFilter(t, e)
	large := e.Metrics().Memory.Filter
	require.Equal(t, e.shares().known, large)
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Close()
	require.Nil(t, s.view.Load().known)
	require.NoError(t, e.SetMemoryBudget(64<<20))
	eventually(t, 10*time.Second, "a filter of the old budget stays", func() bool {
		e.flusher.kick()
		return e.Metrics().Memory.Filter <= 2*e.shares().known
	})
	awaitFilter(t, e)
	require.Less(t, e.Metrics().Memory.Filter, large/2)
	e.known.bytes.Store(1 << 20)
	require.Equal(t, e.view.Load().known.Bytes()+1<<20, e.measure().Filter)
}

// Goal: Check finds a filter that would hide a key.
func TestKnown_isChecked(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	require.NoError(t, e.Put([]byte("hidden"), []byte("v")))
	flush(t, e)
	e.setKnown(cache.NewFilter(1 << 10))
	require.ErrorIs(t, e.Check(context.Background()), ErrCorrupt)
	require.ErrorContains(t, e.Check(context.Background()), "hidden")
	e.setKnown(nil) // what follows each test checks, too
}
