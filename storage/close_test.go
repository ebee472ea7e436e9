package storage

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: a store that closes while an iterator does waits for it, also for one that is
// not kept for the next scan: Pebble calls it leaked otherwise. The test stands where
// Iter.Close was stopped between the two.
func TestStore_Close_meetsIterClose(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(20, "k%03d", "v"))
	sn := s.Current()
	defer sn.Release()
	it, err := sn.NewIter(nil, nil)
	require.NoError(t, err)
	require.True(t, it.First())
	it.mu.Lock()
	require.False(t, sn.putScan(it, false), "it is not kept")
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err = <-closed:
		t.Errorf("Close did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	it.mu.Unlock()
	require.NoError(t, it.Close())
	if !t.Failed() {
		require.NoError(t, <-closed)
	}
}
