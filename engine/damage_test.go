package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// crashImage copies a store as a kill would leave it.
func crashImage(t *testing.T, e *Engine) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.CopyFS(dst, os.DirFS(e.dir)))
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
