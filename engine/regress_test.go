package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Each test here is a bug that a review or a crash found.

// busy puts small and large values until stop, and flushes now and then.
func busy(t *testing.T, e *Engine, writers int) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				v := make([]byte, 100)
				if i%20 == 0 {
					v = make([]byte, 10_000)
				}
				if err := e.Put(fmt.Appendf(nil, "w%d-%04d", w, i%2000), v); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if i%300 == 299 {
					if err := e.Flush(context.Background()); err != nil {
						t.Errorf("flush: %v", err)
					}
				}
			}
		}()
	}
	return func() { close(end); wg.Wait() }
}

// Goal: checkpoints beside flushes and large puts succeed, and hold what was
// acknowledged before them.
func TestEngine_Checkpoint_besideWriters(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever, LargeValue: 4 << 10})
	stop := busy(t, e, 2)
	defer stop()
	dir := t.TempDir()
	n := 30
	if testing.Short() {
		n = 8
	}
	for i := range n {
		key := fmt.Appendf(nil, "mark-%d", i)
		require.NoError(t, e.Put(key, bytes.Repeat(key, 1000)))
		dst := fmt.Sprintf("%s/c%d/", dir, i) // a slash at the end is no other place
		require.NoError(t, e.Checkpoint(context.Background(), dst))
		c, err := Open(dst, small(Options{ReadOnly: true}))
		require.NoError(t, err)
		v, err := c.Get(key)
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat(key, 1000), v)
		require.NoError(t, c.Close())
		require.NoError(t, os.RemoveAll(dst))
	}
}

// Goal: a pack that a crash cut off before its header spoils no checkpoint.
func TestEngine_Checkpoint_emptyPack(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("large"), make([]byte, 100_000)))
	require.NoError(t, e.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "packs", fmt.Sprintf("%020d.pack", 7)), nil, 0o644))
	e = open(t, dir, Options{})
	require.NoError(t, e.Put([]byte("larger"), make([]byte, 100_000)))
	dst := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, e.Checkpoint(context.Background(), dst))
	c := open(t, dst, Options{})
	require.Len(t, get(t, c, "large"), 100_000)
	require.Len(t, get(t, c, "larger"), 100_000)
}

// Goal: Sync beside writers asks for what was acknowledged, never for more.
func TestEngine_Sync_besideWriters(t *testing.T) {
	for _, p := range []SyncPolicy{SyncInterval, SyncNever} {
		e := open(t, t.TempDir(), Options{Sync: p})
		stop := busy(t, e, 2)
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			require.NoError(t, e.Sync(context.Background()))
		}
		stop()
	}
}

// Goal: an error of L3 in the middle of a scan is an error, and not the end of L3
// with the map's keys going on behind a hole.
func TestEngine_Scan_errorIsNoEnd(t *testing.T) {
	e, f, o := faulty(t, ".sst", syscall.EIO, errorfs.OpFileReadAt, errorfs.OpFileRead, errorfs.OpOpen)
	for i := range 2000 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "a%04d", i), make([]byte, 500)))
	}
	require.NoError(t, e.Flush(context.Background()))
	require.NoError(t, e.Close())
	o.FS = errorfs.Wrap(o.FS, errorfs.InjectorFunc(f.inject))
	e, err := Open("/store", &o)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("b"), nil))
	f.on.Store(true)
	n := 0
	for item, err := range e.Scan(Range{}) {
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO)
			require.NotErrorIs(t, err, ErrCorrupt)
			n = -1
			break
		}
		require.NotEqual(t, "b", string(item.Key()), "a hole of %d keys", 2000-n)
		n++
	}
	require.Equal(t, -1, n, "the scan ended without its error")
	f.on.Store(false)
	require.Len(t, pairs(t, e.Scan(Range{})), 2002)
	require.NoError(t, e.Close())
}

// Goal: a stall that a leader declares just after the last flush ended is ended by
// the kick that comes with it.
func TestEngine_unstallsWithNothingFrozen(t *testing.T) {
	e := open(t, t.TempDir(), Options{StallLimit: 5 * time.Second})
	flush(t, e)
	e.stall.on.Store(true)
	e.flusher.kick()
	require.NoError(t, e.Put([]byte("k"), nil))
}

// Goal (I10): a scan whose snapshot gave way lets its generations go at once,
// however long its body takes.
func TestSnapshot_givesWay_scanLetsGo(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	require.NoError(t, e.Put([]byte("a"), nil))
	require.NoError(t, e.Put([]byte("b"), nil))
	s, err := e.Snapshot()
	require.NoError(t, err)
	n := 0
	for _, err := range s.Scan(Range{}) {
		if n++; n == 2 {
			require.ErrorIs(t, err, ErrSnapshotTooOld)
			break
		}
		m := s.scans[0]
		require.NotEmpty(t, m.gens)
		s.end(ErrSnapshotTooOld)
		require.Empty(t, m.gens)
		require.Empty(t, m.rooms)
		require.Zero(t, m.someRooms)
		for i := range m.someIters {
			require.True(t, reflect.ValueOf(&m.someIters[i]).Elem().IsZero(), "it holds its generation")
		}
	}
	require.Equal(t, 2, n)
	require.Empty(t, s.scans)
	require.NoError(t, s.Close())
}

// Goal: compactions that cannot succeed do not hold up flushes and writers without
// a word.
func TestEngine_Flush_compactionsFail(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until failed compactions count as stuck, some seconds")
	}
	e, f, _ := faulty(t, "/l3/", syscall.EIO, errorfs.OpCreate)
	f.on.Store(true)
	var err error
	for i := 0; err == nil && i < 200; i++ {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%d", i%3), make([]byte, 1000)))
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err = e.Flush(ctx)
		cancel()
	}
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, e.Err(), ErrReadOnly)
	readsGoOn(t, e)
	_ = e.Close()
}

// Goal: Flush says that the disk is full rather than wait for ever.
func TestEngine_Flush_saysDiskFull(t *testing.T) {
	e, f, o := faulty(t, "l3-staging", syscall.ENOSPC, errorfs.OpCreate)
	f.on.Store(true)
	require.ErrorIs(t, e.Flush(context.Background()), ErrDiskFull)
	require.NotZero(t, e.Metrics().Flush.Failed)
	require.NoError(t, e.Put([]byte("k"), nil))
	f.on.Store(false)
	require.NoError(t, e.Flush(context.Background()))
	require.NoError(t, e.Close())
	reopened(t, o, "k")
}

// Goal: large puts that the reserve refuses leave nothing behind.
func TestEngine_Put_reserveLeavesNoPack(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir, Options{DiskReserve: 1 << 60})
	for range 3 {
		require.ErrorIs(t, e.Put([]byte("k"), make([]byte, 1<<20)), ErrDiskFull)
	}
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*"))
	require.NoError(t, err)
	require.Empty(t, packs)
	require.ErrorIs(t, e.Put([]byte("k"), nil), ErrDiskFull, "from the first moment on")
}

// Goal: what is read and overwritten between flushes is in L1 after each of them, whether
// L1 had it before or reads found it in the map.
func TestEngine_Flush_keepsWarm(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	ctx := context.Background()
	tier := func(key string) Tier {
		i, err := e.Stat([]byte(key))
		require.NoError(t, err)
		return i.Tier
	}
	require.NoError(t, e.Put([]byte("known"), []byte("1")))
	require.NoError(t, e.Put([]byte("gone"), []byte("1")))
	require.NoError(t, e.Flush(ctx))
	require.Eventually(t, func() bool { return tier("known") == TierL1 && tier("gone") == TierL1 }, 10*time.Second, time.Millisecond)
	for i := range 3 {
		value := fmt.Appendf(nil, "again%d", i)
		require.NoError(t, e.Put([]byte("known"), value))
		require.NoError(t, e.Delete([]byte("gone")))
		require.NoError(t, e.Put([]byte("hot"), value))
		cold := fmt.Sprintf("cold%d", i)
		require.NoError(t, e.Put([]byte(cold), value))
		for range 50 * sampleReads {
			require.Equal(t, TierMap, tier("hot"))
		}
		before := e.Metrics().Cache.Loads
		require.NoError(t, e.Flush(ctx))
		for _, key := range []string{"known", "hot"} {
			require.Eventually(t, func() bool {
				_, ok := e.cache.Peek(e.view.Load().horizon, hashKey([]byte(key)), []byte(key))
				return ok
			},
				10*time.Second, time.Millisecond, key)
			got, err := e.Get([]byte(key))
			require.NoError(t, err)
			require.Equal(t, value, got)
		}
		require.Equal(t, before, e.Metrics().Cache.Loads, "L3 was asked")
		_, err := e.Get([]byte("gone"))
		require.ErrorIs(t, err, ErrNotFound)
		require.Equal(t, TierL3, tier(cold))
	}
}
