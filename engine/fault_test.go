package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// faults fails operations of a kind on paths that contain a word, while it is on.
type faults struct {
	on   atomic.Bool
	kind map[errorfs.OpKind]bool
	word string
	err  error
	hits atomic.Int64
}

func (f *faults) inject(op errorfs.Op) error {
	if f.on.Load() && f.kind[op.Kind] && strings.Contains(op.Path, f.word) {
		f.hits.Add(1)
		return f.err
	}
	return nil
}

func faulty(t *testing.T, word string, err error, kinds ...errorfs.OpKind) (*Engine, *faults, Options) {
	t.Helper()
	f := &faults{word: word, err: err, kind: map[errorfs.OpKind]bool{}}
	for _, k := range kinds {
		f.kind[k] = true
	}
	mem := vfs.NewMem()
	o := *small(Options{FS: errorfs.Wrap(mem, errorfs.InjectorFunc(f.inject)), LargeValue: 4 << 10, StallLimit: time.Second})
	e, oerr := Open("/store", &o)
	require.NoError(t, oerr)
	require.NoError(t, e.Put([]byte("old"), []byte("value")))
	o.FS = mem
	return e, f, o
}

// readsGoOn is what every degraded engine still does.
func readsGoOn(t *testing.T, e *Engine) {
	t.Helper()
	require.Equal(t, "value", get(t, e, "old"))
	require.Contains(t, pairs(t, e.Scan(Range{})), "old=value")
	s, err := e.Snapshot()
	require.NoError(t, err)
	require.NoError(t, s.Close())
	e.Metrics()
}

// reopened is what a reopen must find: everything acknowledged, and it writes.
func reopened(t *testing.T, o Options, want ...string) {
	t.Helper()
	e, err := Open("/store", &o)
	require.NoError(t, err)
	require.Equal(t, "value", get(t, e, "old"))
	for _, k := range want {
		require.NotEqual(t, "∅", get(t, e, k), k)
	}
	require.NoError(t, e.Put([]byte("again"), []byte("works")))
	require.NoError(t, e.Flush(context.Background()))
	require.NoError(t, e.Check(context.Background()))
	require.NoError(t, e.Close())
}

// Goal (I9): after a failed write or sync of the log the write is in doubt, nothing
// more is acknowledged, and reads go on.
func TestEngine_Put_logFault(t *testing.T) {
	for _, k := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSyncData} {
		e, f, o := faulty(t, "/log/", syscall.EIO, k)
		f.on.Store(true)
		err := e.Put([]byte("doubt"), nil)
		require.ErrorIs(t, err, ErrInDoubt)
		require.ErrorIs(t, err, syscall.EIO)
		f.on.Store(false)
		for range 3 {
			require.ErrorIs(t, e.Put([]byte("more"), nil), ErrReadOnly)
		}
		require.ErrorIs(t, e.Err(), ErrReadOnly)
		require.Error(t, e.Flush(context.Background()))
		require.Equal(t, "∅", get(t, e, "more"))
		require.Equal(t, "∅", get(t, e, "doubt"), "what is in doubt is not shown")
		readsGoOn(t, e)
		require.Error(t, e.Close(), "Close says that the log was not sealed")
		reopened(t, o)
	}
}

// Goal: a pack that cannot be synced poisons the log like its own sync (I3).
func TestEngine_Put_packSyncFault(t *testing.T) {
	e, f, o := faulty(t, ".pack", syscall.EIO, errorfs.OpFileSyncData, errorfs.OpFileSync)
	f.on.Store(true)
	require.ErrorIs(t, e.Put([]byte("large"), make([]byte, 10_000)), ErrInDoubt)
	f.on.Store(false)
	require.ErrorIs(t, e.Put([]byte("more"), nil), ErrReadOnly)
	readsGoOn(t, e)
	_ = e.Close()
	reopened(t, o)
}

// Goal: no room for a large value fails that value; small ones go on, and so do
// large ones when there is room again.
func TestEngine_Put_packDiskFull(t *testing.T) {
	e, f, o := faulty(t, ".pack", syscall.ENOSPC, errorfs.OpFileWrite, errorfs.OpCreate)
	f.on.Store(true)
	require.ErrorIs(t, e.Put([]byte("large"), make([]byte, 10_000)), ErrDiskFull)
	require.NoError(t, e.Put([]byte("small"), []byte("fits")))
	require.NoError(t, e.Err())
	f.on.Store(false)
	require.NoError(t, e.Put([]byte("large"), make([]byte, 10_000)))
	readsGoOn(t, e)
	require.NoError(t, e.Close())
	reopened(t, o, "small", "large")
}

// Goal: a disk that is full of our own log has room again by itself: what the maps hold
// goes down, and its segments are used anew.
func TestEngine_Put_diskFullOfLog(t *testing.T) {
	fs := simfs.New(&simfs.Options{Capacity: 12 << 20})
	e, err := Open("/store", &Options{FS: fs, MemoryBudget: 256 << 20, DiskReserve: -1})
	require.NoError(t, err)
	put := func() error { return e.Put([]byte("k"), make([]byte, 20_000)) }
	for err = put(); err == nil; {
		if err = put(); e.Metrics().LSN > 10_000 {
			t.Fatal("200 MB in a disk of 12, and never full")
		}
	}
	require.ErrorIs(t, err, ErrDiskFull)
	eventually(t, 10*time.Second, "still full", func() bool { return put() == nil })
	require.NoError(t, e.Close())
}

// Goal: a flush that meets a full disk is tried again; writers wait and then get
// ErrBusy; nothing is lost, and all goes on when there is room.
func TestEngine_Flush_diskFull(t *testing.T) {
	e, f, o := faulty(t, "l3-staging", syscall.ENOSPC, errorfs.OpCreate, errorfs.OpFileWrite)
	f.on.Store(true)
	var last string
	var err error
	for i := 0; err == nil; i++ {
		k := fmt.Sprintf("k%06d", i)
		if err = e.Put([]byte(k), make([]byte, 3000)); err == nil {
			last = k
		}
	}
	require.ErrorIs(t, err, ErrBusy)
	require.NotZero(t, f.hits.Load())
	require.NoError(t, e.Err(), "a full disk is no broken one")
	readsGoOn(t, e)
	f.on.Store(false)
	require.NoError(t, e.Flush(context.Background()))
	require.NoError(t, e.Put([]byte("after"), nil))
	require.NotEqual(t, "∅", get(t, e, last))
	require.NoError(t, e.Close())
	reopened(t, o, last, "after")
}

// Goal: a failed manifest makes the engine read-only, and a reopen finds everything.
func TestEngine_Flush_manifestFault(t *testing.T) {
	for _, k := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSync} {
		e, f, o := faulty(t, "MANIFEST", syscall.EIO, k, errorfs.OpFileSyncData)
		f.on.Store(true)
		require.Error(t, e.Flush(context.Background()))
		require.NotZero(t, f.hits.Load())
		f.on.Store(false)
		require.ErrorIs(t, e.Put([]byte("more"), nil), ErrReadOnly)
		require.ErrorIs(t, e.Flush(context.Background()), ErrReadOnly)
		readsGoOn(t, e)
		_ = e.Close()
		reopened(t, o)
	}
}

// Goal: below DiskReserve puts are refused while deletes and flushes go on.
func TestEngine_Put_diskReserve(t *testing.T) {
	e := open(t, t.TempDir(), Options{DiskReserve: 1 << 60})
	require.Eventually(t, e.lowDisk.Load, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, e.Put([]byte("k"), nil), ErrDiskFull)
	require.ErrorIs(t, e.Put([]byte("k"), make([]byte, 100_000)), ErrDiskFull)
	require.NoError(t, e.Delete([]byte("k")))
	require.NoError(t, e.DeleteRange(nil, nil))
	flush(t, e)
}

// Goal: an error of the disk at any call while opening is returned, leaves nothing
// running and nothing changed that the next open minds.
func TestOpen_faultAtEveryCall(t *testing.T) {
	whole := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}
	base := vfs.NewCrashableMem()
	o := *small(Options{FS: base, LargeValue: 4 << 10})
	e, err := Open("/store", &o)
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), make([]byte, i*100)))
		if i == 20 {
			flush(t, e)
		}
	}
	require.NoError(t, e.Close())
	for n := int64(1); ; n++ {
		mem := base.CrashClone(whole)
		var calls atomic.Int64
		o.FS = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if calls.Add(1) == n {
				return syscall.EIO
			}
			return nil
		}))
		e, err := Open("/store", &o)
		if err == nil {
			for i := range 50 {
				v, gerr := e.Get(fmt.Appendf(nil, "k%02d", i))
				if gerr == nil {
					require.Len(t, v, i*100)
				} else {
					require.NotErrorIs(t, gerr, ErrNotFound, "call %d", n)
				}
			}
			_ = e.Close()
		}
		if calls.Load() < n {
			break
		}
		o.FS = mem
		e, err = Open("/store", &o)
		require.NoError(t, err, "after call %d failed", n)
		for i := range 50 {
			require.Len(t, get(t, e, fmt.Sprintf("k%02d", i)), i*100)
		}
		require.NoError(t, e.Check(context.Background()))
		require.NoError(t, e.Close())
	}
}
