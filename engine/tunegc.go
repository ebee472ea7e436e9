package engine

import (
	"runtime/debug"
	"sync"
)

// collectorTuning is what Options.TuneGC does to the runtime of the whole process: the
// first store that asks for it has it until it closes.
type collectorTuning struct {
	on      bool
	percent int   // what the host had
	limit   int64 // likewise
	set     int64 // the limit that we set last
	now     int
	want    int        // percent that what the collector costs speaks for
	was     [2]float64 // CPU seconds of the collector, and of the process, at the last look
}

// tuned is held by the store that tunes the runtime, for as long as it does.
var tuned sync.Mutex

const (
	leastPercent = 25
	mostPercent  = 100
	// Of the process's CPU time, what the collector takes. Below the first the heap may
	// grow less for what is live in it, and caches have what that spares; above the second more.
	cheapShare, dearShare = 0.02, 0.05
	// tunedSpare is what the heap holds beside live and dead objects, for one that is live.
	tunedSpare = 0.1
)

// tune sets how far the heap may grow for what is live in it, so that what the tiers on
// the heap may take fits between what is outside of it and the budget; and a limit above
// which the runtime works harder before the kernel has to say no.
func (t *collectorTuning) tune(o *Options, m *MemoryMetrics) {
	if !o.TuneGC {
		return
	}
	if !t.on {
		if !tuned.TryLock() {
			return // another store of this process does it
		}
		t.on = true
		t.percent, t.limit = debug.SetGCPercent(mostPercent), debug.SetMemoryLimit(-1)
		t.now, t.want = mostPercent, mostPercent
		t.was[0], t.was[1] = collectorTime()
	}
	t.weigh(collectorTime())
	heap := max(m.heap(), m.Budget/16)
	// A percent is of what is live and of the stacks.
	percent := int((m.Budget - m.outside() - heap) * 100 / (heap + int64(stackBytes())))
	if percent = min(max(percent, leastPercent), t.want); percent > t.now+5 || percent < t.now-5 {
		debug.SetGCPercent(percent)
		t.now = percent
	}
	// The host's own heap is in the limit, too: what was live at the last turn of the
	// collector and is not ours. So is what the runtime has beside the heap, stacks first
	// of all: ten thousand goroutines have 80 MB of them.
	hosts := max(int64(liveHeap())-heap, 0)
	limit := max(m.Budget*5/4-m.outside(), heap*5/4) + 2*hosts + int64(besideHeap())
	if limit = min(limit, t.limit); limit > t.set*17/16 || limit < t.set*15/16 {
		debug.SetMemoryLimit(limit)
		t.set = limit
	}
}

// weigh follows what the collector costs. The runtime counts when a turn of it ends.
func (t *collectorTuning) weigh(collector, process float64) {
	took, of := collector-t.was[0], process-t.was[1]
	if of <= 0 {
		return
	}
	t.was = [2]float64{collector, process}
	switch share := took / of; {
	case share > dearShare:
		t.want = min(t.want+t.want/4+1, mostPercent)
	case share < cheapShare:
		t.want = max(t.want-t.want/8, leastPercent)
	}
}

// factor is what a live byte will take of the heap.
func (t *collectorTuning) factor() float64 { return 1 + float64(t.want)/100 + tunedSpare }

// end gives the host back what it had.
func (t *collectorTuning) end() {
	if t.on {
		debug.SetGCPercent(t.percent)
		debug.SetMemoryLimit(t.limit)
		t.on = false
		tuned.Unlock()
	}
}
