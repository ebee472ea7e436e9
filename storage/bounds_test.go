package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal (I10): however many tables there are and are read, no more are open than
// MaxOpenFiles says, by Pebble's count and by the kernel's, and what they take is told.
func TestStore_boundsOpenFiles(t *testing.T) {
	const tables = 300
	o := testOptions(vfs.Default)
	o.Dir = filepath.Join(t.TempDir(), "l3")
	s := mustOpen(t, o)
	for i := range tables { // disjoint: each goes to the bottom at once, and none is compacted
		mustIngest(t, s, uint64(i+1), []op{{'s', fmt.Sprintf("k%04d", i), "v"}})
	}
	there := int64(0)
	for _, l := range s.Metrics().Levels {
		there += l.Tables
	}
	require.GreaterOrEqual(t, there, int64(tables))
	sn := s.Current()
	defer sn.Release()
	most, files := int64(0), 0 // at any time
	for range 2 {
		for i := range tables {
			_, ok, err := sn.Get(nil, fmt.Appendf(nil, "k%04d", i))
			require.NoError(t, err)
			require.True(t, ok)
			m := s.Metrics()
			most = max(most, m.TableCacheTables)
			if n, ok := openUnder(o.Dir); ok {
				files = max(files, n)
			}
			require.Positive(t, m.TableCacheBytes)
		}
	}
	got, err := dump(sn) // an iterator over all of them
	require.NoError(t, err)
	require.Len(t, got, tables)
	t.Logf("%d of %d tables in the cache at most, %d files", most, there, files)
	// Pebble closes what its cache lets go in the background, from a queue of a hundred for
	// each processor.
	require.LessOrEqual(t, most, int64(o.MaxOpenFiles+101*runtime.GOMAXPROCS(0)))
	require.Eventually(t, func() bool { return s.Metrics().TableCacheTables <= int64(o.MaxOpenFiles) }, 5*time.Second, time.Millisecond)
	if n, ok := openUnder(o.Dir); ok { // with log, manifest and folders
		require.LessOrEqual(t, n, o.MaxOpenFiles+10)
		require.Greater(t, n, o.MaxOpenFiles/2, "the test pushes against the bound")
	}
}

// openUnder counts this process's open files below a folder.
func openUnder(dir string) (n int, ok bool) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, false
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n, true
}

// Goal (I10): the block cache keeps its bound when many times its size is read.
func TestStore_boundsBlocks(t *testing.T) {
	o := testOptions(vfs.NewMem())
	s := mustOpen(t, o)
	const keys, size = 20_000, 1000
	var ops []op
	for i := range keys {
		ops = append(ops, op{'s', fmt.Sprintf("k%06d", i), strings.Repeat(string(rune('a'+i%26)), size)})
	}
	mustIngest(t, s, 1, ops)
	sn := s.Current()
	defer sn.Release()
	most := int64(0)
	for i := range keys {
		_, ok, err := sn.Get(nil, fmt.Appendf(nil, "k%06d", i*7919%keys))
		require.NoError(t, err)
		require.True(t, ok)
		if i%50 == 0 {
			most = max(most, s.Metrics().CacheBytes)
		}
	}
	require.LessOrEqual(t, most, o.CacheBytes)
	require.Greater(t, most, o.CacheBytes/2, "the test pushes against the bound")
}
