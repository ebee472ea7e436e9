package wal

import (
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// Goal: a batch over segments that is the first one after a jump is kept,
// copied and not recycled, where storage ends inside the jump: the number that
// goes on across OPEN is the one after the jump, and not the last one plus one.
func TestRecover_spansAfterJump(t *testing.T) {
	tr := quiet(t, nil)
	require.NoError(t, tr.puts(10, 10, 10))
	require.NoError(t, tr.end())
	// Storage is ahead of the log: who repaired it had the rest from elsewhere.
	tr.above = 49
	require.NoError(t, tr.open())
	require.NoError(t, tr.put(20_000))
	require.Contains(t, tr.acked, uint64(50))
	live := tr.log.LiveBytes()
	require.NoError(t, tr.log.SetFlushed(49, 1, 1))
	require.NoError(t, tr.tick(2*time.Second))
	tr.tend()
	require.Greater(t, tr.log.LiveBytes(), live-(17<<10), "only what the life before left may go")
	require.NoError(t, tr.log.CopyTo(tr.fs, "copy", 49, 1, 50))
	disk := tr.fs.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	require.NoError(t, tr.end())

	again := tr.again(disk, "after a crash")
	again.check()
	c := tr.again(disk, "the copy")
	st, err := ReadState(disk, "copy")
	require.NoError(t, err)
	c.o.Dir = "copy"
	_, _, err = c.recover(c.o, st, true)
	require.NoError(t, err)

	// The open that follows must not let go of the beginning either.
	require.NoError(t, again.open())
	require.NoError(t, again.log.SetFlushed(49, 1, 1))
	require.NoError(t, again.tick(2*time.Second))
	again.tend()
	require.NoError(t, again.end())
	again.check()
}
