package storage

import (
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: a manifest is refused when its tables go beyond its last number, and only then: what
// Pebble would refuse, or has learned since, is Pebble's to judge.
func TestStore_checkManifest(t *testing.T) {
	fs := vfs.NewMem()
	s := &Store{fs: newGate(fs, "/l3", true)}
	require.NoError(t, fs.MkdirAll("/l3", 0o755))
	check := func(edits ...[]byte) error {
		f, err := fs.Create("/l3/MANIFEST-000001", "test")
		require.NoError(t, err)
		w := record.NewWriter(f)
		for _, e := range edits {
			_, err := w.WriteRecord(e)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		require.NoError(t, f.Close())
		return s.checkManifest("/l3/MANIFEST-000001")
	}
	tables := edit(editLastSeq, 0, editNewFile2, 6, 9, 100, editKey("a"), editKey("m"), 4, 11)
	require.NoError(t, check(tables, edit(editLastSeq, 11)))
	require.NoError(t, check(tables, edit(editDeleted, 6, 9)), "the table is gone")
	require.NoError(t, check())
	require.NoError(t, check(tables, edit(55)), "an edit of a kind that is not known")
	err := check(tables)
	require.ErrorIs(t, err, ErrCorrupt)
	var damage *CorruptError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, "/l3/MANIFEST-000001", damage.File)
	require.ErrorIs(t, check(tables, edit(editLastSeq, 10)), ErrCorrupt)
	more := edit(editNewFile2, 6, 8, 100, editKey("n"), editKey("z"), 4, 12)
	for range 20 { // the same words each time, of the lowest
		require.ErrorContains(t, check(tables, more), "table 8 goes to 12")
	}
	require.ErrorIs(t, s.checkManifest("/l3/MANIFEST-000002"), os.ErrNotExist)
}
