package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// copyKilled copies a store that is open, and that nobody writes to, as a kill would
// leave it. Only the making of spares goes on meanwhile: then it copies once more.
func copyKilled(t *testing.T, to, from string) {
	t.Helper()
	segments := func() []string {
		names, err := filepath.Glob(filepath.Join(from, "log", "*"))
		require.NoError(t, err)
		return names
	}
	require.Eventually(t, func() bool {
		require.NoError(t, os.RemoveAll(to))
		before := segments()
		return os.CopyFS(to, os.DirFS(from)) == nil && slices.Equal(before, segments())
	}, 10*time.Second, time.Millisecond)
}

// Goal: a salvage says that the newest segment of a killed store is missing, and says
// nothing of the same store while it is whole.
func TestSalvage_newestSegmentGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	e, err := Open(dir, small(Options{Sync: SyncAlways, SegmentBytes: 64 << 10}))
	require.NoError(t, err)
	defer e.Close()
	found := 0
	for n := range 300 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%05d", n), bytes.Repeat([]byte("x"), 2500)))
		if n%20 != 0 {
			continue
		}
		img := filepath.Join(t.TempDir(), "img")
		copyKilled(t, img, dir)
		r, err := Survey(context.Background(), img, small(Options{}), nil)
		require.NoError(t, err)
		require.Empty(t, r.Lost, "killed, and whole")
		segments, err := filepath.Glob(filepath.Join(img, "log", "0*.wal"))
		require.NoError(t, err)
		slices.Sort(segments)
		// The one with the last key, and the spare that waits behind it.
		at := slices.IndexFunc(segments, func(f string) bool {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			return bytes.Contains(b, fmt.Appendf(nil, "k%05d", n))
		})
		if at < 1 {
			continue
		}
		for _, f := range segments[at:] {
			require.NoError(t, os.Remove(f))
		}
		_, err = Open(img, small(Options{ReadOnly: true}))
		require.ErrorIs(t, err, ErrCorrupt)
		r, err = Survey(context.Background(), img, small(Options{}), nil)
		require.NoError(t, err)
		require.Positive(t, r.LostCount, "after %d", n)
		found++
	}
	require.Positive(t, found)
}

// Goal: a segment that was cut short is a loss wherever it was cut.
func TestSalvage_cutSegment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	e, err := Open(dir, small(Options{Sync: SyncAlways, SegmentBytes: 64 << 10}))
	require.NoError(t, err)
	defer e.Close()
	for n := range 60 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%05d", n), bytes.Repeat([]byte("x"), 500)))
	}
	img := filepath.Join(t.TempDir(), "img")
	copyKilled(t, img, dir)
	for cut := int64(42000); cut > 9000; cut -= 1000 {
		require.NoError(t, os.Truncate(filepath.Join(img, "log", "00000000000000000001.wal"), cut))
		r, err := Survey(context.Background(), img, small(Options{}), nil)
		require.NoError(t, err)
		require.Positive(t, r.LostCount, "cut at %d, %d keys", cut, r.Keys)
	}
}

// Goal: what the disk gives back once and not again ends a salvage, and leaves nothing.
func TestSalvage_diskGetsWorse(t *testing.T) {
	for _, ext := range []string{".sst", ".wal"} {
		t.Run(ext[1:], func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "s")
			e, err := Open(dir, small(Options{Sync: SyncNever}))
			require.NoError(t, err)
			for i := range 3000 {
				require.NoError(t, e.Put(fmt.Appendf(nil, "a%05d", i), bytes.Repeat([]byte("x"), 600)))
			}
			if ext == ".sst" {
				flush(t, e)
				cp := filepath.Join(t.TempDir(), "cp")
				require.NoError(t, e.Checkpoint(context.Background(), cp))
				require.NoError(t, e.Close())
				dir = cp
			} else {
				require.NoError(t, e.Close())
			}
			var on atomic.Bool
			fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if on.Load() && op.Kind == errorfs.OpFileReadAt && strings.HasPrefix(op.Path, dir) &&
					strings.HasSuffix(op.Path, ext) && (ext == ".wal" || op.Offset > 60_000 && op.Offset < 90_000) {
					return syscall.EIO
				}
				return nil
			}))
			dst, logs := filepath.Join(t.TempDir(), "r"), 0
			_, err = Salvage(context.Background(), dir, dst, small(Options{FS: fs}), func(p SalvageProgress) {
				if p.Phase == "log" && p.Done < 2000 {
					logs++
				}
				if ext == ".sst" && p.Phase == "copying" || ext == ".wal" && logs == 2 {
					on.Store(true)
				}
			})
			require.ErrorContains(t, err, "run it again")
			require.NoDirExists(t, dst)
		})
	}
}
