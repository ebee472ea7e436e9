package engine

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// inMemory is a directory where a sync costs nothing, if there is one: what is looked at
// here is no disk.
func inMemory(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if unix.Access(shm, unix.W_OK) != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "holdfast-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// filesBelow counts files and folders, and bytes.
func filesBelow(t *testing.T, dir string) (n int, bytes int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		info, err := d.Info()
		bytes += info.Size()
		return err
	}))
	return n, bytes
}

// life opens a store, writes some of everything, looks at what the lives before left, and
// closes it: in turn at rest, after a flush, with a snapshot, a scan or a mapped value in
// use, for reading only.
func life(t *testing.T, dir string, n int) {
	t.Helper()
	o := Options{LargeValue: 4 << 10, NoMap: n%5 == 4, ReadOnly: n%7 == 6, Sync: SyncPolicy(n % 3)}
	e, err := Open(dir, small(o))
	require.NoError(t, err)
	if n > 0 {
		require.Equal(t, fmt.Sprint(n-1), get(t, e, "life"))
		require.Len(t, get(t, e, "large"), 20_000)
	}
	if o.ReadOnly {
		require.NoError(t, e.Close())
		e, err = Open(dir, small(Options{}))
		require.NoError(t, err)
	}
	require.NoError(t, e.Put([]byte("life"), fmt.Append(nil, n)))
	require.NoError(t, e.Put([]byte("large"), []byte(strings.Repeat(fmt.Sprint(n%10), 20_000))))
	require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", n%50), make([]byte, 200)))
	switch n % 6 {
	case 0:
		flush(t, e)
	case 1:
		s, err := e.Snapshot()
		require.NoError(t, err)
		defer s.Close()
	case 2:
		for _, err := range e.Scan(Range{}) {
			require.NoError(t, err)
			break
		}
	case 3:
		v, err := e.OpenValue([]byte("large"))
		require.NoError(t, err)
		defer v.Close()
	case 4:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = e.CloseContext(ctx) // goes on behind it
	}
	require.NoError(t, e.Close())
}

// Goal (T-02, O10): a process that opens and closes one store a thousand times, and fails
// to open it hundreds of times, holds no goroutine, descriptor or mapping more in the end
// than after the first few, and the directory holds no more files.
func TestEngine_Close_thousandLives(t *testing.T) {
	lives, warm := 1000, 20
	if testing.Short() || raceEnabled {
		lives = 100
	}
	dir := filepath.Join(inMemory(t), "store")
	for n := range warm {
		life(t, dir, n)
	}
	failedOpens(t, dir)
	before, most := oracle.Held(), 0
	var mostBytes int64
	look := func() (files int, bytes int64) {
		files, bytes = filesBelow(t, dir)
		most, mostBytes = max(most, files), max(mostBytes, bytes)
		return files, bytes
	}
	// Files come and go with flushes and compactions, so two stretches are compared.
	var usual int
	var usualBytes int64
	for n := warm; n < lives; n++ {
		life(t, dir, n)
		if n%5 == 0 {
			failedOpens(t, dir)
		}
		if look(); n == warm+40 {
			usual, usualBytes, most, mostBytes = most, mostBytes, 0, 0
		}
	}
	require.NoError(t, before.Check(5*time.Second))
	t.Logf("%d lives: %v; files %d, then %d at most; %d KiB, then %d at most", lives, oracle.Held(), usual, most, usualBytes>>10, mostBytes>>10)
	require.LessOrEqual(t, most, usual+usual/2)
	require.LessOrEqual(t, mostBytes, 2*usualBytes)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	require.Less(t, m.HeapAlloc, uint64(64<<20), "what closed stores keep")
}

// failedOpens are opens that come to nothing at different depths.
func failedOpens(t *testing.T, dir string) {
	t.Helper()
	e, err := Open(dir, small(Options{}))
	require.NoError(t, err)
	_, err = Open(dir, small(Options{}))
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, e.Close())
	_, err = Open(dir+"-absent", small(Options{MustExist: true}))
	require.ErrorIs(t, err, os.ErrNotExist)
	// Deep inside: everything is open but what the log's last folder lacks.
	log, aside := filepath.Join(dir, logName), filepath.Join(filepath.Dir(dir), "aside")
	require.NoError(t, os.Rename(log, aside))
	_, err = Open(dir, small(Options{}))
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, os.RemoveAll(log)) // in case it was made again
	require.NoError(t, os.Rename(aside, log))
}
