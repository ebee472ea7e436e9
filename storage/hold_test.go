package storage

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// held opens a store that keeps what is obsolete and lets it rewrite all its tables.
func held(t *testing.T) (s *Store, fs *simfs.FS, want model, obsolete []string) {
	t.Helper()
	fs = simfs.New(nil)
	o := testOptions(fs)
	s = mustOpen(t, o)
	s.sched.halt() // nothing is obsolete yet
	for i := range 3 {
		mustIngest(t, s, uint64(i+1), sets(200, "key%04d", strings.Repeat(string(rune('a'+i)), 50)))
	}
	want = dumpStore(t, s)
	require.NoError(t, s.Close())
	o.Hold = true
	s = mustOpen(t, o) // Pebble keeps one manifest beside the newest
	require.NoError(t, s.Close())
	before, err := fs.List(o.Dir)
	require.NoError(t, err)
	s = mustOpen(t, o)
	s.sched.open() // as Release will
	require.NoError(t, s.Compact(context.Background()))
	for _, name := range before {
		if strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.manifest.") || strings.HasSuffix(name, ".sst") {
			obsolete = append(obsolete, name)
		}
	}
	return s, fs, want, obsolete
}

func (s *Store) heldNames() []string {
	s.fs.mu.Lock()
	defer s.fs.mu.Unlock()
	return slices.Clone(s.fs.hold.names)
}

// Goal: with Hold every table and manifest that became obsolete stays in the folder
// until Release, which removes them; what becomes obsolete later goes as usual.
func TestStore_Release_removesWhatWasHeld(t *testing.T) {
	s, fs, want, obsolete := held(t)
	require.Greater(t, len(obsolete), 2)
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(s.heldNames(), func(n string) bool { return strings.HasSuffix(n, ".sst") })
	}, 10*time.Second, time.Millisecond, "Pebble removes nothing")
	names, err := fs.List("store/l3")
	require.NoError(t, err)
	require.Subset(t, names, obsolete)
	gone := s.heldNames()
	require.NoError(t, fs.Remove(gone[0])) // by another hand: it is what Release wants
	require.NoError(t, s.Release())
	require.Empty(t, s.heldNames())
	names, err = fs.List("store/l3")
	require.NoError(t, err)
	for _, n := range gone {
		require.NotContains(t, names, fs.PathBase(n))
	}
	require.NoError(t, s.Release(), "nothing is held any more")
	require.Equal(t, want, dumpStore(t, s))
	mustIngest(t, s, 4, sets(200, "key%04d", "later"))
	require.NoError(t, s.Compact(context.Background()))
	require.Empty(t, s.heldNames(), "held after Release")
	require.NoError(t, s.Check(context.Background()))
	require.NoError(t, s.Close())
}

// Goal: a table or a manifest that cannot be removed is left, the others are removed
// all the same, no read suffers, and the store is not degraded.
func TestStore_Release_failingRemove(t *testing.T) {
	for _, stays := range []string{"*.sst", "MANIFEST*"} {
		t.Run(stays, func(t *testing.T) {
			s, fs, want, _ := held(t)
			require.Eventually(t, func() bool {
				names := strings.Join(s.heldNames(), " ")
				return strings.Contains(names, ".sst") && strings.Contains(names, "MANIFEST")
			}, 10*time.Second, time.Millisecond)
			names := s.heldNames()
			fault := fs.Inject(simfs.FailOnce(simfs.OpRemove, stays, 1, syscall.EIO))
			require.NoError(t, s.Release(), "it is garbage")
			require.Equal(t, 1, fault.Fired())
			left := 0
			for _, n := range names {
				if _, err := fs.Stat(n); err == nil {
					left++
				}
			}
			require.Equal(t, 1, left, "only what failed is left")
			require.NoError(t, s.Err())
			require.Equal(t, want, dumpStore(t, s))
			mustIngest(t, s, 4, sets(10, "key%04d", "later"))
			require.NoError(t, s.Close())
		})
	}
}

// Goal: behind a gate that closed meanwhile nothing is removed, and it is said.
func TestStore_Release_closedGate(t *testing.T) {
	s, fs, _, _ := held(t)
	require.Eventually(t, func() bool { return len(s.heldNames()) > 0 }, 10*time.Second, time.Millisecond)
	names := s.heldNames()
	s.fs.close(syscall.EIO)
	require.ErrorIs(t, s.Release(), ErrDegraded)
	for _, n := range names {
		_, err := fs.Stat(n)
		require.NoError(t, err, n)
	}
	_ = s.Close() // says why
}

// Goal: while L3 is judged nothing is compacted: a store that is refused again and
// again neither changes nor grows.
func TestStore_Open_holdCompactsNothing(t *testing.T) {
	fs := simfs.New(nil)
	o := testOptions(fs)
	s := mustOpen(t, o)
	for i := range 12 {
		mustIngest(t, s, uint64(i+1), sets(200, "key%04d", strings.Repeat(string(rune('a'+i)), 50)))
	}
	s.sched.halt()
	require.NoError(t, s.Close())
	o.Hold = true
	var first []string
	for range 4 {
		s := mustOpen(t, o)
		time.Sleep(20 * time.Millisecond)
		require.Zero(t, s.Metrics().Compactions)
		require.NoError(t, s.Close())
		names, err := fs.List(o.Dir)
		require.NoError(t, err)
		tables := slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".sst") })
		slices.Sort(tables)
		if first == nil {
			first = tables
		}
		require.Equal(t, first, tables)
	}
}

// Goal: an older marker that lies beside the newest, as where a backup was copied over a
// store, stays until Release, like the manifest that it names.
func TestStore_Release_markers(t *testing.T) {
	fs := simfs.New(nil)
	o := testOptions(fs)
	s := mustOpen(t, o)
	mustIngest(t, s, 1, sets(10, "key%d", "v"))
	markers := func() (out []string) {
		names, err := fs.List(o.Dir)
		require.NoError(t, err)
		for _, n := range names {
			if strings.HasPrefix(n, "marker.") {
				out = append(out, n)
			}
		}
		return out
	}
	old := markers()
	require.Len(t, old, 2, "of the format and of the manifest")
	require.NoError(t, s.Close())
	s = mustOpen(t, o)
	require.NoError(t, s.Close())
	for _, n := range old { // the one of the format did not move
		f, err := fs.Create(fs.PathJoin(o.Dir, n), "")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	o.Hold = true
	s = mustOpen(t, o)
	require.Subset(t, markers(), old)
	require.NoError(t, s.Release())
	require.Len(t, markers(), 2)
	require.NotSubset(t, markers(), old)
	require.Equal(t, "v", dumpStore(t, s)["key0"])
	require.NoError(t, s.Close())
}
