package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crashImage copies a store as a kill would leave it.
func crashImage(t *testing.T, e *Engine) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "image")
	eventually(t, 10*time.Second, "no copy of "+e.dir, func() bool { // a file may get its name meanwhile
		require.NoError(t, os.RemoveAll(dst))
		return os.CopyFS(dst, os.DirFS(e.dir)) == nil
	})
	return dst
}

func flipByte(t *testing.T, file string, off int64) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	b[off] ^= 0x40
	require.NoError(t, os.WriteFile(file, b, 0o644))
}

// Goal: a rotten blob of a promised record costs its own value and nothing else;
// a pack that is gone is a loss, and refused.
func TestOpen_rottenBlobInLog(t *testing.T) {
	e := open(t, t.TempDir(), Options{LargeValue: 4 << 10})
	require.NoError(t, e.Put([]byte("blob"), []byte(strings.Repeat("large ", 2000))))
	require.NoError(t, e.Put([]byte("small"), []byte("fine")))
	require.NoError(t, e.Put([]byte("later"), []byte("its group promises the ones before")))
	image := crashImage(t, e)
	packs, err := filepath.Glob(filepath.Join(image, "packs", "*"))
	require.NoError(t, err)
	require.Len(t, packs, 1)
	info, err := os.Stat(packs[0])
	require.NoError(t, err)
	flipByte(t, packs[0], info.Size()/2)

	d, err := Open(image, small(Options{}))
	require.NoError(t, err)
	require.Equal(t, "fine", get(t, d, "small"))
	_, err = d.Get([]byte("blob"))
	var c *CorruptError
	require.ErrorAs(t, err, &c)
	require.Equal(t, filepath.Base(packs[0]), filepath.Base(c.File))
	require.ErrorIs(t, d.Check(context.Background()), ErrCorrupt)
	require.NoError(t, d.Close())

	require.NoError(t, os.Remove(packs[0]))
	_, err = Open(image, small(Options{}))
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal: Check names every damaged file, each with its own error.
func TestEngine_Check_namesEveryFile(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	for g := range 3 {
		for i := range 2000 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "g%d-%05d", g, i), []byte(strings.Repeat("x", 100))))
		}
		flush(t, e)
	}
	require.NoError(t, e.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "l3", "*.sst"))
	require.NoError(t, err)
	damaged := map[string]bool{}
	for _, f := range tables {
		if info, err := os.Stat(f); err == nil && info.Size() > 20_000 {
			flipByte(t, f, info.Size()/3)
			damaged[filepath.Base(f)] = true
		}
	}
	require.GreaterOrEqual(t, len(damaged), 2)
	e, err = Open(dir, small(Options{ReadOnly: true}))
	require.NoError(t, err)
	err = e.Check(context.Background())
	require.ErrorIs(t, err, ErrCorrupt)
	for _, p := range err.(interface{ Unwrap() []error }).Unwrap() {
		var c *CorruptError
		if errors.As(p, &c) {
			delete(damaged, filepath.Base(c.File))
		}
	}
	require.Empty(t, damaged, "not named")
	require.NoError(t, e.Close())
}

// Goal: damage in L3 is named as elsewhere: the table, and where its checksum speaks, the
// place of the block; a table that is gone by its path, at open.
func TestCorruptError_inL3(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	for i := range 500 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%03d", i), bytes.Repeat([]byte{byte(i * i)}, 100)))
	}
	flush(t, e)
	require.NoError(t, e.Close())
	tables, err := filepath.Glob(filepath.Join(dir, l3Name, "*.sst"))
	require.NoError(t, err)
	big := slices.MaxFunc(tables, func(a, b string) int {
		x, y := len(readAll(t, a)), len(readAll(t, b))
		return x - y
	})
	flipByte(t, big, 100)
	e, err = Open(dir, small(Options{ReadOnly: true}))
	require.NoError(t, err)
	var c *CorruptError
	require.ErrorAs(t, e.Check(context.Background()), &c)
	require.Equal(t, big, c.File)
	require.Zero(t, c.Offset, "the first block of the table")
	_, err = e.Get([]byte("k000"))
	c = nil
	require.ErrorAs(t, err, &c)
	require.Equal(t, big, c.File)
	require.Zero(t, c.Offset)
	require.NoError(t, e.Close())

	require.NoError(t, os.Remove(big))
	_, err = Open(dir, small(Options{}))
	c = nil
	require.ErrorAs(t, err, &c)
	require.Equal(t, big, c.File)
	require.EqualValues(t, -1, c.Offset)
}

func readAll(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return b
}

// Goal (F2): an L3 that is older than what STATE says was flushed is refused: its
// tables are gone though it opens without complaint, and the log that had their
// cells may be recycled.
func TestOpen_staleL3(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("1")))
	flush(t, e)
	require.NoError(t, e.Close())
	older := filepath.Join(t.TempDir(), "l3")
	require.NoError(t, os.CopyFS(older, os.DirFS(filepath.Join(dir, "l3"))))
	e, err = Open(dir, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("2")))
	flush(t, e)
	require.NoError(t, e.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "l3")))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "l3"), os.DirFS(older)))
	_, err = Open(dir, small(Options{}))
	require.ErrorIs(t, err, ErrCorrupt)
}

// Goal (F-36): an L3 of another store is refused.
func TestOpen_foreignL3(t *testing.T) {
	var dirs [2]string
	for i := range dirs {
		dirs[i] = t.TempDir()
		e, err := Open(dirs[i], small(Options{}))
		require.NoError(t, err)
		require.NoError(t, e.Put([]byte("k"), nil))
		flush(t, e)
		require.NoError(t, e.Close())
	}
	require.NoError(t, os.RemoveAll(filepath.Join(dirs[0], "l3")))
	require.NoError(t, os.Rename(filepath.Join(dirs[1], "l3"), filepath.Join(dirs[0], "l3")))
	_, err := Open(dirs[0], small(Options{}))
	require.ErrorIs(t, err, ErrForeign)
}

// Goal: a manifest that lost its end, by one bit, is refused, and every table that it
// named before is still there.
func TestOpen_cutManifest_keepsTables(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("1")))
	flush(t, e)
	require.NoError(t, e.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "l3", "*.sst"))
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	manifest := filepath.Join(dir, "l3", "MANIFEST-000001")
	info, err := os.Stat(manifest)
	require.NoError(t, err)
	flipByte(t, manifest, info.Size()-20)
	for range 2 {
		_, err = Open(dir, small(Options{}))
		require.ErrorIs(t, err, ErrCorrupt)
		for _, f := range append(tables, manifest) {
			require.FileExists(t, f)
		}
	}
}
