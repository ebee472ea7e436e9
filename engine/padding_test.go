package engine

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: a log that lost some of its last bytes is opened, with what it has or with less,
// or is refused; a store that was opened and written to since is never refused.
func TestOpen_lastBytesCut(t *testing.T) {
	for length := range 8 { // of padding behind the last group
		if testing.Short() && length%3 > 0 {
			continue
		}
		made := simfs.New(nil)
		o := Options{FS: made, MemoryBudget: minBudget, SegmentBytes: minSegmentBytes, DiskReserve: -1}
		e, err := Open("/store", &o)
		require.NoError(t, err)
		require.NoError(t, e.Put([]byte("k"), make([]byte, 100+length)))
		require.NoError(t, e.Close())
		closed := made.Cut()
		for cut := 1; cut <= 130; cut++ { // SEAL, a marker, and into the group
			fs := closed.Image(simfs.CrashConfig{Image: simfs.Everything})
			o.FS = fs
			cutLast(t, fs, "/store/"+logName, cut)

			at := fmt.Sprintf("length %d, cut %d", length, cut)
			for _, o.Recovery = range []RecoveryMode{RecoverStrict, RecoverPointInTime} {
				if e, err = Open("/store", &o); err == nil {
					break
				}
				require.ErrorIs(t, err, ErrCorrupt, at)
			}
			require.NoError(t, err, at)
			require.NoError(t, e.Put([]byte("more"), []byte("v")))
			require.NoError(t, e.Close())
			o.Recovery = RecoverStrict
			e, err = Open("/store", &o)
			require.NoError(t, err, at)
			require.NoError(t, e.Close())
		}
	}
}

// cutLast takes the last bytes that were written off the newest segment.
func cutLast(t *testing.T, fs vfs.FS, dir string, cut int) {
	t.Helper()
	names, err := fs.List(dir)
	require.NoError(t, err)
	slices.Sort(names)
	name := fs.PathJoin(dir, names[len(names)-1])
	f, err := fs.Open(name)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	end := len(b) // the rest is zeros
	for b[end-1] == 0 {
		end--
	}
	f, err = fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(b[:(end+7)&^7-cut])
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
