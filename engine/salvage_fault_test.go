package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

var everything = simfs.CrashConfig{Image: simfs.Everything}

// simWreck is a killed store on a disk that counts handles: keys over two flushes,
// deletes by point and by range, large values, and a log on top.
func simWreck(t *testing.T) (*simfs.Cut, map[string]string) {
	t.Helper()
	fs := simfs.New(&simfs.Options{MaxOpen: maxHandles})
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	want := map[string]string{}
	put := func(i int, v []byte) {
		require.NoError(t, e.Put(simKey(i), v))
		want[string(simKey(i))] = string(v)
	}
	for i := range 24 {
		put(i, simValue(i))
		if i%10 == 9 {
			flush(t, e)
		}
	}
	require.NoError(t, e.Delete(simKey(4)))
	require.NoError(t, e.DeleteRange(simKey(6), simKey(8)))
	for _, i := range []int{4, 6, 7} {
		delete(want, string(simKey(i)))
	}
	put(5, []byte("from the log"))
	image := fs.Cut()
	require.NoError(t, e.Close())
	return image, want
}

const maxHandles = 200

// handles is how many files could still be opened.
func handles(t *testing.T, fs *simfs.FS) int {
	t.Helper()
	var open []vfs.File
	defer func() {
		for _, f := range open {
			require.NoError(t, f.Close())
		}
	}()
	for {
		f, err := fs.Open("/store/STATE")
		if errors.Is(err, syscall.EMFILE) {
			return len(open)
		}
		require.NoError(t, err)
		open = append(open, f)
	}
}

// below is what a disk holds under a folder.
func below(fs *simfs.FS, dir string) simfs.Tree {
	tree := maps.Clone(fs.Tree())
	maps.DeleteFunc(tree, func(path string, _ simfs.Entry) bool { return !strings.HasPrefix(path, dir) })
	return tree
}

// rescuedRight demands that what opens in dir holds nothing wrong, and everything if
// nothing was counted as lost or doubtful.
func rescuedRight(t *testing.T, fs *simfs.FS, dir string, want map[string]string, r SalvageReport, at string) {
	t.Helper()
	e, err := Open(dir, simOptions(fs))
	require.NoError(t, err, at)
	got := map[string]string{}
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err, at)
		v, err := item.Value()
		require.NoError(t, err, at)
		got[string(item.Key())] = string(v)
	}
	if r.LostCount+r.DoubtfulCount == 0 {
		require.Equal(t, want, got, at)
	}
	require.EqualValues(t, r.Keys, len(got), at)
	require.NoError(t, e.Check(context.Background()), at)
	require.NoError(t, e.Put([]byte("z"), []byte("a store like any other")), at)
	require.NoError(t, e.Close(), at)
}

// typedFault demands that an error of a salvage says what the disk said, or names what
// the disk gave back once and not again.
func typedFault(t *testing.T, err, cause error, at string) {
	t.Helper()
	var c *CorruptError
	switch {
	case errors.Is(err, cause):
		require.Equal(t, cause == syscall.ENOSPC, errors.Is(err, ErrDiskFull), "%s: %v", at, err)
	case errors.As(err, &c):
		require.Equal(t, syscall.EIO, cause, "%s: %v", at, err)
		require.True(t, strings.HasPrefix(c.File, "/store/"), "%s: %v", at, err)
	default:
		t.Fatalf("%s: not typed: %v", at, err)
	}
}

// Goal (I9, I12): whichever call of a salvage fails, it ends with an error that has its
// cause in it, and nothing of it is left, or with a store that lasts and a report that
// counts what it lacks; the damaged store is as it was, and every file and lock of it is
// given back.
func TestSalvage_anyCallFails(t *testing.T) {
	image, want := simWreck(t)
	for _, run := range []struct {
		cause error
		there bool // an empty directory to salvage to
	}{{syscall.EIO, false}, {syscall.EIO, true}, {syscall.ENOSPC, false}} {
		cause, calls, failed, lossy := run.cause, 0, 0, 0
		for nth, fired := 1, true; fired; nth += sweepStep(1, 17) {
			fs := image.Image(everything)
			at := fmt.Sprintf("%v at call %d", cause, nth)
			if run.there {
				require.NoError(t, fs.MkdirAll("/deep/rescued", 0o755))
			}
			before, free := below(fs, "/store"), handles(t, fs)
			fault := fs.Inject(simfs.FailOnce(0, "", nth, cause))
			var r SalvageReport
			var err error
			soon(at, func() { r, err = Salvage(context.Background(), "/store", "/deep/rescued", simOptions(fs), nil) })
			fired = fault.Fired() > 0
			fault.Remove()
			if err != nil {
				require.True(t, fired, "%s: %v", at, err)
				typedFault(t, err, cause, at)
				names, listed := fs.List("/deep/rescued")
				require.Equal(t, run.there, listed == nil, "%s: %v left %q", at, err, names)
				require.Empty(t, names, "%s: %v", at, err)
				failed++
			} else {
				if r.LostCount > 0 {
					require.True(t, fired, at)
					lossy++
				}
				rescuedRight(t, fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}), "/deep/rescued", want, r, at)
			}
			require.True(t, before.Equal(below(fs, "/store")), at)
			if now := handles(t, fs); err == nil || !strings.Contains(err.Error(), "file-stat /deep/") {
				require.Equal(t, free, now, "%s: files are left open after %v", at, err)
			} else { // Pebble forgets a file whose size it could not learn
				require.GreaterOrEqual(t, now, free-1, "%s: %v", at, err)
			}
			e, err := Open("/store", simOptions(fs))
			require.NoError(t, err, at)
			require.NoError(t, e.Close(), at)
			calls = nth
		}
		require.Positive(t, failed)
		t.Logf("%v, there %t: %d calls, %d failed, %d with losses", cause, run.there, calls, failed, lossy)
	}
}

// Goal: a device that refuses everything from some moment on leaves no store that opens
// and is not whole, and the next salvage to another place has it all.
func TestSalvage_deviceDies(t *testing.T) {
	image, want := simWreck(t)
	for nth, fired := 1, true; fired; nth += sweepStep(7, 41) {
		fs := image.Image(everything)
		at := fmt.Sprintf("dead from call %d", nth)
		fault := fs.Inject(simfs.FailFrom(0, "", nth, &os.PathError{Op: "io", Err: syscall.ENXIO}))
		r, err := Salvage(context.Background(), "/store", "/rescued", simOptions(fs), nil)
		fired = fault.Fired() > 0
		fault.Remove()
		if err != nil {
			require.ErrorIs(t, err, syscall.ENXIO, at)
		} else { // only letting the damaged store go may fail, and costs nothing
			rescuedRight(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), "/rescued", want, r, at)
		}
		cut := fs.Crash(simfs.CrashConfig{Seed: uint64(nth)})
		if _, err := cut.Stat("/rescued/STATE"); err == nil {
			r.Keys = int64(len(want)) // nothing but whole has a STATE
			rescuedRight(t, cut, "/rescued", want, r, at)
		}
		r, err = Salvage(context.Background(), "/store", "/again", simOptions(cut), nil)
		require.NoError(t, err, at)
		rescuedRight(t, cut, "/again", want, r, at)
	}
}
