package engine

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
)

// MemoryMetrics is where the store's memory is, in bytes, by its own account, and what
// the governor makes of it. Tiers that live on the Go heap are counted as they are
// allocated; Used counts them as the heap holds them.
type MemoryMetrics struct {
	Budget   int64
	Used     int64   // all tiers, those on the heap times HeapFactor
	Pressure float64 // see [Engine.Pressure]
	// HeapFactor is how far the collector lets the heap grow for a byte that is live:
	// the process's own ratio of goal to live, at most 2.5.
	HeapFactor float64
	Resident   int64 // of the whole process, as the kernel counts it; zero: it does not say

	// On the heap.

	Generations int64 // the active one and those that wait for their flush
	Pinned      int64 // older ones that only snapshots hold
	L1, L2      int64 // with their overheads
	Records     int64 // of the generations that went down
	Log         int64 // groups that form and are written
	Blobs       int64 // the account of large values, and what is held of those that stream in
	Filter      int64 // of the keys that L3 has

	// Outside of it.

	Blocks int64 // L3's block cache
	Tables int64 // what open tables of L3 take
	Mapped int64 // resident pages of large values, by count

	// What the governor allows, and why it last changed that.

	GenerationLimit, L1Limit, L2Limit, MappedLimit int64
	Why                                            string
}

// heap adds up the tiers that live on the heap.
func (m *MemoryMetrics) heap() int64 {
	return m.Generations + m.Pinned + m.L1 + m.L2 + m.Records + m.Log + m.Blobs + m.Filter
}

func (m *MemoryMetrics) outside() int64 { return m.Blocks + m.Tables + m.Mapped }

// blobAccountBytes is what the account takes for each key that names a large value, and
// each value that is dead and kept.
const blobAccountBytes = 120

// measure asks every room. It costs some tens of microseconds.
func (e *Engine) measure() (m MemoryMetrics) {
	v := e.view.Load()
	m.Generations = v.bytes()
	m.Records = v.horizon.Bytes()
	m.Filter = v.known.Bytes() + e.known.bytes.Load()
	e.snapMu.Lock()
	m.Pinned, _ = e.pinnedLocked()
	e.snapMu.Unlock()
	c := e.cache.Metrics()
	m.L1, m.L2 = c.L1Bytes+c.QueuedBytes, c.L2Bytes
	if e.log != nil {
		m.Log = e.log.GroupBytes()
	}
	if e.blobs.acc != nil {
		e.blobs.mu.Lock()
		m.Blobs = int64(e.blobs.acc.Len()+e.blobs.acc.Dead()) * blobAccountBytes
		e.blobs.mu.Unlock()
	}
	s := e.store.Memory()
	m.Blocks, m.Tables = s.Blocks, s.Tables
	m.Mapped = e.packs.Resident()
	m.Blobs += e.packs.Held()
	m.HeapFactor = heapFactor()
	m.Used = int64(float64(m.heap())*m.HeapFactor) + m.outside()
	return m
}

// maxHeapFactor bounds what the account believes of the collector: a host that lets its
// heap grow further has said that memory is no matter.
const maxHeapFactor = 2.5

// heapFactor is the collector's goal for each byte that was live at its last turn. It is
// the process's: the collector knows no owners.
func heapFactor() float64 {
	s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	goal, live := gauge(s[0]), gauge(s[1])
	if live < 1<<20 { // before the first collection, or next to nothing
		return 2
	}
	return min(max(goal/live, 1), maxHeapFactor)
}

// gauge is a number of the runtime's, zero if it has no such metric.
func gauge(s metrics.Sample) float64 {
	switch s.Value.Kind() {
	case metrics.KindUint64:
		return float64(s.Value.Uint64())
	case metrics.KindFloat64:
		return s.Value.Float64()
	}
	return 0
}

// residentBytes is what the kernel says this process has in memory.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 64) // zero for what is no number
	return pages * int64(os.Getpagesize())
}

// liveHeap is what was live at the collector's last turn, whoever owns it.
func liveHeap() float64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return gauge(s[0])
}

// stackBytes is what the collector counts of stacks beside what is live.
func stackBytes() float64 {
	s := []metrics.Sample{{Name: "/gc/scan/stack:bytes"}}
	metrics.Read(s)
	return gauge(s[0])
}

// besideHeap is what the runtime has of the kernel's that is no heap: stacks, and its own
// tables.
func besideHeap() float64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: heapObjects}, {Name: heapUnused}, {Name: heapFree}, {Name: heapReleased}}
	metrics.Read(s)
	n := gauge(s[0])
	for _, heap := range s[1:] {
		n -= gauge(heap)
	}
	return max(n, 0)
}

// idleHeap is what the runtime keeps of the kernel's and has no object in.
func idleHeap() float64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return gauge(s[0])
}
