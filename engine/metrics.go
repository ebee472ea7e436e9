package engine

import (
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/compaction"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// Metrics is what each room did since Open, and what it holds now.
type Metrics struct {
	LSN, DurableLSN uint64

	// MapHits and MapAbsent are estimates from one read in sixteen: exact counts
	// would make readers share a line.
	MapHits, MapAbsent uint64
	// FilterAbsent, an estimate, too, are reads that ended at the filter of L3's keys.
	FilterAbsent uint64

	Memory    MemoryMetrics
	Map       MapMetrics
	Cache     cache.Metrics
	Storage   storage.Metrics
	Packs     mmap.Metrics
	Log       wal.Metrics
	Flush     FlushMetrics
	Collect   CollectMetrics
	Stall     StallMetrics
	Snapshots SnapshotMetrics
	Latency   Latencies

	Background BackgroundMetrics
	Runtime    RuntimeMetrics
}

// MapMetrics describes the generations.
type MapMetrics struct {
	Bytes, Limit int64 // of all generations; of one
	Keys         int
	Shards       int // of the active one
	ShardsWhy    string
	Frozen       int
}

// FlushMetrics adds up what went down.
type FlushMetrics struct {
	Flushes, Sets, Deletes, Ranges uint64
	Failed                         uint64 // attempts, most of them for want of room
	Bytes                          int64
	Took                           time.Duration
}

func (m *FlushMetrics) add(s compaction.Stats, took time.Duration) {
	m.Flushes++
	m.Sets += s.Sets
	m.Deletes += s.Deletes
	m.Ranges += s.Ranges
	m.Bytes += s.Bytes
	m.Took += took
}

// CollectMetrics says what large values take, and what was given back since Open.
type CollectMetrics struct {
	Live      int64  // bytes of the values that keys name, as stored
	Keys      int    // that name one
	Disk      int64  // bytes of all packs
	Empty     int    // packs that nothing can read any more, and that are still there
	Removed   uint64 // packs
	Rewritten uint64 // packs
	Copied    uint64 // bytes, by rewrites
	Freed     uint64 // bytes
}

// StallMetrics says how long writers waited for flushes.
type StallMetrics struct {
	Count uint64
	Total time.Duration
}

// SnapshotMetrics says what open snapshots hold.
type SnapshotMetrics struct {
	Open        int
	PinnedBytes int64
	OldestAge   time.Duration
}

// Metrics are safe to take at any time; taking them costs some microseconds. A
// closed engine has none.
func (e *Engine) Metrics() Metrics {
	if !e.gate.enter(0) {
		return Metrics{}
	}
	defer e.gate.leave(0)
	v := e.view.Load()
	m := Metrics{
		LSN:        e.clock.Published(),
		DurableLSN: e.DurableLSN(),
		MapHits:    e.reads.mapHits.Load(),
		MapAbsent:  e.reads.mapAbsent.Load(),

		FilterAbsent: e.reads.knownAbsent.Load(),

		Map: MapMetrics{
			Bytes: v.bytes(), Limit: e.shares().generation,
			Shards: v.active.Shards(), ShardsWhy: v.active.Why(), Frozen: len(v.frozen),
		},
		Cache:   e.cache.Metrics(),
		Storage: e.store.Metrics(),
		Packs:   e.packs.Metrics(),
		Latency: e.latency.metrics(),

		Background: e.allowance.metrics(),
		Runtime:    readRuntime(),
	}
	for _, g := range v.generations() {
		m.Map.Keys += g.Len()
	}
	if e.log != nil {
		m.Log = e.log.Metrics()
	}
	e.flusher.mu.Lock()
	m.Flush = e.flusher.stats
	m.Flush.Failed = e.flusher.failed
	e.flusher.mu.Unlock()
	m.Collect = e.collectMetrics()
	m.Memory = e.memory()
	e.stall.mu.Lock()
	m.Stall = StallMetrics{e.stall.count, e.stall.total}
	e.stall.mu.Unlock()
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	var oldest *Snapshot
	m.Snapshots.Open = len(e.snapshots)
	if m.Snapshots.PinnedBytes, oldest = e.pinnedLocked(); oldest != nil {
		m.Snapshots.OldestAge = time.Since(oldest.made)
	}
	return m
}
