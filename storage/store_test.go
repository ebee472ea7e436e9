package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testUUID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "store/l3", Create: true, CacheBytes: 1 << 20, MaxOpenFiles: 100}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// op is one operation of an ingest; a generation is a sorted list of them.
type op struct {
	kind byte // 's' set, 'd' delete, 'r' range delete
	key  string
	val  string // cell, or upper bound of a range delete
}

type model map[string]string

func (m model) clone() model { return maps.Clone(m) }

func (m model) apply(ops []op) {
	// Range deletes first: a point given beside one is the newer.
	for _, o := range ops {
		if o.kind == 'r' {
			for k := range m {
				if k >= o.key && k < o.val {
					delete(m, k)
				}
			}
		}
	}
	for _, o := range ops {
		switch o.kind {
		case 's':
			m[o.key] = o.val
		case 'd':
			delete(m, o.key)
		}
	}
}

func feed(in *Ingest, ops []op) error {
	for _, o := range ops {
		var err error
		switch o.kind {
		case 's':
			err = in.Set([]byte(o.key), []byte(o.val))
		case 'd':
			err = in.Delete([]byte(o.key))
		case 'r':
			err = in.DeleteRange([]byte(o.key), []byte(o.val))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func mark(lsn uint64, ops []op) Watermark {
	return Watermark{LSN: lsn, Generation: lsn, UUID: testUUID, Entries: uint64(len(ops))}
}

func ingest(s *Store, lsn uint64, ops []op) error {
	in, err := s.NewIngest()
	if err != nil {
		return err
	}
	if err := feed(in, ops); err != nil {
		return errors.Join(err, in.Abort())
	}
	_, err = in.Commit(mark(lsn, ops))
	return err
}

func mustIngest(t testing.TB, s *Store, lsn uint64, ops []op) {
	t.Helper()
	require.NoError(t, ingest(s, lsn, ops))
}

// dump reads everything through an iterator.
func dump(sn *Snapshot) (model, error) {
	it, err := sn.NewIter(nil, nil)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	m := model{}
	for it.Next() {
		m[string(it.Key())] = string(it.Value())
	}
	return m, it.Err()
}

func dumpStore(t testing.TB, s *Store) model {
	t.Helper()
	sn := s.Current()
	defer sn.Release()
	m, err := dump(sn)
	require.NoError(t, err)
	return m
}

func sets(n int, format, val string) []op {
	var ops []op
	for i := range n {
		ops = append(ops, op{'s', fmt.Sprintf(format, i), val})
	}
	return ops
}

// randomOps makes a legal ingest: points ascending, tombstones disjoint.
func randomOps(r *rand.Rand, keys, n int, val func() string) []op {
	key := func(i int) string {
		if i%97 == 0 { // bytes that bounds get wrong
			return fmt.Sprintf("\xff\xff%05d", i)
		}
		return fmt.Sprintf("key%05d", i)
	}
	var ops []op
	picked := map[string]bool{}
	for range n {
		k := key(r.Intn(keys))
		if picked[k] {
			continue
		}
		picked[k] = true
		if r.Intn(4) == 0 {
			ops = append(ops, op{'d', k, ""})
		} else {
			ops = append(ops, op{'s', k, val()})
		}
	}
	for range r.Intn(4) {
		at := key(r.Intn(keys))
		to := key(r.Intn(keys))
		clash := at >= to
		for _, o := range ops {
			clash = clash || (o.kind == 'r' && at < o.val && o.key < to)
		}
		if !clash {
			ops = append(ops, op{'r', at, to})
		}
	}
	slices.SortStableFunc(ops, func(a, b op) int {
		if c := bytes.Compare([]byte(a.key), []byte(b.key)); c != 0 {
			return c
		}
		return int(a.kind) - int(b.kind) // at one key: the range delete before or after, both legal
	})
	return ops
}

// Goal: many ingests, reopens and compactions agree with a plain map, by Get,
// forwards, backwards and by bounds.
func TestStore_model(t *testing.T) {
	for _, disk := range []bool{false, true} {
		t.Run(fmt.Sprintf("disk=%t", disk), func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			rounds := 60
			if disk {
				o.FS, o.Dir, rounds = vfs.Default, filepath.Join(t.TempDir(), "a", "l3"), 15
			}
			r := rand.New(rand.NewSource(1))
			want := model{}
			s := mustOpen(t, o)
			for lsn := uint64(1); lsn <= uint64(rounds); lsn++ {
				ops := randomOps(r, 2000, 200, func() string { return fmt.Sprintf("v%d.%d", lsn, r.Int()) })
				mustIngest(t, s, lsn, ops)
				want.apply(ops)
				if r.Intn(10) == 0 {
					require.NoError(t, s.Compact(context.Background()))
				}
				if r.Intn(6) == 0 {
					require.NoError(t, s.Check(context.Background()))
					require.NoError(t, s.Close())
					s = mustOpen(t, o)
				}
				w, ok, err := s.Watermark()
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, mark(lsn, ops), w)
				require.Equal(t, want, dumpStore(t, s))
				compare(t, s, r, want)
			}
			require.NoError(t, s.Close())
		})
	}
}

func compare(t *testing.T, s *Store, r *rand.Rand, want model) {
	t.Helper()
	sn := s.Current()
	defer sn.Release()
	keys := slices.Sorted(maps.Keys(want))
	for range 50 {
		k := fmt.Sprintf("key%05d", r.Intn(2200))
		got, ok, err := sn.Get([]byte("dst"), []byte(k))
		require.NoError(t, err)
		v, has := want[k]
		require.Equal(t, has, ok, k)
		require.Equal(t, "dst"+v, string(got))
	}
	for range 5 {
		lo, hi := fmt.Sprintf("key%05d", r.Intn(2200)), fmt.Sprintf("key%05d", r.Intn(2200))
		if r.Intn(3) == 0 {
			hi = "\xff\xff00970"
		}
		var in []string
		for _, k := range keys {
			if k >= lo && k < hi {
				in = append(in, k)
			}
		}
		it, err := sn.NewIter([]byte(lo), []byte(hi))
		require.NoError(t, err)
		var fwd, back []string
		for ok := it.First(); ok; ok = it.Next() {
			fwd = append(fwd, string(it.Key()))
		}
		for ok := it.Last(); ok; ok = it.Prev() {
			back = append(back, string(it.Key()))
		}
		slices.Reverse(back)
		require.Equal(t, in, fwd)
		require.Equal(t, in, back)
		if len(in) > 2 {
			mid := in[len(in)/2]
			require.True(t, it.SeekGE([]byte(mid)))
			require.Equal(t, mid, string(it.Key()))
			require.Equal(t, want[mid], string(it.Value()))
			require.True(t, it.SeekLT([]byte(mid)))
			require.Equal(t, in[len(in)/2-1], string(it.Key()))
		}
		require.NoError(t, it.Err())
		require.NoError(t, it.Close())
	}
}

// Goal: a missing store is told, not made, unless asked for.
func TestOpen_missing(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	o.Create = false
	_, err := Open(o)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NotErrorIs(t, err, ErrCorrupt)
	o.ReadOnly = true
	_, err = Open(o)
	require.ErrorIs(t, err, os.ErrNotExist)
	ls, _ := fs.List("store")
	require.Empty(t, ls)
	_, err = Open(Options{FS: fs, Dir: "x", Create: true, ReadOnly: true})
	require.Error(t, err)
	s := mustOpen(t, testOptions(fs))
	_, ok, err := s.Watermark()
	require.NoError(t, err)
	require.False(t, ok)
}

// Goal: a read-only store reads all and changes nothing on disk.
func TestOpen_readOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "l3")
	o := Options{Dir: dir, Create: true}
	s := mustOpen(t, o)
	mustIngest(t, s, 1, sets(100, "k%03d", "v"))
	require.NoError(t, s.Close())
	before := fingerprint(t, dir)
	s = mustOpen(t, Options{Dir: dir, ReadOnly: true})
	require.Len(t, dumpStore(t, s), 100)
	require.NoError(t, s.Err())
	_, err := s.NewIngest()
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, s.Compact(context.Background()), ErrReadOnly)
	_, err = s.Checkpoint(dir + "-copy")
	require.ErrorIs(t, err, ErrReadOnly)
	require.NoError(t, s.Check(context.Background()))
	require.NoError(t, s.Close())
	require.Equal(t, before, fingerprint(t, dir))
}

func fingerprint(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	ls, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range ls {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		fi, err := e.Info()
		require.NoError(t, err)
		out[e.Name()] = fi.ModTime().String() + string(b)
	}
	return out
}

// Goal: a checkpoint opens by itself, holds its watermark, and later changes of
// the original do not reach it.
func TestStore_Checkpoint(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	mustIngest(t, s, 7, sets(1000, "k%04d", "old"))
	w, err := s.Checkpoint("copy")
	require.NoError(t, err)
	require.Equal(t, uint64(7), w.LSN)
	mustIngest(t, s, 8, sets(1000, "k%04d", "new"))
	require.NoError(t, s.Compact(context.Background()))
	_, err = s.Checkpoint("copy")
	require.ErrorIs(t, err, os.ErrExist)
	c := mustOpen(t, Options{FS: fs, Dir: "copy"})
	m := dumpStore(t, c)
	require.Len(t, m, 1000)
	require.Equal(t, "old", m["k0500"])
	require.NoError(t, c.Check(context.Background()))
}

// Goal: after Close every call answers ErrClosed, and nothing panics.
func TestStore_Close_thenUse(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(100, "k%03d", "v"))
	sn := s.Current()
	it, err := sn.NewIter(nil, nil)
	require.NoError(t, err)
	require.True(t, it.First())
	key := it.Key()
	_, _, err = sn.Get(nil, []byte("k001"))
	require.NoError(t, err)
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, in.Set([]byte("a"), nil))

	require.NoError(t, s.Close())
	require.NoError(t, s.Close())

	require.Equal(t, "k000", string(key))
	require.False(t, it.Next())
	require.ErrorIs(t, it.Err(), ErrClosed)
	require.False(t, it.Valid())
	require.Nil(t, it.Key())
	require.Nil(t, it.Value())
	require.NoError(t, it.Close())
	_, _, err = sn.Get(nil, []byte("k001"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = sn.NewIter(nil, nil)
	require.ErrorIs(t, err, ErrClosed)
	sn.Release()
	require.ErrorIs(t, in.Set([]byte("b"), nil), ErrClosed)
	_, err = in.Commit(mark(2, nil))
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, in.Abort())

	_, err = s.NewIngest()
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = s.Watermark()
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.Compact(context.Background()), ErrClosed)
	require.ErrorIs(t, s.Check(context.Background()), ErrClosed)
	_, err = s.Checkpoint("c")
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.Err(), ErrClosed)
	require.Zero(t, s.Sublevels())
	require.Zero(t, s.Metrics())
	require.Zero(t, s.Memory())
	sn = s.Current()
	_, _, err = sn.Get(nil, []byte("k001"))
	require.ErrorIs(t, err, ErrClosed)
	sn.Release()
}

// Goal: a reference that was given back is not to be had again.
func TestSnapshot_Acquire_dead(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(10, "k%d", "v"))
	sn := s.Current()
	mustIngest(t, s, 2, sets(10, "k%d", "w"))
	require.True(t, sn.Acquire())
	sn.Release()
	got, ok, err := sn.Get(nil, []byte("k3"))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "v", string(got))
	require.Equal(t, 2, s.Metrics().Snapshots)
	sn.Release()
	require.False(t, sn.Acquire())
	require.Equal(t, 1, s.Metrics().Snapshots)
	_, _, err = sn.Get(nil, []byte("k3"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = sn.NewIter(nil, nil)
	require.ErrorIs(t, err, ErrClosed)
}

// Goal: what is asked often says what Metrics does, some seconds late for open tables.
func TestStore_Memory(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	require.Positive(t, s.Memory().Tables, "the memtable")
	in, err := s.NewIngest()
	require.NoError(t, err)
	for i := range 2000 {
		require.NoError(t, in.Set(fmt.Appendf(nil, "k%04d", i), make([]byte, 100)))
	}
	_, err = in.Commit(mark(1, nil))
	require.NoError(t, err)
	sn := s.Current()
	for i := range 2000 {
		_, found, err := sn.Get(nil, fmt.Appendf(nil, "k%04d", i))
		require.NoError(t, err)
		require.True(t, found)
	}
	sn.Release()
	m := s.Metrics()
	require.Equal(t, m.CacheBytes, s.Memory().Blocks)
	s.inTables.mu.Lock()
	s.inTables.at = time.Time{}
	s.inTables.mu.Unlock()
	require.Equal(t, m.TableCacheBytes+int64(m.MemtableBytes), s.Memory().Tables)
	require.Positive(t, m.TableCacheBytes)
}
