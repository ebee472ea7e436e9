package engine

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/yield"
)

// LatencyMetrics is how long something took since Open. It comes from samples, each
// drawn by chance, and a quantile is at most 4 % off. With less than a thousand samples
// P999 is the longest of them, and with none all is zero.
type LatencyMetrics struct {
	Count                    uint64 // samples, not calls
	P50, P95, P99, P999, Max time.Duration
}

// Latencies says how long reads took, by who answered, and commits. A read's time is
// that of finding its key: the caller's copy, and the bytes of a large value in its
// pack, are not in it, and one look at the clock is. Reads of a [Snapshot] and scans are
// not measured.
type Latencies struct {
	Map, L1, L2, L3 LatencyMetrics // found there
	Absent          LatencyMetrics // not found, whoever knew it

	// Commit is from Apply, Put or Delete to the acknowledgement, stalls included:
	// under SyncAlways to the moment that the write is durable. What a large value
	// takes on its way to its pack comes before it. Failed ones are not measured.
	Commit LatencyMetrics
}

const (
	// timedReads and timedCommits: of so many one is timed. Two looks at the clock cost
	// as much as a read that hits the map, and next to nothing beside a sync.
	timedReads   = 64
	timedCommits = 8
)

// latencies are the histograms behind Latencies: 25 KiB in all.
type latencies struct {
	found  [TierL3 + 1]histogram // by tier; TierNone for keys that are absent
	recent [TierL3 + 1]recent
	commit histogram
}

// recent is a mean of the last some dozens of samples. One that is many times longer
// counts less: the collector or the scheduler came between.
type recent struct {
	nanos   atomic.Int64 // times recentParts
	samples atomic.Int64
}

const (
	recentSamples = 32
	recentMost    = 4 // times the mean
	recentParts   = 64
)

func (r *recent) add(took time.Duration) {
	n, was := r.samples.Add(1), r.nanos.Load()
	now := max(int64(took), 1) * recentParts
	if n > 1 {
		now = was + (min(now, recentMost*was)-was)/min(n, recentSamples)
	}
	r.nanos.Store(now) // a sample that another reader adds at once may be lost
}

// mean is zero while there are few samples.
func (r *recent) mean() float64 {
	if r.samples.Load() < recentSamples {
		return 0
	}
	return float64(r.nanos.Load()) / recentParts
}

// cost is what reads from the caches and from L3 took lately.
func (l *latencies) cost() cache.Cost {
	of := func(t Tier) float64 { return l.recent[t].mean() }
	return cache.Cost{L1: of(TierL1), L2: of(TierL2), Load: of(TierL3)}
}

// read counts a read that was timed. Errors have no tier and are not counted.
func (l *latencies) read(tier Tier, err error, took time.Duration) {
	switch {
	case err == nil:
		l.found[tier].add(took)
		l.recent[tier].add(took)
	case err == ErrNotFound: //nolint:errorlint // find returns it as it is
		l.found[TierNone].add(took)
	}
}

// commitBegan is the time, of one commit in timedCommits, or zero.
func (l *latencies) commitBegan() (t time.Time) {
	if yield.Uint32()%timedCommits == 0 {
		t = yield.Now()
	}
	return t
}

func (l *latencies) commitDone(began time.Time, err error) {
	if err == nil && !began.IsZero() {
		l.commit.add(yield.Now().Sub(began))
	}
}

func (l *latencies) metrics() Latencies {
	return Latencies{
		Map: l.found[TierMap].metrics(), L1: l.found[TierL1].metrics(),
		L2: l.found[TierL2].metrics(), L3: l.found[TierL3].metrics(),
		Absent: l.found[TierNone].metrics(), Commit: l.commit.metrics(),
	}
}

const (
	// steps of each power of two. Half a step is at most 1/32 of a duration, 3.1 %.
	steps = 16
	// histogramBits is where the steps end: at 69 seconds. One bucket has what took
	// longer.
	histogramBits    = 36
	histogramBuckets = steps*(histogramBits-3) + 1
)

// histogram counts durations in log-linear buckets: each power of two is cut into equal
// steps, so that the relative error is the same everywhere and the size is fixed. The
// scheme is that of HdrHistogram (Gil Tene, hdrhistogram.org) and of the Go runtime's
// own histograms. Adding takes no lock.
type histogram struct {
	longest atomic.Int64
	buckets [histogramBuckets]atomic.Uint64
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0) // a test's clock owes us nothing
	h.buckets[bucketOf(uint64(d))].Add(1)
	for old := h.longest.Load(); int64(d) > old; old = h.longest.Load() {
		if h.longest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// bucketOf v: exact below steps, then so many per power of two.
func bucketOf(v uint64) int {
	if v < steps {
		return int(v)
	}
	if v>>histogramBits != 0 {
		return histogramBuckets - 1
	}
	shift := bits.Len64(v) - 5
	return (shift+1)*steps + int(v>>shift) - steps
}

// middleOf bucket b, the last one excepted.
func middleOf(b int) uint64 {
	if b < steps {
		return uint64(b)
	}
	shift := b/steps - 1
	return uint64(b%steps+steps)<<shift + 1<<shift>>1
}

// metrics reads the buckets one by one: samples that come meanwhile may be in or not.
func (h *histogram) metrics() (m LatencyMetrics) {
	var counts [histogramBuckets]uint64
	for i := range h.buckets {
		counts[i] = h.buckets[i].Load()
		m.Count += counts[i]
	}
	if m.Count == 0 {
		return m
	}
	m.Max = time.Duration(h.longest.Load())
	quantile := func(q float64) time.Duration {
		rank := uint64(math.Ceil(q * float64(m.Count)))
		var below uint64
		for b, n := range counts[:histogramBuckets-1] {
			if below += n; below >= rank {
				return min(time.Duration(middleOf(b)), m.Max)
			}
		}
		return m.Max
	}
	m.P50, m.P95, m.P99, m.P999 = quantile(0.50), quantile(0.95), quantile(0.99), quantile(0.999)
	return m
}
