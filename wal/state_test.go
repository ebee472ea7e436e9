package wal

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: a process killed between write and sync of one slot, and the power cut while
// its successor writes the other, leave one that verifies.
func TestState_killThenPowerCut(t *testing.T) {
	fs := simfs.New(nil)
	st, err := CreateState(fs, "/store", [16]byte{1})
	require.NoError(t, err)
	for range 2 { // either slot
		killed, err := openStateFile(fs, "/store")
		require.NoError(t, err)
		st.sequence++
		st.put(killed.buf[:])
		_, err = killed.f.WriteAt(killed.buf[:], killed.slot*pageBytes)
		require.NoError(t, err)
		require.NoError(t, killed.f.Close()) // which syncs nothing
		next, err := openStateFile(fs, "/store")
		require.NoError(t, err)
		require.NotEqual(t, killed.slot, next.slot)
		st.sequence++
		st.put(next.buf[:])
		_, err = next.f.WriteAt(next.buf[:], next.slot*pageBytes)
		require.NoError(t, err)
		for seed := range uint64(200) {
			got, err := ReadState(fs.Crash(simfs.CrashConfig{Seed: seed}), "/store")
			require.NoError(t, err, seed)
			require.GreaterOrEqual(t, got.sequence, st.sequence-1, seed)
		}
		require.NoError(t, next.f.SyncData())
		require.NoError(t, next.f.Close())
		st, err = ReadState(fs, "/store")
		require.NoError(t, err)
		st.sequence++
		st.put(next.buf[:])
		f, err := openStateFile(fs, "/store")
		require.NoError(t, err)
		require.NoError(t, f.write(&st))
		require.NoError(t, f.f.Close())
	}
}
