package engine

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fillL1 reads key until L1 answers.
func fillL1(t *testing.T, e *Engine, key string) {
	t.Helper()
	require.Eventually(t, func() bool {
		i, err := e.Stat([]byte(key))
		return err == nil && i.Tier == TierL1
	}, 10*time.Second, time.Millisecond)
}

// Goal: buckets follow each other without holes, and their middle is at most 4 % off.
func TestHistogram_buckets(t *testing.T) {
	last := -1
	check := func(v uint64) {
		b := bucketOf(v)
		m := middleOf(b)
		if off := max(v, m) - min(v, m); float64(off) > 0.04*float64(v) {
			t.Fatalf("%d is in bucket %d, whose middle is %d", v, b, m)
		}
		if b < last || b >= histogramBuckets-1 {
			t.Fatalf("%d is in bucket %d, after %d", v, b, last)
		}
		last = b
	}
	for v := range uint64(1 << 20) {
		was := last
		check(v)
		require.LessOrEqual(t, last, was+1)
	}
	for v := uint64(1 << 20); v>>histogramBits == 0; v += v/100 + 1 {
		check(v)
	}
	require.Equal(t, histogramBuckets-2, bucketOf(1<<histogramBits-1))
	require.Equal(t, histogramBuckets-1, bucketOf(1<<histogramBits))
	require.Equal(t, histogramBuckets-1, bucketOf(1<<63))
}

// Goal: quantiles are at most 4 % off those of the sorted samples, also beyond the
// last step, and none are zero.
func TestHistogram_metrics(t *testing.T) {
	require.Zero(t, new(histogram).metrics())
	var h histogram
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 100_000)
	for i := range all {
		all[i] = time.Duration(100 * (1 + r.ExpFloat64()*20))
		h.add(all[i])
	}
	slices.Sort(all)
	m := h.metrics()
	require.EqualValues(t, len(all), m.Count)
	require.Equal(t, all[len(all)-1], m.Max)
	for q, got := range map[float64]time.Duration{0.5: m.P50, 0.95: m.P95, 0.99: m.P99, 0.999: m.P999} {
		require.InEpsilon(t, all[int(q*float64(len(all)))-1], got, 0.04, "%v", q)
	}

	var one histogram
	one.add(12345)
	require.Equal(t, LatencyMetrics{1, 12345, 12345, 12345, 12345, 12345}, one.metrics(), "no quantile is above the longest")
	var long histogram
	long.add(-time.Second)
	long.add(5 * time.Minute)
	require.Equal(t, 5*time.Minute, long.metrics().P99)
	require.Zero(t, long.metrics().P50)
}

// Goal: each tier's histogram gets the reads that the tier answered, about one in
// timedReads of them, and commits about one in timedCommits.
func TestEngine_Metrics_latency(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	const n = 20_000
	key := []byte("k")
	about := func(want int, m LatencyMetrics) {
		t.Helper()
		require.InDelta(t, want, m.Count, float64(want)/2) // eight standard deviations
		require.Positive(t, m.P50)
		require.LessOrEqual(t, m.P50, m.P95)
		require.LessOrEqual(t, m.P95, m.P99)
		require.LessOrEqual(t, m.P99, m.P999)
		require.LessOrEqual(t, m.P999, m.Max)
		require.Less(t, m.Max, time.Minute)
	}
	require.Zero(t, e.Metrics().Latency)
	for range n {
		require.NoError(t, e.Put(key, []byte("v")))
	}
	m := e.Metrics().Latency
	about(n/timedCommits, m.Commit)
	require.Zero(t, m.Map)
	for range n {
		_, _ = e.Get(key)
		_, _ = e.Get([]byte("absent"))
	}
	m = e.Metrics().Latency
	about(n/timedReads, m.Map)
	about(n/timedReads, m.Absent)
	require.Zero(t, m.L1)
	flush(t, e)
	fillL1(t, e, "k")
	for range n {
		_, _ = e.Get(key)
	}
	m = e.Metrics().Latency
	about(n/timedReads, m.L1)
	about(n/timedReads, m.Map)

	// Keys that nothing above L3 has seen.
	for i := range n {
		require.NoError(t, e.Put(fmt.Appendf(nil, "cold%05d", i), []byte("v")))
	}
	flush(t, e)
	for i := range n {
		_, _ = e.Get(fmt.Appendf(nil, "cold%05d", i))
	}
	about(n/timedReads, e.Metrics().Latency.L3)

	// What failed is not measured, nor what was not drawn.
	var l latencies
	l.commitDone(time.Now(), ErrInDoubt)
	l.commitDone(time.Time{}, nil)
	l.read(TierL3, ErrCorrupt, time.Second)
	require.Zero(t, l.metrics())
	l.commitDone(time.Now().Add(-time.Second), nil)
	require.GreaterOrEqual(t, l.metrics().Commit.P50, 960*time.Millisecond)
}

// Goal: reads, commits and Metrics run beside each other.
func TestEngine_Metrics_latencyBesideReads(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			k := fmt.Appendf(nil, "k%d", w)
			for range 3000 {
				if e.Put(k, k) != nil {
					t.Error("put")
				}
				_, _ = e.Get(k)
			}
		})
	}
	var last Latencies
	for range 50 {
		m := e.Metrics().Latency
		require.GreaterOrEqual(t, m.Commit.Count, last.Commit.Count)
		require.GreaterOrEqual(t, m.Map.Max, last.Map.Max)
		last = m
	}
	wg.Wait()
}

// Goal: the runtime's numbers are there, are what they say, and one that is missing is
// zero.
func TestEngine_Metrics_runtime(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	kept := make([]byte, 32<<20)
	clear(make([]byte, 64<<20)) // to be given back
	debug.FreeOSMemory()
	before := e.Metrics().Runtime
	require.GreaterOrEqual(t, before.HeapLive, int64(len(kept)))
	require.Greater(t, before.HeapReleased, int64(48<<20))
	require.GreaterOrEqual(t, before.HeapTotal, before.HeapLive+before.HeapReleased)
	require.Positive(t, before.GCShare)
	require.LessOrEqual(t, before.GCShare, 1.0)
	runtime.KeepAlive(kept)

	const waiters = 400 // the runtime measures one wait in eight
	var mu sync.Mutex
	var wg sync.WaitGroup
	mu.Lock()
	for range waiters {
		wg.Go(func() {
			mu.Lock()
			mu.Unlock() //nolint:staticcheck // waiting is all
		})
	}
	time.Sleep(20 * time.Millisecond)
	during := e.Metrics().Runtime
	require.GreaterOrEqual(t, during.Goroutines, before.Goroutines+waiters/2)
	mu.Unlock()
	wg.Wait()
	require.Greater(t, e.Metrics().Runtime.LockWait, before.LockWait+20*time.Millisecond)

	unknown := []metrics.Sample{{Name: "/no/such:thing"}, {Name: heapLive}}
	metrics.Read(unknown[:1])
	require.Zero(t, runtimeMetrics(unknown))

	require.NoError(t, e.Close())
	require.Zero(t, e.Metrics())
}
