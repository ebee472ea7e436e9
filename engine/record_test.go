package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/wal"
)

// commitRaw puts a payload into the log of a closed store behind the engine's back,
// with a right checksum.
func commitRaw(t *testing.T, fs *simfs.FS, payload []byte) {
	t.Helper()
	st, err := wal.ReadState(fs, "/store")
	require.NoError(t, err)
	rec, err := wal.Recover(wal.Options{FS: fs, Dir: "/store", SegmentBytes: 16 << 10}, st, st.Flushed, wal.ReplayFuncs{})
	require.NoError(t, err)
	log, err := rec.Start()
	require.NoError(t, err)
	_, err = log.Commit(context.Background(), payload, 1, wal.Checksum(payload), nil)
	require.NoError(t, err)
	require.NoError(t, log.Close())
}

// Goal (I12): a record that no engine wrote, behind right checksums, is corruption at
// open: nothing panics, nothing is changed, and what was there is read once it is gone.
func TestOpen_hostileRecord(t *testing.T) {
	for i, payload := range opSeeds() {
		if len(payload) == 0 {
			continue
		}
		fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
		e, err := Open("/store", simOptions(fs))
		require.NoError(t, err)
		require.NoError(t, e.Close())
		good := fs.Cut()
		commitRaw(t, fs, payload)
		before := fs.Tree()
		e, err = Open("/store", simOptions(fs))
		if err == nil { // a list after all, or one whose blob no checksum vouches for
			require.NoError(t, e.Close())
			continue
		}
		require.ErrorIs(t, err, ErrCorrupt, "seed %d", i)
		after := fs.Tree()
		for path := range before {
			if strings.HasPrefix(path, "/store/log/") || path == "/store/STATE" {
				require.True(t, bytes.Equal(before[path].Data, after[path].Data), "seed %d changed %s", i, path)
			}
		}
		simVerify(t, good.Image(simfs.CrashConfig{Image: simfs.Everything}), 20, 20, fmt.Sprint("seed ", i))
	}
}

// Goal: a log that holds more than a generation, since flushes could not end, is
// replayed into as many as it takes, and all of it is there.
func TestOpen_logOfManyGenerations(t *testing.T) {
	fs := simfs.New(nil)
	o := simOptions(fs)
	o.Sync, o.StallLimit, o.SegmentBytes = SyncNever, 1, 1<<20
	fault := fs.Inject(simfs.FailFrom(simfs.OpCreate, "/store/l3-staging/*", 1, syscall.ENOSPC))
	e, err := Open("/store", o)
	require.NoError(t, err)
	n := 0
	for value := make([]byte, 3000); err == nil; n++ {
		err = e.Put(fmt.Appendf(nil, "k%06d", n), value)
	}
	require.ErrorIs(t, err, ErrBusy)
	n--
	require.Greater(t, int64(n)*3000, o.MemoryBudget/8, "more than a generation")
	_ = e.Close()
	for range 2 {
		e, err = Open("/store", o)
		require.NoError(t, err, "the disk is still full")
		for _, g := range e.view.Load().generations() {
			require.Less(t, g.Bytes(), e.shares().generation*3/2)
		}
		for i := range n {
			ok, err := e.Has(fmt.Appendf(nil, "k%06d", i))
			require.NoError(t, err)
			require.True(t, ok)
		}
		_ = e.Close()
	}
	fault.Remove()
	o.Sync = SyncAlways
	e, err = Open("/store", o)
	require.NoError(t, err)
	flush(t, e)
	require.NoError(t, e.Check(context.Background()))
	require.NoError(t, e.Close())
}

// Goal: a store whose first open broke off before it had an L3 is no store for readers,
// who are told, and one for the next writer.
func TestOpen_neverWhole(t *testing.T) {
	fs := simfs.New(nil)
	fault := fs.Inject(simfs.FailFrom(simfs.OpCreate, "/store/l3/*", 1, syscall.EIO))
	_, err := Open("/store", simOptions(fs))
	require.ErrorIs(t, err, syscall.EIO)
	fault.Remove()
	o := simOptions(fs)
	o.ReadOnly = true
	_, err = Open("/store", o)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "open it for writing once")
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), nil))
	require.NoError(t, e.Close())
	e, err = Open("/store", o)
	require.NoError(t, err)
	require.NoError(t, e.Close())
}

// Goal: a log that lost promised bytes is refused by the strict mode, and a mode that
// gives something up says what: the file, the place and the numbers.
func TestOpen_tellsWhatIsLost(t *testing.T) {
	fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
	var file string
	var data []byte
	for path, entry := range fs.Tree() {
		at := bytes.Index(entry.Data, []byte("value 15"))
		if strings.HasSuffix(path, ".wal") && at > 0 {
			file, data = path, bytes.Clone(entry.Data)
			data[at] ^= 0x40
		}
	}
	require.NotEmpty(t, file)
	require.NoError(t, fs.Put(file, data))
	for _, m := range []RecoveryMode{RecoverStrict, RecoverAbsolute} {
		o := simOptions(fs)
		o.Recovery = m
		_, err := Open("/store", o)
		var c *CorruptError
		require.ErrorAs(t, err, &c)
		require.Contains(t, file, c.File)
		require.Positive(t, c.Offset)
	}
	for _, m := range []RecoveryMode{RecoverSalvage, RecoverPointInTime} {
		o := simOptions(fs)
		o.Recovery, o.ReadOnly = m, true
		e, err := Open("/store", o)
		require.NoError(t, err)
		require.NotEmpty(t, e.Recovered().Lost)
		require.Equal(t, string(simValue(14)), get(t, e, string(simKey(14))), "what came before")
		_, err = e.Get(simKey(15))
		require.True(t, errors.Is(err, ErrNotFound))
		if m == RecoverSalvage {
			require.Equal(t, string(simValue(19)), get(t, e, string(simKey(19))), "and after")
		}
		require.NoError(t, e.Close())
	}
}
