package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal (I12): an argument that is missing is an error that names it, and no panic, on
// an engine that is open, read-only or closed, and for a value in every place.
func TestEngine_missingArguments(t *testing.T) {
	fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
	for _, readOnly := range []bool{false, true} {
		o := simOptions(fs)
		o.ReadOnly = readOnly
		e, err := Open("/store", o)
		require.NoError(t, err)
		s, err := e.Snapshot()
		require.NoError(t, err)
		for i := range 20 { // small and large, in the map and in L3
			for range 2 {
				require.ErrorIs(t, e.View(simKey(i), nil), ErrArgument)
				require.ErrorContains(t, s.View(simKey(i), nil), "View: fn is nil")
			}
		}
		require.ErrorIs(t, e.View([]byte("absent"), nil), ErrNotFound)
		require.NoError(t, s.Close())
		b := e.NewBatch()
		require.NoError(t, b.Delete([]byte("k")))
		var none context.Context
		calls := map[string]func() error{
			"Flush":        func() error { return e.Flush(none) },
			"Compact":      func() error { return e.Compact(none) },
			"Sync":         func() error { return e.Sync(none) },
			"WaitDurable":  func() error { return e.WaitDurable(none, 1) },
			"Check":        func() error { return e.Check(none) },
			"Checkpoint":   func() error { return e.Checkpoint(none, "/copy") },
			"ApplyContext": func() error { _, err := e.ApplyContext(none, b); return err },
			"CloseContext": func() error { return e.CloseContext(none) },
			"Create":       func() error { _, err := e.Create(none, simKey(1)); return err },
			"Salvage":      func() error { _, err := Salvage(none, "/store", "/rescued", o, nil); return err },
			"Survey":       func() error { _, err := Survey(none, "/store", o, nil); return err },
		}
		for _, closed := range []bool{false, true} {
			for name, f := range calls {
				err := f()
				require.ErrorIs(t, err, ErrArgument, name)
				require.ErrorContains(t, err, name+": ctx is nil")
			}
			if !closed {
				require.NoError(t, e.Check(context.Background()), "not one of them closed it")
				require.NoError(t, e.Close())
			}
		}
	}
}

// Goal (I12): keys, ranges and batches that are nil, empty, upside down or too long get
// an answer from every room: none, or an error of the door.
func TestEngine_oddArguments(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	require.NoError(t, e.Put([]byte("b"), []byte("in L3")))
	flush(t, e)
	require.NoError(t, e.Put([]byte("c"), []byte("in the map")))
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Close()
	long := make([]byte, MaxKey+10)
	for i := range long {
		long[i] = 0xff
	}
	for _, key := range [][]byte{nil, {}, long} {
		for _, r := range []interface {
			GetInto(dst, key []byte) ([]byte, error)
			View(key []byte, fn func([]byte) error) error
			Has(key []byte) (bool, error)
		}{e, s} {
			_, err := r.GetInto(nil, key)
			require.ErrorIs(t, err, ErrNotFound)
			require.ErrorIs(t, r.View(key, func([]byte) error { return nil }), ErrNotFound)
			ok, err := r.Has(key)
			require.NoError(t, err)
			require.False(t, ok)
		}
		_, err := e.Stat(key)
		require.ErrorIs(t, err, ErrNotFound)
		require.Error(t, e.Put(key, nil))
		require.Error(t, e.Delete(key))
	}
	for _, reverse := range []bool{false, true} {
		for _, r := range []struct {
			lower, upper []byte
			want         int
		}{
			{nil, nil, 2}, {[]byte{}, nil, 2}, {nil, []byte{}, 0}, {[]byte{}, []byte{}, 0},
			{[]byte("c"), []byte("b"), 0}, {[]byte("c"), []byte{}, 0}, {long, []byte("b"), 0},
			{[]byte("b"), []byte("b"), 0}, {long, nil, 0}, {nil, long, 2}, {long, long, 0},
		} {
			at := fmt.Sprintf("%.9q to %.9q, reverse %v", r.lower, r.upper, reverse)
			require.Len(t, pairs(t, e.Scan(Range{r.lower, r.upper, reverse})), r.want, at)
			require.Len(t, pairs(t, s.Scan(Range{r.lower, r.upper, reverse})), r.want, at)
		}
	}
	require.ErrorIs(t, e.DeleteRange([]byte("c"), []byte{}), ErrBadRange)
	require.ErrorIs(t, e.DeleteRange(long, long), nil, "empty")
	require.Error(t, e.DeleteRange(nil, long[:MaxKey+2]))
	var never Batch
	require.ErrorIs(t, never.Put([]byte("k"), nil), ErrClosed)
	never.Reset()
	never.Close()
	require.Zero(t, never.Len())
	_, err = e.Apply(&never)
	require.ErrorIs(t, err, ErrClosed)
	require.Len(t, pairs(t, e.Scan(Prefix(nil))), 2)
}

// Goal (I12): the item that comes with the error of a scan is empty, and asking it is
// no panic.
func TestItem_zero(t *testing.T) {
	e, err := Open("/store", small(Options{FS: vfs.NewMem()}))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	for item, err := range e.Scan(Range{}) {
		require.ErrorIs(t, err, ErrClosed)
		require.Empty(t, item.Key())
		require.Zero(t, item.Revision())
		require.Zero(t, item.Size())
		v, err := item.Value()
		require.ErrorIs(t, err, ErrNotFound)
		require.Empty(t, v)
	}
}

// Goal: a number that no commit has is refused at once, and names the last one, whether
// the store writes or not.
func TestEngine_WaitDurable_neverGivenOut(t *testing.T) {
	dir := t.TempDir()
	for _, readOnly := range []bool{false, true} {
		e := open(t, dir, Options{Sync: SyncNever, ReadOnly: readOnly})
		var last uint64 = 1
		if !readOnly {
			require.NoError(t, e.Put([]byte("k"), nil))
		}
		ctx, cancel := context.WithCancel(context.Background())
		for _, ctx := range []context.Context{ctx, context.Background()} {
			require.NoError(t, e.WaitDurable(ctx, 0))
			require.NoError(t, e.WaitDurable(ctx, last))
			for _, lsn := range []uint64{last + 1, 1 << 40, ^uint64(0)} {
				err := e.WaitDurable(ctx, lsn)
				require.ErrorIs(t, err, ErrArgument)
				require.ErrorContains(t, err, fmt.Sprint(lsn))
				require.ErrorContains(t, err, "the last commit is 1")
			}
		}
		cancel()
		require.NoError(t, e.Close())
	}
}

// Goal: a checkpoint into the store itself, by whatever name, is refused before a byte
// is written; so is one whose temporary folder would be the store, or hold it.
func TestEngine_Checkpoint_intoItself(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "a.holdfast-tmp", "store")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	link, deep := filepath.Join(parent, "link"), filepath.Join(parent, "deep")
	require.NoError(t, os.Symlink(dir, link))
	e := open(t, filepath.Join(link, ".", "..", "link"), Options{})
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	flush(t, e)
	require.NoError(t, os.Symlink(filepath.Join(dir, "packs"), deep))
	eventually(t, 10*time.Second, "the log's next segment is not made", func() bool {
		_, err := os.Stat(filepath.Join(dir, "log", "00000000000000000002.wal"))
		return err == nil
	})
	names := func() (all []string) {
		require.NoError(t, filepath.WalkDir(parent, func(p string, _ os.DirEntry, err error) error {
			all = append(all, p)
			return err
		}))
		return all
	}
	before := names()
	for _, dst := range []string{
		dir, dir + "/", filepath.Join(dir, "copy"), filepath.Join(dir, "new", "deeper", "copy"),
		filepath.Join(dir, "log", "copy"), link, filepath.Join(link, "copy"), filepath.Join(link, "new", "copy"),
		filepath.Join(deep, "copy"), filepath.Join(dir, "x", "..", "copy"), filepath.Join(parent, "a"),
	} {
		err := e.Checkpoint(context.Background(), dst)
		require.ErrorIs(t, err, ErrArgument, dst)
		require.Equal(t, before, names(), dst)
	}
	require.Equal(t, "v", get(t, e, "k"))
	// A name that only begins like the store's is another place.
	beside := dir + "-copy"
	require.NoError(t, e.Checkpoint(context.Background(), beside))
	require.Equal(t, "v", get(t, open(t, beside, Options{}), "k"))
}

// Goal: the same on a file system that is not the operating system's.
func TestEngine_Checkpoint_intoItself_seam(t *testing.T) {
	fs := simfs.New(nil)
	o := simOptions(fs)
	e, err := Open("/top.holdfast-tmp/store", o)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	for _, dst := range []string{"/top.holdfast-tmp/store", "/top.holdfast-tmp/store/in", "/top.holdfast-tmp/store/x/../in/", "/top"} {
		require.ErrorIs(t, e.Checkpoint(context.Background(), dst), ErrArgument, dst)
	}
	require.NoError(t, e.Checkpoint(context.Background(), "/top.holdfast-tmp/store2"))
	require.Equal(t, "v", get(t, e, "k"))
	require.NoError(t, e.Close())
}
