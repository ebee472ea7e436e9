package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

const runCells = 3000

func runKey(i int) []byte  { return fmt.Appendf(nil, "key%06d", i) }
func runCell(i int) []byte { return fmt.Appendf(nil, "cell %d of this run", i*i) }

// writeRun makes a run of runCells; it is finished in any case.
func writeRun(fs *simfs.FS) (*Run, error) {
	r, err := NewRun(fs, "run.sst")
	if err != nil {
		return nil, err
	}
	for i := 0; i < runCells && err == nil; i++ {
		err = r.Set(runKey(i), runCell(i))
	}
	return r, errors.Join(err, r.Done())
}

// readRun wants only what went in, in order, and all of it unless there is an error.
func readRun(t *testing.T, r *Run) error {
	t.Helper()
	it, err := r.Open()
	if err != nil {
		return err
	}
	n, last := 0, ""
	for it.Next() {
		var i int
		_, err := fmt.Sscanf(string(it.Key()), "key%d", &i)
		require.NoError(t, err)
		require.Equal(t, string(runCell(i)), string(it.Cell()))
		require.Greater(t, string(it.Key()), last)
		last = string(it.Key())
		require.False(t, it.Deleted())
		n++
	}
	err = it.Err()
	for _, l := range it.Lost() {
		err = errors.Join(err, fmt.Errorf("%s: %w", l.What, l.Err))
	}
	if err == nil {
		require.Equal(t, runCells, n)
	}
	return errors.Join(err, it.Close())
}

// Goal: a run gives back what went in, in order; keys that do not ascend are refused;
// Remove takes the file away, and a run without its file says so.
func TestRun_Open_roundTrip(t *testing.T) {
	fs := simfs.New(nil)
	r, err := writeRun(fs)
	require.NoError(t, err)
	require.NoError(t, readRun(t, r))
	require.NoError(t, readRun(t, r), "a run is read as often as one likes")
	require.NoError(t, r.Remove())
	_, err = r.Open()
	require.ErrorIs(t, err, os.ErrNotExist)

	r, err = NewRun(fs, "other.sst")
	require.NoError(t, err)
	require.NoError(t, r.Set([]byte("b"), nil))
	require.Error(t, r.Set([]byte("a"), nil))
	require.NoError(t, r.Done(), "Set has told it")
}

// Goal: whichever call fails while a run is written or read, the cause is in an error
// or in a loss, and no wrong cell comes out.
func TestRun_anyCallFails(t *testing.T) {
	for _, cause := range []error{syscall.EACCES, syscall.EIO, syscall.ENOSPC} {
		for nth := 1; ; nth++ {
			fs := simfs.New(nil)
			fault := fs.Inject(simfs.FailOnce(simfs.OpAll&^simfs.OpPrefetch&^simfs.OpPreallocate, "", nth, cause))
			r, err := writeRun(fs)
			if err == nil {
				err = readRun(t, r)
			}
			if fault.Fired() == 0 {
				require.NoError(t, err)
				require.Greater(t, nth, 8)
				break
			}
			require.ErrorIs(t, err, cause, "call %d", nth)
			if cause == syscall.ENOSPC && r == nil {
				require.ErrorIs(t, err, ErrDiskFull)
			}
		}
	}
}
