package engine

import (
	"bytes"
	"context"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Goal (F-09, I11): a callback of the user's that panics, over a value of each tier and in
// the middle of a scan, meets the user's own recover. Nothing is held for it afterwards: the
// store reads, writes, flushes and closes, and Close waits for nobody.
func TestEngine_callbackPanics(t *testing.T) {
	dir := t.TempDir()
	before := oracle.Held()
	e, err := Open(dir, &Options{MemoryBudget: minBudget, LargeValue: 4 << 10})
	require.NoError(t, err)
	values := map[string][]byte{
		"down": []byte("in L3"), "raw": blobValue(rand.New(rand.NewSource(1)), 64<<10), "zip": bytes.Repeat([]byte("a state "), 8<<10), "map": []byte("in the map"),
	}
	for _, k := range []string{"down", "raw", "zip"} {
		require.NoError(t, e.Put([]byte(k), values[k]))
	}
	flush(t, e)
	require.NoError(t, e.Put([]byte("map"), values["map"]))
	s, err := e.Snapshot()
	require.NoError(t, err)
	for range 3 { // from L3, from a cache, beside what the last one left
		for k, want := range values {
			for _, view := range []func([]byte, func([]byte) error) error{e.View, s.View} {
				require.PanicsWithValue(t, "the user's own", func() {
					_ = view([]byte(k), func(v []byte) error {
						require.Equal(t, want, v)
						panic("the user's own")
					})
				})
			}
		}
		require.PanicsWithValue(t, "the user's own", func() {
			for range e.Scan(Range{}) {
				panic("the user's own")
			}
		})
		for k, want := range values {
			require.NoError(t, e.Put([]byte(k), want))
			require.Equal(t, string(want), get(t, e, k))
		}
		flush(t, e)
	}
	require.NoError(t, s.Close())
	require.NoError(t, e.Check(context.Background()))
	err, stacks := oracle.Within(10*time.Second, "Close", e.Close)
	require.NoError(t, err, stacks)
	require.NoError(t, before.Check(5*time.Second))
}
