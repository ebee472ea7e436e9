package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// Goal: an engine that was opened read-only refuses every change by name, answers every
// read, and has nothing that is not durable.
func TestOpen_readOnly_everyCall(t *testing.T) {
	fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
	for _, m := range []RecoveryMode{RecoverStrict, RecoverPointInTime, RecoverSalvage} {
		o := simOptions(fs)
		o.ReadOnly, o.Recovery = true, m
		before := fs.Tree()
		e, err := Open("/store", o)
		require.NoError(t, err)
		ctx := context.Background()
		b := e.NewBatch()
		require.NoError(t, b.Delete([]byte("k")))
		for name, f := range map[string]func() error{
			"Put":        func() error { return e.Put([]byte("k"), nil) },
			"PutLarge":   func() error { return e.Put([]byte("k"), make([]byte, 10_000)) },
			"Delete":     func() error { return e.Delete([]byte("k")) },
			"Apply":      func() error { _, err := e.Apply(b); return err },
			"Flush":      func() error { return e.Flush(ctx) },
			"Compact":    func() error { return e.Compact(ctx) },
			"Checkpoint": func() error { return e.Checkpoint(ctx, "/copy") },
			"Err":        e.Err,
		} {
			require.ErrorIs(t, f(), ErrReadOnly, name)
		}
		require.EqualValues(t, 20, e.DurableLSN())
		require.NoError(t, e.WaitDurable(ctx, 20))
		require.NoError(t, e.Sync(ctx))
		require.NoError(t, e.Check(ctx))
		for i := range 20 {
			require.Equal(t, string(simValue(i)), get(t, e, string(simKey(i))))
		}
		require.NoError(t, e.Close())
		require.ErrorIs(t, e.Flush(ctx), ErrClosed)
		require.ErrorIs(t, e.WaitDurable(ctx, 1), ErrClosed)
		require.ErrorIs(t, e.Err(), ErrClosed)
		delete(before, "/store/LOCK") // made by the simulated lock
		after := fs.Tree()
		delete(after, "/store/LOCK")
		require.True(t, before.Equal(after), "not one byte")
	}
}

// Goal: every mode of recovery and every setting opens a store that was closed well,
// and finds the same in it.
func TestOpen_everySetting(t *testing.T) {
	fs := simfs.New(nil)
	for i, c := range []Compression{CompressAuto, CompressNone, CompressFast, CompressBest} {
		for j, m := range []RecoveryMode{RecoverStrict, RecoverAbsolute, RecoverPointInTime} {
			o := simOptions(fs)
			o.Compression, o.Recovery = c, m
			e, err := Open("/store", o)
			require.NoError(t, err)
			require.Empty(t, e.Recovered().Lost)
			n := 3*i + j
			for k := range n {
				require.Equal(t, string(simValue(3)), get(t, e, fmt.Sprint(k)))
			}
			require.NoError(t, e.Put([]byte(fmt.Sprint(n)), simValue(3)))
			require.NoError(t, e.Close())
		}
	}
}

// Goal: a call that its caller gives up ends with the caller's reason, and says no more
// than it knows.
func TestEngine_callersGiveUp(t *testing.T) {
	e := open(t, t.TempDir(), Options{LargeValue: 4 << 10})
	require.NoError(t, e.Put([]byte("a"), []byte("v")))
	require.NoError(t, e.Put([]byte("b"), make([]byte, 10_000)))
	flush(t, e)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, e.Check(ctx), context.Canceled)
	require.NoError(t, e.Put([]byte("c"), nil))
	f := &e.flusher
	f.mu.Lock() // no flush can end, so Flush has to wait
	out := make(chan error, 1)
	go func() { out <- e.Flush(ctx) }()
	time.Sleep(5 * time.Millisecond)
	f.mu.Unlock()
	if err := <-out; err != nil { // the flush may still have been quicker
		require.ErrorIs(t, err, context.Canceled)
	}
	closing, done := context.WithCancel(context.Background())
	done()
	if err := e.CloseContext(closing); err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, e.Close(), "it went on behind")
	b := e.NewBatch()
	b.Close()
	_, err := e.Apply(b)
	require.ErrorIs(t, err, ErrClosed)
	_, err = e.Apply(nil)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, b.DeleteRange(nil, nil), ErrClosed)
	require.ErrorIs(t, b.Put([]byte("k"), nil), ErrClosed)

	other := open(t, t.TempDir(), Options{})
	mixed := other.NewBatch()
	require.NoError(t, mixed.Put([]byte("k"), nil))
	mine := open(t, t.TempDir(), Options{})
	_, err = mine.Apply(mixed)
	require.ErrorIs(t, err, ErrOptions)
	mixed.Close()
}

// Goal: a snapshot has every way to read that the engine has, and the same answers for
// what is in the map, hidden, in L3, large or absent.
func TestSnapshot_everyRead(t *testing.T) {
	e := open(t, t.TempDir(), Options{LargeValue: 4 << 10})
	require.NoError(t, e.Put([]byte("low"), []byte("in L3")))
	require.NoError(t, e.Put([]byte("large"), make([]byte, 10_000)))
	require.NoError(t, e.Put([]byte("x1"), []byte("hidden")))
	flush(t, e)
	require.NoError(t, e.Put([]byte("map"), []byte("in the map")))
	require.NoError(t, e.Put([]byte("dead"), nil))
	require.NoError(t, e.Delete([]byte("dead")))
	require.NoError(t, e.DeleteRange([]byte("x"), []byte("y")))
	get(t, e, "low") // into the cache
	s, err := e.Snapshot()
	require.NoError(t, err)
	for k, want := range map[string]string{"low": "in L3", "map": "in the map", "large": string(make([]byte, 10_000))} {
		for range 2 {
			v, err := s.Get([]byte(k))
			require.NoError(t, err)
			require.Equal(t, want, string(v))
			require.NoError(t, s.View([]byte(k), func(v []byte) error {
				require.Equal(t, want, string(v))
				return nil
			}))
			mine := errors.New("mine")
			require.Equal(t, mine, s.View([]byte(k), func([]byte) error { return mine }))
			ok, err := s.Has([]byte(k))
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	for _, k := range []string{"dead", "x1", "absent"} {
		ok, err := s.Has([]byte(k))
		require.NoError(t, err)
		require.False(t, ok, k)
		require.ErrorIs(t, s.View([]byte(k), nil), ErrNotFound)
	}
	require.NoError(t, s.Close())
	_, err = s.Has([]byte("low"))
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.View([]byte("low"), nil), ErrClosed)
	for _, err := range s.Scan(Range{}) {
		require.ErrorIs(t, err, ErrClosed)
	}
	tiers := ""
	for tier := TierNone; tier <= TierL3; tier++ {
		tiers += tier.String() + " "
	}
	require.Equal(t, "none map L1 L2 L3 ", tiers)
}

// Goal (C3): a snapshot whose versions were cut under a read says why it ended, and
// never what an older room has.
func TestSnapshot_find_cut(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	require.NoError(t, e.Put([]byte("k"), []byte("oldest")))
	flush(t, e)
	require.NoError(t, e.Put([]byte("k"), []byte("old")))
	s, err := e.Snapshot()
	require.NoError(t, err)
	e.clock.Release(&s.hold) // as giving way does, in the middle of a read
	for range 3 {
		require.NoError(t, e.Put([]byte("k"), []byte("new")))
		require.NoError(t, e.DeleteRange([]byte("a"), []byte("c")))
	}
	_, err = s.Get([]byte("k"))
	require.ErrorIs(t, err, ErrClosed)
	for _, err := range s.Scan(Range{}) {
		require.ErrorIs(t, err, ErrClosed)
	}
	require.Equal(t, "new", get(t, e, "k"))
	require.NoError(t, s.Close())
}

// spoilL3 puts a cell into L3 behind the engine's back, with a watermark that fits.
func spoilL3(t *testing.T, fs vfs.FS, key string, cell []byte) {
	t.Helper()
	st, err := storage.Open(storage.Options{FS: fs, Dir: "/store/l3", CacheBytes: 1 << 20})
	require.NoError(t, err)
	w, _, err := st.Watermark()
	require.NoError(t, err)
	in, err := st.NewIngest()
	require.NoError(t, err)
	require.NoError(t, in.Set([]byte(key), cell))
	_, err = in.Commit(w)
	require.NoError(t, err)
	require.NoError(t, st.Close())
}

// Goal: a cell in L3 that is none, or refers to nothing, is corruption for whoever
// reads that key, by any way, and for nobody else; Check names the key.
func TestEngine_hostileCells(t *testing.T) {
	for name, cell := range map[string][]byte{
		"no cell":      []byte("short"),
		"no reference": cow.AppendCell(nil, cow.Header{Kind: cow.Blob, Revision: 1}, []byte("not a reference")),
	} {
		fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
		spoilL3(t, fs, "bad", cell)
		e, err := Open("/store", simOptions(fs))
		require.NoError(t, err)
		s, err := e.Snapshot()
		require.NoError(t, err)
		key := []byte("bad")
		for way, f := range map[string]func() error{
			"Get":           func() error { _, err := e.Get(key); return err },
			"View":          func() error { return e.View(key, func([]byte) error { return nil }) },
			"Stat":          func() error { _, err := e.Stat(key); return err },
			"Snapshot.Get":  func() error { _, err := s.Get(key); return err },
			"Snapshot.View": func() error { return s.View(key, func([]byte) error { return nil }) },
			"Scan": func() error {
				for item, err := range e.Scan(Prefix(key)) {
					if err == nil {
						require.Positive(t, item.Size())
						_, err = item.Value()
					}
					return err
				}
				return nil
			},
			"Check": func() error { return e.Check(context.Background()) },
		} {
			err := f()
			var ce *CorruptError
			require.ErrorAs(t, err, &ce, "%s: %s", name, way)
			require.ErrorIs(t, err, ErrCorrupt)
			require.Error(t, ce.Unwrap(), "the cause survives")
		}
		require.NoError(t, s.Close())
		for i := range 20 {
			require.Equal(t, string(simValue(i)), get(t, e, string(simKey(i))))
		}
		require.NoError(t, e.Put(key, []byte("good again")))
		require.Equal(t, "good again", get(t, e, "bad"))
		require.NoError(t, e.Check(context.Background()))
		require.NoError(t, e.Close())
	}
}

// Goal: Check finds revisions from the future, and stops to list them at a hundred.
func TestEngine_Check_fromTheFuture(t *testing.T) {
	fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
	future := cow.AppendCell(nil, cow.Header{Kind: cow.Value, Revision: math.MaxUint64}, nil)
	spoilL3(t, fs, "tomorrow", future)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	err = e.Check(context.Background())
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, `"tomorrow" has revision 18446744073709551615`)
	require.NoError(t, e.Close())
	for i := range maxProblems + 50 {
		spoilL3(t, fs, fmt.Sprintf("t%03d", i), future)
	}
	e, err = Open("/store", simOptions(fs))
	require.NoError(t, err)
	err = e.Check(context.Background())
	require.ErrorContains(t, err, "more than 100 problems")
	require.LessOrEqual(t, len(err.(interface{ Unwrap() []error }).Unwrap()), maxProblems+2)
	require.NoError(t, e.Close())
}

// Goal: every error of a room comes out as the door's, once, with its cause inside.
func TestErrors_door(t *testing.T) {
	for _, d := range doorErrors {
		in := fmt.Errorf("around: %w", d.room)
		got := door(in)
		require.ErrorIs(t, got, d.door)
		require.ErrorIs(t, got, in)
		require.Equal(t, got, door(got), "once is enough")
	}
	for _, in := range []error{
		wal.ErrCorrupt, wal.ErrChecksum, storage.ErrCorrupt, mmap.ErrCorrupt, mmap.ErrMissing, cow.ErrCell, errOps,
		&wal.CorruptError{File: "f", Offset: 7, What: "w"}, &storage.CorruptError{File: "f", What: "w"},
		&mmap.CorruptError{File: "f", Offset: 7, What: "w"},
	} {
		var c *CorruptError
		got := door(fmt.Errorf("around: %w", in))
		require.ErrorAs(t, got, &c)
		require.ErrorIs(t, got, ErrCorrupt)
		require.ErrorIs(t, got, in, "the room's own error survives")
		require.Equal(t, got, door(got))
		if c.File != "" {
			require.Contains(t, c.Error(), "holdfast: corrupt: f: ")
		} else {
			require.EqualValues(t, -1, c.Offset)
		}
	}
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		got := door(&os.PathError{Op: "mkdir", Path: "p", Err: errno})
		require.ErrorIs(t, got, ErrDiskFull)
		require.ErrorIs(t, got, errno)
		require.True(t, transient(got))
	}
	require.NoError(t, door(nil))
	other := errors.New("other")
	require.Equal(t, other, door(other))
	require.False(t, transient(other))
	require.True(t, transient(syscall.EMFILE), "files come back")
}

// Goal: what cannot be locked is not opened: a LOCK that is a folder, or that may not
// be written.
func TestLockDir_refusals(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, lockName), 0o755))
	_, err := Open(dir, small(Options{}))
	require.ErrorIs(t, err, syscall.EISDIR)
	require.NoError(t, os.Remove(filepath.Join(dir, lockName)))
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Close())

	// A disk that cannot say how much room it has counts as roomy.
	fs := simfs.New(nil)
	fs.Inject(simfs.FailFrom(simfs.OpDiskUsage, "", 1, syscall.ENOSYS))
	o := simOptions(fs)
	o.DiskReserve = 1 << 40
	e, err = Open("/store", o)
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), make([]byte, 10_000)))
	require.NoError(t, e.Close())
}
