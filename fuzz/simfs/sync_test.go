package simfs

import (
	"io"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func text(t *testing.T, f io.ReaderAt) string {
	t.Helper()
	p, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	require.NoError(t, err)
	return string(p)
}

func dataOf(name string) func(Tree) string {
	return func(t Tree) string { return string(t[name].Data) }
}

// Goal: a sync keeps what was written before it, and only that.
func TestFile_Sync_keeps(t *testing.T) {
	for name, sync := range map[string]func(vfs.File) error{"sync": vfs.File.Sync, "sync-data": vfs.File.SyncData} {
		fs := New(&Options{Damage: DamageNone})
		f := put(t, fs, "f", []byte("aa"))
		syncDir(t, fs, "/")
		require.NoError(t, sync(f))
		_, err := f.Write([]byte("bb"))
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"aa", "aabb", "aa\x00\x00"}, keys(outcomes(fs, 100, dataOf("/f"))), name)
		require.NoError(t, sync(f))
		require.Equal(t, []string{"aabb"}, keys(outcomes(fs, 50, dataOf("/f"))), name)
		require.NoError(t, f.Close())
	}
}

// Goal: SyncTo keeps nothing and says so.
func TestFile_SyncTo_nothing(t *testing.T) {
	fs := New(nil)
	f := put(t, fs, "f", []byte("aa"))
	syncDir(t, fs, "/")
	full, err := f.SyncTo(2)
	require.NoError(t, err)
	require.False(t, full)
	require.Contains(t, outcomes(fs, 50, dataOf("/f")), "")
	require.NoError(t, f.Close())
}

// Goal: after a sync that failed and lost, readers see the new bytes, a later sync
// succeeds, and a crash or an eviction shows that they never were on the disk.
func TestFile_Sync_lost(t *testing.T) {
	fs := New(&Options{Damage: DamageNone})
	f := keep(t, fs, "f", []byte("old!"))
	syncDir(t, fs, "/")
	fs.Inject(FailOnce(OpSync, "f", 1, syscall.EIO))
	_, err := f.WriteAt([]byte("new!more"), 0)
	require.NoError(t, err)
	err = f.Sync()
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, ErrInjected)
	require.Equal(t, "new!more", text(t, f))
	require.NoError(t, f.Sync())
	require.Equal(t, "new!more", text(t, f))
	// The length is metadata and was kept by the second sync; the bytes were not.
	require.Equal(t, []string{"old!\x00\x00\x00\x00"}, keys(outcomes(fs, 100, dataOf("/f"))))
	require.NoError(t, fs.Evict("f"))
	require.Equal(t, "old!\x00\x00\x00\x00", text(t, f))
	require.NoError(t, f.Close())
}

// Goal: writing to the page again makes it dirty again as a whole, so that what was
// lost is kept by the next sync; other pages stay lost.
func TestFile_Sync_lostPageAgain(t *testing.T) {
	fs := New(&Options{Damage: DamageNone})
	f := keep(t, fs, "f", make([]byte, 2*PageSize))
	syncDir(t, fs, "/")
	fs.Inject(FailOnce(OpSync, "f", 1, syscall.EIO))
	for _, off := range []int64{0, PageSize} {
		_, err := f.WriteAt([]byte("lost"), off)
		require.NoError(t, err)
	}
	require.Error(t, f.Sync())
	_, err := f.WriteAt([]byte("again"), 3000)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	d := fs.Crash(CrashConfig{Image: Nothing}).Tree()["/f"].Data
	require.Equal(t, "lost", string(d[:4]))
	require.Equal(t, "again", string(d[3000:3005]))
	require.Equal(t, "\x00\x00\x00\x00", string(d[PageSize:PageSize+4]))
	require.NoError(t, f.Close())
}

// Goal: a failed sync may have reached the disk, may leave all unsynced, and a disk
// may lie.
func TestFile_Sync_effects(t *testing.T) {
	for effect, want := range map[Effect][]string{
		EffectDone: {"new"}, EffectKept: {"old", "new", "\x00\x00\x00"},
		EffectNone: {"old", "new", "\x00\x00\x00"}, EffectLost: {"old"},
	} {
		fs := New(&Options{Damage: DamageNone})
		f := keep(t, fs, "f", []byte("old"))
		syncDir(t, fs, "/")
		_, err := f.WriteAt([]byte("new"), 0)
		require.NoError(t, err)
		fs.Inject(Rule{Ops: OpSync, Err: syscall.EIO, Effect: effect})
		require.ErrorIs(t, f.Sync(), syscall.EIO)
		require.ElementsMatch(t, want, keys(outcomes(fs, 100, dataOf("/f"))), "effect %d", effect)
		require.NoError(t, f.Sync())
		if effect != EffectLost {
			want = []string{"new"}
		}
		require.Equal(t, want, keys(outcomes(fs, 100, dataOf("/f"))), "effect %d", effect)
		require.NoError(t, f.Close())
	}
	fs := New(nil)
	fs.Inject(Rule{Ops: OpSync, Effect: EffectLost})
	f := put(t, fs, "f", []byte("x"))
	syncDir(t, fs, "/")
	require.NoError(t, f.Sync()) // a lie
	require.Equal(t, []byte{}, fs.Crash(CrashConfig{Image: Nothing}).Tree()["/f"].Data)
	require.NoError(t, f.Close())
}

// Goal: a directory's sync that fails leaves its names to the crash, and no later sync
// helps until the directory changes again.
func TestFile_Sync_lostNames(t *testing.T) {
	fs := New(nil)
	require.NoError(t, put(t, fs, "a", nil).Close())
	fs.Inject(FailOnce(OpSyncDir, "", 1, syscall.EIO))
	d, err := fs.OpenDir("/")
	require.NoError(t, err)
	require.ErrorIs(t, d.Sync(), syscall.EIO)
	require.NoError(t, d.Sync())
	require.ElementsMatch(t, []string{"[]", "[/a]"}, keys(outcomes(fs, 50, names)))
	require.NoError(t, put(t, fs, "b", nil).Close())
	require.NoError(t, d.Sync())
	require.Equal(t, []string{"[/a /b]"}, keys(outcomes(fs, 50, names)))
	require.NoError(t, d.Close())
}

// Goal: Ext4Like, SyncData keeps the name a file was created with, Sync the later ones
// too.
func TestFile_SyncData_ext4(t *testing.T) {
	fs := New(&Options{Ext4Like: true})
	f := put(t, fs, "a", []byte("x"))
	require.NoError(t, f.SyncData())
	require.Equal(t, []string{"[/a]"}, keys(outcomes(fs, 50, names)))
	require.NoError(t, fs.Rename("a", "b"))
	require.NoError(t, f.SyncData())
	require.Contains(t, outcomes(fs, 50, names), "[/a]")
	require.NoError(t, f.Sync())
	require.Equal(t, []string{"[/b]"}, keys(outcomes(fs, 50, names)))
	require.NoError(t, f.Close())
}
