package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/wal"
)

// salvageSim rescues the store of a simulated disk and proves what it brought.
func salvageSim(t *testing.T, fs *simfs.FS, want map[string]string) SalvageReport {
	t.Helper()
	r, err := Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
	require.NoError(t, err)
	rescuedRight(t, fs.Crash(everything), "/rescued", want, r, "")
	return r
}

// onlyLoss is the one loss of a report.
func onlyLoss(t *testing.T, r SalvageReport) SalvageLoss {
	t.Helper()
	require.Len(t, r.Lost, 1, "%v", r.Lost)
	return r.Lost[0]
}

// Goal: settings that contradict themselves are refused before anything is looked at.
func TestSalvage_badOptions(t *testing.T) {
	_, err := Salvage(context.Background(), "/none", "/dst", &Options{MemoryBudget: 1}, nil)
	require.ErrorIs(t, err, ErrOptions)
	_, err = Survey(context.Background(), "/none", &Options{MemoryBudget: 1}, nil)
	require.ErrorIs(t, err, ErrOptions)
}

// Goal: where nothing is left the error says whether something was lost, and what: an
// empty store is no corrupt one.
func TestSalvage_nothingLeft(t *testing.T) {
	refused := func(fs *simfs.FS) error {
		before := fs.Tree()
		_, err := Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
		require.Error(t, err)
		require.True(t, before.Equal(fs.Tree()), "nothing is made, nothing is changed")
		_, err2 := Survey(context.Background(), "/store", simOptions(fs), nil)
		require.EqualError(t, err2, err.Error())
		return err
	}
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	empty := fs.Cut()
	err = refused(fs)
	require.ErrorIs(t, err, ErrNothingLeft)
	require.NotErrorIs(t, err, ErrCorrupt)

	fs = empty.Image(everything) // sound, and never had a table
	require.NoError(t, fs.RemoveAll("/store/l3"))
	err = refused(fs)
	require.ErrorIs(t, err, ErrNothingLeft)
	require.NotErrorIs(t, err, ErrCorrupt)

	image, _ := simWreck(t)
	fs = image.Image(everything)
	require.NoError(t, fs.RemoveAll("/store/l3"))
	require.NoError(t, fs.RemoveAll("/store/log"))
	err = refused(fs)
	require.ErrorIs(t, err, ErrNothingLeft)
	var c *CorruptError
	require.ErrorAs(t, err, &c)
	require.NotEmpty(t, c.What)

	require.NoError(t, fs.Put("/store/STATE", []byte(strings.Repeat("thesis", 2000))))
	err = refused(fs)
	require.ErrorIs(t, err, ErrForeign)
}

// Goal: a store of a newer version is left alone.
func TestSalvage_newerVersion(t *testing.T) {
	image, _ := simWreck(t)
	fs := image.Image(everything)
	state := []byte(string(below(fs, "/store/STATE")["/store/STATE"].Data))
	const page = 4096
	for slot := range 2 {
		b := state[slot*page : (slot+1)*page]
		binary.LittleEndian.PutUint16(b[8:], 99)
		binary.LittleEndian.PutUint32(b[page-4:], crc32.Checksum(b[:page-4], crc32.MakeTable(crc32.Castagnoli)))
	}
	require.NoError(t, fs.Put("/store/STATE", state))
	_, err := Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
	require.ErrorIs(t, err, ErrVersion)
	require.NotErrorIs(t, err, ErrCorrupt)
	_, err = fs.Stat("/rescued")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Goal: without STATE and L3 the log says whose the store is, so that large values in
// its packs are read; a log that cannot be listed is an error, not a foreign one.
func TestSalvage_logSaysWhose(t *testing.T) {
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	want := map[string]string{}
	for i := range 12 {
		require.NoError(t, e.Put(simKey(i), simValue(i)))
		want[string(simKey(i))] = string(simValue(i))
	}
	image := fs.Cut()
	require.NoError(t, e.Close())
	fs = image.Image(everything)
	require.NoError(t, fs.Remove("/store/STATE"))
	require.NoError(t, fs.RemoveAll("/store/l3"))
	fault := fs.Inject(simfs.FailOnce(simfs.OpList, "/store/log", 1, syscall.EMFILE))
	_, err = Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
	require.ErrorIs(t, err, syscall.EMFILE)
	require.NotErrorIs(t, err, ErrNothingLeft)
	require.Equal(t, 1, fault.Fired())
	r := salvageSim(t, fs, want)
	require.EqualValues(t, 2, r.Large)
	require.EqualValues(t, 12, r.Keys)
}

// Goal: a table of another store that got into L3 brings none of its keys, and is named;
// nor does a whole L3 of another store, with its manifest.
func TestSalvage_foreignTable(t *testing.T) {
	other := simfs.New(nil)
	e, err := Open("/store", simOptions(other))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("theirs"), []byte("secret")))
	flush(t, e)
	require.NoError(t, e.Close())
	image, want := simWreck(t)
	fs := image.Image(everything)
	for path, f := range below(other, "/store/l3/") {
		if strings.HasSuffix(path, "5.sst") { // that with the watermark: it alone says whose it is
			require.NoError(t, fs.Put("/store/l3/000900.sst", f.Data))
		}
	}
	for path := range below(fs, "/store/l3/MANIFEST") {
		require.NoError(t, fs.Remove(path))
	}
	r := salvageSim(t, fs, want)
	require.EqualValues(t, len(want), r.Keys)
	named := false
	for _, l := range r.Lost {
		named = named || l.File == "/store/l3/000900.sst" && l.What == "a table of another store"
	}
	require.True(t, named, "%v", r.Lost)

	fs = image.Image(everything)
	theirs := below(other, "/store/l3/")
	require.NoError(t, fs.RemoveAll("/store/log"))
	for path := range below(fs, "/store/l3/") {
		require.NoError(t, fs.RemoveAll(path))
	}
	for path, f := range theirs {
		require.NoError(t, fs.Put(path, f.Data))
	}
	_, err = Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
	require.ErrorIs(t, err, ErrForeign)
	require.ErrorContains(t, err, "belongs to another store")
}

// Goal: an entry that verifies and is no cell costs its own key, which is named.
func TestSalvage_noCell(t *testing.T) {
	image, want := simWreck(t)
	fs := image.Image(everything)
	spoilL3(t, fs, "bad", []byte("short"))
	r := salvageSim(t, fs, want)
	l := onlyLoss(t, r)
	require.Equal(t, "an entry that is no cell", l.What)
	require.True(t, strings.HasSuffix(l.File, ".sst"))
	require.EqualValues(t, -1, l.Offset)
	require.Equal(t, [2]string{"bad", "bad"}, [2]string{string(l.Lower), string(l.Upper)})
	require.ErrorIs(t, l.Err, cow.ErrCell)
	require.EqualValues(t, len(want), r.Keys)
}

// Goal: a record that verifies and is no batch costs its own commit, which is named.
func TestSalvage_noBatch(t *testing.T) {
	image, want := simWreck(t)
	fs := image.Image(everything)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	commitRaw(t, fs, []byte{0xff, 0xff, 0xff})
	st, err := wal.ReadState(fs, "/store")
	require.NoError(t, err)
	r := salvageSim(t, fs, want)
	l := onlyLoss(t, r)
	require.Equal(t, "a record that verifies is no batch", l.What)
	require.Equal(t, [2]uint64{st.Synced, st.Synced}, [2]uint64{l.FirstLSN, l.LastLSN})
	require.ErrorIs(t, l.Err, errOps)
	require.EqualValues(t, len(want), r.Keys)
	require.GreaterOrEqual(t, r.LSN, l.LastLSN, "its number is not given out again")
}

// Goal (I10): range deletes of the log that outgrow their share of the budget are an
// error that says so, and leave nothing; a larger budget takes them.
func TestSalvage_tooManyRanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	o := small(Options{Sync: SyncNever})
	o.MemoryBudget, o.SegmentBytes = 256<<20, 0
	e, err := Open(dir, o)
	require.NoError(t, err)
	pad := strings.Repeat("x", 30_000)
	for i := range 100 {
		k := fmt.Sprintf("r%05d", i)
		require.NoError(t, e.Put([]byte(k), []byte("dead")))
		require.NoError(t, e.DeleteRange([]byte(k), []byte(k+pad)))
	}
	require.NoError(t, e.Put([]byte("s"), []byte("alive")))
	require.NoError(t, e.Close())
	for _, spilled := range []bool{false, true} {
		if spilled { // the generation is full before the log ends
			e, err := Open(dir, o)
			require.NoError(t, err)
			for i := range 100 {
				require.NoError(t, e.Put(fmt.Appendf(nil, "t%03d", i), make([]byte, 100_000)))
			}
			require.NoError(t, e.Close())
		}
		dst := filepath.Join(t.TempDir(), "r")
		_, err = Salvage(context.Background(), dir, dst, small(Options{}), nil)
		require.ErrorIs(t, err, ErrTooLarge)
		require.NoDirExists(t, dst)
		r, err := Salvage(context.Background(), dir, dst, o, nil)
		require.NoError(t, err)
		require.Zero(t, r.LostCount)
		e, err := Open(dst, small(Options{}))
		require.NoError(t, err)
		require.Equal(t, "∅", get(t, e, "r00007"))
		require.Equal(t, "alive", get(t, e, "s"))
		require.NoError(t, e.Close())
	}
}

// Goal: what somebody puts into dst in the moment before it is locked stops the salvage
// and stays, alone.
func TestSalvage_foreignFileBeforeLock(t *testing.T) {
	image, want := simWreck(t)
	fs := image.Image(everything)
	require.NoError(t, fs.MkdirAll("/rescued", 0o755))
	// The first mutating call of a salvage locks the damaged store, the next dst.
	fs.OnMutation(fs.Mutations()+2, func() { require.NoError(t, fs.Put("/rescued/theirs", []byte("x"))) })
	_, err := Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
	require.ErrorIs(t, err, os.ErrExist)
	names, err := fs.List("/rescued")
	require.NoError(t, err)
	require.Equal(t, []string{"theirs"}, names)
	require.NoError(t, fs.Remove("/rescued/theirs"))
	salvageSim(t, fs, want)
}

// Goal: a store that says another commit than the one that was written is not vouched
// for, and the error names its place.
func TestRescue_prove(t *testing.T) {
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	require.NoError(t, e.Close())
	r := &rescue{fs: fs, dir: "/store"}
	require.NoError(t, r.prove(1))
	var c *CorruptError
	require.ErrorAs(t, r.prove(math.MaxUint64), &c)
	require.Equal(t, "/store", c.File)
	require.Error(t, (&rescue{fs: fs, dir: "/none"}).prove(1))
}
