package engine

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal (I10, I11): while a sync of the log hangs, Flush and Compact end with their
// context, promptly; however often they are tried they leave one goroutine behind, and
// none past Close. What they asked for happens when the disk answers.
func TestEngine_Flush_hungLog(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncInterval, SyncNever} {
		fs := simfs.New(nil)
		o := simOptions(fs)
		o.Sync, o.SyncEvery = policy, time.Hour
		e, err := Open("/store", o)
		require.NoError(t, err)
		require.NoError(t, e.Put([]byte("k"), []byte("before")))
		stall := fs.Inject(simfs.Rule{Ops: simfs.OpSyncData | simfs.OpWriteAt, Path: "spare-*", Every: 1, Stall: true})
		put := make(chan error, 1)
		go func() { put <- e.Put([]byte("k"), make([]byte, 4000)) }()
		if policy != SyncNever { // whose writes go to memory
			require.Eventually(t, func() bool { return stall.Fired() > 0 }, 10*time.Second, time.Millisecond)
		}
		before := runtime.NumGoroutine()
		for i := range 40 {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			call := e.Flush
			if i%2 == 1 {
				call = e.Compact
			}
			began := time.Now()
			err := call(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded, "%v", policy)
			require.Less(t, time.Since(began), 5*time.Second)
			cancel()
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "%v: tries pile up", policy)
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, e.Flush(gone), context.Canceled)
		stall.Remove()
		require.NoError(t, <-put)
		require.NoError(t, e.Flush(context.Background()))
		require.Zero(t, e.Metrics().Map.Keys, "all of it is in L3")
		require.NoError(t, e.Close())
		require.ErrorIs(t, e.Flush(context.Background()), ErrClosed)
	}
}

// Goal (I11): a Flush that gave up is no reason for Close to come back before the disk
// has answered it.
func TestEngine_Flush_hungLogAndClose(t *testing.T) {
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	stall := fs.Inject(simfs.Rule{Ops: simfs.OpSyncData, Path: "spare-*", Every: 1, Stall: true})
	put := make(chan error, 1)
	go func() { put <- e.Put([]byte("k"), []byte("v")) }()
	require.Eventually(t, func() bool { return stall.Fired() > 0 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, e.Flush(ctx), context.DeadlineExceeded)
	waiting := make(chan error, 1)
	go func() { // for the turn, which the first one still has
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		waiting <- e.Flush(ctx)
	}()
	time.Sleep(5 * time.Millisecond)
	require.ErrorIs(t, e.CloseContext(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, <-waiting, ErrClosed, "at once, the disk still hangs")
	stall.Remove()
	require.NoError(t, <-put)
	require.NoError(t, e.Close())
	simVerify(t, fs, 0, 0, "reopened")
}

// Goal (I9): once L3 takes nothing until a reopen, no write is acknowledged into a map
// that could never go down: each is refused at once, with the cause, also when the disk
// is well again. What was acknowledged before is in the log, reads go on.
func TestEngine_Put_closedL3(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		fs := simfs.New(nil)
		e, err := Open("/store", simOptions(fs))
		require.NoError(t, err)
		// A compaction meets the fault, and not the flusher: the map keeps what L3
		// lacks. A compaction in the background may have been there before ours.
		for try := 0; e.store.Err() == nil; try++ {
			require.Less(t, try, 50)
			for i := range 20 {
				require.NoError(t, e.Put(simKey(i), simValue(i)))
				if i == 9 {
					flush(t, e)
				}
			}
			fault := fs.Inject(simfs.FailOnce(simfs.OpSyncs, "MANIFEST-*", 1, cause))
			_ = e.store.Compact(context.Background())
			fault.Remove()
		}
		b := e.NewBatch()
		require.NoError(t, b.Delete(simKey(1)))
		for name, write := range map[string]func() error{
			"Put":          func() error { return e.Put([]byte("more"), []byte("v")) },
			"a large Put":  func() error { return e.Put([]byte("more"), make([]byte, 10_000)) },
			"Delete":       func() error { return e.Delete(simKey(0)) },
			"DeleteRange":  func() error { return e.DeleteRange(nil, nil) },
			"ApplyContext": func() error { _, err := e.ApplyContext(context.Background(), b); return err },
			"Err":          e.Err,
		} {
			e.cause.Store(nil) // nobody has told it: it must see for itself
			err := write()
			require.ErrorIs(t, err, ErrReadOnly, name)
			require.ErrorIs(t, err, cause, name)
		}
		require.Equal(t, "∅", get(t, e, "more"))
		for i := range 20 {
			require.Equal(t, string(simValue(i)), get(t, e, string(simKey(i))), fmt.Sprint(i))
		}
		require.EqualValues(t, e.Metrics().LSN, e.DurableLSN(), "under SyncAlways")
		_ = e.Close()
		simVerify(t, fs.Crash(simfs.CrashConfig{Seed: 1}), 20, 20, "reopened")
	}
}
