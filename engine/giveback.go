package engine

import (
	"runtime/debug"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/storage"
)

// giver returns to the kernel what the allocators of this process grew to and have no use
// for now: the runtime does so too, over minutes, and C's hardly, while other tiers take
// theirs. There is one for all stores of the process, and it keeps within a part of the
// time: what it does costs the host, too.
type giver struct {
	now        func() time.Time
	resident   func() int64
	idle, live func() float64 // bytes of the heap
	trim, free func()

	mu     sync.Mutex // held while it gives; guards the fields below
	next   time.Time  // not before
	futile int        // tries in a row that brought next to nothing
}

const (
	giveRest = time.Second
	// Of its own time it rests fifty times as much, ten times well above the budget.
	giveShare, giveShareAbove = 50, 10
	giveDoublings             = 6 // of the rest, where nothing is to be had: a minute at most
)

var giving = giver{
	now: time.Now, resident: residentBytes, idle: idleHeap, live: liveHeap,
	trim: storage.TrimMemory, free: debug.FreeOSMemory,
}

// give takes a turn for a store with this budget. For the heap it costs a turn of the
// collector, which is taken only where most of the heap is a store's.
func (g *giver) give(budget int64) {
	if !g.mu.TryLock() {
		return // another store does
	}
	defer g.mu.Unlock()
	began := g.now()
	if began.Before(g.next) {
		return
	}
	before := g.resident()
	if before < budget {
		return
	}
	g.trim()
	if g.idle() > float64(budget/16) && g.live() < float64(2*budget) {
		g.free()
	}
	ended := g.now()
	rest := ended.Sub(began) * giveShare
	if before > budget*9/8 {
		rest = ended.Sub(began) * giveShareAbove
	}
	if g.futile++; before-g.resident() > budget/64 {
		g.futile = 0
	}
	g.next = ended.Add(max(rest, giveRest<<min(g.futile, giveDoublings)))
}
