package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a log that lost some of its last bytes is opened, with what it has or with less,
// or is refused; a store that was opened and written to since is never refused.
func TestOpen_lastBytesCut(t *testing.T) {
	opened := 0
	for length := range 9 {
		for cut := int64(1); cut <= 24; cut++ {
			dir := t.TempDir()
			o := Options{MemoryBudget: minBudget, SegmentBytes: minSegmentBytes, DiskReserve: -1}
			e, err := Open(dir, &o)
			require.NoError(t, err)
			require.NoError(t, e.Put([]byte("k"), make([]byte, 100+length)))
			require.NoError(t, e.Close())
			segs, err := filepath.Glob(filepath.Join(dir, logName, "*.wal"))
			require.NoError(t, err)
			slices.Sort(segs)
			last := segs[len(segs)-1]
			b, err := os.ReadFile(last)
			require.NoError(t, err)
			end := int64(len(b)) // the file ends with zeros where nothing was written
			for end > 0 && b[end-1] == 0 {
				end--
			}
			require.NoError(t, os.Truncate(last, (end+7)&^7-cut))
			at := fmt.Sprintf("length %d, cut %d", length, cut)
			o.Recovery = RecoverPointInTime
			e, err = Open(dir, &o)
			if err != nil {
				require.ErrorIs(t, err, ErrCorrupt, at)
				continue
			}
			opened++
			require.NoError(t, e.Put([]byte("more"), []byte("v")))
			require.NoError(t, e.Close())
			o.Recovery = RecoverStrict
			e, err = Open(dir, &o)
			require.NoError(t, err, at)
			require.NoError(t, e.Close())
		}
	}
	require.NotZero(t, opened)
}
