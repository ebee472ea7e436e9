package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Metrics is what L3 costs and does.
type Metrics struct {
	Levels    [7]LevelMetrics
	DiskBytes uint64 // everything in the folder
	LiveBytes uint64 // of the tables a reader may need
	// PinnedBytes are of tables that compactions replaced and readers still use.
	PinnedBytes uint64

	CacheBytes  int64 // blocks held
	CacheHits   int64
	CacheMisses int64
	// TableCacheBytes is what open tables take, without their blocks.
	TableCacheBytes  int64
	TableCacheTables int64
	MemtableBytes    uint64
	// FilterHits are reads that a bloom filter ended, FilterMisses those it let pass.
	FilterHits   int64
	FilterMisses int64

	Sublevels          int
	ReadAmp            int
	CompactionDebt     uint64
	Compactions        int64
	CompactionsFailed  int64
	CompactionsRunning int64

	BytesIngested  uint64
	BytesCompacted uint64 // written by compactions
	BytesWritten   uint64 // ingested and compacted
	Ingests        uint64

	Snapshots   int    // held by readers or current
	Corruptions uint64 // reported by Pebble since open
	Background  uint64 // failures of compactions since open
	LastFault   error  // the last of either
}

// LevelMetrics is one level of the tree.
type LevelMetrics struct {
	Tables int64
	Bytes  int64
}

// Metrics measures; it takes up to a millisecond. Zero after Close.
func (s *Store) Metrics() Metrics {
	if s.enter() != nil {
		return Metrics{}
	}
	defer s.leave()
	p := s.db.Metrics()
	total := p.Total()
	m := Metrics{
		DiskBytes:          p.DiskSpaceUsage(),
		LiveBytes:          p.Table.Local.LiveSize,
		PinnedBytes:        p.Table.ZombieSize,
		CacheBytes:         p.BlockCache.Size,
		CacheHits:          p.BlockCache.Hits,
		CacheMisses:        p.BlockCache.Misses,
		TableCacheBytes:    p.FileCache.Size,
		TableCacheTables:   p.FileCache.TableCount,
		MemtableBytes:      p.MemTable.Size,
		FilterHits:         p.Filter.Hits,
		FilterMisses:       p.Filter.Misses,
		Sublevels:          int(p.Levels[0].Sublevels),
		ReadAmp:            p.ReadAmp(),
		CompactionDebt:     p.Compact.EstimatedDebt,
		Compactions:        p.Compact.Count,
		CompactionsFailed:  p.Compact.FailedCount,
		CompactionsRunning: p.Compact.NumInProgress,
		BytesIngested:      total.TableBytesIngested,
		BytesCompacted:     total.TableBytesCompacted,
		BytesWritten:       total.TableBytesIngested + total.TableBytesCompacted,
		Ingests:            p.Ingest.Count,
		Snapshots:          p.Snapshots.Count,
		Corruptions:        s.faults.corruptions.Load(),
		Background:         s.faults.background.Load(),
	}
	for i := range m.Levels {
		m.Levels[i] = LevelMetrics{p.Levels[i].TablesCount, p.Levels[i].TablesSize}
	}
	s.faults.mu.Lock()
	m.LastFault = s.faults.last
	s.faults.mu.Unlock()
	return m
}

// bytesLive is the size of L3's tables. The caller has entered.
func (s *Store) bytesLive() uint64 {
	return liveBytes(s.db.Metrics())
}

func liveBytes(p *pebble.Metrics) uint64 { return p.Table.Local.LiveSize }

// Memory is what L3 takes outside of the Go heap.
type Memory struct {
	Blocks int64 // of the block cache
	Tables int64 // open tables and the memtable; some seconds old
}

const tablesEvery = 2 * time.Second

// Memory is cheap enough to be asked often. Zero after Close.
func (s *Store) Memory() Memory {
	if s.enter() != nil {
		return Memory{}
	}
	defer s.leave()
	t := &s.inTables
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.at) > tablesEvery {
		p := s.db.Metrics()
		t.bytes, t.at = p.FileCache.Size+int64(p.MemTable.Size), now
	}
	return Memory{Blocks: s.cache.Size(), Tables: t.bytes}
}

type tableBytes struct {
	mu    sync.Mutex
	at    time.Time
	bytes int64
}
