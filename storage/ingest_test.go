package storage

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: each rule of an ingest is checked, and its breach sticks.
func TestIngest_order(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	for name, ops := range map[string][]op{
		"set and delete of one key":    {{'s', "a", "1"}, {'d', "a", ""}},
		"set twice":                    {{'s', "a", "1"}, {'s', "a", "2"}},
		"descending":                   {{'s', "b", "1"}, {'s', "a", "2"}},
		"overlapping tombstones":       {{'r', "a", "m"}, {'r', "c", "z"}},
		"tombstone before last point":  {{'s', "m", "1"}, {'r', "c", "d"}},
		"point before last tombstone":  {{'r', "m", "z"}, {'s', "c", "1"}},
		"tombstone inside, then again": {{'r', "a", "b"}, {'r', "a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := s.NewIngest()
			require.NoError(t, err)
			require.ErrorIs(t, feed(in, ops), ErrOrder)
			require.ErrorIs(t, in.Set([]byte("zzz"), nil), ErrOrder)
			_, err = in.Commit(mark(1, nil))
			require.ErrorIs(t, err, ErrOrder)
			_, ok, err := s.Watermark()
			require.NoError(t, err)
			require.False(t, ok)
		})
	}
	ls, err := s.fs.List(s.staging)
	require.NoError(t, err)
	require.Empty(t, ls)
	mustIngest(t, s, 5, nil) // nothing but the watermark is legal
	mustIngest(t, s, 5, nil)
	require.ErrorIs(t, ingest(s, 4, nil), ErrOrder) // the watermark never goes back
	w, _, _ := s.Watermark()
	require.Equal(t, uint64(5), w.LSN)
}

// Goal: an aborted ingest leaves no file, and leftovers of a crash go at open.
func TestIngest_Abort(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, feed(in, sets(100, "k%03d", "v")))
	ls, _ := fs.List("store/l3-staging")
	require.Len(t, ls, 1)
	require.NoError(t, in.Abort())
	require.NoError(t, in.Abort())
	_, err = in.Commit(mark(1, nil))
	require.Error(t, err)
	ls, _ = fs.List("store/l3-staging")
	require.Empty(t, ls)
	f, err := fs.Create("store/l3-staging/9.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, s.Close())
	mustOpen(t, testOptions(fs))
	ls, _ = fs.List("store/l3-staging")
	require.Empty(t, ls)
}

// Goal: keys of every byte and length, range deletes open at the end, and empty
// ranges.
func TestIngest_keys(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	long := strings.Repeat("\xff", 64<<10)
	keys := []string{"", "\x00", "\x00\x00", "a", "\xff", "\xff\xff", long}
	var ops []op
	for _, k := range keys {
		ops = append(ops, op{'s', k, "v" + k})
	}
	mustIngest(t, s, 1, ops)
	sn := s.Current()
	for _, k := range keys {
		v, ok, err := sn.Get(nil, []byte(k))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "v"+k, string(v))
	}
	it, err := sn.NewIter([]byte{}, []byte("\xff\xff"))
	require.NoError(t, err)
	require.True(t, it.Last())
	require.Equal(t, "\xff", string(it.Key()))
	require.True(t, it.First())
	require.Equal(t, []byte{}, it.Key())
	require.NoError(t, it.Close())
	it, err = sn.NewIter([]byte("z"), []byte("b")) // inverted bounds are empty
	require.NoError(t, err)
	require.False(t, it.First())
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
	sn.Release()

	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, in.DeleteRange([]byte("a"), []byte("a")))
	require.NoError(t, in.DeleteRange([]byte("z"), []byte("a")))
	require.NoError(t, in.DeleteRange([]byte("b"), nil))
	require.NoError(t, in.Set([]byte("\xff"), []byte("newer"))) // inside: it survives
	_, err = in.Commit(mark(2, nil))
	require.NoError(t, err)
	require.NoError(t, s.Compact(context.Background()))
	require.Equal(t, model{"": "v", "\x00": "v\x00", "\x00\x00": "v\x00\x00", "a": "va", "\xff": "newer"}, dumpStore(t, s))
	require.NoError(t, s.Check(context.Background())) // storage's own keys were not deleted
}

// Goal: tables are cut at the same points every time, tombstones at the cuts,
// and all of it reads back, also after compaction and reopen.
func TestIngest_cutAtFixedPoints(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	big := strings.Repeat("v", 1000)
	want := model{}
	ops := sets(12000, "key%06d", big)
	mustIngest(t, s, 1, ops)
	want.apply(ops)
	require.Len(t, s.cuts.keys, cutRanges-1)
	cuts := s.cuts

	in, err := s.NewIngest()
	require.NoError(t, err)
	// One tombstone over nearly everything, points inside it and around.
	lsn2 := []op{{'r', "key000500", "key011500"}}
	for i := range 12000 {
		if i%2 == 0 {
			lsn2 = append(lsn2, op{'s', fmt.Sprintf("key%06d", i), big + "2"})
		}
	}
	slices.SortStableFunc(lsn2, func(a, b op) int { return strings.Compare(a.key, b.key) })
	require.NoError(t, feed(in, lsn2))
	st, err := in.Commit(mark(2, lsn2))
	require.NoError(t, err)
	want.apply(lsn2)
	require.Equal(t, cutRanges+1, st.Tables) // and the table of the watermark
	require.Equal(t, want, dumpStore(t, s))

	// Every table of cells lies between two neighbouring cut points.
	levels, err := s.db.SSTables()
	require.NoError(t, err)
	for _, tb := range levels[0] {
		if tb.Smallest.UserKey[0] != userPrefix {
			continue
		}
		crossed := 0
		for _, c := range cuts.keys {
			inner := string(appendUser(nil, c))
			if string(tb.Smallest.UserKey) < inner && inner < string(tb.Largest.UserKey) {
				crossed++
			}
		}
		require.Zero(t, crossed, tb.FileNum)
	}
	require.NoError(t, s.Compact(context.Background()))
	require.Equal(t, want, dumpStore(t, s))
	require.NoError(t, s.Close())
	s = mustOpen(t, testOptions(fs))
	require.Equal(t, cuts, s.cuts)
	require.Equal(t, want, dumpStore(t, s))
}

// Goal: range deletes and points at and around every border agree with a map.
func TestIngest_tombstonesOverBorders(t *testing.T) {
	r := rand.New(rand.NewSource(9))
	for round := range 20 {
		s := mustOpen(t, testOptions(vfs.NewMem()))
		want := model{}
		base := sets(400, "k%03d", "base")
		mustIngest(t, s, 1, base)
		want.apply(base)
		in, err := s.NewIngest()
		require.NoError(t, err)
		in.cuts = cutPoints{chosenAt: 1}
		for i := range 15 {
			in.cuts.keys = append(in.cuts.keys, fmt.Appendf(nil, "k%03d", 20+i*25))
		}
		var ops []op
		for at := r.Intn(20); at < 400; {
			to := at + 1 + r.Intn(60)
			if r.Intn(3) == 0 { // exactly from or to a border
				to = (to/25)*25 + 20
			}
			if to > at {
				ops = append(ops, op{'r', fmt.Sprintf("k%03d", at), fmt.Sprintf("k%03d", to)})
			}
			at = max(to, at+1) + r.Intn(3)*r.Intn(20)
		}
		for i := range 400 {
			if r.Intn(3) == 0 {
				v := strings.Repeat("x", r.Intn(40<<10)) // so that tables are big enough to cut
				ops = append(ops, op{'s', fmt.Sprintf("k%03d", i), v})
			}
		}
		slices.SortStableFunc(ops, func(a, b op) int { return strings.Compare(a.key, b.key) })
		require.NoError(t, feed(in, ops))
		st, err := in.Commit(mark(2, ops))
		require.NoError(t, err, round)
		require.Greater(t, st.Tables, 4)
		want.apply(ops)
		require.Equal(t, want, dumpStore(t, s))
		require.NoError(t, s.Compact(context.Background()))
		require.Equal(t, want, dumpStore(t, s))
		require.NoError(t, s.db.CheckLevels(&pebble.CheckLevelsStats{}))
		require.NoError(t, s.Close())
	}
}

// Goal: S1. Whatever was ingested, the memtable stayed empty and no log grew.
func TestStore_memtableNeverWritten(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	before := s.db.Metrics()
	for lsn := uint64(1); lsn <= 5; lsn++ {
		mustIngest(t, s, lsn, sets(100, "k%03d", "v"))
	}
	after := s.db.Metrics()
	require.Equal(t, before.MemTable.Count, after.MemTable.Count)
	require.Zero(t, after.WAL.BytesWritten)
	require.Zero(t, after.Flush.Count)
	require.Zero(t, after.Flush.AsIngestCount)
}

// Goal: an ingest over a memtable with data is never acknowledged as durable
// while it is not (F1): with the option it goes to the manifest, and the
// overlap is refused.
func TestIngest_Commit_memtableOverlap(t *testing.T) {
	mem := newCrashable()
	s := mustOpen(t, testOptions(mem))
	require.True(t, s.po.Experimental.DisableIngestAsFlushable())
	require.NoError(t, s.db.Set([]byte("\x10k050"), []byte("x"), pebble.NoSync))
	require.Error(t, ingest(s, 1, sets(100, "k%03d", "v")))
	require.ErrorIs(t, s.Err(), ErrDegraded)
}

// Goal: cut points adapt once to the first large flush, and again only when
// L3 has grown and they are lopsided.
func TestCutPoints_choose(t *testing.T) {
	feedSampler := func(n int, format string) *sampler {
		var sm sampler
		for i := range n {
			sm.add(fmt.Appendf(nil, format, i), 1000)
		}
		require.Less(t, len(sm.keys), sampleKeys)
		return &sm
	}
	_, ok := feedSampler(100, "a%06d").choose(cutPoints{}, 0)
	require.False(t, ok, "too small")
	c, ok := feedSampler(50000, "a%06d").choose(cutPoints{}, 0)
	require.True(t, ok)
	require.Len(t, c.keys, 15)
	got, err := decodeCuts(c.encode())
	require.NoError(t, err)
	require.Equal(t, c, got)
	_, ok = feedSampler(50000, "b%06d").choose(c, c.chosenAt)
	require.False(t, ok, "lopsided but L3 has not grown")
	_, ok = feedSampler(50000, "a%06d").choose(c, 100*c.chosenAt)
	require.False(t, ok, "grown but balanced")
	c2, ok := feedSampler(50000, "b%06d").choose(c, 4*c.chosenAt)
	require.True(t, ok)
	require.Less(t, c.chosenAt, c2.chosenAt)
	same, ok := feedSampler(50000, strings.Repeat("p", 100)+"%06d").choose(cutPoints{}, 0)
	require.True(t, ok)
	require.Len(t, same.keys, 1, "long common beginnings fall together")
}
