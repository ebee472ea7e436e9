package engine

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: a closed gate lets nobody in, and whoever waits for it goes on when the last
// one has left, not before.
func TestGate_wait(t *testing.T) {
	var g gate
	g.init()
	require.True(t, g.enter(3))
	require.True(t, g.enter(3+16))
	require.True(t, g.close())
	require.False(t, g.close(), "it was closed")
	require.False(t, g.enter(4))
	done := make(chan struct{})
	go func() { g.wait(); close(done) }()
	g.leave(3)
	select {
	case <-done:
		t.Fatal("one is still inside")
	case <-time.After(20 * time.Millisecond):
	}
	g.leave(3 + 16)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is inside")
	}
}

// Goal: a call that had passed its first look when the store was closed is told so, by
// whatever room it was about to enter, and touches none of them.
func TestEngine_Close_underCalls(t *testing.T) {
	e, err := Open(t.TempDir(), small(Options{LargeValue: 4 << 10}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("large"), make([]byte, 10_000)))
	cell, _, err := e.find([]byte("large"))
	require.NoError(t, err)
	v := e.view.Load()
	require.NoError(t, e.Close())
	_, _, err = e.findBelow(v, 1, []byte("large"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = e.appendValue(nil, cell)
	require.ErrorIs(t, err, ErrClosed)
	_, err = e.pinValue(cell, func([]byte) error { panic("no value") })
	require.ErrorIs(t, err, ErrClosed)
	_, err = e.writeBlob(make([]byte, 10_000))
	require.ErrorIs(t, err, ErrClosed)
}

// Goal (C3): a reader whose view has gone is sent for a new one, and its answer comes
// from there.
func TestEngine_findBelow_viewMoved(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	require.NoError(t, e.Put([]byte("k"), []byte("old")))
	flush(t, e)
	v := e.view.Load()
	require.NoError(t, e.Put([]byte("k"), []byte("new")))
	flush(t, e)
	require.NotSame(t, v, e.view.Load())
	_, _, err := e.findBelow(v, hashKey([]byte("k")), []byte("k"))
	require.Equal(t, errMoved, err)
	require.Equal(t, "new", get(t, e, "k"))
}

// Goal (I9): after a failure of the log a large value is refused before a byte of it is
// written; one that the packs refuse for good closes the store to writes.
func TestEngine_Put_largeAfterFailure(t *testing.T) {
	e, f, o := faulty(t, "/log/", syscall.EIO, errorfs.OpFileSyncData)
	f.on.Store(true)
	require.ErrorIs(t, e.Put([]byte("doubt"), nil), ErrInDoubt)
	f.on.Store(false)
	packs, err := o.FS.List("/store/packs")
	require.NoError(t, err)
	_, err = e.writeBlob(make([]byte, 10_000))
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, syscall.EIO)
	after, err := o.FS.List("/store/packs")
	require.NoError(t, err)
	require.Equal(t, packs, after)
	_ = e.Close()
	reopened(t, o)

	e, f, o = faulty(t, ".pack", syscall.EIO, errorfs.OpFileWrite, errorfs.OpFileWriteAt)
	f.on.Store(true)
	err = e.Put([]byte("large"), make([]byte, 10_000))
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, syscall.EIO)
	f.on.Store(false)
	require.ErrorIs(t, e.Err(), syscall.EIO)
	require.ErrorIs(t, e.Put([]byte("small"), nil), ErrReadOnly)
	readsGoOn(t, e)
	_ = e.Close()
	reopened(t, o)
}

// Goal: a checkpoint whose caller stops waiting, or that cannot get its name, leaves
// nothing, and the next one is whole.
func TestEngine_Checkpoint_givenUp(t *testing.T) {
	fs := simImage(t).Image(everything)
	require.NoError(t, fs.MkdirAll("/copies", 0o755))
	o := simOptions(fs)
	o.Sync, o.SyncEvery = SyncInterval, time.Hour
	e, err := Open("/store", o)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("late"), []byte("v")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, e.Checkpoint(ctx, "/copies/one"), context.Canceled)
	fault := fs.Inject(simfs.FailOnce(simfs.OpRename, "/copies/*", 1, syscall.EIO))
	require.ErrorIs(t, e.Checkpoint(context.Background(), "/copies/one"), syscall.EIO)
	require.Equal(t, 1, fault.Fired())
	names, err := fs.List("/copies")
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, e.Checkpoint(context.Background(), "/copies/one"))
	c, err := Open("/copies/one", simOptions(fs))
	require.NoError(t, err)
	require.Equal(t, "v", get(t, c, "late"))
	require.NoError(t, c.Close())
	require.NoError(t, e.Close())
}

// Goal: a LOCK that is replaced again and again is held by whoever has the name at that
// moment, or refused as locked; never by two, and no file is left open.
func TestLockDir_replaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, lockName)
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.WriteFile(path+".new", nil, 0o644)
				_ = os.Rename(path+".new", path)
			}
		}
	})
	refused := false
	for began := time.Now(); !refused && time.Since(began) < 20*time.Second; {
		l, err := lockDir(vfs.Default, dir, false)
		if err == nil {
			require.NoError(t, l.release())
			continue
		}
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, "was replaced while we locked it")
		refused = true
	}
	close(stop)
	others.Wait()
	require.True(t, refused)
	l, err := lockDir(vfs.Default, dir, false)
	require.NoError(t, err)
	_, err = lockDir(vfs.Default, dir, false)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, l.release())
}
