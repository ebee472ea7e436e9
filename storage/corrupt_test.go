package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Goal: golden bytes of the watermark; every flipped bit and length is refused.
func TestWatermark_format(t *testing.T) {
	w := Watermark{LSN: 0x0102030405060708, Generation: 9, UUID: testUUID, Entries: 10}
	b := w.encode()
	require.Equal(t, "\x01\x08\x07\x06\x05\x04\x03\x02\x01"+"\x09\x00\x00\x00\x00\x00\x00\x00"+
		string(testUUID[:])+"\x0a\x00\x00\x00\x00\x00\x00\x00", string(b[:41]))
	got, err := decodeWatermark(b)
	require.NoError(t, err)
	require.Equal(t, w, got)
	for i := range b {
		for bit := range 8 {
			bad := append([]byte(nil), b...)
			bad[i] ^= 1 << bit
			_, err := decodeWatermark(bad)
			require.ErrorIs(t, err, ErrCorrupt)
		}
		_, err := decodeWatermark(b[:i])
		require.ErrorIs(t, err, ErrCorrupt)
	}
	c := cutPoints{chosenAt: 5, keys: [][]byte{[]byte("a"), []byte("b")}}.encode()
	for i := range c {
		bad := append([]byte(nil), c...)
		bad[i] ^= 1
		_, err := decodeCuts(bad)
		require.ErrorIs(t, err, ErrCorrupt)
		_, err = decodeCuts(c[:i])
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

// Goal: a damaged table is a typed error with its file, or harmless; nothing
// ends the process; Check finds every flip, also of bytes no read needs.
func TestStore_corruptTable(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := mustOpen(t, o)
	ops := sets(500, "key%04d", strings.Repeat("v", 100))
	mustIngest(t, s, 1, ops)
	want := dumpStore(t, s)
	require.NoError(t, s.Close())
	var table string
	ls, _ := mem.List("store/l3")
	var big int64
	for _, n := range ls {
		if fi, err := mem.Stat("store/l3/" + n); err == nil && strings.HasSuffix(n, ".sst") && fi.Size() > big {
			table, big = "store/l3/"+n, fi.Size()
		}
	}
	clean := readFile(t, mem, table)
	step := 557
	if raceEnabled {
		step = 2111
	}
	flipped, footer, placed := 0, 0, 0
	// A checksum belongs to a block: its place is told, and the flip is there or in the
	// five bytes behind it.
	place := func(ce *CorruptError, at int) {
		off := ce.Offset()
		if off < 0 {
			require.NotContains(t, ce.Error(), "checksum mismatch")
			return
		}
		placed++
		require.LessOrEqual(t, off, int64(at))
		_, rest, _ := strings.Cut(ce.Error(), fmt.Sprintf("block %d/", off))
		var n int64
		_, err := fmt.Sscan(strings.SplitN(rest, ":", 2)[0], &n)
		require.NoError(t, err)
		require.Less(t, int64(at), off+n+5)
	}
	for at := 0; at < len(clean); at += step {
		flipped++
		bad := append([]byte(nil), clean...)
		bad[at] ^= 0x40
		writeFile(t, mem, table, bad)
		s, err := Open(o)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			continue
		}
		sn := s.Current()
		got, err := dump(sn)
		if err != nil {
			var ce *CorruptError
			require.ErrorAs(t, err, &ce, at)
			require.True(t, errors.Is(err, ErrCorrupt))
			require.Equal(t, table, ce.File)
			place(ce, at)
			require.NotZero(t, s.Metrics().Corruptions)
		} else {
			require.Equal(t, want, got, at)
		}
		for _, k := range []string{"key0000", "key0250", "key0499", "absent"} {
			v, ok, err := sn.Get(nil, []byte(k))
			if err != nil {
				require.ErrorIs(t, err, ErrCorrupt)
			} else {
				require.Equal(t, want[k], string(v))
				require.Equal(t, want[k] != "", ok)
			}
		}
		sn.Release()
		if err := s.Check(context.Background()); err != nil {
			var ce *CorruptError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, table, ce.File)
			place(ce, at)
		} else {
			footer++
			t.Logf("byte %d of %d: Check found nothing", at, len(clean))
		}
		require.NoError(t, s.Close())
	}
	require.LessOrEqual(t, footer, 1)
	require.NotZero(t, placed)
	t.Logf("%d flips, %d errors that name a place", flipped, placed)
}

// Goal: a table cut short, grown or gone is told, by open, read or Check.
func TestStore_corruptSize(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l3")
	s := mustOpen(t, Options{Dir: dir, Create: true})
	mustIngest(t, s, 1, sets(500, "key%04d", strings.Repeat("v", 100)))
	require.NoError(t, s.Close())
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	require.NoError(t, err)
	clean, err := os.ReadFile(tables[0])
	require.NoError(t, err)
	for name, spoil := range map[string]func() error{
		"short": func() error { return os.WriteFile(tables[0], clean[:len(clean)-7], 0o644) },
		"long":  func() error { return os.WriteFile(tables[0], append(clean[:len(clean):len(clean)], 1), 0o644) },
		"gone":  func() error { return os.Remove(tables[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, spoil())
			s, err := Open(Options{Dir: dir})
			if err == nil {
				err = s.Check(context.Background())
				require.NoError(t, s.Close())
			}
			require.ErrorIs(t, err, ErrCorrupt)
			var ce *CorruptError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, tables[0], ce.File)
			require.NoError(t, os.WriteFile(tables[0], clean, 0o644))
		})
	}
	// Gone while open: reads that need it say so, the process lives.
	s = mustOpen(t, Options{Dir: dir})
	require.NoError(t, s.Check(context.Background()))
	for _, tb := range tables {
		require.NoError(t, os.Remove(tb))
	}
	err = s.Check(context.Background())
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	return b
}

func writeFile(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(append([]byte(nil), b...))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// Goal: a table that the system will not let us read is an error, and no verdict on
// the store.
func TestStore_Check_unreadable(t *testing.T) {
	var on atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && op.Kind == errorfs.OpOpen && strings.HasSuffix(op.Path, ".sst") {
			return &os.PathError{Op: "open", Path: op.Path, Err: syscall.EACCES}
		}
		return nil
	}))
	s, err := Open(Options{FS: fs, Dir: "/l3", CacheBytes: 1 << 20, Create: true})
	require.NoError(t, err)
	defer s.Close()
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, in.Set([]byte("k"), []byte("v")))
	_, err = in.Commit(Watermark{LSN: 1})
	require.NoError(t, err)
	on.Store(true)
	err = s.Check(context.Background())
	require.ErrorIs(t, err, os.ErrPermission)
	require.NotErrorIs(t, err, ErrCorrupt)
}
