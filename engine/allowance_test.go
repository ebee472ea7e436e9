package engine

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: the choice follows what is measured, both ways, and says why; whoever waits for
// the background gets all of it.
func TestAllowance_choose(t *testing.T) {
	var a allowance
	a.init()
	require.EqualValues(t, 1, a.now())
	for _, step := range []struct {
		waited  float64
		sync    time.Duration
		awaited bool
		share   float64
		why     string
	}{
		{0, 200 * time.Microsecond, false, 1, "callers leave room"},
		{0.2, 200 * time.Microsecond, false, busyShare, "processors"},
		{0.2, 200 * time.Microsecond, true, 1, "waits for it"},
		{0, time.Millisecond, false, busyShare, "syncs of the log"},
		{0, time.Millisecond, true, 1, "waits for it"},
		{0, 250 * time.Microsecond, false, 1, "callers leave room"},
		{0, 0, false, 1, "callers leave room"}, // a policy that answers from memory
	} {
		a.choose(step.waited, step.sync, step.awaited)
		m := a.metrics()
		require.Equal(t, step.share, m.Share, "%+v", step)
		require.Contains(t, m.Why, step.why)
		require.Equal(t, 1 == m.Share, m.Compactions == mostCompactions)
	}
	c := syncCounts{}
	require.Zero(t, c.mean(leastSyncs-1, time.Second), "too few")
	require.Zero(t, c.mean(leastSyncs, time.Second))
	require.Equal(t, 10*time.Millisecond, c.mean(leastSyncs+100, 2*time.Second))
	require.Zero(t, c.mean(leastSyncs+100, 2*time.Second), "nobody commits")
	for range 10_000 { // a disk that is slow for good is what this disk takes
		a.choose(0, time.Millisecond, false)
	}
	require.EqualValues(t, 1, a.now())
}

// Goal: while goroutines of the process fight for its processors, a worker in the
// background works half of its time, and all of it again when they are gone.
func TestAllowance_followsTheLoad(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	chosen := func(share float64) func() bool {
		return func() bool { return e.Metrics().Background.Share == share }
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	// Many, and each for a moment only: where other processes have most of the machine, too,
	// enough of them are seen to wait.
	for range 100 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() {
				for began := time.Now(); time.Since(began) < 20*time.Microsecond; {
				}
				runtime.Gosched()
			}
		})
	}
	eventually(t, 10*time.Second, "the load is not seen", chosen(busyShare))
	require.Contains(t, e.Metrics().Background.Why, "processors")
	pace, began, worked := e.paced(), time.Now(), time.Duration(0)
	for worked < 20*time.Millisecond {
		step := time.Now()
		for time.Since(step) < 2*time.Millisecond {
		}
		worked += time.Since(step)
		pace.pause()
	}
	require.GreaterOrEqual(t, time.Since(began), worked*3/2)
	require.Positive(t, e.Metrics().Background.Paused)
	e.allowance.waiters.Add(1) // as Flush does
	rested := e.allowance.paused.Load()
	pace.pause()
	require.Equal(t, rested, e.allowance.paused.Load(), "somebody waits")
	e.allowance.waiters.Add(-1)
	stop.Store(true)
	wg.Wait()
	eventually(t, 10*time.Second, "the calm is not seen", chosen(1))
}

// Goal: pausing never holds writers up: with the share at its least a flush that the
// active generation waits for takes no rest.
func TestAllowance_yieldsToWriters(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	e.governor.still.Store(true)
	e.allowance.set(busyShare, "a test")
	require.False(t, e.hurried())
	value := make([]byte, 2000)
	for i := range 8000 { // many generations
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%05d", i), value))
	}
	require.NotZero(t, e.Metrics().Flush.Flushes)
	require.Less(t, e.Metrics().Stall.Total, 5*time.Second)
	flush(t, e)
	require.False(t, e.hurried())
}
