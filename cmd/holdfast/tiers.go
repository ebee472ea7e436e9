package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/holdfastdb/holdfast/engine"
)

// tierReport is what one tier answered between two looks at the metrics, and holds at
// the second.
type tierReport struct {
	Tier      string  `json:"tier"`
	Reads     uint64  `json:"reads"`
	Share     float64 `json:"share"`
	Bytes     int64   `json:"bytes"`
	Capacity  int64   `json:"capacity,omitempty"` // zero: bounded by the disk alone, or off
	Evicted   uint64  `json:"evicted"`
	Rejected  uint64  `json:"rejected"` // or dropped on the way in
	evictions bool    // the tier can say what it evicted
	latencyReport
}

// reportTiers says what map, L1, L2 and L3 answered of reads, and how many of keys that
// are nowhere ended at the filter before them. The caches count exactly; the map, which
// counts by estimate like the filter, answered the rest if reads says how many there were.
func reportTiers(before, after *engine.Metrics, reads uint64) []tierReport {
	c, b, l := &after.Cache, &before.Cache, &after.Latency
	inMap := after.MapHits + after.MapAbsent - before.MapHits - before.MapAbsent
	below := (c.L1Hits - b.L1Hits) + (c.L2Hits - b.L2Hits) + (c.Misses - b.Misses)
	absent := after.FilterAbsent - before.FilterAbsent
	if reads > 0 {
		inMap = reads - min(reads, below+absent)
	}
	tiers := []tierReport{
		{
			Tier: "map", Reads: inMap, Bytes: after.Map.Bytes,
			Capacity: after.Map.Limit * int64(1+after.Map.Frozen), latencyReport: latencyOf(l.Map),
		},
		{Tier: "filter", Reads: absent, Bytes: after.Memory.Filter},
		{
			Tier: "L1", Reads: c.L1Hits - b.L1Hits, Bytes: c.L1Bytes, Capacity: c.L1Capacity, evictions: true,
			Evicted: c.Evictions - b.Evictions, Rejected: c.Rejects + c.Refused - b.Rejects - b.Refused,
			latencyReport: latencyOf(l.L1),
		},
		{
			Tier: "L2", Reads: c.L2Hits - b.L2Hits, Bytes: c.L2Bytes, Capacity: c.L2Capacity,
			Rejected: c.Dropped + c.Barred - b.Dropped - b.Barred, latencyReport: latencyOf(l.L2),
		},
		{
			Tier: "L3", Reads: c.Misses - b.Misses, Bytes: int64(after.Storage.LiveBytes), latencyReport: latencyOf(l.L3),
		},
	}
	for i := range tiers {
		tiers[i].Share = float64(tiers[i].Reads) / float64(max(1, inMap+absent+below))
	}
	return tiers
}

// tierGrid is what the tiers answered and hold.
func tierGrid(tiers []tierReport) *grid {
	g := &grid{head: []string{"tier", "reads", "share", "bytes", "capacity", "evicted", "rejected"}, left: 1}
	for _, t := range tiers {
		cells := []string{t.Tier, none, none, humanize.IBytes(uint64(t.Bytes)), none, none, none}
		if t.Reads > 0 {
			cells[1], cells[2] = humanize.Comma(int64(t.Reads)), fmt.Sprintf("%.1f %%", 100*t.Share)
		}
		if t.Capacity > 0 {
			cells[4] = humanize.IBytes(uint64(t.Capacity))
		}
		if t.evictions {
			cells[5] = humanize.Comma(int64(t.Evicted))
		}
		if t.Tier == "L1" || t.Tier == "L2" {
			cells[6] = humanize.Comma(int64(t.Rejected))
		}
		g.add(cells...)
	}
	return g
}

// latencyReport is how long one kind of call took.
type latencyReport struct {
	Samples uint64        `json:"samples"`
	P50     time.Duration `json:"p50_ns"`
	P95     time.Duration `json:"p95_ns"`
	P99     time.Duration `json:"p99_ns"`
	P999    time.Duration `json:"p999_ns"`
}

func latencyOf(m engine.LatencyMetrics) latencyReport {
	return latencyReport{m.Count, m.P50, m.P95, m.P99, m.P999}
}

func newLatencyGrid(what string) *grid {
	return &grid{head: []string{what, "samples", "p50", "p95", "p99", "p999"}, left: 1}
}

func (g *grid) addLatency(name string, l latencyReport) {
	if l.Samples == 0 {
		g.add(name, none, none, none, none, none)
		return
	}
	g.add(name, humanize.Comma(int64(l.Samples)), short(l.P50), short(l.P95), short(l.P99), short(l.P999))
}

// describeRuntime is one line about the process.
func describeRuntime(r *engine.RuntimeMetrics) string {
	return fmt.Sprintf("%s, %.1f %% of CPU in the collector, %v of waiting for locks, heap of %s, %s live",
		count(int(r.Goroutines), "goroutine"), 100*r.GCShare, r.LockWait.Round(time.Microsecond),
		humanize.IBytes(uint64(r.HeapTotal-r.HeapReleased)), humanize.IBytes(uint64(r.HeapLive)))
}
