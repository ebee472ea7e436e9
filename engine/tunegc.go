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
}

// tuned is held by the store that tunes the runtime, for as long as it does.
var tuned sync.Mutex

const (
	leastPercent = 25
	mostPercent  = 100
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
		t.now = mostPercent
	}
	heap := max(m.heap(), m.Budget/16)
	percent := int((m.Budget - m.outside() - heap) * 100 / heap)
	if percent = min(max(percent, leastPercent), mostPercent); percent > t.now+5 || percent < t.now-5 {
		debug.SetGCPercent(percent)
		t.now = percent
	}
	// The host's own heap is in the limit, too: what was live at the last turn of the
	// collector and is not ours.
	hosts := max(int64(liveHeap())-heap, 0)
	limit := m.Budget*5/4 - m.outside() + 2*hosts
	if limit = min(max(limit, heap*5/4+2*hosts), t.limit); limit > t.set*17/16 || limit < t.set*15/16 {
		debug.SetMemoryLimit(limit)
		t.set = limit
	}
}

// end gives the host back what it had.
func (t *collectorTuning) end() {
	if t.on {
		debug.SetGCPercent(t.percent)
		debug.SetMemoryLimit(t.limit)
		t.on = false
		tuned.Unlock()
	}
}
