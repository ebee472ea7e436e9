package simfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// durable is a file system with /f, /p and /q as directories' names kept.
func durable(t *testing.T, o Options) *FS {
	fs := New(&o)
	require.NoError(t, fs.MkdirAll("p", 0))
	require.NoError(t, fs.MkdirAll("q", 0))
	require.NoError(t, keep(t, fs, "p/f", []byte("f")).Close())
	syncDir(t, fs, "/")
	syncDir(t, fs, "p")
	syncDir(t, fs, "q")
	require.Equal(t, []string{"[/p /p/f /q]"}, keys(outcomes(fs, 20, names)))
	return fs
}

// Goal: a name is there or not until its directory is synced; syncing the file is not
// enough, unless Ext4Like.
func TestNames_create(t *testing.T) {
	for _, ext4 := range []bool{false, true} {
		fs := New(&Options{Ext4Like: ext4})
		f := put(t, fs, "a", []byte("x"))
		require.ElementsMatch(t, []string{"[]", "[/a]"}, keys(outcomes(fs, 50, names)))
		require.NoError(t, f.Sync())
		want := []string{"[]", "[/a]"}
		if ext4 {
			want = []string{"[/a]"}
		}
		require.ElementsMatch(t, want, keys(outcomes(fs, 50, names)), "ext4 %v", ext4)
		syncDir(t, fs, "/")
		require.Equal(t, []string{"[/a]"}, keys(outcomes(fs, 50, names)))
		require.NoError(t, f.Close())
	}
}

// Goal: a rename leaves the old name, the new one, or both.
func TestNames_rename(t *testing.T) {
	fs := durable(t, Options{PessimisticRename: true})
	require.NoError(t, fs.Rename("p/f", "p/g"))
	require.ElementsMatch(t, []string{"[/p /p/f /q]", "[/p /p/g /q]", "[/p /p/f /p/g /q]"}, keys(outcomes(fs, 200, names)))
	syncDir(t, fs, "p")
	require.Equal(t, []string{"[/p /p/g /q]"}, keys(outcomes(fs, 50, names)))
}

// Goal: between directories neither name may be left, but only if one asks for it;
// and whichever directory is synced keeps its half.
func TestNames_renameAcross(t *testing.T) {
	old, now, both, none := "[/p /p/f /q]", "[/p /q /q/f]", "[/p /p/f /q /q/f]", "[/p /q]"
	fs := durable(t, Options{})
	require.NoError(t, fs.Rename("p/f", "q/f"))
	require.ElementsMatch(t, []string{old, now, both}, keys(outcomes(fs, 200, names)))
	syncDir(t, fs, "p") // the old name is gone, so the new one must be there
	require.Equal(t, []string{now}, keys(outcomes(fs, 50, names)))

	fs = durable(t, Options{PessimisticRename: true})
	require.NoError(t, fs.Rename("p/f", "q/f"))
	require.ElementsMatch(t, []string{old, now, both, none}, keys(outcomes(fs, 200, names)))
	syncDir(t, fs, "p")
	require.ElementsMatch(t, []string{now, none}, keys(outcomes(fs, 50, names)))

	fs = durable(t, Options{})
	require.NoError(t, fs.Rename("p/f", "q/f"))
	syncDir(t, fs, "q")
	require.ElementsMatch(t, []string{now, both}, keys(outcomes(fs, 50, names)))
}

// Goal: what a rename replaces is there until the replacement is.
func TestNames_renameOver(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, keep(t, fs, "p/tmp", []byte("new")).Close())
	syncDir(t, fs, "p")
	require.NoError(t, fs.Rename("p/tmp", "p/f"))
	seen := outcomes(fs, 200, func(t Tree) string { return names(t) + string(t["/p/f"].Data) })
	require.ElementsMatch(t, []string{"[/p /p/f /p/tmp /q]f", "[/p /p/f /p/tmp /q]new", "[/p /p/f /q]new"}, keys(seen))
}

// Goal: link and unlink are two changes: the file may have both names, one, or none.
func TestNames_linkUnlink(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, fs.Link("p/f", "p/g"))
	require.NoError(t, fs.Remove("p/f"))
	require.ElementsMatch(t, []string{"[/p /p/f /q]", "[/p /p/f /p/g /q]", "[/p /p/g /q]", "[/p /q]"}, keys(outcomes(fs, 200, names)))
	syncDir(t, fs, "p")
	for _, img := range fs.CrashImages(1, 20) {
		require.Equal(t, "f", string(img.Tree()["/p/g"].Data))
	}
}

// Goal: an unlinked file may come back, with its bytes, until the directory is synced.
func TestNames_unlink(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, fs.Remove("p/f"))
	seen := outcomes(fs, 100, func(t Tree) string { return names(t) + string(t["/p/f"].Data) })
	require.ElementsMatch(t, []string{"[/p /p/f /q]f", "[/p /q]"}, keys(seen))
	syncDir(t, fs, "p")
	require.Equal(t, []string{"[/p /q]"}, keys(outcomes(fs, 50, names)))
}

// Goal: a name goes through its meanings in order, and each of them happens.
func TestNames_again(t *testing.T) {
	fs := New(&Options{Damage: DamageNone})
	for _, s := range []string{"1", "2"} {
		require.NoError(t, keep(t, fs, "a", []byte(s)).Close())
	}
	seen := outcomes(fs, 200, func(t Tree) string { return names(t) + string(t["/a"].Data) })
	require.ElementsMatch(t, []string{"[]", "[/a]1", "[/a]2"}, keys(seen))
	syncDir(t, fs, "/")
	require.NoError(t, fs.Remove("a"))
	require.NoError(t, keep(t, fs, "a", []byte("3")).Close())
	seen = outcomes(fs, 200, func(t Tree) string { return names(t) + string(t["/a"].Data) })
	require.ElementsMatch(t, []string{"[]", "[/a]2", "[/a]3"}, keys(seen))
}

// Goal: a file in a lost directory is lost, synced or not; Ext4Like it never is.
func TestNames_lostDirectory(t *testing.T) {
	for _, ext4 := range []bool{false, true} {
		fs := New(&Options{Ext4Like: ext4})
		require.NoError(t, fs.MkdirAll("a/b", 0))
		require.NoError(t, keep(t, fs, "a/b/f", []byte("f")).Close())
		syncDir(t, fs, "a/b")
		want := []string{"[/a /a/b /a/b/f]"}
		if !ext4 {
			want = append(want, "[]", "[/a]")
		}
		require.ElementsMatch(t, want, keys(outcomes(fs, 200, names)), "ext4 %v", ext4)
		syncDir(t, fs, "a")
		syncDir(t, fs, "/")
		require.Equal(t, []string{"[/a /a/b /a/b/f]"}, keys(outcomes(fs, 20, names)))
	}
}

// Goal: a durable file is never nowhere: not when it moves into a directory that has
// no durable name yet, not when the directory it left is removed.
func TestNames_moveKeeps(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, fs.MkdirAll("new", 0))
	require.NoError(t, fs.Rename("p/f", "new/f"))
	require.NoError(t, fs.Remove("p"))
	seen := outcomes(fs, 500, func(t Tree) string {
		_, a := t["/p/f"]
		_, b := t["/new/f"]
		if !a && !b {
			return "nowhere: " + names(t)
		}
		return "there"
	})
	require.Equal(t, []string{"there"}, keys(seen))
	syncDir(t, fs, "/")
	require.Equal(t, []string{"[/new /new/f /q]"}, keys(outcomes(fs, 50, names)))
}

// Goal: a directory moves as a whole and is in one place.
func TestNames_moveDirectory(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, fs.Rename("p", "q/p"))
	require.ElementsMatch(t, []string{"[/p /p/f /q]", "[/q /q/p /q/p/f]"}, keys(outcomes(fs, 100, names)))
	fs = durable(t, Options{PessimisticRename: true})
	require.NoError(t, fs.Rename("p", "q/p"))
	require.ElementsMatch(t, []string{"[/p /p/f /q]", "[/q /q/p /q/p/f]", "[/q]"}, keys(outcomes(fs, 100, names)))
}

// Goal: RemoveAll may be cut anywhere; nothing durable beside it is touched.
func TestNames_removeAll(t *testing.T) {
	fs := durable(t, Options{})
	require.NoError(t, fs.RemoveAll("p"))
	require.ElementsMatch(t, []string{"[/p /p/f /q]", "[/p /q]", "[/q]"}, keys(outcomes(fs, 100, names)))
}
