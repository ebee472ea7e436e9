package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// noFlush opens a store whose flushes find no room, and whose shares stay as they are.
func noFlush(t *testing.T) (*Engine, *faults, Options) {
	e, f, o := faulty(t, "l3-staging", syscall.ENOSPC, errorfs.OpCreate, errorfs.OpFileWrite)
	e.governor.still.Store(true)
	f.on.Store(true)
	return e, f, o
}

// Goal (I10): while no flush gets through, generations stay within their bounds, in
// number and in bytes, writers are told ErrBusy, and nothing that was acknowledged is
// lost when there is room again.
func TestBound_generations(t *testing.T) {
	e, f, o := noFlush(t)
	const size = 3000
	// Each may pass its bound by the put that finds it full, and what is allocated for it: a
	// slab, a larger table.
	limit := (int64(e.shares().frozen)+1)*e.shares().generation + 2*(size+256<<10)
	var acknowledged []string
	for i, refused := 0, 0; refused < 2; i++ {
		k := fmt.Sprintf("k%06d", i)
		err := e.Put([]byte(k), make([]byte, size))
		switch {
		case errors.Is(err, ErrBusy):
			refused++
		default:
			require.NoError(t, err)
			acknowledged = append(acknowledged, k)
		}
		v := e.view.Load()
		require.LessOrEqual(t, len(v.frozen), e.shares().frozen)
		require.LessOrEqual(t, v.bytes(), limit)
	}
	require.Greater(t, e.view.Load().bytes(), limit*3/4, "the test pushes against the bound")
	require.EqualValues(t, 1, func() float64 { e.govern(); return e.Pressure() }())
	readsGoOn(t, e)
	f.on.Store(false)
	flush(t, e)
	require.NoError(t, e.Close())
	reopened(t, o, acknowledged...)
}

// Goal (I10): the same for range deletes, each of which copies the list of those before.
func TestBound_fragments(t *testing.T) {
	e, f, _ := noFlush(t)
	for i, refused := 0, 0; refused < 2; i++ {
		err := e.DeleteRange(fmt.Appendf(nil, "r%06d", 2*i), fmt.Appendf(nil, "r%06d", 2*i+1))
		if errors.Is(err, ErrBusy) {
			refused++
			require.Greater(t, i, maxFragments)
		} else {
			require.NoError(t, err)
		}
		require.Less(t, i, 10*maxFragments, "never refused")
		require.LessOrEqual(t, e.view.Load().active.Fragments(), maxFragments)
		require.LessOrEqual(t, len(e.view.Load().frozen), e.shares().frozen)
	}
	f.on.Store(false)
	flush(t, e)
	readsGoOn(t, e)
	require.NoError(t, e.Close())
}

// Goal (I10): what snapshots hold is told, in bytes and in age, and is gone with them.
func TestBound_snapshotsAreTold(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	require.Equal(t, SnapshotMetrics{}, e.Metrics().Snapshots)
	for i := range 500 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%04d", i), make([]byte, 1000)))
	}
	old, err := e.Snapshot()
	require.NoError(t, err)
	const apart = 200 * time.Millisecond
	time.Sleep(apart)
	young, err := e.Snapshot()
	require.NoError(t, err)
	m := e.Metrics().Snapshots
	require.Equal(t, 2, m.Open)
	require.Zero(t, m.PinnedBytes, "all of it is the store's own, too")
	flush(t, e)
	m = e.Metrics().Snapshots
	require.Greater(t, m.PinnedBytes, int64(500*1000))
	require.Less(t, m.PinnedBytes, int64(1_500_000), "both hold the same generation")
	require.GreaterOrEqual(t, m.OldestAge, apart)
	require.Equal(t, m.PinnedBytes, e.Metrics().Memory.Pinned)
	require.NoError(t, old.Close())
	m = e.Metrics().Snapshots
	require.Equal(t, 1, m.Open)
	require.Greater(t, m.PinnedBytes, int64(500*1000))
	require.NoError(t, young.Close())
	require.Equal(t, SnapshotMetrics{}, e.Metrics().Snapshots)
}

// Goal (I10): however many writers there are and however much each brings, groups take
// no more than their part of the budget.
func TestBound_groups(t *testing.T) {
	slow := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			time.Sleep(5 * time.Millisecond) // time for everybody to come
		}
		return nil
	}))
	e := open(t, t.TempDir(), Options{LargeValue: 1 << 20, SegmentBytes: 8 << 20, FS: slow})
	const writers, size = 80, 60 << 10
	most := 5*int64(groupBytes(e.opts.MemoryBudget)+size) + 1<<20
	require.Less(t, most, e.opts.MemoryBudget/6)
	require.Greater(t, int64(writers*size), 3*most/2, "the test pushes against the bound")
	var wg sync.WaitGroup
	var peak atomic.Int64
	for w := range writers {
		wg.Go(func() {
			for i := range 10 {
				if err := e.Put(fmt.Appendf(nil, "k%d-%d", w, i), make([]byte, size)); err != nil {
					t.Error(err)
				}
				now := e.measure().Log
				for was := peak.Load(); now > was && !peak.CompareAndSwap(was, now); was = peak.Load() {
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, peak.Load(), most)
	t.Logf("%d KiB at most, bound %d", peak.Load()>>10, most>>10)
}

// Goal (I10): what goes wrong for ever, pack after pack, is not remembered for ever.
func TestBound_skippedPacks(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	e.collecting.Lock()
	for i := range uint64(10_000) {
		e.collector.skip[i+1_000_000] = time.Now().Add(time.Hour) // packs that are gone since
	}
	e.collecting.Unlock()
	require.NoError(t, e.Compact(context.Background()))
	e.collecting.Lock()
	defer e.collecting.Unlock()
	require.Empty(t, e.collector.skip)
}

// Goal: the number of shards follows the load: many small keys in a generation make the
// next one have more, few large ones less again, and the metric says why.
func TestMap_shardsFollowLoad(t *testing.T) {
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 512 << 20, Sync: SyncNever, DiskReserve: -1})
	require.NoError(t, err)
	defer e.Close()
	m := e.Metrics().Map
	require.Equal(t, 16, m.Shards)
	require.NotEmpty(t, m.ShardsWhy)
	b := e.NewBatch()
	defer b.Close()
	for i := range 16*16<<10 + 20_000 {
		require.NoError(t, b.Put(fmt.Appendf(nil, "k%06d", i), nil))
		if i%1000 == 999 {
			_, err := e.Apply(b)
			require.NoError(t, err)
			b.Reset()
		}
	}
	flush(t, e)
	m = e.Metrics().Map
	if 2*runtime.GOMAXPROCS(0) > 16 {
		t.Skip("so many processors never have as few shards")
	}
	require.Greater(t, m.Shards, 16, "%+v", m)
	require.Equal(t, "tables had grown large", m.ShardsWhy)
	for range 6 {
		require.NoError(t, e.Put([]byte("one"), make([]byte, 50_000)))
		flush(t, e)
	}
	after := e.Metrics().Map
	require.Less(t, after.Shards, m.Shards)
	require.GreaterOrEqual(t, after.Shards, 2*runtime.GOMAXPROCS(0))
}
