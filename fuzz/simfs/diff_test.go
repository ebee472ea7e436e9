package simfs

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func differ(t *testing.T, seed uint64, other vfs.FS, root string, skip func(fs *FS, s step) bool) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	fs := New(nil)
	a, b := player{fs: fs}, player{fs: other, root: root}
	defer a.close()
	defer b.close()
	var done []step
	for _, s := range trace(rnd, 60) {
		if skip(fs, s) {
			continue
		}
		done = append(done, s)
		x, y := a.do(s), b.do(s)
		require.Equal(t, class(y), class(x), "seed %d: %v\nours %v, theirs %v\nafter %v", seed, s, x, y, done)
	}
	theirs, err := ReadTree(other, root+"/", nil)
	require.NoError(t, err)
	require.Equal(t, theirs.String(), fs.Tree().String(), "seed %d: %v", seed, done)
	through, err := ReadTree(fs, "/", nil)
	require.NoError(t, err)
	require.True(t, through.Equal(theirs))
}

// Goal: without a crash it is an ordinary file system, with an ordinary one's errors.
func TestFS_likeReal(t *testing.T) {
	for seed := range uint64(80) {
		differ(t, seed, vfs.Default, t.TempDir(), func(*FS, step) bool { return false })
	}
}

// Goal: the same as Pebble's own MemFS, where that follows POSIX.
func TestFS_likeMemFS(t *testing.T) {
	for seed := range uint64(200) {
		differ(t, seed, vfs.NewMem(), "", func(fs *FS, s step) bool {
			dir := func(p string) bool { i, err := fs.Stat(p); return err == nil && i.IsDir() }
			there := func(p string) bool { _, err := fs.Stat(p); return err == nil }
			switch s.op {
			case "truncate":
				return true // it has none
			case "create", "openrw":
				return dir(s.a) // it replaces a directory, or opens it
			case "link":
				return dir(s.a)
			case "rename":
				// It loses the source when the target's directory is missing, replaces
				// directories, moves them into themselves, and drops one of two links.
				return !there(s.a) || dir(s.a) || there(s.b) || !dir(fs.PathDir(s.b))
			}
			return false
		})
	}
}

// Goal: not-exist errors are what callers test for, on every call that takes a name.
func TestFS_notExist(t *testing.T) {
	fs := New(nil)
	errs := map[string]error{
		"remove": fs.Remove("x"), "rename": fs.Rename("x", "y"), "link": fs.Link("x", "y"),
	}
	_, errs["open"] = fs.Open("x")
	_, errs["dir"] = fs.OpenDir("x")
	_, errs["stat"] = fs.Stat("x")
	_, errs["list"] = fs.List("x")
	_, errs["create"] = fs.Create("x/y", cat)
	_, errs["rw"] = fs.OpenReadWrite("x/y", cat)
	_, errs["reuse"] = fs.ReuseForWrite("x", "y", cat)
	_, errs["lock"] = fs.Lock("x/y")
	for name, err := range errs {
		require.ErrorIs(t, err, os.ErrNotExist, name)
		require.True(t, os.IsNotExist(err), name)
	}
	require.NoError(t, fs.RemoveAll("x/y"))
}
