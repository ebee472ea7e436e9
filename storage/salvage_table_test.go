package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// readRemains reads every table and puts what came out in words.
func readRemains(o Options) (entries []string, lost []LostBlock, mark Watermark, err error) {
	r, err := OpenRemains(o)
	if err != nil {
		return nil, nil, mark, err
	}
	for i := range r.Tables {
		it, err := r.Open(&r.Tables[i])
		if err != nil {
			return nil, nil, mark, err
		}
		for it.Next() {
			entries = append(entries, fmt.Sprintf("%d %s %t %d %s", r.Tables[i].Number, it.Key(), it.Deleted(), it.Seq(), it.Cell()))
		}
		for _, rt := range it.Ranges() {
			entries = append(entries, fmt.Sprintf("%d %s to %s %d", r.Tables[i].Number, rt.Lower, rt.Upper, rt.Seq))
		}
		if w, ok := it.Watermark(); ok && w.LSN > mark.LSN {
			mark = w
		}
		lost = append(lost, it.Lost()...)
		if err := errors.Join(it.Err(), it.Close(), it.Close()); err != nil {
			return nil, nil, mark, err
		}
	}
	if r.Manifest.Err != nil {
		lost = append(lost, LostBlock{File: r.Manifest.File, What: "manifest", Err: r.Manifest.Err})
	}
	return entries, lost, mark, nil
}

// remainsStore has sets, deletes and range deletes, in tables of flushes and of a
// compaction.
func remainsStore(t *testing.T) (*simfs.FS, Options) {
	t.Helper()
	fs := simfs.New(nil)
	o := testOptions(fs)
	s := mustOpen(t, o)
	mustIngest(t, s, 1, sets(400, "key%04d", strings.Repeat("v", 100)))
	mustIngest(t, s, 2, sets(400, "key%04d", strings.Repeat("w", 100)))
	require.NoError(t, s.Compact(context.Background()))
	rest(s)
	mustIngest(t, s, 3, []op{{'d', "key0001", ""}, {'r', "key0100", "key0200"}, {'s', "key0300", "new"}})
	require.NoError(t, s.Close())
	o.Create = false
	return fs, o
}

// rest lets no compaction begin, so that the tables stay the ingests' own.
func rest(s *Store) {
	s.sched.mu.Lock()
	defer s.sched.mu.Unlock()
	s.sched.opened = false
}

// Goal: deletes, range deletes and the newest watermark come out of the tables.
func TestRemains_Open_everyEntry(t *testing.T) {
	fs, o := remainsStore(t)
	entries, lost, mark, err := readRemains(o)
	require.NoError(t, err)
	require.Empty(t, lost)
	require.EqualValues(t, 3, mark.LSN)
	require.Equal(t, testUUID, mark.UUID)
	all := strings.Join(entries, "\n")
	require.Contains(t, all, " key0001 true ")
	require.Contains(t, all, " key0300 false 0 new")
	require.Contains(t, all, " key0100 to key0200 ")
	// A table that the manifest names and nobody finds is a loss with its bounds.
	r, err := OpenRemains(o)
	require.NoError(t, err)
	merged := 0
	for i := range r.Tables {
		it, err := r.Open(&r.Tables[i])
		require.NoError(t, err)
		if it.Merged() {
			merged++
		}
		require.NoError(t, it.Close())
		require.NoError(t, fs.Remove(r.Tables[i].File))
	}
	require.Positive(t, merged, "the compaction's table")
	require.Less(t, merged, len(r.Tables), "the flush's table")
	entries, lost, _, err = readRemains(o)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Len(t, lost, len(r.Tables))
	for i, l := range lost {
		require.Equal(t, "missing file", l.What)
		require.Equal(t, r.Tables[i].NamedSize, l.Bytes)
		require.Equal(t, r.Tables[i].Upper, l.Upper)
	}
	// And nothing at all is left of a folder with neither.
	require.NoError(t, fs.Remove(r.Manifest.File))
	_, err = OpenRemains(o)
	require.ErrorIs(t, err, ErrNoRemains)
	_, err = OpenRemains(Options{FS: fs, MaxOpenFiles: -1})
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrNoRemains)
}

// Goal: whichever call fails while remains are read, a refusal is an error with its
// cause, and a disk that cannot give its bytes back is an error or a loss; what does
// come out is right, and nothing on the disk changes. (A close of what was read to its
// end takes nothing back.)
func TestRemains_anyCallFails(t *testing.T) {
	base, o := remainsStore(t)
	sound, _, _, err := readRemains(o)
	require.NoError(t, err)
	known := map[string]bool{}
	for _, e := range sound {
		known[e] = true
	}
	for _, footless := range []bool{false, true} {
		o.FS = base
		if footless {
			cutFeet(t, base, o)
		}
		whole, _, _, err := readRemains(o)
		require.NoError(t, err)
		image := base.Cut()
		for _, cause := range []syscall.Errno{syscall.EACCES, syscall.EIO} {
			for nth := 1; ; nth++ {
				fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
				before := fs.Tree()
				fault := fs.Inject(simfs.FailOnce(simfs.OpAll&^(simfs.OpPrefetch|simfs.OpClose), "", nth, cause))
				o.FS = fs
				got, lost, _, err := readRemains(o)
				require.True(t, before.Equal(fs.Tree()), "reading changed the disk")
				if fault.Fired() == 0 {
					require.NoError(t, err)
					require.Equal(t, whole, got)
					require.Greater(t, nth, 10)
					break
				}
				at := fmt.Sprintf("footless %t, call %d: %v", footless, nth, cause)
				if err != nil {
					require.ErrorIs(t, err, cause, at)
					require.NotErrorIs(t, err, ErrNoRemains, at)
					continue
				}
				require.Equal(t, syscall.EIO, cause, "%s: a refusal is no damage\n%s", at, fs.Trace())
				require.NotEmpty(t, lost, at)
				for _, e := range got {
					require.True(t, known[e], "%s: %s", at, e)
				}
			}
		}
	}
}

// Goal: a slow disk is no damage, with and without what leads to the blocks.
func TestRemains_slowDisk(t *testing.T) {
	fs, o := remainsStore(t)
	for _, footless := range []bool{false, true} {
		if footless {
			cutFeet(t, fs, o)
		}
		want, damage, _, err := readRemains(o)
		require.NoError(t, err)
		slow := fs.Inject(simfs.Delay(simfs.OpReadAt, "*.sst", 6*time.Millisecond))
		got, lost, _, err := readRemains(o)
		slow.Remove()
		require.Positive(t, slow.Fired())
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Len(t, lost, len(damage))
	}
}

// cutFeet damages every footer: blocks are searched for, one by one.
func cutFeet(t *testing.T, fs *simfs.FS, o Options) {
	t.Helper()
	r, err := OpenRemains(o)
	require.NoError(t, err)
	for _, tb := range r.Tables {
		b := readFile(t, fs, tb.File)
		b[len(b)-1] ^= 1
		require.NoError(t, fs.Put(tb.File, b))
	}
}

// forged is a table that no ingest of ours makes.
func forged(t *testing.T, fs vfs.FS, o sstable.WriterOptions, fill func(w *sstable.Writer)) Options {
	t.Helper()
	require.NoError(t, fs.MkdirAll("store/l3", 0o755))
	f, err := fs.Create("store/l3/000007.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	o.TableFormat, o.Compression = sstable.TableFormatMax, sstable.NoCompression
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)
	fill(w)
	require.NoError(t, w.Close())
	return Options{FS: fs, Dir: "store/l3"}
}

// Goal: with an index of several blocks, a flip anywhere costs nothing that is not named,
// and gives nothing wrong; where the index is hit, the blocks are found without it.
func TestRemains_Open_bigIndex(t *testing.T) {
	mem := vfs.NewMem()
	const keys = 1500
	o := forged(t, mem, sstable.WriterOptions{BlockSize: 256, IndexBlockSize: 512}, func(w *sstable.Writer) {
		for i := range keys {
			require.NoError(t, w.Set(appendUser(nil, runKey(i)), runCell(i)))
		}
	})
	want, lost, file := remnant(t, o)
	require.Len(t, want, keys)
	require.Empty(t, lost)
	clean := readFile(t, mem, file)
	step := 311
	if testing.Short() || raceEnabled {
		step = 1511
	}
	searched := 0
	for at := 0; at < len(clean); at += step {
		bad := append([]byte(nil), clean...)
		bad[at] ^= 0x04
		writeFile(t, mem, file, bad)
		got, lost, _ := remnant(t, o)
		for k, v := range got {
			require.Equal(t, want[k], v, "flip at %d: key %s", at, k)
		}
		for _, l := range lost {
			if strings.HasPrefix(l.What, "index or footer") {
				searched++
			}
		}
		if len(got) < keys {
			require.NotEmpty(t, lost, "flip at %d", at)
		}
		for k := range want {
			if _, ok := got[k]; !ok {
				require.True(t, k > string(lost[0].Lower) && (lost[0].Upper == nil || k <= string(lost[0].Upper)),
					"flip at %d: %s is not in %q to %q", at, k, lost[0].Lower, lost[0].Upper)
			}
		}
	}
	require.Positive(t, searched, "no flip hit what leads to the index")
	// Cut to less than a block's trailer, and to nothing: nothing comes out, and that is told.
	for _, n := range []int{0, 3, 40, len(clean) / 2} {
		writeFile(t, mem, file, clean[:n])
		got, lost, _ := remnant(t, o)
		require.NotEmpty(t, lost)
		if n < 100 {
			require.Empty(t, got)
		}
	}
}

// Goal: keys outside the user's are passed over, the watermark is found, and an entry
// of a kind that no ingest writes ends its block, not the reading.
func TestRemains_Open_foreignEntries(t *testing.T) {
	mem := vfs.NewMem()
	o := forged(t, mem, sstable.WriterOptions{BlockSize: 64}, func(w *sstable.Writer) {
		require.NoError(t, w.Set(cutsKey, []byte("cuts")))
		require.NoError(t, w.Set(watermarkKey, Watermark{LSN: 9, UUID: testUUID}.encode()))
		require.NoError(t, w.Set([]byte("\x01index"), []byte("another room's")))
		for i := range 30 {
			key := appendUser(nil, runKey(i))
			if i == 15 {
				require.NoError(t, w.Merge(key, runCell(i)))
				continue
			}
			require.NoError(t, w.Set(key, runCell(i)))
		}
		require.NoError(t, w.Set([]byte("\x20later"), []byte("of a newer release")))
		require.NoError(t, w.DeleteRange([]byte("\x00a"), []byte("\x00b")))
		require.NoError(t, w.DeleteRange([]byte("\x10a"), []byte("\x11")))
	})
	entries, lost, mark, err := readRemains(o)
	require.NoError(t, err)
	require.EqualValues(t, 9, mark.LSN)
	require.Equal(t, testUUID, mark.UUID)
	require.Len(t, lost, 1)
	require.ErrorIs(t, lost[0].Err, ErrOrder)
	require.Less(t, string(lost[0].Lower), string(runKey(15)))
	require.GreaterOrEqual(t, string(lost[0].Upper), string(runKey(15)))
	all := strings.Join(entries, "\n")
	require.Contains(t, all, string(runKey(0)))
	require.Contains(t, all, string(runKey(29)))
	require.NotContains(t, all, string(runKey(15)))
	require.NotContains(t, all, "later")
	require.NotContains(t, all, "another room")
	require.Equal(t, "7 a to  0", entries[len(entries)-1], "the range over storage's own keys is nobody's")
}
