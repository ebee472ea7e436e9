package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// Goal: a loss says which keys or commits it may have cost, and no more than is known.
func TestSalvageLoss_String(t *testing.T) {
	for want, l := range map[string]SalvageLoss{
		"f: offset 7: w; the value of key \"k\" is lost": {File: "f", Offset: 7, What: "w", Key: []byte("k"), FirstLSN: 3, LastLSN: 3},
		"w; it may have held any key":                    {Offset: -1, What: "w", Ranged: true},
		"w; it held keys from \"a\" up":                  {Offset: -1, What: "w", Ranged: true, Lower: []byte("a")},
		"f: w; it held keys from \"a\" to \"b\"":         {File: "f", Offset: -1, What: "w", Ranged: true, Lower: []byte("a"), Upper: []byte("b")},
		"f: offset 0: w; commits 3 to 5 are lost":        {File: "f", What: "w", FirstLSN: 3, LastLSN: 5},
		"f: offset 0: w; commit 3 is lost":               {File: "f", What: "w", FirstLSN: 3, LastLSN: 3},
		"f: offset 0: w; commits from 3 on may be lost":  {File: "f", What: "w", FirstLSN: 3},
		"f: offset 9: w":                                 {File: "f", Offset: 9, What: "w"},
	} {
		require.Equal(t, want, l.String())
	}
}

// Goal: lost parts of one table that touch become one; those of others, and of range
// deletes, stay apart; beyond the bound none is forgotten.
func TestWreck_addHole(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	show := func(w *wreck) (out []string) {
		for _, h := range w.holes {
			upper := "end"
			if h.upper != nil {
				upper = string(h.upper)
			}
			out = append(out, fmt.Sprintf("%d:%s-%s:%t", h.table.Number, h.lower, upper, h.ranges))
		}
		return out
	}
	one, two := new(wreckTable), new(wreckTable)
	one.Number, two.Number = 1, 2
	w := new(wreck)
	w.addHole(one, b("b"), b("d"), false)
	w.addHole(one, b("d"), b("f"), false)
	w.addHole(one, b("f"), b("g"), true)
	w.addHole(two, b("g"), b("h"), true)
	w.addHole(two, b("i"), b("k"), true)
	w.addHole(two, b("k"), nil, true)
	w.addHole(two, b("x"), b("z"), true)
	require.Equal(t, []string{"1:b-f:false", "1:f-g:true", "2:g-h:true", "2:i-end:true", "2:x-z:true"}, show(w))
	for _, h := range w.holes {
		require.Equal(t, uint64(math.MaxUint64), h.newest, "until the tables are in order")
	}
}

// Goal (I10): beyond the bound one hole stands for all others, and a set of any table
// below it, however new, is in doubt; the bounds of the last table do not count.
func TestWreck_addHole_overflow(t *testing.T) {
	for _, exact := range []bool{false, true} {
		w := &wreck{exact: exact}
		old := &wreckTable{entries: 1, sets: 1, oldest: 1, newest: 2}
		old.Number, old.First, old.Last = 1, 1, 1
		young := &wreckTable{entries: 1, sets: 1, oldest: 90, newest: 99}
		young.Number, young.First, young.Last = 2, 9, 9
		w.tables = []*wreckTable{old, young}
		for i := range maxHoles {
			w.addHole(old, fmt.Appendf(nil, "k%06d", 2*i), fmt.Appendf(nil, "k%06d", 2*i+1), false)
		}
		require.Equal(t, maxHoles, len(w.holes))
		w.addHole(young, []byte("s"), []byte("t"), true)
		w.addHole(old, []byte("r"), []byte("s"), false)
		w.addHole(old, []byte("x"), []byte("z"), false)
		require.Equal(t, maxHoles+1, len(w.holes))
		rest := w.holes[maxHoles]
		require.Equal(t, "r-z", string(rest.lower)+"-"+string(rest.upper))
		w.bound()
		for _, h := range w.holes {
			h.newest = h.table.after - 1 // as order does without a manifest
		}
		for _, in := range w.tables {
			require.True(t, w.mayHold(rest, entryAt{table: in, revision: 99}, []byte("y")), in.Number)
		}
		w.addHole(young, []byte("zz"), nil, false)
		require.Nil(t, rest.upper)
	}
}

// Goal: numbers of Pebble bound revisions from both sides, as far as tables have them,
// and what does not fit into the map only widens the bounds.
func TestSeqBounds_around(t *testing.T) {
	var b seqBounds
	for _, e := range [][2]uint64{{0, 1}, {10, 5}, {10, 3}, {10, 9}, {30, 20}, {20, 30}} {
		b.add(e[0], e[1])
	}
	b.sort()
	for _, c := range []struct{ seq, low, high uint64 }{
		{5, 0, 3}, {10, 9, 3}, {15, 9, 20}, {20, 30, 20}, {25, 30, 20}, {30, 30, 20}, {31, 30, math.MaxUint64},
	} {
		low, high := b.around(c.seq)
		require.Equal(t, [2]uint64{c.low, c.high}, [2]uint64{low, high}, "around %d", c.seq)
	}
	low, high := new(seqBounds).around(7)
	require.Equal(t, [2]uint64{0, math.MaxUint64}, [2]uint64{low, high})

	var full seqBounds
	for seq := range uint64(maxSeqs + 10) {
		full.add(seq+1, seq+1)
	}
	full.add(5, 1000)
	require.Len(t, full.m, maxSeqs)
	require.Equal(t, [2]uint64{5, 1000}, full.m[5], "a number that is there is kept up")
}

// Goal: which of a delete and a set came last is said only where the tables prove it.
func TestWreck_hides(t *testing.T) {
	flushed := func(no, oldest, newest uint64) *wreckTable {
		t := &wreckTable{entries: 1, sets: 1, oldest: oldest, newest: newest, before: oldest - 1, after: newest + 1}
		t.Number = no
		return t
	}
	compacted := func(no, before, after uint64) *wreckTable {
		t := &wreckTable{entries: 1, merged: true, before: before, after: after}
		t.Number = no
		return t
	}
	named := func(no, last uint64) *wreckTable {
		t := new(wreckTable)
		t.Number, t.First, t.Last = no, last, last
		return t
	}
	deletesOnly := &wreckTable{entries: 1, before: 10, after: 20}
	deletesOnly.Number = 5
	broken := flushed(5, 11, 19)
	broken.damaged = true
	same := flushed(5, 11, 19)
	mixed := &wreckTable{entries: 2}
	mixed.First, mixed.Last = 3, 9
	for name, c := range map[string]struct {
		exact bool
		t, s  entryAt
		want  verdict
	}{
		"manifest, delete later":    {true, entryAt{table: named(1, 9)}, entryAt{table: named(2, 8)}, newer},
		"manifest, delete earlier":  {true, entryAt{table: named(1, 8)}, entryAt{table: named(2, 9)}, older},
		"manifest, number in file":  {true, entryAt{table: mixed, seq: 4}, entryAt{table: mixed, seq: 3}, newer},
		"one table":                 {false, entryAt{table: same, seq: 4}, entryAt{table: same, seq: 4}, older},
		"set flushed later":         {false, entryAt{table: flushed(3, 1, 2)}, entryAt{table: flushed(4, 3, 4), revision: 3}, older},
		"delete flushed later":      {false, entryAt{table: flushed(4, 3, 4)}, entryAt{table: flushed(3, 1, 2), revision: 1}, newer},
		"set below the flush":       {false, entryAt{table: same}, entryAt{table: compacted(7, 0, 0), revision: 10}, newer},
		"set in the flush":          {false, entryAt{table: same}, entryAt{table: compacted(7, 0, 0), revision: 15}, older},
		"set below a damaged flush": {false, entryAt{table: broken}, entryAt{table: compacted(7, 0, 0), revision: 10}, newer},
		"only deletes, set before":  {false, entryAt{table: deletesOnly}, entryAt{table: compacted(7, 0, 0), revision: 10}, newer},
		"only deletes, set beside":  {false, entryAt{table: deletesOnly}, entryAt{table: compacted(7, 0, 0), revision: 15}, unknown},
		"only deletes, set behind":  {false, entryAt{table: deletesOnly}, entryAt{table: compacted(7, 0, 0), revision: 20}, older},
		"numbers in both":           {false, entryAt{table: compacted(8, 0, 9), seq: 5}, entryAt{table: compacted(7, 0, 9), seq: 4, revision: 3}, newer},
		"numbers in both, other":    {false, entryAt{table: compacted(8, 0, 9), seq: 4}, entryAt{table: compacted(7, 0, 9), seq: 5, revision: 3}, older},
		"bounds of the number, low": {false, entryAt{table: compacted(8, 0, 100), seq: 10}, entryAt{table: compacted(7, 0, 0), revision: 40}, newer},
		"bounds of the number, mid": {false, entryAt{table: compacted(8, 0, 100), seq: 10}, entryAt{table: compacted(7, 0, 0), revision: 45}, unknown},
		"bounds of the number, top": {false, entryAt{table: compacted(8, 0, 100), seq: 10}, entryAt{table: compacted(7, 0, 0), revision: 50}, older},
		"a later flush":             {false, entryAt{table: compacted(8, 0, 44), seq: 10}, entryAt{table: compacted(7, 0, 0), revision: 44}, older},
	} {
		w := &wreck{exact: c.exact}
		w.seqs.add(9, 40)
		w.seqs.add(11, 50)
		w.seqs.sort()
		require.Equal(t, c.want, w.hides(c.t, c.s), name)
	}
}

// Goal: each lost number is told once, at the damage that took it.
func TestBounded(t *testing.T) {
	at := func(what string, first, last uint64) wal.Loss {
		return wal.Loss{What: what, FirstLSN: first, LastLSN: last}
	}
	for name, c := range map[string]struct {
		in, want []wal.Loss
		last     uint64
	}{
		"gap after damage": {[]wal.Loss{at("damage", 5, 0), at("gap", 5, 8)}, []wal.Loss{at("damage", 5, 8)}, 20},
		"nothing there":    {[]wal.Loss{at("damage", 5, 0)}, []wal.Loss{at("damage; it held no commit", 0, 0)}, 5},
		"at the end":       {[]wal.Loss{at("damage", 5, 0)}, []wal.Loss{at("damage", 5, 0)}, 4},
		"told before":      {[]wal.Loss{at("damage", 5, 8), at("promise", 6, 8)}, []wal.Loss{at("damage", 5, 8)}, 20},
		"told in part":     {[]wal.Loss{at("damage", 5, 8), at("promise", 6, 9)}, []wal.Loss{at("damage", 5, 8), at("promise", 6, 9)}, 20},
		"another's gap":    {[]wal.Loss{at("damage", 5, 0), at("gap", 6, 8)}, []wal.Loss{at("damage", 5, 0), at("gap", 6, 8)}, 4},
	} {
		require.Equal(t, c.want, bounded(c.in, c.last), name)
	}
}

// writesFail is a sink that refuses what it is given.
type writesFail struct {
	tally
	err error
}

func (s *writesFail) blob(_, _ []byte) error { return s.err }

// Goal: damage of one large value is a loss of its key, with its pack and offset; a
// failing destination, and a source that refuses for other reasons, ends the salvage.
func TestWreck_emitBlob(t *testing.T) {
	fs, want := simWreck(t)
	disk := fs.Image(everything)
	w, err := newWreck(context.Background(), "/store", simOptions(disk), nil)
	require.NoError(t, err)
	defer w.close()
	require.NoError(t, w.examine())
	e, err := Open("/store", &Options{FS: fs.Image(everything), ReadOnly: true, MemoryBudget: minBudget})
	require.NoError(t, err)
	cell, _, err := e.find(simKey(3))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.Equal(t, cow.Blob, cell.Kind())
	ref, err := mmap.DecodeRef(cell.Payload())
	require.NoError(t, err)
	emit := func(err error, c cow.Cell) (SalvageReport, error) {
		w.report = SalvageReport{}
		err = w.emitBlob(&writesFail{tally: tally{w: w}, err: err}, simKey(3), c)
		return w.report, err
	}
	r, err := emit(nil, cell)
	require.NoError(t, err)
	require.Equal(t, [3]int64{1, 1, int64(len(want["k003"]))}, [3]int64{r.Keys, r.Large, r.Bytes})
	pack := fmt.Sprintf("/store/packs/%020d.pack", ref.Pack)
	for _, c := range []struct {
		err  error
		cell cow.Cell
		file string
		off  int64
		what string
	}{
		{&mmap.CorruptError{File: pack, Offset: 99, What: "hash"}, cell, pack, 99, "hash"},
		{&mmap.CorruptError{Offset: 99, What: "hash"}, cell, pack, int64(ref.Offset), "hash"},
		{fmt.Errorf("open: %w", mmap.ErrMissing), cell, pack, -1, "the pack is missing"},
		{fmt.Errorf("read: %w", syscall.EIO), cell, pack, int64(ref.Offset), "read: input/output error"},
		{nil, cow.AppendCell(nil, cow.Header{Kind: cow.Blob, Revision: cell.Revision()}, []byte("no reference")), "", -1, ""},
	} {
		r, err := emit(c.err, c.cell)
		require.NoError(t, err)
		require.Zero(t, r.Keys)
		require.EqualValues(t, 1, r.LostCount)
		l := r.Lost[0]
		require.Equal(t, c.file, l.File)
		require.Equal(t, c.off, l.Offset)
		require.Equal(t, simKey(3), l.Key)
		require.Equal(t, [2]uint64{cell.Revision(), cell.Revision()}, [2]uint64{l.FirstLSN, l.LastLSN})
		if c.err != nil {
			require.Equal(t, c.what, l.What)
			require.ErrorIs(t, l.Err, c.err)
		}
	}
	for _, cause := range []error{fmt.Errorf("%w: %w", errWriting, syscall.EIO), syscall.EMFILE, context.Canceled} {
		r, err := emit(cause, cell)
		require.ErrorIs(t, err, cause)
		require.ErrorContains(t, err, `key "k003"`)
		require.Zero(t, r.LostCount)
	}
}

// Goal: a batch is taken in whole or not at all.
func TestPlaceIn_allOrNothing(t *testing.T) {
	var clock cow.Clock
	refused := 0
	for _, payload := range opSeeds() {
		g := cow.NewGeneration(&clock, cow.Shape{Shards: 16})
		err := placeIn(g, 1, payload)
		if err != nil {
			require.ErrorIs(t, err, errOps)
			require.True(t, g.Empty())
			refused++
		}
	}
	require.Positive(t, refused)
}

// Goal: damage in a run of the salvage's own ends it, and names the run; nothing of it
// is taken for what the store had.
func TestLogMerge_damagedRun(t *testing.T) {
	fs := vfs.NewMem()
	var clock cow.Clock
	g := cow.NewGeneration(&clock, cow.Shape{Shards: 16})
	for i := range 2000 {
		key := fmt.Appendf(nil, "k%05d", i)
		g.Put(hashKey(key), key, 1, cow.Header{Kind: cow.Value, Revision: 1}, []byte(strings.Repeat("v", 100)))
	}
	run, err := sortRun(g, fs, "run")
	require.NoError(t, err)
	info, err := fs.Stat("run")
	require.NoError(t, err)
	for _, share := range []int64{100, 2} { // its first block, and one in the middle
		f, err := fs.OpenReadWrite("run", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("noise"), info.Size()/share)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		m, err := newLogMerge(&wreck{runs: []logRun{run}})
		for err == nil && m.key() != nil {
			_, _, err = m.at(append([]byte{}, m.key()...))
		}
		var c *CorruptError
		require.ErrorAs(t, err, &c)
		require.Equal(t, "run", c.File)
		if m != nil {
			m.close()
		}
	}
	require.NoError(t, fs.Remove("run"))
	_, err = newLogMerge(&wreck{runs: []logRun{run}})
	require.ErrorIs(t, err, os.ErrNotExist)

	bad, err := storage.NewRun(fs, "bad")
	require.NoError(t, err)
	require.NoError(t, bad.Set([]byte("k"), []byte("no cell")))
	require.NoError(t, bad.Done())
	m, err := newLogMerge(&wreck{runs: []logRun{{cells: bad}}})
	require.NoError(t, err)
	_, _, err = m.at([]byte("k"))
	require.ErrorIs(t, err, cow.ErrCell)
	m.close()
}

// Goal: a path that is there only in part is resolved as far as it is, whatever it is
// relative to.
func TestWithin(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "link")))
	require.True(t, within(dir, filepath.Join(dir, "link", "a", "b")))
	require.True(t, within("/", "/no/such/place"))
	require.False(t, within(dir, dir+"-beside"))
	t.Chdir(dir)
	require.True(t, within(".", "a"))
	require.False(t, within("a", "."))
	require.True(t, within("", filepath.Join(dir, "a")))
	require.False(t, errors.Is(emptyOrMissing(vfs.Default, dir), os.ErrNotExist))
	require.ErrorIs(t, emptyOrMissing(vfs.Default, dir), os.ErrExist)
}
