package wal

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: however often the full disk was asked in vain, a little room is enough to go on:
// the log asks for no larger segments meanwhile, and for a smaller one if it must. What it
// asks in vain takes no byte: L3 writes its manifest meanwhile.
func TestLog_fullDisk(t *testing.T) {
	const capacity = 20 << 20
	fs := simfs.New(&simfs.Options{Capacity: capacity})
	written := atomic.Int64{}
	counting := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, spareSuffix) {
			written.Add(1)
		}
		return nil
	}))
	s := openStore(t, Options{FS: counting, Dir: "db"})
	payload := payloadOf(1, 100<<10)
	fill := func() (err error) {
		for err == nil {
			_, err = s.log.Commit(context.Background(), payload, 1, Checksum(payload), nil)
		}
		return err
	}
	require.ErrorIs(t, fill(), ErrDiskFull)
	u, err := fs.GetDiskUsage("db")
	require.NoError(t, err)
	require.Less(t, u.AvailBytes, uint64(firstSegmentBytes), "there was room for a smaller segment")
	s.log.makeMu.Lock()
	s.log.target = lastSegmentBytes
	written.Store(0)
	s.log.makeMu.Unlock()
	for range 20 {
		require.ErrorIs(t, fill(), ErrDiskFull)
	}
	s.log.makeMu.Lock()
	require.Zero(t, written.Load())
	require.EqualValues(t, firstSegmentBytes, s.log.target, "every try begins with what cannot be")
	s.log.makeMu.Unlock()
	fs.SetCapacity(capacity + firstSegmentBytes + firstSegmentBytes/8)
	s.put(payload)
	s.close()
}

// zeros is a file system that says nothing of its room, as some do, and no error.
type zeros struct{ vfs.FS }

func (zeros) GetDiskUsage(string) (vfs.DiskUsage, error) { return vfs.DiskUsage{}, nil }

// Goal: no numbers are not a full disk.
func TestLog_unknownDisk(t *testing.T) {
	s := openStore(t, Options{FS: zeros{simfs.New(nil)}, Dir: "db"})
	s.put(payloadOf(1, 100))
	s.close()
}
