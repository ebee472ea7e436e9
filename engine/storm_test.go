package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// storm is writers and a reader that go on until they are stopped.
type storm struct {
	t          *testing.T
	e          *Engine
	puts, busy atomic.Int64
	mu         sync.Mutex
	reads      []time.Duration
}

const (
	stormHot   = 1000
	stormValue = 4000
)

func (s *storm) write(w int, stop *atomic.Bool) {
	v := make([]byte, stormValue)
	for i := 0; !stop.Load(); i++ {
		switch err := s.e.Put(fmt.Appendf(nil, "w%d/%06d", w, i%20_000), v); {
		case err == nil:
			s.puts.Add(1)
		case errors.Is(err, ErrBusy):
			s.busy.Add(1)
		default:
			s.t.Errorf("put: %v", err)
			return
		}
	}
}

// read looks at hot keys, as a host does that has something else to do between.
func (s *storm) read(stop *atomic.Bool) {
	for i := 0; !stop.Load(); i++ {
		began := time.Now()
		err := s.e.View(fmt.Appendf(nil, "hot%03d", i%stormHot), func(v []byte) error { return nil })
		took := time.Since(began)
		if err != nil {
			s.t.Errorf("read: %v", err)
			return
		}
		s.mu.Lock()
		s.reads = append(s.reads, took)
		s.mu.Unlock()
		time.Sleep(200 * time.Microsecond)
	}
}

// window is what happened since the last one: puts per second and the reads' p99.
func (s *storm) window(d time.Duration) (puts float64, p99 time.Duration) {
	s.puts.Store(0)
	s.mu.Lock()
	s.reads = s.reads[:0]
	s.mu.Unlock()
	began := time.Now()
	time.Sleep(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.reads)
	if len(s.reads) > 0 {
		p99 = s.reads[len(s.reads)*99/100]
	}
	return float64(s.puts.Load()) / time.Since(began).Seconds(), p99
}

// Goal (I10): when each sync takes 50 ms, a storm of writes leaves memory flat: writers
// wait and then get ErrBusy, reads go on as before, and within seconds after the disk is
// itself again so are the writes.
func TestEngine_storm(t *testing.T) {
	var slow atomic.Bool
	var delayed atomic.Int64
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if slow.Load() {
				delayed.Add(1)
				time.Sleep(50 * time.Millisecond)
			}
		}
		return nil
	}))
	const budget = 32 << 20
	e, err := Open(t.TempDir(), &Options{FS: fs, MemoryBudget: budget, Sync: SyncNever, StallLimit: 100 * time.Millisecond})
	require.NoError(t, err)
	defer e.Close()
	for i := range stormHot {
		require.NoError(t, e.Put(fmt.Appendf(nil, "hot%03d", i), make([]byte, 500)))
	}
	s := &storm{t: t, e: e}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() { s.write(w, &stop) })
	}
	wg.Go(func() { s.read(&stop) })
	var most MemoryMetrics
	wg.Go(func() {
		for !stop.Load() {
			if m := e.Metrics().Memory; m.Used > most.Used {
				most = m
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	s.window(time.Second)
	before, calm := s.window(2 * time.Second)
	slow.Store(true)
	s.window(time.Second)
	stalls, busy := e.Metrics().Stall.Count, s.busy.Load()
	during, stormy := s.window(4 * time.Second)
	stalls, busy = e.Metrics().Stall.Count-stalls, s.busy.Load()-busy
	slow.Store(false)
	back := time.Now()
	after := 0.0
	for after < before/2 && time.Since(back) < 10*time.Second {
		after, _ = s.window(500 * time.Millisecond)
	}
	recovered := time.Since(back)
	stop.Store(true)
	wg.Wait()
	t.Logf("puts/s: %.0f, with a slow disk %.0f (%d stalls, %d ErrBusy), %.0f %v after; p99 of reads: %v, %v; account at most %.2f of the budget",
		before, during, stalls, busy, after, recovered, calm, stormy, float64(most.Used)/budget)
	require.Positive(t, delayed.Load())
	require.Positive(t, stalls)
	require.Positive(t, busy)
	require.LessOrEqual(t, float64(most.Used), 1.25*budget, "%+v", most)
	require.GreaterOrEqual(t, after, before/2)
	require.Less(t, recovered, 10*time.Second)
	if !raceEnabled { // a read behind a sync would take 50 ms, one behind the detector may
		require.Less(t, stormy, max(5*calm, 20*time.Millisecond))
	}
}
