package engine

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal (I9): a full disk that closed L3 until reopen is no full disk that passes: puts
// are refused with the cause, and are not taken until the generations are full while
// the flusher tries in vain.
func TestEngine_Flush_fullDiskUnderManifest(t *testing.T) {
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	fault := fs.Inject(simfs.FailOnce(simfs.OpSyncs, "MANIFEST-*", 1, syscall.ENOSPC))
	err = e.Flush(context.Background())
	require.Equal(t, 1, fault.Fired())
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Eventually(t, func() bool { return e.Put([]byte("k"), []byte("w")) != nil }, 5*time.Second, time.Millisecond)
	err = e.Put([]byte("k"), []byte("w"))
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, err, syscall.ENOSPC)
	v, err := e.Get([]byte("k"))
	require.NoError(t, err)
	require.NotEmpty(t, v)
	require.ErrorIs(t, e.Close(), syscall.ENOSPC)
	simVerify(t, fs, 0, 0, "reopened")
}

// Goal: a write that a read-only store refuses is in no doubt, whatever the failure that
// made it so had left in doubt: nothing of it was written.
func TestEngine_Put_refusedIsNoDoubt(t *testing.T) {
	for _, path := range []string{"STATE", "spare-*"} {
		fs := simfs.New(nil)
		o := simOptions(fs)
		o.Sync = SyncInterval
		e, err := Open("/store", o)
		require.NoError(t, err)
		require.NoError(t, e.Put([]byte("k"), []byte("v")))
		fs.Inject(simfs.FailFrom(simfs.OpSyncs, path, 1, syscall.EIO))
		_ = e.Flush(context.Background()) // it may go well where the log needs no sync
		eventually(t, 10*time.Second, path, func() bool { return e.Put([]byte("k"), []byte("w")) != nil })
		for range 10 {
			err := e.Put([]byte("k"), []byte("x"))
			require.ErrorIs(t, err, ErrReadOnly, path)
			require.ErrorIs(t, err, syscall.EIO, path)
			require.NotErrorIs(t, err, ErrInDoubt, path)
			require.NotErrorIs(t, e.Err(), ErrInDoubt, path)
		}
		_ = e.Close()
	}
}
