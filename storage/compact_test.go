package storage

import (
	"context"
	"fmt"
	randv2 "math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// Goal: on a full disk compactions are tried with pauses, not in a busy loop;
// cancelled Compacts leave nothing behind that Pebble stumbles over (it panics
// when it is granted a merge whose wait was cancelled); and when there is room
// again all goes on, with the gate open.
func TestStore_Compact_diskFullThenCancelled(t *testing.T) {
	var h hook
	var tries atomic.Int64
	h.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasPrefix(op.Path, "store/l3/") && strings.HasSuffix(op.Path, ".sst") {
			tries.Add(1)
			return syscall.ENOSPC
		}
		return nil
	})
	s := mustOpen(t, testOptions(h.wrap(vfs.NewMem())))
	for lsn := uint64(1); lsn <= 6; lsn++ {
		mustIngest(t, s, lsn, sets(100, "k%03d", fmt.Sprint(lsn)))
	}
	end := time.Now().Add(time.Second)
	for time.Now().Before(end) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		require.Error(t, s.Compact(ctx))
		cancel()
	}
	require.Less(t, tries.Load(), int64(30))
	require.NotZero(t, tries.Load())
	require.NoError(t, s.Err())
	require.ErrorIs(t, s.Metrics().LastFault, ErrDiskFull)
	require.Len(t, dumpStore(t, s), 100)
	h.set(nil)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return s.Compact(ctx) == nil
	}, 10*time.Second, 10*time.Millisecond)
	m := s.Metrics()
	require.Equal(t, 1, m.ReadAmp)
	require.Len(t, dumpStore(t, s), 100)
}

// Goal: Close does not wait for a Compact that waits, and that one ends.
func TestStore_Close_duringCompact(t *testing.T) {
	var h hook
	h.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasPrefix(op.Path, "store/l3/") && strings.HasSuffix(op.Path, ".sst") {
			return syscall.EIO
		}
		return nil
	})
	s := mustOpen(t, testOptions(h.wrap(vfs.NewMem())))
	for lsn := uint64(1); lsn <= 3; lsn++ {
		mustIngest(t, s, lsn, sets(100, "k%03d", fmt.Sprint(lsn)))
	}
	done := make(chan error)
	go func() {
		for {
			if err := s.Compact(context.Background()); err != nil && s.isClosed() {
				done <- err
				return
			}
		}
	}()
	time.Sleep(150 * time.Millisecond)
	begin := time.Now()
	_ = s.Close()
	require.Less(t, time.Since(begin), 2*time.Second)
	require.ErrorIs(t, <-done, ErrClosed)
}

// Goal: a crash at any moment of an open leaves a store that opens, whichever
// half of the unsynced names and bytes survived. It is the marker that could
// outlive the MANIFEST it names.
func TestOpen_crashSweep(t *testing.T) {
	mem := newCrashable()
	hist := newHistory(11, 1)
	var h hook
	var images []image
	var acked uint64
	rng := randv2.New(randv2.NewPCG(7, 7))
	h.set(func(op errorfs.Op) error {
		for range 12 {
			at := fmt.Sprintf("before kind %d %s", op.Kind, op.Path)
			images = append(images, image{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}), at, acked})
		}
		return nil
	})
	s := mustOpen(t, testOptions(h.wrap(mem)))
	on := h.on
	h.set(nil)
	mustIngest(t, s, 1, hist.gens[0])
	acked = 1
	require.NoError(t, s.Close())
	h.set(on)
	s = mustOpen(t, testOptions(h.wrap(mem)))
	h.set(nil)
	require.NoError(t, s.Close())
	step := 1
	if raceEnabled {
		step = 4
	}
	for i := 0; i < len(images); i += step {
		hist.verify(t, images[i].fs, images[i].atLeast, images[i].at)
	}
	t.Logf("%d images", len(images))
}
