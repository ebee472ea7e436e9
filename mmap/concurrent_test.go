package mmap

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Goal: while a large value is on its way to a slow disk, what was written before it
// can be synced, and the state asked for.
func TestStore_Sync_besideSlowWrite(t *testing.T) {
	var slow atomic.Bool
	began, release := make(chan struct{}, 1), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, packSuffix) && slow.CompareAndSwap(true, false) {
			began <- struct{}{}
			<-release
		}
		return nil
	}))
	s, err := Open(Options{FS: fs, Dir: "/packs", NextPack: 1, Compression: None})
	require.NoError(t, err)
	ref, err := s.Write([]byte("small, before"))
	require.NoError(t, err)
	slow.Store(true)
	done := make(chan error)
	go func() {
		_, err := s.Write(make([]byte, 1<<20))
		done <- err
	}()
	<-began
	synced := make(chan error)
	go func() { synced <- s.Sync() }()
	select {
	case err := <-synced:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Error("Sync waits for a write that is not its own")
	}
	s.High()
	s.Metrics()
	require.NoError(t, s.Verify(ref))
	close(release)
	require.NoError(t, <-done)
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
}
