package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sound is a closed store of n keys, all in L3.
func sound(t *testing.T, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	e, err := Open(dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%05d", i), []byte("value")))
	}
	flush(t, e)
	require.NoError(t, e.Close())
	return dir
}

// Goal: the new store knows what its L3 has: one that loses it later is refused, and
// does not open empty.
func TestSalvage_losesL3Later(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "rescued")
	r, err := Salvage(context.Background(), sound(t, 300), dst, small(Options{}), nil)
	require.NoError(t, err)
	require.EqualValues(t, 300, r.Keys)
	e, err := Open(dst, small(Options{ReadOnly: true}))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dst, "l3")))
	_, err = Open(dst, small(Options{}))
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: what somebody puts into dst while the store is examined stops the salvage and
// stays; what comes while it copies stays, too, and nothing that opens is left.
func TestSalvage_foreignFileInDst(t *testing.T) {
	dir := sound(t, 3000)
	for _, phase := range []string{"examining", "copying"} {
		t.Run(phase, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "rescued")
			theirs := filepath.Join(dst, "theirs")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			put := false
			_, err := Salvage(ctx, dir, dst, small(Options{}), func(p SalvageProgress) {
				if p.Phase == phase && !put {
					put = true
					require.NoError(t, os.MkdirAll(dst, 0o755))
					require.NoError(t, os.WriteFile(theirs, []byte("x"), 0o644))
				}
				if p.Phase == "copying" {
					cancel()
				}
			})
			require.True(t, put)
			if phase == "examining" {
				require.ErrorIs(t, err, os.ErrExist)
			} else {
				require.ErrorIs(t, err, context.Canceled)
			}
			names, err := filepath.Glob(filepath.Join(dst, "*"))
			require.NoError(t, err)
			require.Equal(t, []string{theirs}, names)
		})
	}
}

// Goal: an empty dst that was there stays, one that was made goes.
func TestSalvage_canceledLeavesNothing(t *testing.T) {
	dir := sound(t, 3000)
	for _, there := range []bool{false, true} {
		dst := filepath.Join(t.TempDir(), "rescued")
		if there {
			require.NoError(t, os.Mkdir(dst, 0o755))
		}
		ctx, cancel := context.WithCancel(context.Background())
		_, err := Salvage(ctx, dir, dst, small(Options{}), func(p SalvageProgress) {
			if p.Phase == "copying" {
				cancel()
			}
		})
		cancel()
		require.ErrorIs(t, err, context.Canceled)
		names, err := os.ReadDir(dst)
		require.Equal(t, there, err == nil)
		require.Empty(t, names)
	}
}

// Goal: no way into the damaged store by a symbolic link.
func TestSalvage_dstThroughLink(t *testing.T) {
	dir := sound(t, 10)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	for _, dst := range []string{filepath.Join(link, "rescued"), filepath.Join(link, "a", "b"), link} {
		_, err := Salvage(context.Background(), dir, dst, small(Options{}), nil)
		require.Error(t, err, dst)
	}
	_, err := Salvage(context.Background(), link, filepath.Join(dir, "rescued"), small(Options{}), nil)
	require.ErrorIs(t, err, ErrOptions)
	_, err = os.Stat(filepath.Join(dir, "rescued"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Goal (I10): tables are open only while their keys are passed, range tombstones or not.
func TestTableMerge_openTables(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	e, err := Open(dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	const tables = 30
	for i := range tables {
		for j := range 20 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "k%03d/%03d", i, j), []byte("value")))
		}
		require.NoError(t, e.DeleteRange(fmt.Appendf(nil, "k%03d/005", i), fmt.Appendf(nil, "k%03d/006", i)))
		flush(t, e)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	require.NoError(t, e.Checkpoint(context.Background(), killed))
	require.NoError(t, e.Close())
	w, err := newWreck(context.Background(), killed, small(Options{}), nil)
	require.NoError(t, err)
	defer w.close()
	require.NoError(t, w.examine())
	m := newTableMerge(w)
	defer m.close()
	require.Greater(t, len(m.pending), 10)
	held := func() (n int) { // tables that this process has open
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, killed) && strings.HasSuffix(to, ".sst") {
				n++
			}
		}
		return n
	}
	for {
		_, ok, err := m.next(func(entryAt, bool, []byte) {})
		require.NoError(t, err)
		require.LessOrEqual(t, held(), 5)
		if !ok {
			return
		}
	}
}

// Goal: a directory of somebody else's that has a file called log is foreign.
func TestOpen_foreignLogFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "log"), []byte("x"), 0o644))
	_, err := Open(dir, small(Options{}))
	require.ErrorIs(t, err, ErrForeign)
}
